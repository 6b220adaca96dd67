"""The name of a client by DNS: its PTR, and whether that name leads back to its address (FCrDNS).

Only a name that leads back is anybody's name: whoever owns an address can write what he likes into its PTR. Raises nothing.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from smtpd.mail.reply import Reply
from smtpd.mail.verdict import Verdict
from smtpd.net.dns_records import Kind
from smtpd.policy.dns.asking import Asker

NAMES_MAX = 5  # of one PTR answer; more are passed over

_NO_NAME = Verdict(Reply(b"550 5.7.25 Client host rejected: cannot find your reverse hostname"), "other")
_NOT_CONFIRMED = Verdict(Reply(b"550 5.7.25 Client host rejected: your reverse hostname does not lead to your address"), "other")
_FAILED = Verdict(Reply(b"450 4.7.25 Client host rejected: cannot look up your reverse hostname now"), "other")


@dataclass(frozen=True, slots=True)
class ClientName:
    """`name` is the verified one, "" without. `has_ptr` says that there is any name; `is_failed` that DNS failed on the way, so
    that what is missing may be there."""

    name: str = ""
    has_ptr: bool = False
    is_failed: bool = False


async def find_client_name(asker: Asker, address: str) -> ClientName:
    """Look up the name of an IP address; what is no address (a unix socket's peer) has none."""
    reverse = reverse_name(address)
    if not reverse:
        return ClientName()
    pointers = await asker.ask(reverse, "PTR")
    names = [name for name in pointers.records if name][:NAMES_MAX]
    if not names:
        return ClientName(is_failed=pointers.is_failed)
    client = ipaddress.ip_address(address)
    kind: Kind = "A" if client.version == 4 else "AAAA"
    answers = await asker.ask_all([(name, kind) for name in names])
    for name, answer in zip(names, answers, strict=True):
        if any(ipaddress.ip_address(record) == client for record in answer.records):
            return ClientName(name, has_ptr=True)
    return ClientName(has_ptr=True, is_failed=any(answer.is_failed for answer in answers))


async def judge_client_name(asker: Asker, address: str, needs_confirmed: bool) -> Verdict | None:
    """Refuse a client without a PTR, or where asked without one that leads back."""
    if not reverse_name(address):
        return None
    found = await find_client_name(asker, address)
    if found.name or (found.has_ptr and not needs_confirmed):
        return None
    if found.is_failed:
        return _FAILED
    return _NOT_CONFIRMED if found.has_ptr else _NO_NAME


def reverse_name(address: str) -> str:
    """The name below in-addr.arpa or ip6.arpa, "" for what is no address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if parsed.version == 6 and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return parsed.reverse_pointer
