"""The answer of a check, or of the spool, to a paused session: go on, or this reply instead."""

from __future__ import annotations


class Verdict:
    """`reply` is the full reply line(s) without CRLF (b"550 5.7.1 Relay access denied"), or b"" to go on.

    `reason` is a label of smtpd_rejections_total (closed list). `closes` ends the connection after the reply. For the
    body stage of an accepted mail, `reply` b"" becomes the catalogue's 250 with `queue_id`.
    """

    __slots__ = ("closes", "queue_id", "reason", "reply", "replies")

    def __init__(
        self,
        reply: bytes = b"",
        reason: str = "other",
        closes: bool = False,
        queue_id: str = "",
        replies: list[bytes] | None = None,
    ) -> None:
        self.reply = reply
        self.reason = reason
        self.closes = closes
        self.queue_id = queue_id
        self.replies = replies  # LMTP end of data: one for each recipient, in order

    @property
    def is_ok(self) -> bool:
        return not self.reply


OK = Verdict()
