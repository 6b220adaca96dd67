"""The part of a report that returns the original: whole as message/rfc822, or its header as text/rfc822-headers (RFC 6522 3, 4).

An 8-bit mail is returned as it is, with 8bit as encoding and BODY=8BITMIME on the report: RFC 2046 5.2.1 allows no other encoding
of message/rfc822, and hosts without 8BITMIME are few. A whole mail that is not made of CRLF lines of at most 998 octets can't be
sent on like that: then only its header is returned, in quoted-printable where it needs that. Pure, never raises.
"""

from __future__ import annotations

import binascii
from dataclasses import dataclass

HEAD_BYTES = 64 * 1024  # of a header that are returned
_LINE_BYTES = 998  # RFC 5322 2.1.1


@dataclass(frozen=True, slots=True)
class Original:
    """`data` is the stored mail from its first octet on: all of it, or at least the header when `is_whole` is not set."""

    data: bytes
    is_whole: bool


@dataclass(frozen=True, slots=True)
class Part:
    """One body part: `type` with its parameters, `encoding` 7bit, 8bit or quoted-printable, `data` encoded, CRLF at its end."""

    type: str
    encoding: str
    data: bytes
    description: str


def original_part(original: Original, wants_whole: bool, is_smtputf8: bool) -> Part:
    """Return the mail, or its header if that is not wanted or can't be sent as it is."""
    data = original.data
    head = head_of(data)
    is_global = is_smtputf8 and not head.isascii() and _is_utf8(head)
    if wants_whole and original.is_whole and _is_clean(data):
        kind = "message/global" if is_global else "message/rfc822"
        return Part(kind, "7bit" if data.isascii() else "8bit", data, "Undelivered Message")
    if _is_clean(head):
        if head.isascii():
            return Part("text/rfc822-headers", "7bit", head, "Undelivered Message Headers")
        if is_global:
            return Part("message/global-headers", "8bit", head, "Undelivered Message Headers")
    return Part("text/rfc822-headers", "quoted-printable", quoted_printable(head), "Undelivered Message Headers")


def head_of(data: bytes) -> bytes:
    """Return the header with the CRLF of its last field; of a longer one than HEAD_BYTES whole lines up to there."""
    end = data.find(b"\r\n\r\n", 0, HEAD_BYTES)
    if end < 0:
        end = data.rfind(b"\r\n", 0, HEAD_BYTES)
    return data[: end + 2] if end >= 0 else data[:HEAD_BYTES] + b"\r\n"


def _is_clean(data: bytes) -> bool:
    """Whether it can be a part as it is: CRLF lines of legal length, no NUL."""
    lines = data.split(b"\r\n")
    return (
        not lines[-1]
        and len(lines) - 1 == data.count(b"\r") == data.count(b"\n")
        and b"\0" not in data
        and max(map(len, lines)) <= _LINE_BYTES
    )


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def quoted_printable(data: bytes) -> bytes:
    """Encode CRLF lines (RFC 2045 6.7); a CR or LF alone is an octet like others."""
    return b"\r\n".join(binascii.b2a_qp(line, istext=False).replace(b"\n", b"\r\n") for line in data.split(b"\r\n"))
