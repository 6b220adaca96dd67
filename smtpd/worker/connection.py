"""One connection: joins a stream, a session and the spool, and keeps its deadlines. The session says what, here it is done.

Owns the timer and the body in the making. A deadline is a number that moves with each octet; the one timer looks at it when it
fires, so nothing is re-armed per line. Never parses, never formats a log line (`account.py`).
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

from smtpd import _io
from smtpd._parser import find_header
from smtpd._tally import PairCounts
from smtpd.errors import SpoolError, SpoolFullError
from smtpd.mail.envelope import Envelope
from smtpd.mail.verdict import Verdict, accept_as
from smtpd.net.loop import Timer
from smtpd.net.stream import READ_BYTES, StreamOwner, make_stream
from smtpd.proto import events as ev
from smtpd.proto import replies, states
from smtpd.proto.content import make_envelope
from smtpd.proto.dialogue import Peer
from smtpd.proto.events import Event
from smtpd.proto.session import make_session
from smtpd.proto.trace import received_field
from smtpd.proto.transaction import Transaction
from smtpd.spool.base import BodyWriter
from smtpd.spool.item import SpoolItem
from smtpd.worker.drafting import Drafting, commit_draft
from smtpd.worker.service import Service

if TYPE_CHECKING:
    from smtpd.policy.inspection import Inspection
    from smtpd.worker.parts import SessionTap

_HEAD_BYTES = 64 * 1024  # how much of a header is kept to look for Message-ID
_NOBODY = StreamOwner()
# In C variables of the module (connection.pxd), for the path of every mail.
_CHUNK, _BEGIN, _END = ev.BODY_CHUNK, ev.BODY_BEGIN, ev.BODY_END
_CONTENT = states.CONTENT
_READ_BYTES = READ_BYTES


class PendingMail:
    """A body from BODY_BEGIN until custody is decided. It may outlive its connection: once the commit began, the mail stays."""

    __slots__ = (
        "connection",
        "drafting",
        "envelope",
        "held_for",
        "is_abandoned",
        "message_id",
        "queue_id",
        "size_bytes",
        "started_at",
        "token",
        "trace",
        "writer",
    )

    def __init__(self, connection: Connection, queue_id: str, envelope: Envelope, writer: BodyWriter) -> None:
        self.connection = connection
        self.queue_id = queue_id
        self.envelope = envelope
        self.writer = writer
        self.message_id = b""
        self.size_bytes = 0
        self.started_at = 0.0  # monotonic, when the end of data was seen
        self.token = 0
        self.trace = b""  # our Received
        self.drafting: Drafting | None = None  # of a mail whose checks see its content
        self.held_for = ""  # it is stored held, for this reason
        self.is_abandoned = False  # the client was told 451 because this took too long

    def on_committed(self, item: SpoolItem | None, error: SpoolError | None) -> None:
        """The spool's answer, on the loop thread."""
        self.connection.finish_mail(self, item, error)


class Connection(StreamOwner):
    """`service` is what all connections of a listener share."""

    __slots__ = (
        "_asked_at", "_asked_token", "_committing", "_counts", "_deadline", "_ended", "_head", "_inspection", "_is_deep",
        "_is_reset",
        "_line_started_at", "_mail", "_mail_id",
        "_started_at", "_timer", "client", "service", "session", "stream", "tap",
    )  # fmt: skip

    def __init__(self, service: Service, fd: int, peer: Peer) -> None:
        loop = service.loop
        self.service = service
        self.session = make_session(service.rules_for(peer), peer)
        self._inspection: Inspection | None = None
        if service.policy_for is not None:
            self.session.policy = self._inspection = service.policy_for(peer, self)
        if service.conduct_for is not None:
            self.session.conduct = service.conduct_for(peer)
        self.stream = make_stream(loop, fd, self)
        self.tap: SessionTap | None = None  # set while somebody watches this client
        self.client = f"{peer.name}[{peer.address or 'unix'}]"
        self._counts = PairCounts() if service.account.is_logging else None
        self._mail: PendingMail | None = None  # its body is arriving
        self._committing: PendingMail | None = None  # the session waits for its custody
        self._head: bytes | None = None
        self._ended = ""
        self._asked_at = 0.0  # when the session began to wait for a check at stage body
        self._asked_token = 0
        self._mail_id = ""
        self._is_reset = False
        self._is_deep = False  # the last read was full: more octets may wait
        self._started_at = loop.now
        self._line_started_at = 0.0
        self._deadline = loop.now + service.command_timeout
        self._timer: Timer = loop.call_later(service.timer_period_s, self._on_timer)

    def start(self) -> None:
        """Greet and begin to read."""
        self.service.connections.add(self)
        self.service.account.connected(self.client)
        self.stream.start()
        try:
            self.session.start()
            if self.session.paused:
                self.stream.pause()
            self._settle_turn()
        except Exception as error:  # noqa: BLE001 - as in on_data
            self._fail(error)

    def drain(self) -> None:
        """Let the transaction finish, then say 421."""
        self.session.drain()
        self._settle_turn()

    def stop(self) -> None:
        """End now: 421, and nothing of an unfinished mail is kept."""
        self.session.abort(replies.SHUTTING_DOWN, "shutdown")
        self._settle_turn()

    # --- the stream's calls ------------------------------------------------------------------------------------------

    def on_data(self, buffer: bytearray, start: int, end: int) -> int:
        try:
            return self._take(buffer, start, end)
        except Exception as error:  # noqa: BLE001 - a fault that one client's octets find must not end the others' sessions
            self._fail(error)
            return end

    def _take(self, buffer: bytearray, start: int, end: int) -> int:
        session = self.session
        position = session.receive(buffer, start, end)
        while session.events:
            was_paused = session.paused
            self._handle_events()
            if position == end or not was_paused or session.paused:
                break
            position = session.receive(buffer, position, end)
        if self.tap is not None:
            self.tap.received(bytes(buffer[start:position]))
        service = self.service
        now = service.loop.now
        if session.state == _CONTENT:
            self._deadline = now + service.data_timeout
        else:
            self._deadline = now + service.command_timeout
            if not session.is_waiting_for_line():
                self._line_started_at = 0.0
            elif not self._line_started_at:
                self._line_started_at = now
        if session.paused:
            self.stream.pause()
        self._is_deep = end - start >= _READ_BYTES
        self._flush()
        return position

    def on_end(self) -> None:
        """The peer sends no more. What it is owed still leaves; an answer that is being waited for comes first."""
        if not self.session.paused:
            self._lose()

    def on_lost(self) -> None:
        self._lose()

    def on_closed(self) -> None:
        self._timer.cancel()
        self.session.abort(None, "client_lost")
        self._handle_events()
        self.stream.owner = _NOBODY
        if self.tap is not None:
            self.tap.closed()
        if self.session.conduct is not None:
            self.session.conduct.end()
        if self._inspection is not None:
            self._inspection.end()
        service = self.service
        service.connections.discard(self)
        service.left(self.session.peer.row)
        if self.session.tally.count:
            service.account.count_tally(self.session.tally, self._counts)
        service.account.disconnected(self.client, self._ended, service.loop.now - self._started_at, self._counts)

    def _fail(self, error: Exception) -> None:
        """A fault of ours: say where, end this connection, keep nothing of its unfinished mail."""
        where = traceback.extract_tb(error.__traceback__)[-1:]
        place = f"{where[0].filename}:{where[0].lineno}" if where else "?"
        self.service.account.failed(self.client, f"{type(error).__name__}: {error} at {place}")
        session = self.session
        self._abort_body()
        session.events.clear()  # what is left of this turn builds on what went wrong
        if session.state != states.CLOSED:
            self.service.account.lost(states.STATE_NAMES[session.state], self.client)
            session.abort(None, "client_lost")
        self.stream.destroy()

    def _lose(self) -> None:
        session = self.session
        if session.state != states.CLOSED:
            self.service.account.lost(states.STATE_NAMES[session.state], self.client)
            session.abort(None, "client_lost")
        self._settle_turn()

    # --- what the session wants --------------------------------------------------------------------------------------

    def _settle_turn(self) -> None:
        if self.session.events:
            self._handle_events()
        self._flush()

    def _flush(self) -> None:
        """Count and send what the session did; close when it is over."""
        session = self.session
        if session.tally.count:
            service = self.service
            service.account.count_tally(session.tally, self._counts)
        output = session.take_output() if session.output is not None else b""
        if output and self.tap is not None:
            self.tap.sent(output)
        if self._is_reset:
            if output:
                self.stream.write(output)
            self.stream.reset()
            return
        if self._ended == "quit" and not self._is_deep:
            # nothing behind it, as far as was read: to close at once saves two turns on each connection, and a segment
            self.stream.finish(output)
            return
        if output:
            self.stream.write(output)
        if self._ended:
            self.stream.close(linger=self._ended != "client_lost" or self._is_deep)

    def _handle_events(self) -> None:
        session = self.session
        events = session.events  # the same list as long as the session lives
        while events:
            event = events.pop(0)
            kind = event.kind
            if kind == _CHUNK:
                self._write_body(event.data)
            elif kind == _BEGIN:
                self._begin_body(event.data)
            elif kind == _END:
                self._commit_body(event.token)
            elif kind == ev.BODY_ABORT:
                self._abort_body()
            elif kind == ev.CLOSE:
                self._ended = self._ended or event.data
            elif kind == ev.VIOLATION:
                self.service.account.violated(event.data)
            elif kind == ev.REJECT:
                self.service.account.refused(
                    session, event.stage, event.data, self.client, self._mail_id if event.stage == ev.STAGE_BODY else ""
                )
            elif kind == ev.DELAY:
                self._delay(event)
            elif kind == ev.ASK:
                self._ask(event)
            elif kind == ev.RESET:
                self._is_reset = True

    def _begin_body(self, transaction: Transaction) -> None:
        service = self.service
        if not service.keeps_mail:
            if transaction.decoder is not None:
                transaction.decoder.is_keeping = False
            return
        envelope = make_envelope(self.session, transaction)
        now_s = _io.unix_us() / 1e6
        envelope.received_at_s = now_s
        queue_id = service.spool.next_queue_id()
        writer = service.spool.begin(queue_id, envelope)
        self._mail = mail = PendingMail(self, queue_id, envelope, writer)
        self._mail_id = queue_id
        self._asked_at = 0.0
        self._head = b""
        if self.session.conduct is not None:
            self.session.conduct.begin_body(writer)
        if writer.wants_body:
            mail.trace = trace = received_field(envelope, queue_id, service.hostname, service.dates.at(now_s))
            writer.write(trace)
        elif transaction.decoder is not None:
            transaction.decoder.is_keeping = False

    def _write_body(self, chunk: bytes) -> None:
        mail = self._mail
        if mail is None:  # nothing is kept, and the content came with its BDAT, before the decoder could be told
            return
        if self._head is not None:
            self._look_for_message_id(mail, chunk)
        if not mail.writer.write(chunk):
            mail.writer.on_drain = self._on_writer_drained
            self.stream.pause()

    def _look_for_message_id(self, mail: PendingMail, chunk: bytes) -> None:
        """The header may come in any number of pieces."""
        assert self._head is not None
        head = self._head + chunk if self._head else chunk
        transaction = self.session.transaction
        decoder = transaction.decoder if transaction is not None else None
        if decoder is not None and decoder.is_in_header and len(head) < _HEAD_BYTES:
            self._head = head
            return
        self._head = None
        mail.message_id = find_header(head, b"message-id") or b""

    def _on_writer_drained(self) -> None:
        if not self.session.paused:
            self.stream.resume()

    def _commit_body(self, token: int) -> None:
        service = self.service
        transaction = self.session.transaction
        assert transaction is not None and transaction.decoder is not None
        if not service.keeps_mail:
            self._discard_body(transaction, token)
            return
        mail = self._mail
        assert mail is not None
        self._mail = None
        if self._head:
            mail.message_id = find_header(self._head, b"message-id") or b""
            self._head = None
        mail.size_bytes = transaction.decoder.size_bytes
        mail.started_at = self._asked_at or service.loop.now
        mail.token = token
        self._committing = mail
        if mail.drafting is None:
            service.spool.commit(mail.writer, mail.on_committed)
        else:
            assert self._inspection is not None
            commit_draft(self, mail, self._inspection.changes)

    def _discard_body(self, transaction: Transaction, token: int) -> None:
        """The whole of custody where nothing is kept."""
        service = self.service
        assert transaction.decoder is not None
        queue_id = service.spool.next_queue_id()
        service.account.accepted(
            transaction.reverse_path,
            len(transaction.recipients),
            queue_id,
            self.client,
            b"",
            transaction.decoder.size_bytes,
            _io.monotonic_s() - service.loop.now,
        )
        self._resume(token, accept_as(queue_id))

    def _abort_body(self) -> None:
        mail = self._mail
        self._mail = None
        self._head = None
        if mail is not None:
            mail.writer.abort()

    def finish_mail(self, mail: PendingMail, item: SpoolItem | None, error: SpoolError | None) -> None:
        """Custody is decided: answer the client, if it still waits, and pass the mail on."""
        service = self.service
        if self._committing is mail:
            self._committing = None
        if error is not None:
            reply = replies.SPOOL_FULL if isinstance(error, SpoolFullError) else replies.SPOOL_FAILED
            self._resume(mail.token, Verdict(reply, "other"))
            return
        if mail.is_abandoned:
            if item is not None and not mail.held_for:
                service.spool.settle(item, None, 0.0, False, _ignore_settled)
            return
        seconds = _io.monotonic_s() - mail.started_at
        envelope = mail.envelope
        service.account.accepted(
            envelope.reverse_path, len(envelope.recipients), mail.queue_id, self.client, mail.message_id, mail.size_bytes, seconds
        )  # fmt: skip
        self._resume(mail.token, accept_as(mail.queue_id))
        if mail.held_for:
            service.account.held(mail.queue_id, self.client, mail.held_for)
        elif item is not None:
            service.on_accepted(item)

    # --- checks ------------------------------------------------------------------------------------------------------

    def _ask(self, event: Event) -> None:
        """The session waits for its checks; at stage body they see the content first."""
        policy = self._inspection
        if policy is None:  # a conduct's question, which a part outside answers
            return
        if event.stage == ev.STAGE_BODY:
            self._asked_at = self.service.loop.now
            self._asked_token = event.token
            self._ask_about_content(policy, event.token)
        else:
            policy.wait_for(event.token)

    def _ask_about_content(self, policy: Inspection, token: int) -> None:
        mail = self._mail
        transaction = self.session.transaction
        files = self.service.files
        assert mail is not None and transaction is not None and transaction.decoder is not None and files is not None
        mail.drafting = drafting = Drafting(mail.writer, mail.trace, transaction.decoder.header_bytes, files)
        drafting.open(lambda failure: policy.judge_content(token, mail.queue_id, drafting.draft, failure))

    def resume(self, token: int, verdict: Verdict | None) -> None:
        """Of policy.inspection.Driver."""
        self._asked_token = 0
        self._resume(token, verdict)

    def say(self, wire: bytes) -> None:
        """Of policy.inspection.Driver."""
        self.session.put(wire)
        self._flush()

    def has_input(self) -> bool:
        """Of policy.inspection.Driver."""
        return self.stream.has_input()

    def restart(self, peer: Peer) -> None:
        """Another client on the same connection (XCLIENT): rules and checks are those of this peer, and it is greeted."""
        service = self.service
        session = self.session
        if self._inspection is not None:
            self._inspection.end()
        self.client = f"{peer.name}[{peer.address or 'unix'}]"
        self._inspection = service.policy_for(peer, self) if service.policy_for is not None else None
        session.restart(service.rules_for(peer), peer, self._inspection)

    def end_mail(self, mail: PendingMail, verdict: Verdict) -> None:
        """The client's answer for a mail that is not stored."""
        if self._committing is mail:
            self._committing = None
        self._resume(mail.token, verdict)

    def _delay(self, event: Event) -> None:
        token = event.token
        seconds = self.service.limits.error_delay if event.data is None else event.data
        self.service.loop.call_later(seconds, lambda: self._resume(token, None))

    def _resume(self, token: int, verdict: Verdict | None) -> None:
        """Go on after a pause, if the session still waits for this very answer."""
        try:
            self._go_on(token, verdict)
        except Exception as error:  # noqa: BLE001 - as in on_data; a mail in custody goes its way all the same
            self._fail(error)

    def _go_on(self, token: int, verdict: Verdict | None) -> None:
        session = self.session
        was_reading = not self.stream.is_paused
        session.resume(token, verdict)
        self._settle_turn()
        if not session.paused and not was_reading:
            self._deadline = self.service.loop.now + self.service.command_timeout
            self.stream.resume()

    # --- time --------------------------------------------------------------------------------------------------------

    def _on_timer(self) -> None:
        try:
            self._look_at_time()
        except Exception as error:  # noqa: BLE001 - as in on_data
            self._fail(error)

    def _look_at_time(self) -> None:
        service = self.service
        session = self.session
        now = service.loop.now
        limits = service.limits
        if session.paused:
            self._check_pause(now)
        elif self.stream.is_paused:  # the spool is behind, not the client
            self._deadline = now + service.data_timeout
        elif now >= self._deadline:
            self._time_out("idle")
        elif self._line_started_at and now - self._line_started_at >= limits.command_deadline:
            self._time_out("deadline")
        if self.stream.is_open:
            self._timer = service.loop.call_later(service.timer_period_s, self._on_timer)

    def _check_pause(self, now: float) -> None:
        """Checks and commit have a limit together; the client is told 451 and the mail, should it still be stored, removed."""
        if self._asked_token and now - self._asked_at >= self.service.limits.end_of_data_timeout:
            token, self._asked_token = self._asked_token, 0
            assert self._inspection is not None
            self._inspection.give_up()
            self._resume(token, Verdict(replies.END_OF_DATA_TIMEOUT, "other"))
            return
        mail = self._committing
        if mail is None or now - mail.started_at < self.service.limits.end_of_data_timeout:
            return
        self._committing = None
        mail.is_abandoned = True
        self._resume(mail.token, Verdict(replies.END_OF_DATA_TIMEOUT, "other"))

    def _time_out(self, reason: str) -> None:
        session = self.session
        self.service.account.timed_out(states.STATE_NAMES[session.state], self.client)
        session.abort(replies.TIMEOUT, reason)
        self._settle_turn()


def _ignore_settled(error: SpoolError | None) -> None:
    """An abandoned mail that could not be removed is delivered after the next start: twice at worst, never lost."""
