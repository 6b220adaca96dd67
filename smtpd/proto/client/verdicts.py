"""A next hop's reply as an outcome. Its text is decoded and bounded here, and escaped where it is shown."""

from __future__ import annotations

from smtpd._wire import ReplyReader
from smtpd.mail.outcome import DEFERRED, DELIVERED, UNDELIVERABLE, Outcome

TEXT_LENGTH = 1000  # characters of a reply that are kept
_TEXT_LENGTH = TEXT_LENGTH  # in a C variable of the module
CLASS_DSN = ("", "", "2.0.0", "", "4.0.0", "5.0.0")  # by first digit; for a reply without an enhanced status code (RFC 3463)


def text_of(reply: ReplyReader) -> str:
    """The reply's text without code and enhanced status code, its lines joined by a space."""
    lines = reply.lines
    octets = lines[0] if len(lines) == 1 else b" ".join(lines)
    if len(octets) <= _TEXT_LENGTH and octets.isascii():
        return octets.decode("ascii")
    return octets[: 4 * TEXT_LENGTH].decode("utf-8", "backslashreplace")[:TEXT_LENGTH]


def is_too_many(reply: ReplyReader) -> bool:
    """Too many recipients or mails for this transaction or connection, others may do (RFC 5321 4.5.3.1.10, also the old 552)."""
    return reply.dsn[1:] == ".5.3" or (reply.code in (452, 552) and not reply.dsn)


def judge(reply: ReplyReader, relay: str, believes: bool, passes_dsn: bool = False) -> Outcome:
    """The outcome that a reply means: 2xx delivered, 4xx deferred, 5xx undeliverable, or deferred too unless `believes`."""
    code = reply.code
    dsn = reply.dsn or CLASS_DSN[code // 100]
    if code < 300:
        return Outcome(DELIVERED, code, dsn, text_of(reply), relay, 0, 0.0, passes_dsn)
    if code >= 500 and believes:
        return Outcome(UNDELIVERABLE, code, dsn, text_of(reply), relay)
    return Outcome(DEFERRED, code, "4" + dsn[1:] if dsn else "4.5.0", text_of(reply), relay)
