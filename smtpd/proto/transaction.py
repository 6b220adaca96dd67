"""One transaction: MAIL to the end of data. It is replaced by the next one, never cleared.

Owns the envelope in the making and the decoder of the content, and knows when the content breaks a limit. Sends nothing.
"""

from __future__ import annotations

from smtpd._parser import BodyDecoder
from smtpd.mail.envelope import Recipient
from smtpd.mail.reply import Reply
from smtpd.proto import replies
from smtpd.proto.params import MailParameters
from smtpd.proto.rules import Rules

NO_PARAMETERS = MailParameters()


class Transaction:
    """`failure` is the reply that the end of data will get whatever else comes; content is then only drained."""

    __slots__ = (
        "chunk_bytes", "chunk_owner", "decoder", "failure", "failure_reason", "is_chunked", "is_last_chunk", "is_reported",
        "parameters", "recipients", "reverse_path", "size_limit",
    )  # fmt: skip

    reverse_path: bytes
    parameters: MailParameters
    recipients: list[Recipient]
    decoder: BodyDecoder | None
    failure: Reply | None
    failure_reason: str
    is_reported: bool  # the driver was told BODY_BEGIN
    is_last_chunk: bool
    is_chunked: bool
    chunk_bytes: int
    size_limit: int  # of this transaction alone, 0 = that of the rules
    chunk_owner: tuple[Transaction | None, int] | None  # set: this one only swallows a chunk

    def fail(self, reply: Reply, reason: str) -> None:
        """Keep the first failure; from now on content is counted but not kept."""
        if self.failure is None:
            self.failure = reply
            self.failure_reason = reason
        if self.decoder is not None:
            self.decoder.is_keeping = False


def begin_transaction(reverse_path: bytes, parameters: MailParameters) -> Transaction:
    """Return a new one, without recipients."""
    transaction = Transaction.__new__(Transaction)
    transaction.reverse_path = reverse_path
    transaction.parameters = parameters
    transaction.recipients = []
    transaction.decoder = None
    transaction.failure = None
    transaction.failure_reason = "content"
    transaction.is_reported = False
    transaction.is_last_chunk = False
    transaction.is_chunked = False
    transaction.chunk_bytes = 0
    transaction.chunk_owner = None
    transaction.size_limit = 0
    return transaction


def check_content_limits(decoder: BodyDecoder, rules: Rules, size_limit: int = 0) -> tuple[Reply, str] | None:
    """Return the refusal (reply, reason) that the content so far has earned, or None. Called once for each piece."""
    if not size_limit:
        size_limit = rules.size_limit
    if size_limit and decoder.size_bytes > size_limit:
        return replies.TOO_BIG, "size"
    if decoder.received_count > rules.hop_limit and rules.hop_limit:
        return replies.TOO_MANY_HOPS, "content"
    if decoder.header_bytes > rules.header_limit and rules.header_limit:
        return replies.HEADER_TOO_BIG, "size"
    return None


def check_whole_content(decoder: BodyDecoder, rules: Rules) -> tuple[Reply, str] | None:
    """Return the refusal of content that is complete, or None."""
    if rules.is_bare_newline_refused and (decoder.bare_lf_count or decoder.bare_cr_count):
        return replies.BARE_NEWLINE, "content"
    if rules.line_limit and decoder.longest_line_bytes > rules.line_limit:
        return replies.TEXT_LINE_TOO_LONG, "content"
    return None
