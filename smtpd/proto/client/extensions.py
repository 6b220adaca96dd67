"""What a next hop offers: the reply to EHLO or LHLO (RFC 5321 4.1.1.1) as flags and limits. Never raises."""

from __future__ import annotations

PIPELINING = 1  # RFC 2920
SIZE = 2  # RFC 1870
EIGHT_BIT_MIME = 4  # RFC 6152
SMTPUTF8 = 8  # RFC 6531
DSN = 16  # RFC 3461
CHUNKING = 32  # RFC 3030
STARTTLS = 64  # RFC 3207
ENHANCED_STATUS_CODES = 128  # RFC 2034
LIMITS = 256  # RFC 9422

_FLAGS = {
    b"PIPELINING": PIPELINING,
    b"SIZE": SIZE,
    b"8BITMIME": EIGHT_BIT_MIME,
    b"SMTPUTF8": SMTPUTF8,
    b"DSN": DSN,
    b"CHUNKING": CHUNKING,
    b"STARTTLS": STARTTLS,
    b"ENHANCEDSTATUSCODES": ENHANCED_STATUS_CODES,
    b"LIMITS": LIMITS,
}
_DIGITS = 19  # of a number that is looked at


class Extensions:
    """`flags` are the constants above; of the limits, 0 means none: `size_limit` octets of a mail, `recipient_limit` RCPTs in a
    transaction, `mail_limit` MAILs in a session.
    """

    __slots__ = ("flags", "mail_limit", "recipient_limit", "size_limit")

    def __init__(self) -> None:
        self.flags = 0
        self.size_limit = 0
        self.recipient_limit = 0
        self.mail_limit = 0


def parse_extensions(lines: list[bytes]) -> Extensions:
    """Parse the lines of a 250 reply; the first has no keyword. What is unknown or malformed is not there."""
    extensions = Extensions()
    for line in lines[1:]:
        words = line.upper().split()
        flag = _FLAGS.get(words[0], 0) if words else 0
        extensions.flags |= flag
        if flag == SIZE and len(words) > 1:
            extensions.size_limit = _parse_limit(words[1])
        elif flag == LIMITS:
            for word in words[1:]:
                name, _, value = word.partition(b"=")
                if name == b"RCPTMAX":
                    extensions.recipient_limit = _parse_limit(value)
                elif name == b"MAILMAX":
                    extensions.mail_limit = _parse_limit(value)
    return extensions


def _parse_limit(text: bytes) -> int:
    return int(text) if text.isdigit() and len(text) <= _DIGITS else 0
