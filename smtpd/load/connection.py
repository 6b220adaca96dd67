"""One connection of the load maker: joins a stream and a client session, carries one mail at a time, measures each phase.

Owns its descriptor by way of the stream. Told what to send by its owner, which is told in turn what came of it; decides nothing
about when. Never raises for what the target does: failures are errors of the recorder and outcomes of the mail. Compiled: runs
for each reply.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Callable

from smtpd.load.recorder import CONNECT, DATA, END_OF_DATA, GREETING, HELLO, MAIL, PHASE_NAMES, RCPT, TLS, Recorder
from smtpd.mail.outcome import DELIVERED, Outcome
from smtpd.net.connect import Connecting, connect
from smtpd.net.listeners import Address
from smtpd.net.loop import Loop
from smtpd.net.stream import Stream, StreamOwner
from smtpd.proto.client import awaited
from smtpd.proto.client import events as ev
from smtpd.proto.client import extensions as ext
from smtpd.proto.client.rules import ClientRules
from smtpd.proto.client.session import ClientSession
from smtpd.proto.client.transmission import Transmission

_DONE = ev.DONE
_NOBODY = StreamOwner()
_RETRY_S = 0.05
_PIECE_BYTES = 256 * 1024  # mails over it leave in pieces: what a stream can't send at once it copies
_NOT_MEASURED = -1

_PHASES = [_NOT_MEASURED] * 13  # by what the session awaited
for _what, _phase in (
    (awaited.GREETING, GREETING), (awaited.HELLO, HELLO), (awaited.HELO, HELLO), (awaited.STARTTLS, TLS), (awaited.MAIL, MAIL),
    (awaited.RCPT, RCPT), (awaited.DATA, DATA), (awaited.END, END_OF_DATA), (awaited.XCLIENT, HELLO),
):  # fmt: skip
    _PHASES[_what] = _phase

_PLACES = {"recipient": "rcpt", "block": "end_of_data"}  # words of the session for which the report has others
_NOT_TRIED = {"5.3.4": "size limit", "4.5.3": "recipient limit", "5.6.7": "no SMTPUTF8", "5.1.3": "unfit address"}
_CONNECT_KINDS = {errno.ECONNREFUSED: "refused", errno.ETIMEDOUT: "timeout", errno.ECONNRESET: "reset"}


class Wiring:
    """What all connections of a process share. `now` is the clock, in monotonic seconds as the loop's; `addresses` are tried one
    after the other until one answers; `tls_context` with `is_tls_implicit` is used before the greeting, else after STARTTLS.
    `opening(fd)`: what is sent before anything else; `introduction()`: attributes of XCLIENT."""

    __slots__ = (
        "addresses", "connect_timeout_s", "connect_tries", "introduction", "is_tls_implicit", "loop", "now", "opening",
        "preferred", "recorder", "reply_timeout_s", "rules", "tap", "target", "tls_context", "tls_name", "wants_chunking",
        "wants_pipelining", "window_bytes",
    )  # fmt: skip

    def __init__(
        self, loop: Loop, recorder: Recorder, rules: ClientRules, now: Callable[[], float], target: str, addresses: list[Address]
    ) -> None:
        self.loop = loop
        self.recorder = recorder
        self.rules = rules
        self.now = now
        self.target = target
        self.addresses = addresses
        self.preferred = 0
        self.connect_tries = 1
        self.connect_timeout_s = 10.0
        self.reply_timeout_s = 30.0
        self.tls_context: ssl.SSLContext | None = None
        self.is_tls_implicit = False
        self.tls_name = ""
        self.window_bytes = 0
        self.wants_pipelining = False  # so that it can be said when the target has it not
        self.wants_chunking = False
        self.opening: Callable[[int], bytes] | None = None
        self.introduction: Callable[[], bytes] | None = None
        self.tap: Callable[[Connection, str, bytes], object] | None = None


class ConnectionOwner:
    """What a connection calls; override all."""

    __slots__ = ()

    def on_idle(self, connection: Connection) -> None:
        """It takes a mail now."""

    def on_done(self, connection: Connection, transmission: Transmission) -> None:
        """All that can be known of its mail is; `has_mail` is False again."""

    def on_again(self, connection: Connection) -> None:
        """It ended before its mail had its turn: that is to be sent over another one."""

    def on_closed(self, connection: Connection, reason: Outcome | None) -> None:
        """It is over; last call. `reason` is None after QUIT."""


class Connection(StreamOwner):
    """`number` and `intended_at` are those of its mail, `sent_at` is when MAIL left, `mails` how many it has had."""

    __slots__ = (
        "_attempt", "_buffered", "_connecting", "_content", "_content_given", "_failure", "_is_closing", "_is_handling", "_mail",
        "_marks", "_opened_at", "_owner", "_phase_at", "_stream", "_tls_at", "_waiting", "_wiring", "deadline", "has_mail",
        "intended_at", "is_ready", "mails", "number", "sent_at", "session",
    )  # fmt: skip

    def __init__(self, owner: ConnectionOwner, wiring: Wiring) -> None:
        self._owner = owner
        self._wiring = wiring
        self.session = ClientSession(wiring.rules, wiring.target)
        self._marks: list[int] = []
        self.session.marks = self._marks
        if wiring.introduction is not None:
            self.session.introduction = wiring.introduction()
        self.number = -1
        self.intended_at = 0.0
        self.sent_at = 0.0
        self.deadline = 0.0
        self.mails = 0
        self.has_mail = False
        self.is_ready = False
        self._mail: Transmission | None = None
        self._content: bytes | None = None  # of a large mail, until its last piece is given
        self._content_given = -1  # octets of it; -1: not wanted yet
        self._waiting: Transmission | None = None  # the same, until the session takes it
        self._stream: Stream | None = None
        self._connecting: Connecting | None = None
        self._attempt = 0
        self._opened_at = 0.0
        self._phase_at = 0.0
        self._tls_at = 0.0
        self._buffered = 0
        self._failure = ""  # the kind of what ended it, where that was not a reply
        self._is_handling = False
        self._is_closing = False

    # --- the owner's side --------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Connect."""
        wiring = self._wiring
        self._opened_at = wiring.now()
        address = wiring.addresses[wiring.preferred % len(wiring.addresses)]
        self._connecting = connect(wiring.loop, address, wiring.connect_timeout_s, "", self._on_connected)

    def take(self, number: int, intended_at: float, transmission: Transmission) -> None:
        """Carry this mail, as soon as the session is ready; only when it carries none."""
        self.number = number
        self.intended_at = intended_at
        self.sent_at = 0.0
        self.has_mail = True
        self.mails += 1
        self._mail = transmission
        if transmission.size_bytes > _PIECE_BYTES and not self._wiring.wants_chunking:
            self._content = transmission.head = transmission.body or b""
            self._content_given = -1
            transmission.body = None
        if not self.is_ready:
            self._waiting = transmission
            return
        self.session.send(transmission)
        self._go_on()

    def quit(self) -> None:
        """No more mails: QUIT, and close at its reply."""
        self._drop_connecting()
        self.session.quit()
        self._go_on()

    def break_off(self, kind: str, text: str) -> None:
        """End it now, whatever is under way; that is an error of this kind."""
        self._drop_connecting()
        self._fail(kind, text)

    def check_deadline(self, now: float) -> None:
        """Called now and then."""
        if now < self.deadline or self._connecting is not None or self._stream is None:
            return
        buffered = self._stream.buffered_bytes
        if buffered and buffered < self._buffered:  # it takes the mail, slowly
            self._buffered = buffered
            self.deadline = now + self._wiring.reply_timeout_s
        elif self.has_mail or not self.is_ready or self.session.timeout_kind:
            self.break_off("timeout", "no answer in time")

    @property
    def place(self) -> str:
        """What it waits for, as the report says it."""
        if self._connecting is not None or self._stream is None:
            return "connect"
        if self._stream.tls is not None and self._stream.tls.is_shaking:
            return "tls"
        kind = self.session.timeout_kind
        return _PLACES.get(kind, kind) or "idle"

    # --- the stream's calls ------------------------------------------------------------------------------------------

    def on_data(self, buffer: bytearray, start: int, end: int) -> int:
        wiring = self._wiring
        session = self.session
        if wiring.tap is not None:
            wiring.tap(self, "S", bytes(buffer[start:end]))
        session.receive(buffer, start, end)
        if self._marks:
            self._take_marks(wiring.loop.now)
        self._go_on()
        return end

    def on_end(self) -> None:
        self._fail("lost", "connection was closed by the target")

    def on_lost(self) -> None:
        self._fail("lost", "connection broke")

    def on_drained(self) -> None:
        """What the target's window had not taken has left."""
        self._note_sending()
        if self._content is not None:
            self._go_on()

    def on_closed(self) -> None:
        self._stream = None
        self._fail("lost", "connection broke")

    # --- measuring ---------------------------------------------------------------------------------------------------

    def _note_sending(self) -> None:
        now = self._wiring.now()
        self._phase_at = now
        self.deadline = now + self._wiring.reply_timeout_s

    def _take_marks(self, at: float) -> None:
        """Replies that came at `at`, each to what left with the last octets before."""
        wiring = self._wiring
        recorder = wiring.recorder
        after_s = at - self._phase_at
        for mark in self._marks:
            what = mark // 1000
            code = mark - 1000 * what
            phase = _PHASES[what]
            if phase != _NOT_MEASURED:
                if phase != TLS:
                    recorder.record(phase, after_s)
                if code >= 400:
                    self._note_refusal(what, phase, code)
        self._marks.clear()
        self.deadline = at + wiring.reply_timeout_s

    def _note_refusal(self, what: int, phase: int, code: int) -> None:
        if what == awaited.HELLO and code >= 500 and not self.session.is_closed:
            return  # HELO follows
        if what == awaited.DATA and self._mail is not None and not self._mail.accepted:
            return  # with PIPELINING: there is nobody to send it to, and that was counted
        self._wiring.recorder.note_error(f"{PHASE_NAMES[phase]} {code}", "")

    # --- the session's wishes ----------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Do what the session wants and send what it has; never nested."""
        if self._is_handling:
            return
        self._is_handling = True
        session = self.session
        wiring = self._wiring
        while True:
            output = session.take_output()
            if output and self._stream is not None:
                if wiring.tap is not None:
                    wiring.tap(self, "C", output)
                self._note_sending()
                if self.sent_at == 0.0 and self.is_ready:
                    self.sent_at = self._phase_at
                if not self._stream.write(output):
                    self._buffered = self._stream.buffered_bytes
            event = session.next_event()
            if event is None:
                if not output and (self._content is None or not self._give_piece()):
                    break
                continue
            if event.kind == _DONE:
                transmission = event.transmission
                assert transmission is not None
                self._finish(transmission)
            else:
                self._handle(event)
        self._is_handling = False

    def _handle(self, event: ev.ClientEvent) -> None:
        kind = event.kind
        if kind == ev.READY:
            self._become_ready()
        elif kind == ev.START_TLS:
            self._start_tls()
        elif kind == ev.WANTS_BODY:
            self._content_given = 0
        elif kind == ev.CLOSED:
            self._close(event.reason)

    def _give_piece(self) -> bool:
        """Give the session the next piece of a large mail, if all before it has left. Returns whether there was one."""
        content, start = self._content, self._content_given
        if content is None or start < 0 or self._stream is None or self._stream.has_output:
            return False
        end = start + _PIECE_BYTES
        self._content_given = end
        if end >= len(content):
            self._content = None
        self.session.feed(content[start:end], end >= len(content))
        return True

    def _become_ready(self) -> None:
        if not self.is_ready:
            self.is_ready = True
            self._wiring.recorder.connections_ready += 1
            self._note_missing()
        waiting = self._waiting
        self._waiting = None
        if waiting is not None:
            self.session.send(waiting)
        elif self.session.can_send:
            self._owner.on_idle(self)

    def _finish(self, transmission: Transmission) -> None:
        """The mail is done with."""
        self.has_mail = False
        self._mail = None
        self._content = None
        session = self.session
        owner = self._owner
        if session.is_closed and not transmission.has_turn:
            owner.on_again(self)
            return
        owner.on_done(self, transmission)
        if not session.is_closed and not session.takes_mail():
            if session.is_spent:
                session.quit()
        elif not session.is_closed:
            owner.on_idle(self)

    def count_recipients(self, transmission: Transmission) -> int:
        """How many took it; and what is wrong with the others is noted."""
        accepted = 0
        for outcome in transmission.outcomes:
            if outcome.status == DELIVERED:
                accepted += 1
            else:
                self._note_outcome(outcome)
        return accepted

    def _note_outcome(self, outcome: Outcome) -> None:
        recorder = self._wiring.recorder
        if outcome.code:
            end = f" {outcome.code}"
            for key in recorder.errors:
                if key.endswith(end):
                    # a 5xx that is deferred has a status of class 4: the target said the code's class
                    status = f"{outcome.code // 100}{outcome.dsn[1:]}"
                    recorder.examples.setdefault(key, f"{outcome.code} {status} {outcome.text}"[:200])
        elif not self.session.is_closed:
            recorder.note_error(_NOT_TRIED.get(outcome.dsn, f"not tried {outcome.dsn}"), outcome.text)

    def _note_missing(self) -> None:
        """Say what was asked for and the target has not."""
        wiring = self._wiring
        flags = self.session.extensions.flags
        if wiring.wants_pipelining and not flags & ext.PIPELINING:
            wiring.recorder.note("the target does not offer PIPELINING: each command waited for the reply before")
        if wiring.wants_chunking and not flags & ext.CHUNKING:
            wiring.recorder.note("the target does not offer CHUNKING: mails went by DATA, not BDAT")

    # --- begin and end -----------------------------------------------------------------------------------------------

    def _on_connected(self, fd: int, failure: int) -> None:
        wiring = self._wiring
        self._connecting = None
        self._attempt += 1
        if failure:
            wiring.preferred += 1
            if self._attempt < wiring.connect_tries * len(wiring.addresses):
                wiring.loop.call_later(_RETRY_S if self._attempt >= len(wiring.addresses) else 0.0, self._open_again)
                return
            wiring.recorder.connections_failed += 1
            name = errno.errorcode.get(failure, str(failure))
            self._fail(_CONNECT_KINDS.get(failure, name), f"{wiring.target}: {os.strerror(failure)}")
            return
        wiring.recorder.connections_opened += 1
        if wiring.window_bytes:
            _set_window(fd, wiring.window_bytes)
        self._stream = Stream(wiring.loop, fd, self)
        self._note_sending()
        if wiring.opening is not None:
            self._stream.write(wiring.opening(fd))
        wiring.recorder.record(CONNECT, self._phase_at - self._opened_at)
        if wiring.is_tls_implicit:
            self._start_tls()
        else:
            self._stream.start()

    def _open_again(self) -> None:
        if not self._is_closing:
            self.open()

    def _start_tls(self) -> None:
        wiring = self._wiring
        self._tls_at = self._phase_at
        if self._stream is not None and wiring.tls_context is not None:
            self._stream.start_tls(wiring.tls_context, False, wiring.tls_name, self._on_tls)

    def _on_tls(self, error: str) -> None:
        if error:
            self._fail("failed", error)
            return
        self._note_sending()
        self._wiring.recorder.record(TLS, self._phase_at - self._tls_at)
        if not self._wiring.is_tls_implicit:
            self.session.tls_started()
        self._go_on()

    def _fail(self, kind: str, text: str) -> None:
        if not self.session.is_closed:
            place = "tls" if kind == "failed" else "connect" if self._stream is None and not self.is_ready else self.place
            if place not in ("idle", "quit"):
                self._wiring.recorder.note_error(f"{place} {kind}", text)
            self._failure = kind
            self.session.fail(0, "4.4.2", text)
        self._go_on()

    def _drop_connecting(self) -> None:
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()

    def _close(self, reason: Outcome | None) -> None:
        if self._is_closing:
            return
        self._is_closing = True
        if reason is not None and not reason.code and not self._failure:
            key = "tls not offered" if reason.dsn.startswith("4.7") else "protocol"
            self._wiring.recorder.note_error(key, reason.text)
        elif reason is not None and reason.code:
            self._note_outcome(reason)
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.owner = _NOBODY
            if reason is None:
                stream.close(linger=False)
            elif self._failure:
                stream.destroy()
            else:
                stream.close()
        owner = self._owner
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self.has_mail = False
            waiting.decide_rest(reason or Outcome())
            owner.on_done(self, waiting)
        owner.on_closed(self, reason)


def _set_window(fd: int, window_bytes: int) -> None:
    with socket.socket(fileno=os.dup(fd)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, window_bytes)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window_bytes)
