"""DMARC (RFC 7489) of one mail: whose policy holds, and whether SPF or DKIM speak for the domain in From.

The record is found by our DNS, parsed and judged by the library `dmarc`; organizational domains are those of the public suffix
list that `publicsuffixlist` brings. Raises nothing for a bad record: that is a result.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from email.errors import MessageError
from email.headerregistry import HeaderRegistry
from functools import cache
from typing import Any

from smtpd.mail.address import normal_domain
from smtpd.policy.auth.signatures import Signature
from smtpd.policy.auth.spf import SpfResult
from smtpd.policy.dns.asking import Asker

_FROM = re.compile(rb"^from[ \t]*:((?:[^\r\n]|\r?\n[ \t])*)", re.IGNORECASE | re.MULTILINE)
_VERSION = re.compile(r"v\s*=\s*DMARC1\s*(;|$)")


@dataclass(frozen=True, slots=True)
class DmarcResult:
    """`result` is one of RFC 8601 ("pass", "fail", "none", "temperror", "permerror"); `wish` what the domain wants done with a
    mail that fails ("none", "quarantine", "reject"); `domain` is that of From, "" where there is none; `text` what is wrong."""

    result: str
    domain: str = ""
    wish: str = "none"
    text: str = ""


class SuffixList:
    """The public suffix list as `dmarc` wants it."""

    def __init__(self) -> None:
        from publicsuffixlist import PublicSuffixList

        self._list = PublicSuffixList(accept_encoded_idn=True)

    def get_public_suffix(self, domain: str) -> str:
        """The organizational domain; of a public suffix itself, that."""
        return self._list.privatesuffix(domain) or domain

    def is_public(self, domain: str) -> bool:
        """Whether everybody may have a domain below this one."""
        return self._list.privatesuffix(domain) is None


def from_domains(header: bytes) -> list[str]:
    """The domains of From, each once, as A-labels; [""] for a field that can't be read. More than one field counts as all of
    them, since readers show whichever they like."""
    domains: dict[str, None] = {}
    for match in _FROM.finditer(header):
        for domain in _domains_of(match[1]) or [""]:
            domains[domain] = None
    return list(domains)


async def judge(asker: Asker, header: bytes, spf: SpfResult | None, signatures: Sequence[Signature]) -> DmarcResult:
    """Find the policy and judge by it. What SPF or DKIM could not find out makes no failure."""
    domains = from_domains(header)
    if len(domains) != 1 or not domains[0]:
        text = "no usable From" if len(domains) < 2 else "From names several domains"
        return DmarcResult("permerror", wish="reject", text=text)
    [domain] = domains
    suffixes = _suffixes()
    record, owner, is_failed = await _find_record(asker, domain, suffixes)
    if is_failed:
        return DmarcResult("temperror", domain, text="policy not available")
    if not record:
        return DmarcResult("none", domain)
    from dmarc import DMARC, Error

    judging = DMARC(suffixes)
    try:
        policy = judging.parse_record(record, domain, owner if owner != domain else None, strict=False)
    except (Error, ValueError) as error:
        return DmarcResult("permerror", domain, text=str(error)[:100])
    result = judging.get_result(policy, auth_results=_proofs(domain, spf, signatures, suffixes), allow_policy_test_mode=True)
    wish = str(result.disposition.value or "none")
    if result.result.value == "pass":
        return DmarcResult("pass", domain, wish=str(policy.p.value))
    is_open = (spf is not None and spf.result == "temperror") or any(s.result == "temperror" for s in signatures)
    return DmarcResult("temperror" if is_open else "fail", domain, wish)


async def _find_record(asker: Asker, domain: str, suffixes: SuffixList) -> tuple[str, str, bool]:
    """(record, whose it is, whether DNS failed): of the domain, else of its organizational domain (RFC 7489 6.6.3)."""
    for owner in dict.fromkeys((domain, suffixes.get_public_suffix(domain))):
        answer = await asker.ask(f"_dmarc.{owner}", "TXT")
        if answer.is_failed:
            return "", owner, True
        records = [record for record in answer.records if _VERSION.match(record)]
        if len(records) == 1:
            return records[0], owner, False
        if records:
            return "", owner, False  # several: as if there were none
    return "", domain, False


def _proofs(domain: str, spf: SpfResult | None, signatures: Sequence[Signature], suffixes: SuffixList) -> Any:
    """What passed, without domains that are public suffixes: nobody speaks for all of "co.uk"."""
    import dmarc

    def may_speak(name: str) -> bool:
        return bool(name) and (name == domain or not suffixes.is_public(name))

    return dmarc.AuthResults(
        spf=dmarc.SPF(spf.domain, dmarc.SPFResult(spf.result)) if spf is not None and may_speak(spf.domain) else None,
        dkim=[dmarc.DKIM(s.domain, dmarc.DKIMResult.PASS) for s in signatures if s.result == "pass" and may_speak(s.domain)],
    )


def _domains_of(value: bytes) -> list[str]:
    text = b" ".join(value.split()).decode("utf-8", "replace")
    try:
        addresses = getattr(_headers()("from", text), "addresses")  # noqa: B009 typeshed doesn't know which class the registry makes
        return [normal_domain(address.domain) for address in addresses]
    except (ValueError, IndexError, AttributeError, MessageError):  # the parser of the standard library trips over some nonsense
        return []


@cache
def _headers() -> HeaderRegistry:
    return HeaderRegistry()


@cache
def _suffixes() -> SuffixList:
    return SuffixList()
