"""Which route a domain takes: the first one in the configuration that matches. From memory, no question asked.

A route's domains are exact ("example.org"), subdomains at any depth (".example.org", which is not example.org itself), or "*".
Domains come as A-labels in lower case, as in the envelope. Knows nothing of transports, next hops or mail.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from smtpd.mail.address import AddressError, normal_domain
from smtpd.mail.envelope import Envelope
from smtpd.settings import BounceSettings, RouteSettings

BOUNCE = "bounce"  # the name of the route of [bounce], and the value of Envelope.via
_CACHE_MAX = 4096  # domains are the peers' to choose: the cache starts anew when it is full


class Route:
    """One [[route]]. `number` is its place in the configuration, from 0."""

    __slots__ = ("name", "number", "settings")

    def __init__(self, number: int, settings: RouteSettings) -> None:
        self.number = number
        self.settings = settings
        self.name = settings.name

    def __repr__(self) -> str:
        return f"Route({self.name})"


_UNKNOWN = Route(-1, RouteSettings(domains=[], transport="discard"))  # of what is not in the cache


class Router:
    """Made from the [[route]] sections, in order, and [bounce], whose mail takes its own route, named "bounce"."""

    def __init__(self, sections: Iterable[RouteSettings], bounce: BounceSettings | None = None) -> None:
        self.routes = [Route(number, settings) for number, settings in enumerate(sections)]
        self._patterns: dict[str, list[Route]] = {}  # by domain, ".domain" or "*": in order
        self._cache: dict[str | tuple[str, bytes], Route | None] = {}  # by domain, or by domain and sender's domain
        self._has_senders = any(route.settings.senders for route in self.routes)
        for route in self.routes:
            for pattern in route.settings.domains:
                self._patterns.setdefault(pattern.lower(), []).append(route)
        self._bounce: Route | None = None
        if bounce is not None and bounce.enabled:
            settings = RouteSettings(
                domains=[],
                transport="smtp",
                name=BOUNCE,
                next_hop=bounce.next_hop,
                tls=bounce.tls,
                connections=bounce.connections,
            )
            self._bounce = Route(len(self.routes), settings)
            self.routes.append(self._bounce)

    def route_of(self, envelope: Envelope, domain: str) -> Route | None:
        """Return the route of a mail's recipients in a domain; None: there is none now."""
        if envelope.via:
            return self._bounce
        return self.route_for(domain, envelope.reverse_path)

    def route_for(self, domain: str, reverse_path: bytes = b"") -> Route | None:
        """Return the route of a domain for mail from a sender, None if there is none (550 5.4.4 at RCPT)."""
        sender = reverse_path.rpartition(b"@")[2] if self._has_senders else b""
        key = (domain, sender) if self._has_senders else domain
        route = self._cache.get(key, _UNKNOWN)
        if route is _UNKNOWN:
            route = self._find(domain, sender)
            if len(self._cache) >= _CACHE_MAX:
                self._cache.clear()
            self._cache[key] = route
        return route

    def has_route(self, domain: str) -> bool:
        """Whether mail for the domain has anywhere to go, at least from some senders."""
        return self.route_for(domain) is not None or (self._has_senders and bool(self._matches(domain)))

    def _matches(self, domain: str) -> list[Route]:
        """The routes of a domain, whoever sends, in order."""
        matches: list[Route] = [*self._patterns.get("*", ()), *self._patterns.get(domain, ())]
        for parent in _parents(domain):
            matches += self._patterns.get(parent, ())
        return sorted(matches, key=lambda route: route.number)

    def _find(self, domain: str, sender: bytes) -> Route | None:
        for route in self._matches(domain):
            if not route.settings.senders or _is_among(sender, route.settings.senders):
                return route
        return None


def _parents(domain: str) -> Iterator[str]:
    """Yield ".example.org", ".org" for "www.example.org"; an address literal has no parent domains."""
    while not domain.startswith("[") and (dot := domain.find(".")) >= 0:
        yield domain[dot:]
        domain = domain[dot + 1 :]


def _is_among(sender: bytes, patterns: list[str]) -> bool:
    """Whether a sender's domain is one of the patterns; the null reverse-path has none and never is."""
    if not sender:
        return False
    try:
        domain = normal_domain(sender.decode())
    except (AddressError, UnicodeDecodeError):
        return False
    return domain in patterns or "*" in patterns or any(parent in patterns for parent in _parents(domain))
