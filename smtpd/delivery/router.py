"""Which route a domain takes: the first one in the configuration that matches. From memory, no question asked.

A route's domains are exact ("example.org"), subdomains at any depth (".example.org", which is not example.org itself), or "*".
Domains come as A-labels in lower case, as in the envelope. Knows nothing of transports, next hops or mail.
"""

from __future__ import annotations

from collections.abc import Iterable

from smtpd.settings import RouteSettings

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


class Router:
    """Made from the [[route]] sections, in order."""

    def __init__(self, sections: Iterable[RouteSettings]) -> None:
        self.routes = [Route(number, settings) for number, settings in enumerate(sections)]
        self._exact: dict[str, Route] = {}
        self._below: dict[str, Route] = {}
        self._rest: Route | None = None
        self._cache: dict[str, Route | None] = {}
        for route in self.routes:
            for pattern in route.settings.domains:
                pattern = pattern.lower()
                if pattern == "*":
                    self._rest = self._rest or route
                elif pattern.startswith("."):
                    self._below.setdefault(pattern[1:], route)
                else:
                    self._exact.setdefault(pattern, route)

    def route_for(self, domain: str) -> Route | None:
        """Return the route of a domain, None if there is none (550 5.4.4 at RCPT)."""
        try:
            return self._cache[domain]
        except KeyError:
            pass
        route = self._find(domain)
        if len(self._cache) >= _CACHE_MAX:
            self._cache.clear()
        self._cache[domain] = route
        return route

    def has_route(self, domain: str) -> bool:
        """Whether mail for the domain has anywhere to go."""
        return self.route_for(domain) is not None

    def _find(self, domain: str) -> Route | None:
        matches = [self._rest, self._exact.get(domain)]
        if not domain.startswith("["):  # an address literal has no parent domains
            parent = domain.partition(".")[2]
            while parent:
                matches.append(self._below.get(parent))
                parent = parent.partition(".")[2]
        return min((route for route in matches if route is not None), key=lambda route: route.number, default=None)
