"""Where a session asks its policy: before the greeting, at HELO, MAIL, RCPT, DATA, and when a mail's content is whole.

The policy, if a session has one, is the driver's (`smtpd.policy.inspection`); the session sees the face below. It is asked when
the command is in order and its syntax is right, after the checks of the rules. What it can't answer from memory it answers later:
the session pauses, the driver is told by ASK, and `resume` brings the verdict. Never decides anything itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from smtpd.mail.envelope import Recipient
from smtpd.mail.reply import Reply
from smtpd.mail.verdict import Verdict
from smtpd.proto import events as ev
from smtpd.proto import states
from smtpd.proto.events import Event

if TYPE_CHECKING:
    from smtpd.proto.dialogue import Dialogue


class SessionPolicy(Protocol):
    """Asked by one session, in its order of events."""

    def judge(self, session: Dialogue, stage: str, recipient: Recipient | None = None) -> Verdict | None:
        """The verdict, or None: it comes by `resume`. At helo `session.helo` is the new name already."""
        ...

    def end_transaction(self) -> None:
        """The transaction is over, however it ended."""
        ...


def judge_session(session: Dialogue, stage: str, verb: int) -> Reply | None:
    """Ask about the session as it stands: the refusal, if there is one. When the session is paused then, `resume` goes on."""
    assert session.policy is not None
    verdict = session.policy.judge(session, stage)
    if verdict is None:
        pause(session, stage, verb)
        return None
    return None if verdict.reply is None else session.reject(stage, verdict.reply, verdict.reason)


def pause(session: Dialogue, stage: str, verb: int, previous_helo: bytes = b"") -> None:
    """Wait for the verdict of a stage; `previous_helo` comes back when a new one is refused."""
    session.token += 1
    session.paused = states.PAUSED_POLICY
    session.pending = (stage, verb, previous_helo)
    session.events.append(Event(ev.ASK, None, session.token, stage))


def refuse_connection(session: Dialogue, reply: Reply) -> None:
    """A refusal instead of the greeting. After 554 the client may still say QUIT, and gets 503 for all else (RFC 5321 3.1); 421
    and 521 end the connection."""
    reply = _as_greeting(reply)
    session.put(reply.wire)
    session.tally.add(-reply.code)
    if reply.closes:
        session.close("policy")
    else:
        session.state = states.REFUSED


def _as_greeting(reply: Reply) -> Reply:
    """RFC 5321 4.2 and 4.3.2, RFC 7504: 421, 521 and 554 are what a connection may be refused with."""
    code = reply.code if reply.code in (421, 521, 554) else 554 if reply.code >= 500 else 421
    text = b"\r\n".join(b"%d" % code + line[3:] for line in reply.text.split(b"\r\n"))
    return Reply(text, closes=code != 554)
