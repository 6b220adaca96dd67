"""The client session of RFC 5321 (LMTP: RFC 2033), without socket, clock or log: replies in, commands and events out.

`receive` takes replies, `take_output` hands out what is to be sent, `next_event` what the driver has to do (`events.py`). What is
awaited stands in a queue, one small number for each reply that is due; a reply that comes before its command was handed out
belongs to nothing, and ends the session as any other protocol error does: a next hop that is out of step may say 250 to a mail
that it never saw. Whatever is no clear answer defers.

With PIPELINING (RFC 2920) a whole transaction leaves at once, and the next one while the final reply of the one before is due, so
at most two are under way. Never raises for what a peer sends. Plain code, to be compiled as it stands.
"""

from __future__ import annotations

from smtpd._wire import BodyEncoder, ReplyReader
from smtpd.mail.outcome import DEFERRED, Outcome
from smtpd.proto.client import events as ev
from smtpd.proto.client import extensions as ext

from smtpd.proto.client.awaited import (  # isort: skip
    CONTENT, DATA, END, GREETING, HELLO, HELO, LONE_DOT, MAIL, QUIT, RCPT, RSET, STARTTLS, TIMEOUT_KINDS, XCLIENT,
)  # fmt: skip
from smtpd.proto.client.commands import prepare
from smtpd.proto.client.events import ClientEvent, make_event
from smtpd.proto.client.extensions import Extensions, parse_extensions
from smtpd.proto.client.rules import TLS_REQUIRE, ClientRules
from smtpd.proto.client.transmission import CONTENT_ENDED, CONTENT_GIVEN, CONTENT_VOID, Transmission
from smtpd.proto.client.verdicts import is_too_many, judge

_DONE, _DSN, _GREETING, _TIMEOUT_KINDS = ev.DONE, ext.DSN, GREETING, TIMEOUT_KINDS  # in C variables of the module (session.pxd)
_SHUTTING_DOWN = 421
_OUT_OF_SEQUENCE = 503


class ClientSession:
    """One connection to a next hop. It begins by waiting for the greeting.

    `relay` is the next hop's name in outcomes; `peer_name` what it calls itself in the greeting; `mail_count` how many MAILs it
    got; `introduction` are attributes of XCLIENT to be sent, for a load maker. The driver changes none of these but `relay`, and
    `introduction` at the beginning.
    """

    __slots__ = (
        "_answerable", "_current", "_encoder", "_expected", "_handed_bytes", "_is_chunking", "_is_ending", "_is_handshaking",
        "_is_pipelining", "_is_quitting", "_is_ready", "_left_bytes", "_next", "_output", "_reader", "events", "extensions",
        "introduction", "is_closed", "is_spent", "is_tls", "mail_count", "marks", "peer_name", "relay", "rules",
    )  # fmt: skip

    def __init__(self, rules: ClientRules, relay: str = "") -> None:
        self.rules = rules
        self.relay = relay
        self.events: list[ClientEvent] = []
        self.extensions = Extensions()
        self.introduction = b""
        self.peer_name = b""
        self.mail_count = 0
        self.is_tls = False
        self.is_closed = False
        self.is_spent = False  # the next hop takes no more mails on this connection
        self.marks: list[int] | None = None  # a list: each reply is noted in it, what was awaited * 1000 + its code
        self._reader = ReplyReader()
        self._output: list[bytes] = []
        self._handed_bytes = 0  # by take_output, so far
        self._left_bytes = 0  # of these, what was sent when the octets came that are being taken
        self._expected = [_GREETING]
        self._answerable = 1  # how many of them may be answered: their commands were handed out
        self._current: Transmission | None = None
        self._next: Transmission | None = None  # its commands left behind the end of the current one
        self._encoder: BodyEncoder | None = None
        self._is_ready = False
        self._is_pipelining = False
        self._is_chunking = False
        self._is_handshaking = False
        self._is_quitting = False
        self._is_ending = False  # the next hop said 421 to one recipient (LMTP); replies for the others may follow

    # --- the driver's side -------------------------------------------------------------------------------------------

    def receive(self, buffer: bytearray, start: int, end: int, unsent_bytes: int = 0) -> int:
        """Take all of buffer[start:end]; return `end`. `unsent_bytes` of what was handed out have not left yet."""
        reader = self._reader
        self._left_bytes = self._handed_bytes - unsent_bytes
        position = start
        while position < end and not self.is_closed:
            if self._is_handshaking:
                self._break("octets in plain text after STARTTLS")
                break
            position = reader.read(buffer, position, end)
            if reader.is_complete:
                self._take_reply(reader, position < end)
            elif reader.error:
                self._break(reader.error)
        return end

    def take_output(self) -> bytes:
        """Return what is to be sent now. It has to leave: from here on replies to it are believed."""
        expected = self._expected
        self._answerable = 0 if expected and expected[0] == CONTENT else len(expected)
        output = self._output
        if not output:
            return b""
        octets = output[0] if len(output) == 1 else b"".join(output)
        output.clear()
        self._handed_bytes += len(octets)
        return octets

    def next_event(self) -> ClientEvent | None:
        """Return the oldest event that was not handed out yet."""
        events = self.events
        return events.pop(0) if events else None

    @property
    def can_send(self) -> bool:
        """A mail may be sent now: nothing is under way, or (PIPELINING) only the final reply of one."""
        return self.takes_mail()

    def takes_mail(self) -> bool:
        """The same as `can_send`, as a call."""
        if not self._is_ready or self.is_spent or self._is_quitting or self._is_ending or self.is_closed:
            return False
        current = self._current
        if current is None:
            return not self._expected
        return (
            self._is_pipelining
            and self._next is None
            and self._expected[0] == END
            and current.content_state == CONTENT_ENDED
            and bool(current.accepted)
        )

    @property
    def replies_due(self) -> int:
        """How many replies are awaited; when it changes, a whole one has come."""
        return self.count_due()

    def count_due(self) -> int:
        """The same as `replies_due`, as a call."""
        current = self._current
        return len(self._expected) if current is None else len(self._expected) - current.final_count

    @property
    def timeout_kind(self) -> str:
        """Which `*_timeout` of DeliverySettings applies to what is awaited; "" when nothing is."""
        return self.find_timeout_kind()

    def find_timeout_kind(self) -> str:
        """The same as `timeout_kind`, as a call."""
        if self._is_handshaking:
            return "tls"
        return _TIMEOUT_KINDS[self._expected[0]] if self._expected else ""

    @property
    def is_final_reply_due(self) -> bool:
        """All of a mail was handed out and what became of it isn't known: a loss now may mean that it comes twice (RFC 1047)."""
        for transmission in (self._current, self._next):
            if transmission is not None and transmission.content_state == CONTENT_ENDED and transmission.undecided:
                return True
        return False

    def send(self, transmission: Transmission) -> None:
        """Begin a transaction; only when `can_send`. DONE may follow at once, if no recipient can be asked for."""
        if not self.takes_mail():
            raise RuntimeError("session takes no mail now")
        commands = prepare(transmission, self.extensions, self.relay)
        if not commands:
            self.events.append(make_event(_DONE, transmission))
            return
        transmission.has_turn = self.mail_count == 0
        self.mail_count += 1
        limit = self.extensions.mail_limit
        if limit and self.mail_count >= limit:
            self.is_spent = True
        if self._current is None:
            self._current = transmission
        else:
            self._next = transmission
        self._expected.append(MAIL)
        if not self._is_pipelining:
            self._output.append(transmission.commands[0])
            return
        self._output.append(commands)
        if len(transmission.asked) == 1:
            self._expected.append(RCPT)
        else:
            self._expected.extend([RCPT] * len(transmission.asked))
        self._begin_content(transmission)

    def feed(self, chunk: bytes, is_last: bool) -> None:
        """Give a piece of the content after WANTS_BODY. Ignored when it isn't wanted any more."""
        current = self._current
        encoder = self._encoder
        if current is None or encoder is None or current.content_state != CONTENT_GIVEN:
            return
        self._output.append(encoder.feed(chunk))
        if is_last:
            self._output.append(encoder.finish() + b".\r\n")
            self._encoder = None
            self._expected[0] = END
            self._end_content(current)

    def tls_started(self) -> None:
        """The handshake after START_TLS is done. What the next hop said before it counts for nothing (RFC 3207 4.2)."""
        if self.is_closed or not self._is_handshaking:
            return
        self._is_handshaking = False
        self.is_tls = True
        self.extensions = Extensions()
        self._reader = ReplyReader()
        self._say_hello()

    def quit(self) -> None:
        """Send no more mails; QUIT when those under way are done. At once, and without QUIT, before the session is ready."""
        self._is_quitting = True
        if not self._is_ready:
            self._close(None)
        self._maybe_quit()

    def fail(self, code: int, dsn: str, text: str) -> None:
        """The connection is over: lost, too slow, no TLS. What is under way is deferred for this reason, unless it was QUIT."""
        is_done = bool(self._expected) and self._expected[0] == QUIT
        self._close(None if is_done else Outcome(DEFERRED, code, dsn, text, self.relay))

    # --- replies -----------------------------------------------------------------------------------------------------

    def _take_reply(self, reader: ReplyReader, has_more: bool) -> None:
        if not self._answerable:
            if self.marks is not None and reader.code >= 400 and self._expected and self._expected[0] in (CONTENT, END):
                self.marks.append(END * 1000 + reader.code)
            self._take_unasked_reply(reader)
            return
        expected = self._expected
        what = expected[0]
        current = self._current
        if self.marks is not None:
            self.marks.append(what * 1000 + reader.code)
        if reader.code == _SHUTTING_DOWN and what != QUIT:
            if what != END or not self.rules.is_lmtp or current is None or not current.accepted:
                self._close(judge(reader, self.relay, False))
                return
            self._is_ending = True
        if 300 <= reader.code < 400 and what != DATA:
            self._break(f"reply {reader.code} is out of place")
            return
        if what == END:
            assert current is not None
            if current.end_bytes > self._left_bytes and self._is_early(current, reader):
                self._take_unasked_reply(reader)
                return
            self._on_end(current, reader)
            return
        del expected[0]
        self._answerable -= 1
        if current is not None:
            if what == MAIL:
                self._on_mail(current, reader)
            elif what == RCPT:
                self._on_rcpt(current, reader)
            elif what == DATA:
                self._on_data(current, reader)
            else:
                current.needs_reset = False
                self._finish(current)
        elif what == GREETING:
            self._on_greeting(reader)
        elif what in (HELLO, HELO):
            self._on_hello(reader, what)
        elif what == XCLIENT:
            self._on_xclient(reader)
        elif what == STARTTLS:
            self._on_starttls(reader, has_more)
        elif what == RSET:
            self._on_rset(reader)
        else:
            self._close(None)

    def _is_early(self, current: Transmission, reader: ReplyReader) -> bool:
        """Whether a final reply that came before the end left is none. A chunk may be refused as soon as it is announced."""
        return bool(current.accepted) and (reader.code < 400 or not current.is_chunked)

    def _take_unasked_reply(self, reader: ReplyReader) -> None:
        """To no command, or to one that has not left. A refusal in the middle of content is allowed, but no clear answer."""
        is_in_content = bool(self._expected) and self._expected[0] in (CONTENT, END)
        if reader.code == _SHUTTING_DOWN or (is_in_content and reader.code >= 400):
            self._close(judge(reader, self.relay, False))
        else:
            self._break(f"reply {reader.code} to nothing")

    # --- hello -------------------------------------------------------------------------------------------------------

    def _on_greeting(self, reader: ReplyReader) -> None:
        if reader.code >= 400:
            self._refuse(judge(reader, self.relay, self.rules.believes_early))
            return
        words = reader.lines[0].split(None, 1)
        self.peer_name = words[0] if words else b""
        self._say_hello()

    def _say_hello(self) -> None:
        if not self.rules.uses_esmtp:
            self._command(b"HELO " + self.rules.hello_name + b"\r\n", HELO)
            return
        self._command((b"LHLO " if self.rules.is_lmtp else b"EHLO ") + self.rules.hello_name + b"\r\n", HELLO)

    def _on_hello(self, reader: ReplyReader, what: int) -> None:
        if reader.code >= 400:
            if what == HELLO and reader.code >= 500 and not self.rules.is_lmtp:
                self._command(b"HELO " + self.rules.hello_name + b"\r\n", HELO)
            else:
                self._refuse(judge(reader, self.relay, self.rules.believes_early))
            return
        if what == HELLO:
            self.extensions = parse_extensions(reader.lines)
            if self.rules.tls and not self.is_tls and self.extensions.flags & ext.STARTTLS:
                self._command(b"STARTTLS\r\n", STARTTLS)
                return
        if self.introduction:
            self._command(b"XCLIENT " + self.introduction + b"\r\n", XCLIENT)
            self.introduction = b""
            return
        self._become_ready()

    def _on_xclient(self, reader: ReplyReader) -> None:
        """A greeting again, as if the client that was named had connected."""
        if reader.code < 300:
            self._say_hello()
        else:
            self._refuse(judge(reader, self.relay, False))

    def _on_starttls(self, reader: ReplyReader, has_more: bool) -> None:
        if reader.code < 300:
            if has_more:  # someone on the way put them in, to be taken for said under TLS
                self._break("octets behind the reply to STARTTLS")
                return
            self._is_handshaking = True
            self.events.append(ClientEvent(ev.START_TLS))
            return
        if self.rules.tls == TLS_REQUIRE:
            refusal = judge(reader, self.relay, False)
            self._refuse(Outcome(DEFERRED, refusal.code, "4.7.5", "STARTTLS was refused: " + refusal.text, self.relay))
            return
        self._become_ready()

    def _become_ready(self) -> None:
        if self.rules.tls == TLS_REQUIRE and not self.is_tls:
            self._refuse(Outcome(DEFERRED, 0, "4.7.4", "TLS is required, and the next hop does not offer STARTTLS", self.relay))
            return
        flags = self.extensions.flags
        self._is_pipelining = self.rules.uses_pipelining and bool(flags & ext.PIPELINING)
        self._is_chunking = self.rules.uses_chunking and bool(flags & ext.CHUNKING)
        self._is_ready = True
        self.events.append(ClientEvent(ev.READY))
        self._maybe_quit()

    def _refuse(self, reason: Outcome) -> None:
        """The next hop won't have us, or we won't have it."""
        self._close(reason)
        self._output.append(b"QUIT\r\n")

    # --- the transaction ---------------------------------------------------------------------------------------------

    def _on_mail(self, current: Transmission, reader: ReplyReader) -> None:
        current.has_turn = True
        if reader.code < 300:
            current.needs_reset = True
            if not self._is_pipelining:
                self._ask_next(current)
            return
        is_later = self.mail_count > 1  # on a new connection it would be the first
        if reader.code == _OUT_OF_SEQUENCE:  # says nothing about the mail
            refusal = judge(reader, self.relay, False)
            if is_later:
                current.put_off_rest(refusal)
            self._close(refusal)
            return
        if is_later and reader.code < 500 and is_too_many(reader):
            self.is_spent = True
            current.put_off_rest(judge(reader, self.relay, False))
        else:
            current.decide_rest(judge(reader, self.relay, self.rules.believes_early))
        if not self._is_pipelining:
            self._finish(current)

    def _on_rcpt(self, current: Transmission, reader: ReplyReader) -> None:
        place = current.asked[current.reply_count]
        current.reply_count += 1
        if reader.code < 300:
            current.needs_reset = True
            if not current.is_decided(place):
                current.accepted.append(place)
        elif not current.is_decided(place):
            if current.accepted and is_too_many(reader):
                current.put_off.append(current.recipients[place])
                current.decide(place, judge(reader, self.relay, False))
            else:
                current.decide(place, judge(reader, self.relay, True))
        if not self._is_pipelining:
            self._ask_next(current)

    def _ask_next(self, current: Transmission) -> None:
        """The next command where each waits for the reply before."""
        count = current.reply_count
        if count < len(current.asked):
            self._command(current.commands[count + 1], RCPT)
        elif current.accepted:
            self._begin_content(current)
        else:
            self._finish(current)

    def _begin_content(self, transmission: Transmission) -> None:
        body = transmission.body
        if body is None or not self._is_chunking:
            self._command(b"DATA\r\n", DATA)
            return
        encoder = BodyEncoder(False)
        content = encoder.feed(body)
        tail = encoder.finish()
        self._output.append(b"BDAT %d LAST\r\n" % (len(content) + len(tail)))
        self._output.append(content)
        self._command(tail, END)
        transmission.is_chunked = True
        self._end_content(transmission)

    def _on_data(self, current: Transmission, reader: ReplyReader) -> None:
        if reader.code >= 400:
            current.decide_rest(judge(reader, self.relay, True))
            self._finish(current)
        elif reader.code < 300:
            self._break(f"reply {reader.code} to DATA")
        elif current.accepted:
            self._give_content(current)
        elif self.rules.is_lmtp:  # it gives one reply for each recipient, so none would come
            self._break("DATA was taken without a recipient")
        else:
            current.content_state = CONTENT_VOID
            self._command(b".\r\n", LONE_DOT)

    def _give_content(self, current: Transmission) -> None:
        encoder = BodyEncoder(True)
        if current.body is None:
            current.content_state = CONTENT_GIVEN
            self._encoder = encoder
            self._expected.append(CONTENT)
            self.events.append(ClientEvent(ev.WANTS_BODY, current))
            return
        self._output.append(encoder.feed(current.body))
        self._command(encoder.finish() + b".\r\n", END)
        self._end_content(current)

    def _end_content(self, transmission: Transmission) -> None:
        """All of it stands in the output, and nothing behind it."""
        transmission.content_state = CONTENT_ENDED
        end_bytes = self._handed_bytes
        for octets in self._output:
            end_bytes += len(octets)
        transmission.end_bytes = end_bytes

    def _on_end(self, current: Transmission, reader: ReplyReader) -> None:
        """The final reply; for LMTP one for each recipient that was taken, in their order (RFC 2033 4.2)."""
        if current.accepted:
            outcome = judge(reader, self.relay, True, (self.extensions.flags & _DSN) != 0)
            if self.rules.is_lmtp:
                current.decide(current.accepted[current.final_count], outcome)
                current.final_count += 1
                if current.final_count < len(current.accepted):
                    return
                current.needs_reset = False
            else:
                current.decide_rest(outcome)
                current.needs_reset = current.is_chunked and reader.code >= 400  # RFC 3030 2
        del self._expected[0]
        self._answerable -= 1
        self._finish(current)
        if self._is_ending:
            self._close(judge(reader, self.relay, False) if reader.code >= 400 else self._reason("next hop is shutting down"))

    def _finish(self, current: Transmission) -> None:
        """All replies to a transaction are in."""
        self.events.append(make_event(_DONE, current))
        self._current = self._next
        self._next = None
        if current.needs_reset and self._current is None:
            self._command(b"RSET\r\n", RSET)
        elif self._is_quitting:
            self._maybe_quit()

    def _on_rset(self, reader: ReplyReader) -> None:
        if reader.code >= 400:
            self._refuse(judge(reader, self.relay, False))
            return
        self.events.append(ClientEvent(ev.READY))
        self._maybe_quit()

    # --- ends --------------------------------------------------------------------------------------------------------

    def _command(self, octets: bytes, what: int) -> None:
        self._output.append(octets)
        self._expected.append(what)

    def _maybe_quit(self) -> None:
        if self._is_quitting and not self.is_closed and self._current is None and not self._expected:
            self._command(b"QUIT\r\n", QUIT)

    def _reason(self, text: str) -> Outcome:
        return Outcome(DEFERRED, 0, "4.5.0", text, self.relay)

    def _break(self, text: str) -> None:
        """The next hop is out of step: nothing that it says can be believed any more."""
        self._close(self._reason("protocol error of the next hop: " + text))

    def _close(self, reason: Outcome | None) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        self._output.clear()  # or a mail that is called deferred now might be taken
        self._is_handshaking = False
        self._encoder = None
        self._expected.clear()
        self._answerable = 0
        outcome = reason or self._reason("connection was closed")
        for transmission in (self._current, self._next):
            if transmission is not None:
                if transmission.has_turn:
                    transmission.decide_rest(outcome)
                else:  # the connection was at its end before; a new one may do
                    transmission.put_off_rest(outcome)
                self.events.append(ClientEvent(ev.DONE, transmission))
        self._current = self._next = None
        self.events.append(ClientEvent(ev.CLOSED, None, reason))
