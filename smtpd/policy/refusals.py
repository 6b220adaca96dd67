"""Replies that checks give: whether they may go on the wire, and how one is made from text that came from elsewhere.

A check may pass on what a filter or a file said, so its reply is looked at before it leaves: a refusal, well-formed, printable.
"""

from __future__ import annotations

import re

from smtpd.mail.reply import Reply

MAX_BYTES = 4096
_LINE = re.compile(rb"[45][0-9][0-9](?:[ -][\x20-\x7e]*)?")
_STATUS = re.compile(rb"[245]\.[0-9]{1,3}\.[0-9]{1,3}(?: |$)")


def check_reply(reply: Reply) -> str:
    """Say why a check may not give this reply, "" if it may."""
    text = reply.text
    if not 400 <= reply.code < 600:
        return f"its reply is no refusal: {reply.code}"
    if len(text) > MAX_BYTES:
        return "its reply is too long"
    lines = text.split(b"\r\n")
    code = text[:3]
    for number, line in enumerate(lines):
        if _LINE.fullmatch(line) is None or line[:3] != code:
            return "its reply is malformed"
        if (line[3:4] == b"-") != (number < len(lines) - 1):
            return "its reply is malformed"
    return ""


def make_refusal(text: str, default_code: int = 550) -> Reply:
    """A reply from words of a file or a filter: "550 5.7.1 text", "450 text", or only text. What can't stand on the wire becomes
    "?"; a missing status code is x.7.1. 421 and 521 end the connection."""
    octets = bytes(octet if 32 <= octet < 127 else 63 for octet in text.encode("ascii", "replace"))[:MAX_BYTES]
    if re.match(rb"[45][0-9][0-9](?: |$)", octets):
        code, rest = int(octets[:3]), octets[4:]
    else:
        code, rest = default_code, octets
    if _STATUS.match(rest) is None:
        rest = b"%d.7.1 %s" % (code // 100, rest)
    elif rest[:1] != b"%d" % (code // 100):
        rest = b"%d%s" % (code // 100, rest[1:])
    return Reply(b"%d %s" % (code, rest.rstrip() or b"Refused"), closes=code in (421, 521))
