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
from smtpd.proto.commands import HANDLERS, judge_helo, judge_mail, judge_rcpt, on_mail, on_rcpt
from smtpd.proto.conduct import STAGES, hold, judge_step, maybe_cut, meet, take_step
from smtpd.proto.content import begin_chunk, finish_body, judge_content, on_data, settle_content, start_data, take_content
from smtpd.proto.dialogue import Dialogue, Peer
from smtpd.proto.events import Event
from smtpd.proto.policy import SessionPolicy, judge_session, refuse_connection
from smtpd.proto.rules import Rules
from smtpd.proto.states import PAUSED_BODY, PAUSED_DELAY, PAUSED_HOLD, PAUSED_MAIL, PAUSED_NOT, PAUSED_POLICY, PAUSED_STEP

COMMANDS_PER_TURN = 200  # after so many commands `receive` returns early, so that one client can't hold the loop
_CHECKED_FLAGS = p.LINE_TOO_LONG | p.LINE_NUL | p.LINE_BARE_CR | p.LINE_CONTROL | p.LINE_BARE_LF
_SYNCHRONIZING = frozenset({p.VERB_HELO, p.VERB_EHLO, p.VERB_LHLO, p.VERB_DATA, p.VERB_STARTTLS})
_JUNK = {p.VERB_NONE, p.VERB_OTHER, p.VERB_RSET, p.VERB_NOOP, p.VERB_VRFY, p.VERB_AUTH, p.VERB_ETRN, p.VERB_EXPN}
# The same in C variables of the module (session.pxd): a look-up of a module's attribute costs more than the rest of a command.
_IS_JUNK = sum(1 << verb for verb in _JUNK)
_BDAT, _MAIL, _RCPT, _DATA = p.VERB_BDAT, p.VERB_MAIL, p.VERB_RCPT, p.VERB_DATA
_VERB_COUNT = p.VERB_COUNT
_COMMANDS_PER_TURN = COMMANDS_PER_TURN
_CONTENT = states.CONTENT
_RCPT_STATE = states.RCPT
_CLOSED = states.CLOSED
_PAUSED_NOT, _PAUSED_BODY, _PAUSED_DELAY = PAUSED_NOT, PAUSED_BODY, PAUSED_DELAY
_PAUSED_STEP = PAUSED_STEP  # and what comes after it


def make_session(rules: Rules, peer: Peer) -> Session:
    """The same as Session(...), quicker."""
    session = Session.__new__(Session)
    session._begin(rules, peer)
    session._reader = CommandReader(rules.command_limit)
    return session


class Session(Dialogue):
    """The server's role. See the module's head, and `Dialogue` for what it keeps."""

    __slots__ = ("_reader",)

    def __init__(self, rules: Rules, peer: Peer) -> None:
        self._begin(rules, peer)
        self._reader = CommandReader(rules.command_limit)

    # --- the driver's side -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Greet, unless the conduct has other ideas."""
        if self.conduct is None:
            if self.policy is None:
                self._greet()
            else:
                self._ask_at_connect()
            return
        if not meet(self, ev.STAGE_CONNECT, p.VERB_NONE, b""):
            self._greet()
        hold(self)

    def restart(self, rules: Rules, peer: Peer, policy: SessionPolicy | None) -> None:
        """Begin anew with another client on the same connection (XCLIENT): nothing said before holds, greet again."""
        self.reset()
        self.rules = rules
        self.peer = peer
        self.policy = policy
        self.state = states.CONNECTED
        self.helo = b""
        self.is_extended = False
        self.start()

    def _ask_at_connect(self) -> None:
        refusal = judge_session(self, ev.STAGE_CONNECT, p.VERB_NONE)
        if refusal is not None:
            refuse_connection(self, refusal)
        elif not self.paused:
            self._greet()

    def _greet(self) -> None:
        self.put(self.rules.greeting)
        self.tally.add(-220)

    def receive(self, data: bytearray, start: int, end: int) -> int:
        """Take data[start:end] as far as the session's state lets it; return the position after the last octet taken."""
        position = start
        reader = self._reader
        budget = _COMMANDS_PER_TURN
        while position < end and not self.paused:
            if self.state == _CONTENT:
                position = take_content(self, data, position, end)
                continue
            if self.state == _CLOSED:
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
        octets = self.output
        if octets is None or self.paused == _PAUSED_DELAY:
            return b""
        self.output = None
        if self.more_output:
            octets += b"".join(self.more_output)
            self.more_output.clear()
        return octets

    def next_event(self) -> Event | None:
        """Return the oldest event that was not handed out yet."""
        events = self.events
        return events.pop(0) if events else None

    @property
    def has_events(self) -> bool:
        return bool(self.events)

    def is_waiting_for_line(self) -> bool:
        """A command has begun to arrive and is not complete."""
        return self._reader.has_partial

    def resume(self, token: int, verdict: Verdict | None = None) -> None:
        """Go on after ASK, BODY_END or DELAY. An answer whose token isn't the awaited one is ignored."""
        if token != self.token or not self.paused:
            return
        what = self.paused
        self.paused = _PAUSED_NOT
        pending = self.pending
        self.pending = None
        if what == PAUSED_POLICY:
            assert isinstance(pending, tuple) and verdict is not None
            self._resume_policy(*pending, verdict)  # type: ignore[call-arg]
            return
        if what >= _PAUSED_STEP:
            self._resume_step(what, pending, verdict)
            return
        if what == _PAUSED_DELAY:
            if self.is_draining and self.is_between_transactions:
                self.abort(replies.SHUTTING_DOWN, "shutdown")
            return
        assert verdict is not None
        if what == _PAUSED_BODY:
            finish_body(self, verdict)
            if self.step is not None:
                hold(self)
        elif what == PAUSED_MAIL:
            self.answer(p.VERB_MAIL, judge_mail(self, verdict))
        elif isinstance(pending, Recipient):
            self.answer(p.VERB_RCPT, judge_rcpt(self, verdict, pending))

    def drain(self) -> None:
        """Finish the transaction, then 421; at once when there is none."""
        self.is_draining = True
        if self.is_between_transactions or (self.paused >= _PAUSED_STEP and self.state <= states.GREETED):
            self.abort(replies.SHUTTING_DOWN, "shutdown")

    # --- lines ----------------------------------------------------------------------------------------------------

    def _handle_command(self, reader: CommandReader, has_more: bool) -> None:
        verb = reader.verb
        if reader.flags & _CHECKED_FLAGS:
            refusal = self._check_octets(reader.flags)
            if refusal is not None:
                if verb == _BDAT:  # its chunk follows and can't be told from commands any more
                    refusal = replies.BAD_CHUNK_SIZE
                if not self.count_junk():
                    self.answer(p.VERB_OTHER, refusal)
                return
        if verb == _BDAT:
            if self.conduct is not None and self.state == _RCPT_STATE:
                self._conduct_command(verb, reader)
            elif self.policy is not None and self.state == _RCPT_STATE:
                refused = judge_session(self, ev.STAGE_DATA, verb)
                if not self.paused:
                    self.answer(verb, begin_chunk(self, reader.argument, refused))
            else:
                self.answer(verb, begin_chunk(self, reader.argument, None))
            return
        refusal = self.rules.refusals[self.state * _VERB_COUNT + verb]
        if refusal is not None:
            self.answer(verb, refusal)
            return
        if has_more and verb in _SYNCHRONIZING:  # RFC 2920 3.1, RFC 3207: its reply must be seen first
            self.violation("pipelining")
            self.answer(verb, replies.PIPELINING_REFUSED)
            return
        if _IS_JUNK >> verb & 1 and self.count_junk():
            return
        if self.conduct is not None:
            self._conduct_command(verb, reader)
            return
        self._run_command(verb, reader)

    def _run_command(self, verb: int, reader: CommandReader) -> None:
        if verb == _MAIL:
            self.answer(verb, on_mail(self, reader))
        elif verb == _RCPT:
            self.answer(verb, on_rcpt(self, reader))
        elif verb == _DATA:
            self.answer(verb, on_data(self, reader))
        else:
            self.answer(verb, HANDLERS[verb](self, reader))

    # --- under a conduct ----------------------------------------------------------------------------------------------

    def _conduct_command(self, verb: int, reader: CommandReader) -> None:
        if meet(self, STAGES[verb], verb, reader.argument):
            hold(self)
        else:
            self._follow_step(verb, reader)

    def _follow_step(self, verb: int, reader: CommandReader) -> None:
        """The step lets the command be carried out, now."""
        if verb == _BDAT:
            self.answer(verb, begin_chunk(self, reader.argument, None if self.step is None else self.step.reply))
        else:
            self._run_command(verb, reader)
        hold(self)

    def _resume_step(self, what: int, place: object, verdict: Verdict | None) -> None:
        """The time of a step has passed, or its verdict is there; the command is still the reader's last one."""
        if what == PAUSED_HOLD:
            if not maybe_cut(self, 0) and self.is_draining and self.is_between_transactions:
                self.abort(replies.SHUTTING_DOWN, "shutdown")
            return
        assert isinstance(place, tuple)
        stage, verb = place
        judge_step(self, verdict)
        if take_step(self, stage, verb):
            hold(self)
        elif stage == ev.STAGE_CONNECT:
            self._greet()
            hold(self)
        elif stage == ev.STAGE_BODY:
            assert self.transaction is not None
            settle_content(self, self.transaction)
            hold(self)
        else:
            self._follow_step(verb, self._reader)

    def _resume_policy(self, stage: str, verb: int, previous_helo: bytes, verdict: Verdict) -> None:
        """The verdict that a stage has waited for; the command is still the reader's last one."""
        if stage == ev.STAGE_HELO:
            self.answer(verb, judge_helo(self, verdict, verb, previous_helo))
            return
        transaction = self.transaction
        if stage == ev.STAGE_BODY:
            assert transaction is not None
            judge_content(self, transaction, verdict)
            settle_content(self, transaction)
            return
        refusal = None if verdict.reply is None else self.reject(stage, verdict.reply, verdict.reason)
        if stage == ev.STAGE_CONNECT:
            if refusal is not None:
                refuse_connection(self, refusal)
            else:
                self._greet()
        elif verb == _BDAT:
            self.answer(verb, begin_chunk(self, self._reader.argument, refusal))
        else:
            assert transaction is not None
            self.answer(verb, refusal or start_data(self, transaction))

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
