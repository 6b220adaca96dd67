"""One connection to a next hop: joins a stream, a client session and the mails on it, and keeps its deadlines.

Owned by a pool, which gives it mails and is told what became of them. Large bodies are read from their file on the files thread,
piece by piece, no faster than the next hop takes them. A connection that breaks says so to the session, whose outcomes tell the
rest; nothing is raised.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from smtpd.mail.outcome import Outcome
from smtpd.net.connect import Connecting, connect
from smtpd.net.stream import Stream, StreamOwner
from smtpd.net.transcript import Transcript
from smtpd.proto.client import events as ev
from smtpd.proto.client.session import ClientSession
from smtpd.proto.client.transmission import Transmission, begin_transmission
from smtpd.transports.relay.delivery import Delivery
from smtpd.transports.relay.health import HopHealth

if TYPE_CHECKING:
    from smtpd.transports.relay.pool import Pool

_PIECE_BYTES = 256 * 1024
_PROGRESS_BYTES = 16 * 1024  # what a next hop has to take of a mail in `block_timeout`
_OUR_ERRNOS = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL))
_NOBODY = StreamOwner()
_CLOSED = ev.CLOSED
_WAITS_FOR = {
    "greeting": "the greeting", "hello": "the reply to EHLO", "tls": "TLS", "mail": "the reply to MAIL FROM",
    "recipient": "the reply to RCPT TO", "data": "the reply to DATA", "block": "the next hop to take the message",
    "end_of_data": "the reply to the end of the message", "quit": "the reply to QUIT",
}  # fmt: skip


class Link(StreamOwner):
    """`is_ready`: the next hop has answered and takes mails. `is_probe`: it had failed before, and this connection tries it.
    `is_quitting`: no more mails. `is_blameless`: whatever ends this connection is not the next hop's failure. `was_idle`: it was
    kept for later mail, whether it had had one or not. `is_stalled`: a mail on it took long already when the pool was last swept.
    `mails` were begun on it. `began_at` (when it became ready), `deadline` and `idle_since` are monotonic seconds."""

    __slots__ = (
        "_blocked_bytes", "_connecting", "_file_fd", "_file_left", "_is_closing", "_is_handling", "_is_reading", "_pool",
        "_replies_due", "_stream", "_transcript", "began_at", "deadline", "deliveries", "health", "idle_since", "is_blameless",
        "is_probe", "is_quitting", "is_ready", "is_stalled", "mails", "relay", "session", "was_idle",
    )  # fmt: skip

    def __init__(self, pool: Pool, health: HopHealth, is_probe: bool) -> None:
        loop = pool.loop
        hop = health.hop
        self._pool = pool
        self.health = health
        self.relay = f"{hop.host}[{hop.address}]:{hop.port}" if hop.port else f"{hop.host}[{hop.address}]"
        self.session = ClientSession(pool.plain_rules if health.is_plain(loop.now) else pool.rules, self.relay)
        self.is_ready = False
        self.is_probe = is_probe
        self.is_quitting = False
        self.is_blameless = False
        self.was_idle = False
        self.is_stalled = False
        self.mails = 0
        self.began_at = self.idle_since = loop.now
        self.deadline = loop.now + pool.timeouts["greeting"]
        self._replies_due = self.session.count_due()
        self._blocked_bytes = 0  # of output that the next hop had not taken when the deadline was set
        self._stream: Stream | None = None
        self._transcript: Transcript | None = None
        self.deliveries: dict[Transmission, Delivery] = {}
        self._is_closing = False
        self._is_handling = False
        self._file_fd = -1
        self._file_left = 0
        self._is_reading = False
        self._connecting: Connecting | None = connect(
            loop, hop.target, pool.timeouts["connect"], pool.source_address, self._on_connected
        )

    @property
    def load(self) -> int:
        """Mails under way on it."""
        return len(self.deliveries)

    @property
    def has_unsent(self) -> bool:
        """Whether some of what the session has sent is still here."""
        return self._stream is not None and self._stream.has_output

    def send(self, delivery: Delivery) -> None:
        """Begin with a mail; only when the session `can_send`."""
        body = delivery.body
        envelope = delivery.item.envelope
        indexes = delivery.find_left()
        if body.data is not None:
            transmission = begin_transmission(envelope, indexes, body.data)
        else:
            transmission = Transmission(envelope, indexes, None, body.size_bytes, delivery.head)
        self.mails += 1
        now = self._pool.loop.now
        delivery.sent_at = now
        delivery.connect_s = max(0.0, min(now - delivery.started_at, self.idle_since - delivery.started_at))
        if not self.deliveries:
            self._pool.busy_links += 1
        self.deliveries[transmission] = delivery
        self.session.send(transmission)
        self._go_on()

    def quit(self) -> None:
        """No more mails on it: say QUIT and close."""
        self.is_quitting = True
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        self.session.quit()
        self._go_on()

    def break_off(self, dsn: str, text: str) -> None:
        """End it now; what is under way is deferred for this reason."""
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        self.session.fail(0, dsn, text)
        self._go_on()
        self._close(is_clean=False)

    def is_overdue(self, since: float) -> bool:
        """Whether the oldest mail on it was begun before `since`, in monotonic seconds, and is not done."""
        for delivery in self.deliveries.values():
            return delivery.sent_at < since
        return False

    def check_deadline(self, now: float) -> None:
        """Called about once a second."""
        if now < self.deadline or self._connecting is not None:
            return
        kind = self._awaited
        if kind == "block":
            if self._is_reading:
                return  # the disk is behind, not the next hop
            if self._stream is not None and self._blocked_bytes - self._stream.buffered_bytes >= _PROGRESS_BYTES:
                self._set_deadline()
                return
        if kind == "tls":
            self._note_broken_tls()
        if kind:
            self.break_off("4.4.2", f"timed out while waiting for {_WAITS_FOR[kind]}")

    # --- the stream's calls ------------------------------------------------------------------------------------------

    def on_data(self, buffer: bytearray, start: int, end: int) -> int:
        if self._transcript is not None:
            self._transcript.received(bytes(buffer[start:end]))
        session = self.session
        was_asking_tls = not self.is_ready and session.timeout_kind == "tls"
        session.receive(buffer, start, end)  # a stream with unsent output reads nothing, so all commands have left
        if was_asking_tls and session.is_closed:
            self._note_broken_tls()
        self._go_on()
        return end

    def on_end(self) -> None:
        self._lose("lost connection")

    def on_lost(self) -> None:
        self._lose("lost connection")

    def on_drained(self) -> None:
        self._set_deadline()
        self._read_on()

    def on_closed(self) -> None:
        self._stream = None
        self._lose("lost connection")

    def _lose(self, text: str) -> None:
        session = self.session
        if not session.is_closed:
            kind = self._awaited
            if kind == "tls":
                self._note_broken_tls()
            session.fail(0, "4.4.2", f"{text} while waiting for {_WAITS_FOR[kind]}" if kind else text)
        self._go_on()

    def _on_connected(self, fd: int, failure: int) -> None:
        self._connecting = None
        if failure:
            self.is_blameless = failure in _OUR_ERRNOS
            self.session.fail(0, "4.4.1", f"connect to {self.relay}: {os.strerror(failure)}")
            self._go_on()
            return
        self.look_for_transcript(False)
        self._stream = Stream(self._pool.loop, fd, self)
        self._stream.start()
        self._set_deadline()

    def look_for_transcript(self, is_begun: bool) -> None:
        """Let whoever watches this next hop see the dialogue; `is_begun`: it goes on already."""
        if is_begun and self._stream is None:
            return
        hop = self.health.hop
        found = self._pool.transcript_for(f"{hop.host}:{hop.port}", is_begun)
        self._transcript = None if found is None else self._transcript or found

    # --- the session's wishes ----------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Do what the session wants, then send what it has, in one write; never nested."""
        if self._is_handling:
            return
        self._is_handling = True
        session = self.session
        has_moved = False
        event = session.next_event()
        while event is not None:
            if event.kind == _CLOSED:
                has_moved = self._send_output()
            self._handle(event)
            event = session.next_event()
        if self.is_ready:
            self._pool.fill(self)
        if self._send_output():
            has_moved = True
        self._is_handling = False
        if has_moved or session.count_due() != self._replies_due:  # parts of a reply buy no time
            self._replies_due = session.count_due()
            self._set_deadline()

    def _send_output(self) -> bool:
        """Whether the session had something to send."""
        output = self.session.take_output()
        stream = self._stream
        if not output or stream is None:
            return False
        if self._transcript is not None:
            self._transcript.sent(output)
        stream.write(output)
        return True

    def _handle(self, event: ev.ClientEvent) -> None:
        kind = event.kind
        if kind == ev.DONE:
            assert event.transmission is not None
            self._finish(event.transmission)
        elif kind == ev.READY:
            if not self.is_ready:
                self.is_ready = True
                self.began_at = self._pool.loop.now
                self.health.live += 1
            self.idle_since = self._pool.loop.now
            self._pool.on_ready(self)
        elif kind == ev.WANTS_BODY:
            assert event.transmission is not None
            self._open_file(self.deliveries[event.transmission])
        elif kind == ev.START_TLS:
            self._start_tls()
        elif kind == ev.CLOSED:
            self._on_session_closed(event.reason)

    def _finish(self, transmission: Transmission) -> None:
        delivery = self.deliveries.pop(transmission)
        if not self.deliveries:
            self._pool.busy_links -= 1
        self._close_file()
        self.idle_since = self._pool.loop.now
        self._pool.on_done(self, delivery, transmission)

    def _on_session_closed(self, reason: Outcome | None) -> None:
        self._close(is_clean=reason is None)
        self._pool.on_closed(self, reason)

    def _close(self, is_clean: bool) -> None:
        if self._is_closing:
            return
        self._is_closing = True
        self._close_file()
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.owner = _NOBODY
            if is_clean:
                stream.close(linger=False)
            elif stream.has_output:
                stream.destroy()  # or the rest of a mail that is called deferred now might still be taken
            else:
                stream.close()

    @property
    def _awaited(self) -> str:
        """Which `*_timeout` runs; "" when nothing is awaited."""
        return "block" if self.has_unsent else self.session.timeout_kind

    def _set_deadline(self) -> None:
        pool = self._pool
        stream = self._stream
        if stream is not None and stream.has_output:
            kind = "block"
            self._blocked_bytes = stream.buffered_bytes
        else:
            kind = self.session.find_timeout_kind()
            self._blocked_bytes = 0
        self.deadline = pool.loop.now + (pool.timeouts[kind] if kind else pool.idle_s)

    # --- TLS ---------------------------------------------------------------------------------------------------------

    def _start_tls(self) -> None:
        stream = self._stream
        if stream is None:
            return
        name = self._pool.tls_name or self.health.hop.host
        stream.start_tls(self._pool.tls_context(), False, name, self._on_tls)

    def _on_tls(self, error: str) -> None:
        if error:
            self._note_broken_tls()
            self.session.fail(0, "4.7.5", f"TLS with {self.relay}: {error}")
        else:
            self.session.tls_started()
        self._go_on()

    def _note_broken_tls(self) -> None:
        """Where TLS is optional, the next connection does without."""
        if self._pool.is_tls_optional:
            self.is_blameless = True
            self.health.note_broken_tls(self._pool.loop.now)

    # --- bodies in files ---------------------------------------------------------------------------------------------

    def _open_file(self, delivery: Delivery) -> None:
        body = delivery.body
        if body.data is not None:
            self.session.feed(body.data, True)
            return
        path = body.path
        self._file_left = body.size_bytes
        self._is_reading = True
        self._pool.files.submit(lambda: os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), self._on_opened)

    def _on_opened(self, fd: int | None, failure: BaseException | None) -> None:
        self._is_reading = False
        if fd is not None:
            self._file_fd = fd
        if not self._file_left or self._is_closing:
            self._release_file()
        elif fd is None:
            self.is_blameless = True
            self.break_off("4.3.0", f"the stored message can't be read: {failure}")
        else:
            self._read_on()

    def _read_on(self) -> None:
        """Ask for the next piece of the file, when the one before has left."""
        if self._file_fd < 0 or self._is_reading:
            return
        stream = self._stream
        if stream is None or stream.has_output:
            return
        fd = self._file_fd
        self._is_reading = True
        self._pool.files.submit(lambda: os.read(fd, _PIECE_BYTES), self._on_piece)

    def _on_piece(self, piece: bytes | None, failure: BaseException | None) -> None:
        self._is_reading = False
        if not self._file_left or self._is_closing:
            self._release_file()
            return
        if not piece or len(piece) > self._file_left:
            self.is_blameless = True
            why = str(failure) if failure is not None else "it has another size than it had"
            self.break_off("4.3.0", f"the stored message can't be read: {why}")
            return
        self._file_left -= len(piece)
        is_last = not self._file_left
        if is_last:
            self._close_file()
        self.session.feed(piece, is_last)
        self._go_on()
        self._read_on()

    def _close_file(self) -> None:
        """Let go of the file; while a read of it is under way, its end does."""
        if not self._is_reading:
            self._release_file()
        else:
            self._file_left = 0

    def _release_file(self) -> None:
        fd, self._file_fd = self._file_fd, -1
        if fd >= 0:
            os.close(fd)
