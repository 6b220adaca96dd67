"""The answer of a check, or of the spool, to a session that asked: go on, this reply instead, or go on with changes."""

from __future__ import annotations

from smtpd.mail.changes import Change
from smtpd.mail.reply import Reply

# What a verdict without a refusal means for the checks that come after it.
ASK_ON = 0
END_STAGE = 1  # none of this stage (at rcpt: none for this recipient)
END_ALL = 2  # none of this stage and of later ones: from connect and helo of the session, else of the transaction


class Verdict:
    """`reply` None means: go on (at the end of data: accepted as `queue_id`).

    `reason` is a label of smtpd_rejections_total (closed list). `replies` is for LMTP's end of data: one for each accepted
    recipient in order, None where all share the verdict. Of checks: `changes` are carried out in order once the content is
    there, before the checks of stage body (those of connect and helo for each mail of the session; a recipient that is refused
    leaves none); `ending` is one of the
    numbers above; `note` goes to the log.
    """

    __slots__ = ("changes", "ending", "note", "queue_id", "reason", "replies", "reply")

    def __init__(
        self,
        reply: Reply | None = None,
        reason: str = "other",
        queue_id: str = "",
        replies: list[Reply] | None = None,
        *,
        changes: tuple[Change, ...] = (),
        ending: int = ASK_ON,
        note: str = "",
    ) -> None:
        self.reply = reply
        self.reason = reason
        self.queue_id = queue_id
        self.replies = replies
        self.changes = changes
        self.ending = ending
        self.note = note


GO_ON = Verdict()
_NO_CHANGES: tuple[Change, ...] = ()


def accept_as(queue_id: str) -> Verdict:
    """The verdict on a mail in custody."""
    verdict = Verdict.__new__(Verdict)
    verdict.reply = None
    verdict.reason = "other"
    verdict.queue_id = queue_id
    verdict.replies = None
    verdict.changes = _NO_CHANGES
    verdict.ending = 0
    verdict.note = ""
    return verdict
