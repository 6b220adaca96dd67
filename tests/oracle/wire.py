"""Twins of `_wire`: whole replies and whole contents by regular expressions."""

from __future__ import annotations

import re

from oracle.body import CRLF, decode
from smtpd._wire import LINE_COUNT, LINE_LIMIT

_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ \t-])(.*))?", re.DOTALL)
_DSN = re.compile(rb"([245])\.[0-9]{1,3}\.[0-9]{1,3}(?=[ \t]|\Z)")

Reply = tuple[int, str, list[bytes]]


def read_replies(octets: bytes, limit_bytes: int = 65536) -> tuple[list[Reply], str]:
    """Return (code, dsn, lines) of each whole reply, and the error that ended them or ""."""
    replies: list[Reply] = []
    code = 0
    total = 0
    dsn = b""
    lines: list[bytes] = []
    *whole, unfinished = octets.split(b"\n")
    for number, line in enumerate([*whole, unfinished]):
        if len(line) >= LINE_LIMIT:
            return replies, "line is too long"
        if total + len(line) >= limit_bytes:
            return replies, "reply is too long"
        total += len(line) + 1
        if number == len(whole):
            break
        replied = _LINE.fullmatch(line.rstrip(b"\r \t"))
        if replied is None:
            return replies, "not a reply"
        if code and int(replied[1]) != code:
            return replies, "lines of one reply have different codes"
        if len(lines) == LINE_COUNT:
            return replies, "reply has too many lines"
        text = replied[3] or b""
        found = _DSN.match(text)
        own = found[0] if found and found[1] == replied[1][:1] else b""
        if not code:
            dsn = own
        code = int(replied[1])
        lines.append(text[len(own) :].lstrip(b" \t") if own and own == dsn else text)
        if replied[2] != b"-":
            replies.append((code, dsn.decode(), lines))
            code, total, lines = 0, 0, []
    return replies, ""


def encode(content: bytes, is_stuffing: bool) -> bytes:
    """The content as it leaves, without the final dot."""
    if content.endswith(b"\r"):
        content = content[:-1] + b" "
    content = decode(content)
    if content and not content.endswith(CRLF):
        content += CRLF
    return re.sub(rb"(\A|\r\n)\.", rb"\1..", content) if is_stuffing else content
