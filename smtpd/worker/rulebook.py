"""Which rules a peer gets: the listener's, varied by the peer's network (bare newlines, suppressed extensions).

Rules are made once for each combination and shared. Networks are looked at longest prefix first; a listener without any
per-network setting answers with its one set of rules at once.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from smtpd.limits.checks import RateChecks, UnknownClientChecks
from smtpd.limits.clients import ClientLimits
from smtpd.mail.envelope import Recipient
from smtpd.policy.footer import Footer
from smtpd.policy.relay import RelayChecks
from smtpd.proto.dialogue import Peer
from smtpd.proto.rules import Checks, NoChecks, Rules
from smtpd.settings import ListenerSettings, Settings

_PLAIN, _RATED, _UNKNOWN = range(3)  # which checks, by what is known of the client

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Rulebook:
    """`has_route(domain)` is delivery's, `is_full()` the spool's; both answer from memory.

    `suppressed`, `greeting` and `is_hello_optional` are for all peers: keywords not offered, what to say instead of host name and
    banner, and whether MAIL is taken from one who has not said who it is."""

    def __init__(
        self,
        settings: Settings,
        listener: ListenerSettings,
        name: str,
        has_route: Callable[[str], bool],
        is_full: Callable[[], bool],
        limits: ClientLimits | None = None,
        *,
        suppressed: frozenset[str] = frozenset(),
        greeting: bytes = b"",
        is_hello_optional: bool = False,
        footer: Footer | None = None,
    ) -> None:
        self._footer = footer
        self._settings = settings
        self._listener = listener
        self._suppressed = suppressed
        self._greeting = greeting
        self._is_hello_optional = is_hello_optional
        self._name = name
        self._checks: Checks = NoChecks()
        policy = settings.policy
        if settings.spool.engine != "discard" or policy.relay_domains is not None:
            self._checks = RelayChecks(
                policy.relay_domains,
                allows_untrusted_routing=policy.allow_untrusted_routing,
                has_route=has_route,
                is_full=is_full,
            )
        self._has_rates = limits is not None and limits.has_rates
        rated = RateChecks(limits, self._checks) if limits is not None else self._checks
        self._kinds: tuple[Checks, ...] = (self._checks, rated, UnknownClientChecks())
        self._suppress = _by_prefix(
            {network: frozenset(w.upper() for w in words) for network, words in listener.suppress.items()}
        )
        self._newlines = _by_prefix(policy.bare_newline_networks)
        self._made: dict[tuple[bool, frozenset[str], int], Rules] = {}
        self._default = self._rules(policy.bare_newline == "reject", frozenset(), _PLAIN)

    def rules_for(self, peer: Peer) -> Rules:
        """Return the rules for sessions with this peer."""
        kind = _PLAIN
        if peer.is_balancer:
            kind = _UNKNOWN
        elif self._has_rates and peer.row >= 0:
            kind = _RATED
        if not self._suppress and not self._newlines:
            return self._default if not kind else self._rules(self._default.is_bare_newline_refused, frozenset(), kind)
        try:
            address = ipaddress.ip_address(peer.address)
        except ValueError:  # a unix socket
            return self._rules(self._default.is_bare_newline_refused, frozenset(), kind)
        newline = _look_up(self._newlines, address) or self._settings.policy.bare_newline
        return self._rules(newline == "reject", _look_up(self._suppress, address) or frozenset(), kind)

    def _rules(self, refuses_bare_newline: bool, suppressed: frozenset[str], kind: int) -> Rules:
        key = (refuses_bare_newline, suppressed, kind)
        if key not in self._made:
            settings, listener = self._settings, self._listener
            self._made[key] = Rules(
                settings.hostname,
                settings.limits,
                self._kinds[kind],
                listener=self._name,
                is_lmtp=listener.protocol == "lmtp",
                banner=listener.banner,
                offers_dsn=listener.dsn,
                is_bare_newline_refused=refuses_bare_newline,
                suppressed=suppressed | self._suppressed,
                greeting=self._greeting,
                postmaster=_postmaster(settings),
                is_hello_optional=self._is_hello_optional,
                footer=self._footer,
            )
        return self._made[key]


def _postmaster(settings: Settings) -> Recipient:
    """Where mail for a bare postmaster goes (RFC 5321 4.5.1)."""
    address = settings.policy.postmaster or f"postmaster@{settings.hostname}"
    return Recipient(address.encode(), address.rpartition("@")[2].lower())


def _by_prefix[T](table: dict[str, T]) -> list[tuple[Network, T]]:
    entries = [(ipaddress.ip_network(network, strict=False), value) for network, value in table.items()]
    return sorted(entries, key=lambda entry: -entry[0].prefixlen)


def _look_up[T](table: list[tuple[Network, T]], address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> T | None:
    for network, value in table:
        if address.version == network.version and address in network:
            return value
    return None
