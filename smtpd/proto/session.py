"""The server session of RFC 5321 (LMTP: RFC 2033), without socket, clock or log: octets in, replies and events out.

`receive` takes octets until they are used up or the session pauses; `take_output` hands out the replies of the turn,
`next_event` what the driver has to do. Pausing is one mechanism: BODY_END, ASK and DELAY each carry a token, and only
`resume` with that token goes on, so late or double answers are harmless. Order rules are in `states.py`, texts in
`replies.py`, limits in `rules.py`. Handlers return the reply; `answer` is the one place that sends and counts it.

Kept plain (no enum, generator or closure on the way of a mail) so that it can be compiled as it stands.
"""

from __future__ import annotations

from smtpd import _parser as p
from smtpd._parser import CommandReader
from smtpd.mail.envelope import Recipient
from smtpd.mail.reply import Reply
from smtpd.mail.verdict import Verdict
from smtpd.proto import events as ev
from smtpd.proto import replies, states
from smtpd.proto.commands import HANDLERS, judge_mail, judge_rcpt
from smtpd.proto.content import begin_chunk, finish_body, take_content
from smtpd.proto.events import Event
from smtpd.proto.rules import Rules
from smtpd.proto.states import PAUSED_BODY, PAUSED_DELAY, PAUSED_MAIL, PAUSED_NOT
from smtpd.proto.transaction import Transaction

COMMANDS_PER_TURN = 200  # after so many commands `receive` returns early, so that one client can't hold the loop
_REFUSED_FLAGS = p.LINE_TOO_LONG | p.LINE_NUL | p.LINE_BARE_CR | p.LINE_CONTROL
_NEWLINE = p.LINE_BARE_LF
_SYNCHRONIZING = frozenset({p.VERB_HELO, p.VERB_EHLO, p.VERB_LHLO, p.VERB_DATA, p.VERB_STARTTLS})
_JUNK = frozenset({p.VERB_NONE, p.VERB_OTHER, p.VERB_RSET, p.VERB_NOOP, p.VERB_VRFY, p.VERB_AUTH, p.VERB_ETRN, p.VERB_EXPN})


class Peer:
    """Who is at the other end, as the driver knows it. `name` is "unknown" without a verified one."""

    __slots__ = ("address", "name", "port")

    def __init__(self, address: str, port: int = 0, name: str = "unknown") -> None:
        self.address = address
        self.port = port
        self.name = name


class Session:
    """`tally` collects verb * 1000 + reply code of each command for the driver, who takes and empties it.

    The list of verbs is `_parser.VERB_NAMES`; code 354 and the reply after it are both counted with DATA.
    """

    __slots__ = (
        "_reader",
        "error_count",
        "events",
        "helo",
        "is_draining",
        "is_extended",
        "is_tls",
        "junk_count",
        "mail_count",
        "output",
        "paused",
        "peer",
        "pending",
        "rules",
        "state",
        "tally",
        "token",
        "transaction",
    )  # fmt: skip

    def __init__(self, rules: Rules, peer: Peer) -> None:
        self.rules = rules
        self.peer = peer
        self.state = states.CONNECTED
        self.paused = PAUSED_NOT
        self.helo = b""
        self.is_extended = False
        self.is_tls = False
        self.is_draining = False
        self.transaction: Transaction | None = None
        self.tally: list[int] = []
        self._reader = CommandReader(rules.command_limit)
        self.output: list[bytes] = []
        self.events: list[Event] = []
        self.token = 0
        self.pending: Recipient | Reply | None = None
        self.error_count = 0
        self.junk_count = 0
        self.mail_count = 0

    # --- the driver's side -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Greet."""
        self.output.append(self.rules.greeting)

    def receive(self, data: bytearray, start: int, end: int) -> int:
        """Take data[start:end] as far as the session's state lets it; return the position after the last octet taken."""
        position = start
        reader = self._reader
        budget = COMMANDS_PER_TURN
        while position < end and not self.paused:
            if self.state == states.CONTENT:
                position = take_content(self, data, position, end)
                continue
            if self.state == states.CLOSED:
                return end
            if not budget:
                break
            budget -= 1
            position = reader.read(data, position, end)
            if reader.is_complete:
                self._handle_command(reader, position < end)
        return position

    def take_output(self) -> bytes:
        """Return what is to be sent now: all replies since the last call."""
        output = self.output
        if not output:
            return b""
        if self.paused == PAUSED_DELAY:
            return b""
        octets = output[0] if len(output) == 1 else b"".join(output)
        output.clear()
        return octets

    def next_event(self) -> Event | None:
        """Return the oldest event that was not handed out yet."""
        events = self.events
        return events.pop(0) if events else None

    @property
    def has_events(self) -> bool:
        return bool(self.events)

    @property
    def is_waiting_for_line(self) -> bool:
        """A command has begun to arrive and is not complete."""
        return self._reader.has_partial

    @property
    def is_between_transactions(self) -> bool:
        return self.state <= states.GREETED and not self.paused

    def resume(self, token: int, verdict: Verdict | None = None) -> None:
        """Go on after ASK, BODY_END or DELAY. An answer whose token isn't the awaited one is ignored."""
        if token != self.token or not self.paused:
            return
        what = self.paused
        self.paused = PAUSED_NOT
        pending = self.pending
        self.pending = None
        if what == PAUSED_DELAY:
            return
        assert verdict is not None
        if what == PAUSED_BODY:
            finish_body(self, verdict)
        elif what == PAUSED_MAIL:
            self.answer(p.VERB_MAIL, judge_mail(self, verdict))
        elif isinstance(pending, Recipient):
            self.answer(p.VERB_RCPT, judge_rcpt(self, verdict, pending))

    def abort(self, reply: Reply | None, reason: str) -> None:
        """End the session from outside: a timer (`reply` says so) or a peer that is gone (None)."""
        if self.state == states.CLOSED:
            return
        self.drop_body()
        self.paused = PAUSED_NOT
        self.token += 1
        if reply is not None:
            self.output.append(reply.wire)
            self.tally.append(p.VERB_NONE * 1000 + reply.code)
        self.close(reason)

    def drain(self) -> None:
        """Finish the transaction, then 421; at once when there is none."""
        self.is_draining = True
        if self.is_between_transactions:
            self.abort(replies.SHUTTING_DOWN, "shutdown")

    # --- one place that sends and counts -----------------------------------------------------------------------------

    def answer(self, verb: int, reply: Reply | None) -> None:
        """Queue the reply and count it; None: a later `resume` answers."""
        if reply is None:
            return
        self.output.append(reply.wire)
        self.tally.append(verb * 1000 + reply.code)
        if reply.is_error:
            self._count_error(reply)
        if reply.closes:
            self.drop_body()
            self.close("quit" if verb == p.VERB_QUIT else "too_many_errors")
        elif self.is_draining and self.is_between_transactions:
            self.abort(replies.SHUTTING_DOWN, "shutdown")
        elif self.error_count >= self.rules.soft_errors > 0:
            self._check_errors()

    def _count_error(self, reply: Reply) -> None:
        if reply is not replies.SPOOL_FAILED and reply is not replies.SPOOL_FULL:  # not the client's doing
            self.error_count += 1

    def _check_errors(self) -> None:
        if self.state == states.CLOSED or self.paused:
            return
        hard = self.rules.hard_errors
        if hard and self.error_count >= hard:
            self.abort(replies.TOO_MANY_ERRORS, "too_many_errors")
            return
        self.token += 1
        self.paused = PAUSED_DELAY
        self.events.append(Event(ev.DELAY, None, self.token))

    def count_junk(self) -> bool:
        """Count a command that moves no mail; True when that was one too many and the session is over."""
        self.junk_count += 1
        if self.rules.junk_limit and self.junk_count > self.rules.junk_limit:
            self.abort(replies.TOO_MUCH_JUNK, "too_many_errors")
            return True
        return False

    def close(self, reason: str) -> None:
        self.state = states.CLOSED
        self.transaction = None
        self.events.append(Event(ev.CLOSE, reason))

    def violation(self, kind: str) -> None:
        self.events.append(Event(ev.VIOLATION, kind))

    def reject(self, stage: str, reply: Reply, reason: str, recipient: bytes | None = None) -> Reply:
        self.events.append(Event(ev.REJECT, (reply, reason, recipient), 0, stage))
        return reply

    def drop_body(self) -> None:
        """Tell the driver that what it has of the body is void."""
        transaction = self.transaction
        if transaction is not None and transaction.is_reported:
            transaction.is_reported = False
            self.events.append(Event(ev.BODY_ABORT))

    def reset(self) -> None:
        """Leave the transaction; a new MAIL makes a new one."""
        self.drop_body()
        self.transaction = None
        if self.state != states.CONNECTED:
            self.state = states.GREETED

    # --- lines ----------------------------------------------------------------------------------------------------

    def _handle_command(self, reader: CommandReader, has_more: bool) -> None:
        verb = reader.verb
        if reader.flags & (_REFUSED_FLAGS | _NEWLINE):
            refusal = self._check_octets(reader.flags)
            if refusal is not None:
                if not self.count_junk():
                    self.answer(p.VERB_OTHER, refusal)
                return
        if verb == p.VERB_BDAT:
            self.answer(verb, begin_chunk(self, reader.argument))
            return
        refusal = states.refusal(self.state, verb, self.rules.is_lmtp)
        if refusal is not None:
            self.answer(verb, refusal)
            return
        if has_more and verb in _SYNCHRONIZING:  # RFC 2920 3.1, RFC 3207: its reply must be seen first
            self.violation("pipelining")
            self.answer(verb, replies.PIPELINING_REFUSED)
            return
        if verb in _JUNK and self.count_junk():
            return
        self.answer(verb, HANDLERS[verb](self, reader))

    def _check_octets(self, flags: int) -> Reply | None:
        """Report and refuse a line by what it is made of."""
        if flags & p.LINE_TOO_LONG:
            self.violation("line_too_long")
            return replies.LINE_TOO_LONG
        if flags & p.LINE_NUL:
            self.violation("nul")
            return replies.BAD_OCTETS
        if flags & p.LINE_BARE_CR:
            self.violation("bare_cr")
            return replies.BAD_OCTETS
        if flags & p.LINE_CONTROL:
            return replies.BAD_OCTETS
        self.violation("bare_lf")
        return replies.BARE_LF_COMMAND if self.rules.is_bare_newline_refused else None
