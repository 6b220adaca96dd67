"""The footer of refusals: whom to ask, and about which session. Owns the numbers of sessions.

Put behind the text of the reply, or, from a line break on, as lines of its own with the same codes. Only printable ASCII passes.
"""

from __future__ import annotations

import os
import re
import time
from itertools import count

from smtpd.mail.reply import Reply
from smtpd.proto.dialogue import Peer

NAMES = ("session", "client", "hostname", "time")
PLACE = re.compile(r"\{([^{}]*)\}")
_HEAD = re.compile(rb"[45][0-9][0-9][ -](?:[45]\.[0-9]+\.[0-9]+ )?")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class SessionIds:
    """Short names of sessions, unlike all others of this host: process and start, then a number."""

    def __init__(self) -> None:
        self._prefix = _to_base36(int(time.time() * 10) << 22 | os.getpid())
        self._numbers = count(1)

    def of(self, peer: Peer) -> str:
        """Return the name of the session with this peer, the same each time."""
        if not peer.session_id:
            peer.session_id = f"{self._prefix}-{next(self._numbers)}"
        return peer.session_id


class Footer:
    """Made once for all listeners of a worker; see smtpd.proto.rules.Rules.footer."""

    def __init__(self, text: str, hostname: str, ids: SessionIds) -> None:
        self._text = text
        self._hostname = hostname
        self._ids = ids

    def put_behind(self, reply: Reply, peer: Peer) -> Reply:
        """Return the reply with the footer."""
        values = {
            "session": self._ids.of(peer),
            "client": peer.address or "unix",
            "hostname": self._hostname,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        text = PLACE.sub(lambda match: values.get(match[1], ""), self._text).encode("ascii", "replace")
        behind, *more = text.split(b"\n")
        lines = reply.text.split(b"\r\n")
        lines[-1] += behind
        match = _HEAD.match(lines[0])
        status = match[0][4:] if match is not None else b""
        lines += [reply.text[:3] + b"-" + status + line for line in more]
        lines = [line[:3] + (b" " if number == len(lines) - 1 else b"-") + line[4:] for number, line in enumerate(lines)]
        return Reply(b"\r\n".join(lines), closes=reply.closes)


def _to_base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits
