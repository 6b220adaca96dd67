"""How a session may be made to behave at each stage: go on, wait, answer otherwise, end the connection, cut content short.

A session whose `conduct` is set asks it at every stage: before the greeting, before each command that may come now (with its
argument), and when the content of a mail is whole. The answer is a Step, or None to go on. Waiting is the session's one
mechanism: it pauses with a token and the driver is told (DELAY with seconds, or ASK for a step that is LATER). Checks that have
to ask somebody and sinks that play a bad server use the same stages. A session without a conduct pays one comparison for each.

Owns no state but that of the step under way, which is `session.step`. No clock and no chance in here: who conducts has them.
"""

from __future__ import annotations

from typing import Protocol

from smtpd import _parser as p
from smtpd.mail.reply import Reply
from smtpd.mail.verdict import Verdict
from smtpd.proto import events as ev
from smtpd.proto import states
from smtpd.proto.dialogue import Dialogue
from smtpd.proto.events import Event
from smtpd.proto.states import PAUSED_HOLD, PAUSED_STEP

# How a step ends the connection, after its reply if it has one.
STAY = 0
CLOSE = 1  # in order: what was said still arrives
RESET = 2  # by a TCP reset

REASON = "conduct"  # label of smtpd_sessions_ended_total

# The stage of each verb, as smtpd_rejections_total knows stages; "" for those that have none there.
STAGES = [""] * p.VERB_COUNT
STAGES[p.VERB_HELO] = STAGES[p.VERB_EHLO] = STAGES[p.VERB_LHLO] = ev.STAGE_HELO
STAGES[p.VERB_MAIL] = ev.STAGE_MAIL
STAGES[p.VERB_RCPT] = ev.STAGE_RCPT
STAGES[p.VERB_DATA] = STAGES[p.VERB_BDAT] = ev.STAGE_DATA


class Step:
    """What to do at a stage. Times are seconds, counts octets.

    `delay_s`: wait before anything is said. `reply`: this instead of what the command would get, which is not carried out then
    (421 always ends the connection). `ending`: STAY, CLOSE or RESET after the reply, or without a word when there is none.
    `hold_s`: having answered, read nothing for so long. `cut`: the step that ends the content once `cut_bytes` of it have come,
    0 = at once after `hold_s`; for DATA and BDAT only. `reason`: label of smtpd_rejections_total.
    """

    __slots__ = ("cut", "cut_bytes", "delay_s", "ending", "hold_s", "reason", "reply")

    def __init__(
        self,
        reply: Reply | None = None,
        ending: int = STAY,
        *,
        delay_s: float = 0.0,
        hold_s: float = 0.0,
        cut: Step | None = None,
        cut_bytes: int = 0,
        reason: str = "other",
    ) -> None:
        if reply is not None and not reply.closes and (ending or reply.code == 421):
            reply = Reply(reply.text, closes=True)
        self.reply = reply
        self.ending = ending
        self.delay_s = delay_s
        self.hold_s = hold_s
        self.cut = cut
        self.cut_bytes = cut_bytes
        self.reason = reason


LATER = Step()  # the driver is asked (ASK) and answers by `resume(token, verdict)`


class Conduct(Protocol):
    """Asked by one session, in its order of events."""

    def at_stage(self, session: Dialogue, stage: str, verb: int, argument: bytes) -> Step | None:
        """The step to take, None to go on. `stage` as in `events`, "" for commands of no stage; `argument` as it was sent."""
        ...

    def begin_body(self, writer: object) -> None:
        """A body begins to arrive in the spool's `writer`; not called where the spool keeps nothing."""
        ...

    def end(self) -> None:
        """The connection is closed; last call."""
        ...


def meet(session: Dialogue, stage: str, verb: int, argument: bytes) -> bool:
    """Ask the session's conduct; True when the command (or greeting, or end of content) must not go on now."""
    conduct = session.conduct
    assert conduct is not None
    step = conduct.at_stage(session, stage, verb, argument)
    session.step = step
    if step is None:
        return False
    if step is LATER:
        _pause(session, PAUSED_STEP, Event(ev.ASK, argument, session.token + 1, stage))
    elif step.delay_s > 0.0:
        _pause(session, PAUSED_STEP, Event(ev.DELAY, step.delay_s, session.token + 1, stage))
    else:
        return take_step(session, stage, verb)
    session.pending = (stage, verb)
    return True


def judge_step(session: Dialogue, verdict: Verdict | None) -> None:
    """The answer that a step which is LATER has waited for becomes the step; None: only its time had to pass."""
    if verdict is not None:
        session.step = None if verdict.reply is None else Step(verdict.reply, reason=verdict.reason)


def take_step(session: Dialogue, stage: str, verb: int) -> bool:
    """Do what the step says at once; True when the command is done with by that."""
    step = session.step
    if step is None or (step.reply is None and not step.ending):
        return False
    if step.ending == RESET:
        session.events.append(Event(ev.RESET))
    reply = step.reply
    if reply is None:
        session.drop_body()
        session.close(REASON)
    elif stage == ev.STAGE_BODY:
        assert session.transaction is not None
        session.transaction.fail(reply, step.reason)
        session.drop_body()
        return False  # the end of content is answered where all failures are
    elif stage == ev.STAGE_CONNECT:
        reply = session.reject(stage, reply, step.reason)
        session.put(reply.wire)
        session.tally.add(-reply.code)
        if reply.closes:
            session.close(REASON)
    else:
        if stage:
            reply = session.reject(stage, reply, step.reason)
        if verb == p.VERB_BDAT and not reply.closes:
            return False  # its chunk has to be swallowed: `content.begin_chunk` gives the reply
        session.answer(verb, reply)
    return True


def hold(session: Dialogue) -> None:
    """The command was answered: read on later, if the step says so."""
    step = session.step
    if step is None or session.paused or session.state == states.CLOSED:
        return
    if step.hold_s > 0.0:
        _pause(session, PAUSED_HOLD, Event(ev.DELAY, step.hold_s, session.token + 1))
    else:
        maybe_cut(session, 0)


def maybe_cut(session: Dialogue, raw_bytes: int) -> bool:
    """End the content of which `raw_bytes` have come, if it is time; True when that was the end."""
    step = session.step
    if step is None or step.cut is None or session.state != states.CONTENT or raw_bytes < step.cut_bytes:
        return False
    session.step = cut = step.cut
    if cut.ending == RESET:
        session.events.append(Event(ev.RESET))
    session.drop_body()
    if cut.reply is not None:
        session.put(cut.reply.wire)
        session.tally.add(-cut.reply.code)
    session.close(REASON)
    return True


def _pause(session: Dialogue, what: int, event: Event) -> None:
    session.token += 1
    session.paused = what
    session.events.append(event)
