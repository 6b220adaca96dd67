"""The answer of a check, or of the spool, to a session that asked: go on, or this reply instead."""

from __future__ import annotations

from smtpd.mail.reply import Reply


class Verdict:
    """`reply` None means: go on (at the end of data: accepted as `queue_id`).

    `reason` is a label of smtpd_rejections_total (closed list). `replies` is for LMTP's end of data: one for each accepted
    recipient in order, None where all share the verdict.
    """

    __slots__ = ("queue_id", "reason", "replies", "reply")

    def __init__(
        self,
        reply: Reply | None = None,
        reason: str = "other",
        queue_id: str = "",
        replies: list[Reply] | None = None,
    ) -> None:
        self.reply = reply
        self.reason = reason
        self.queue_id = queue_id
        self.replies = replies


GO_ON = Verdict()


def accept_as(queue_id: str) -> Verdict:
    """The verdict on a mail in custody."""
    verdict = Verdict.__new__(Verdict)
    verdict.reply = None
    verdict.reason = "other"
    verdict.queue_id = queue_id
    verdict.replies = None
    return verdict
