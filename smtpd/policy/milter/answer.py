"""What a filter decided on one event, and its reply in a form that may be sent to a client.

Owns the rules for replies: code and enhanced code of one class, printable ASCII, bounded lines, never a 421 or a 5xx that the
protocol has another meaning for. Raises WireError for a reply that is none.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from smtpd.policy.milter import wire
from smtpd.policy.milter.wire import Packet, WireError

REJECTED = b"550 5.7.1 Command rejected"
TRY_AGAIN = b"451 4.7.1 Service unavailable - try again later"
SHUT_DOWN = b"421 4.7.1 Service unavailable - try again later"
_LINES = 32
_LINE_BYTES = 480  # with its code a reply line has at most 512 octets, RFC 5321 4.5.3.1.5

_LINE = re.compile(rb"([45][0-9][0-9])([ -]|$)(.*)", re.DOTALL)
_ENHANCED = re.compile(rb"([245])\.[0-9]{1,3}\.[0-9]{1,3}(?: |$)")
_PERCENT = re.compile(rb"%(%?)")
_UNPRINTABLE = re.compile(rb"[^\x20-\x7e]")


class Answer(NamedTuple):
    """`letter` is one of wire.VERDICTS; `reply` is what the client gets, b"" where the letter refuses nothing."""

    letter: bytes
    reply: bytes = b""

    @property
    def refuses(self) -> bool:
        """The client gets `reply`."""
        return bool(self.reply)


_REPLIES = {
    wire.REJECT: REJECTED, wire.TEMPFAIL: TRY_AGAIN, wire.SHUTDOWN: SHUT_DOWN, wire.CONNECTION_FAILURE: SHUT_DOWN,
}  # fmt: skip


def read_answer(packet: Packet) -> Answer:
    """Return the verdict in a packet of wire.VERDICTS; raises WireError."""
    if packet.letter == wire.REPLY_CODE:
        return Answer(wire.REPLY_CODE, clean_reply(wire.parse_text(packet)))
    return Answer(packet.letter, _REPLIES.get(packet.letter, b""))


def clean_reply(text: bytes, *, has_percent_escapes: bool = True) -> bytes:
    """Return a reply of one or more lines, joined by CRLF, without the last one; raises WireError when it has no fit code.

    The code of the first line holds for all, and an enhanced code that is missing or of another class is replaced by x.7.1.
    Sendmail takes replies for format strings, so filters double each per cent sign.
    """
    code = enhanced = b""
    texts = []
    for line in re.split(rb"\r\n|\n|\r", text.rstrip(b"\r\n"))[:_LINES]:
        match = _LINE.fullmatch(line)
        if match is None:
            raise WireError("a reply line without a code of 4xx or 5xx")
        if code and match[1] != code:
            raise WireError("a reply with different codes")
        code = match[1]
        rest = match[3]
        status = _ENHANCED.match(rest)
        if status is not None:
            if status[1] == code[:1] and not enhanced:
                enhanced = status[0].strip()
            rest = rest[status.end() :]
        if has_percent_escapes:
            rest = _PERCENT.sub(rb"\1", rest)
        texts.append(_UNPRINTABLE.sub(b"?", rest)[:_LINE_BYTES].strip())
    enhanced = enhanced or code[:1] + b".7.1"
    texts = texts if any(texts) else [b"Refused by policy"]
    last = len(texts) - 1
    return b"\r\n".join(
        b"%b%b%b %b" % (code, b" " if number == last else b"-", enhanced, line) for number, line in enumerate(texts)
    )
