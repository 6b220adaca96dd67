"""What a client says in HELO or EHLO: is it a name, is it ours, is it somewhere, and does a literal tell the truth.

RFC 5321 4.1.1.1 wants a name that resolves or a literal; 4.1.4 forbids to refuse for a name that isn't the client's, which is
why nothing here compares name and address. Codes as Postfix's. Raises nothing.
"""

from __future__ import annotations

import ipaddress

from smtpd.mail.reply import Reply
from smtpd.mail.verdict import Verdict
from smtpd.net.hops import parse_literal
from smtpd.policy.dns.asking import Asker
from smtpd.policy.dns.domains import ABSENT, FAILED, find_out

_INVALID = Verdict(Reply(b"501 5.5.2 Helo command rejected: invalid name"), "other")
_BARE_ADDRESS = Verdict(Reply(b"501 5.5.2 Helo command rejected: an address needs brackets"), "other")
_NOT_FULL = Verdict(Reply(b"504 5.5.2 Helo command rejected: need fully-qualified hostname"), "other")
_OURS = Verdict(Reply(b"550 5.7.1 Helo command rejected: this is my name, not yours"), "other")
_NOT_YOURS = Verdict(Reply(b"550 5.7.1 Helo command rejected: this is not your address"), "other")
_LITERAL = Verdict(Reply(b"550 5.7.1 Helo command rejected: address literals are not taken"), "other")
_NOT_FOUND = Verdict(Reply(b"550 5.7.1 Helo command rejected: host not found"), "other")
_FAILED = Verdict(Reply(b"450 4.7.1 Helo command rejected: host could not be looked up"), "other")


class HeloRules:
    """`own_names` in lower case. `literal` is "match", "accept" or "reject"."""

    def __init__(
        self, own_names: frozenset[str], *, needs_full: bool = True, needs_record: bool = False, literal: str = "match"
    ) -> None:
        self._own_names = own_names
        self._needs_full = needs_full
        self._needs_record = needs_record
        self._literal = literal

    async def judge(self, asker: Asker, helo: bytes, client: str) -> Verdict | None:
        """`client` is the IP address, "" or a path where there is none."""
        try:
            name = helo.decode("ascii").lower()
        except UnicodeDecodeError:
            return _INVALID
        if name.startswith("["):
            return self._judge_literal(name, client)
        if _is_address(name):
            return _BARE_ADDRESS
        name = name.removesuffix(".")
        labels = name.split(".")
        if len(name) > 253 or not all(map(_is_label, labels)) or labels[-1].isdigit():
            return _INVALID
        if name in self._own_names:
            return _OURS
        if self._needs_full and len(labels) < 2:
            return _NOT_FULL
        if not self._needs_record:
            return None
        found = await find_out(asker, name)
        return {ABSENT: _NOT_FOUND, FAILED: _FAILED}.get(found)

    def _judge_literal(self, literal: str, client: str) -> Verdict | None:
        if self._literal == "reject":
            return _LITERAL
        try:
            address = ipaddress.ip_address(parse_literal(literal))
        except ValueError:
            return _INVALID
        if self._literal == "accept" or not _is_address(client):
            return None
        return None if address == ipaddress.ip_address(client) else _NOT_YOURS


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_label(label: str) -> bool:
    """Letters, digits, inner hyphens; underscores are wrong and common, and taken as Postfix does."""
    plain = label.replace("-", "").replace("_", "")
    return 0 < len(label) <= 63 and plain.isalnum() and label[0] != "-" and label[-1] != "-"
