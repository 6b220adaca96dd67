"""DNS lists of clients and domains: asked in parallel, weighed, summed up (RFC 5782).

Only answers that a list's codes name count. An answer in 127.255.255.0/24 or outside 127/8 is an error of the list, as is a
DNS failure: it never makes a listing, and is told in `Score.errors`. Raises nothing of its own.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field

from smtpd.net.dns_records import Answer, is_name
from smtpd.policy.dns.asking import Asker
from smtpd.policy.dns.codes import Codes, is_error


@dataclass(frozen=True, slots=True)
class DnsList:
    """`of` says what is looked up: "client" (the address), "client_name", "helo" or "sender" (domains). A negative weight is a
    white list's."""

    zone: str
    codes: Codes
    weight: int = 1
    of: str = "client"


@dataclass(frozen=True, slots=True)
class Score:
    """`points` is the sum of the weights of the lists that name what was asked about, each counted once; `hits` are those with a
    positive weight, with the name that was found, heaviest first. `missing` is what failed lists could still have added."""

    points: int = 0
    hits: tuple[tuple[DnsList, str], ...] = ()
    missing: int = 0
    errors: tuple[tuple[str, str], ...] = field(default=())


async def score(asker: Asker, lists: Sequence[DnsList], subjects: dict[str, str]) -> Score:
    """Look up `subjects`, by what a list can be of; one that is "" or missing is not asked about."""
    asked = [(entry, name) for entry in lists if (name := query_name(entry, subjects.get(entry.of, "")))]
    answers = await asker.ask_all([(name, "A") for _, name in asked])
    points = missing = 0
    hits: list[tuple[DnsList, str]] = []
    errors: list[tuple[str, str]] = []
    for (entry, name), answer in zip(asked, answers, strict=True):
        error = _error_of(answer)
        if error:
            errors.append((entry.zone, error))
            missing += max(0, entry.weight)
        elif any(entry.codes.matches(record) for record in answer.records):
            points += entry.weight
            if entry.weight > 0:
                hits.append((entry, name))
    hits.sort(key=lambda hit: -hit[0].weight)
    return Score(points, tuple(hits), missing, tuple(errors))


async def find_reason(asker: Asker, name: str) -> str:
    """The list's own words about an entry, "" without: printable ASCII, at most 200 characters, since a stranger wrote it."""
    answer = await asker.ask(name, "TXT")
    text = answer.records[0] if answer.records else ""
    return "".join(c if " " <= c <= "~" else "?" for c in text)[:200].strip()


def query_name(entry: DnsList, subject: str) -> str:
    """The name to ask a list about, "" when there is none: an address reversed by octets or nibbles, a domain as it is."""
    if not subject:
        return ""
    if entry.of != "client":
        domain = subject.removesuffix(".").lower()
        name = f"{domain}.{entry.zone}"
        return name if "." in domain and not domain.startswith("[") and not _is_address(domain) and is_name(name) else ""
    try:
        address = ipaddress.ip_address(subject)
    except ValueError:
        return ""
    if address.version == 6 and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    reverse = address.reverse_pointer
    return reverse.removesuffix(".in-addr.arpa" if address.version == 4 else ".ip6.arpa") + "." + entry.zone


def _error_of(answer: Answer) -> str:
    if answer.is_failed:
        return answer.text or "DNS failure"
    strange = [record for record in answer.records if is_error(record)]
    return f"answers {strange[0]}" if strange else ""


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
