"""The checks every gateway has: is the domain ours, is there a route, is there room. All answer from memory.

The decision is on the final domain alone: percent hack, bang path and quoted local parts never widen what is relayed, and
for a relay domain they are refused, since the store behind us may reinterpret them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from smtpd.mail.envelope import Recipient
from smtpd.mail.verdict import GO_ON, Verdict
from smtpd.proto import replies

if TYPE_CHECKING:
    from smtpd.proto.dialogue import Dialogue

_RELAY_DENIED = Verdict(replies.RELAY_DENIED, "relay_denied")
_UNTRUSTED_ROUTING = Verdict(replies.UNTRUSTED_ROUTING, "relay_denied")
_NO_ROUTE = Verdict(replies.NO_ROUTE, "other")
_SPOOL_FULL = Verdict(replies.SPOOL_FULL, "other")
_GO_ON = GO_ON
_CACHED_DOMAINS = 10_000


class RelayChecks:
    """`relay_domains` None takes any domain; an entry ".example.org" takes the subdomains. Domains are A-labels in lower case.

    `has_route(domain)` says whether delivery knows where to; `is_full()` whether the spool can take a mail now.
    """

    def __init__(
        self,
        relay_domains: list[str] | None,
        *,
        allows_untrusted_routing: bool,
        has_route: Callable[[str], bool],
        is_full: Callable[[], bool],
    ) -> None:
        self._takes_all = relay_domains is None
        self._domains = frozenset(domain for domain in relay_domains or () if not domain.startswith("."))
        self._parents = frozenset(domain[1:] for domain in relay_domains or () if domain.startswith("."))
        self._allows_untrusted_routing = allows_untrusted_routing
        self._has_route = has_route
        self._is_full = is_full
        self._known: dict[str, Verdict] = {}

    def at_mail(self, session: Dialogue) -> Verdict | None:
        return _SPOOL_FULL if self._is_full() else _GO_ON

    def at_rcpt(self, session: Dialogue, recipient: Recipient) -> Verdict | None:
        domain = recipient.domain
        if not domain:  # postmaster alone, RFC 5321 4.5.1
            return _GO_ON
        verdict = self._known.get(domain)
        if verdict is None:
            verdict = self._judge_domain(domain)
        if verdict is _GO_ON and not self._allows_untrusted_routing and _may_route(recipient.path):
            return _UNTRUSTED_ROUTING
        return verdict

    def _judge_domain(self, domain: str) -> Verdict:
        if not (self._takes_all or domain in self._domains or self._is_subdomain(domain)):
            verdict = _RELAY_DENIED
        elif not self._has_route(domain):
            verdict = _NO_ROUTE
        else:
            verdict = GO_ON
        if len(self._known) >= _CACHED_DOMAINS:  # peers choose the domains, so the memory of them is bounded
            self._known.clear()
        self._known[domain] = verdict
        return verdict

    def _is_subdomain(self, domain: str) -> bool:
        while (dot := domain.find(".")) >= 0:
            domain = domain[dot + 1 :]
            if domain in self._parents:
                return True
        return False


def _may_route(path: bytes) -> bool:
    """Whether the local part holds what some servers take for a route."""
    at = len(path) - 1
    while at > 0 and path[at] != 0x40:
        at -= 1
    for i in range(at):
        octet = path[i]
        if octet == 0x25 or octet == 0x21 or octet == 0x40:  # "%", "!", "@"
            return True
    return False
