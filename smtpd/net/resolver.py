"""Next hops as the configuration writes them, looked up: "mx:", "mx:example.net", "host:25", "[::1]:25", "unix:/path".

Owns the cache of answers (bounded in number, each for 30 seconds to an hour) and joins equal questions that are under way. The
look-ups run on the side thread (`smtpd.net.lookup`); this belongs to the loop thread, never blocks and raises nothing: what
can't be found out comes as a LookupFailure.
"""

from __future__ import annotations

from collections.abc import Callable

from smtpd.net.dns_channel import DnsChannel, open_channel
from smtpd.net.hops import Found, Hop, LookupFailure, NamedHost, OwnHost, drop_own, order_hops, parse_literal
from smtpd.net.lookup import FAILURE_TTL_S, DnsClient
from smtpd.net.loop import Loop
from smtpd.net.side import SideThread
from smtpd.settings.delivery import DnsSettings

Done = Callable[[list[Hop], LookupFailure | None], object]

CACHE_MAX = 10_000
_SMTP_PORT = 25
_Key = tuple[str, str]  # "mx" or "host", and the name


class Search:
    """One call of `find`."""

    __slots__ = ("done", "port")

    def __init__(self, done: Done, port: int) -> None:
        self.done: Done | None = done
        self.port = port

    def cancel(self) -> None:
        """`done` is not called; the look-up itself goes on for the cache. After `done` it changes nothing."""
        self.done = None


class Resolver:
    """`own` is this host, for loops. `mx_port` is where hosts found by MX are, 25 but for tests. `channel` is shared with others;
    without one it has its own."""

    def __init__(
        self,
        loop: Loop,
        side: SideThread,
        settings: DnsSettings,
        own: OwnHost | None = None,
        mx_port: int = _SMTP_PORT,
        cache_max: int = CACHE_MAX,
        channel: DnsChannel | None = None,
    ) -> None:
        self._loop = loop
        self._side = side
        self._timeout_s = settings.timeout
        self._client = DnsClient(channel or open_channel(settings, side), settings.timeout)
        self._own = OwnHost() if own is None else own
        self._mx_port = mx_port
        self._cache_max = cache_max
        self._cache: dict[_Key, tuple[float, Found]] = {}
        self._waiting: dict[_Key, list[Search]] = {}

    def find(self, next_hop: str, domain: str, done: Done) -> Search:
        """Look up a next hop of the configuration for recipients of `domain`, which only "mx:" uses.

        `done(hops, None)` gives the hops in the order to try them, `done([], failure)` tells why there are none; on the loop,
        never before this returns."""
        if next_hop.startswith("unix:"):
            return self._tell_later([Hop("localhost", next_hop[5:], 0)], None, done)
        if next_hop.startswith("mx:"):
            name = (next_hop[3:] or domain).removesuffix(".").lower()
            if name.startswith("["):
                return self._find_literal(name, done)
            return self._look_up(("mx", name), Search(done, self._mx_port))
        host, _, port_text = next_hop.rpartition(":")
        port = int(port_text)
        address = host.strip("[]")
        if host.startswith("[") or address.replace(".", "").isdigit():
            return self._tell_later([Hop(address, address, port)], None, done)
        return self._look_up(("host", host.lower()), Search(done, port))

    # --- running -----------------------------------------------------------------------------------------------------

    def _find_literal(self, literal: str, done: Done) -> Search:
        try:
            address = parse_literal(literal)
        except ValueError:
            failure = LookupFailure(True, "5.1.2", f"{literal} is not an address literal")
            return self._tell_later([], failure, done)
        search = Search(done, self._mx_port)
        found = Found((NamedHost(0, address, (address,)),), None, 0.0)
        self._loop.ready(self._tell, search, ("mx", literal), found)
        return search

    def _tell_later(self, hops: list[Hop], failure: LookupFailure | None, done: Done) -> Search:
        search = Search(done, 0)
        self._loop.ready(self._say, search, hops, failure)
        return search

    def _look_up(self, key: _Key, search: Search) -> Search:
        expires_at, found = self._cache.get(key, (0.0, None))
        if found is not None and expires_at > self._loop.now:
            self._loop.ready(self._tell, search, key, found)
            return search
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.append(search)
            return search
        self._waiting[key] = [search]
        kind, name = key
        find = self._client.find_mx if kind == "mx" else self._client.find_host
        self._side.ask(lambda: find(name), lambda found, error: self._on_answer(key, found, error), self._timeout_s)
        return search

    def _on_answer(self, key: _Key, found: Found | None, error: BaseException | None) -> None:
        if found is None:
            if error is not None and not isinstance(error, Exception):
                raise error
            text = str(error) or type(error).__name__
            found = Found((), LookupFailure(False, "4.4.3", f"look-up of {key[1]}: {text}"), FAILURE_TTL_S)
        self._cache.pop(key, None)
        while len(self._cache) >= self._cache_max:
            del self._cache[next(iter(self._cache))]  # the oldest answer
        self._cache[key] = (self._loop.now + found.ttl_s, found)
        for search in self._waiting.pop(key):
            self._tell(search, key, found)

    def _tell(self, search: Search, key: _Key, found: Found) -> None:
        hosts = drop_own(found.hosts, self._own, search.port)
        if found.failure is not None or hosts:
            self._say(search, order_hops(Found(hosts, None, 0.0, found.is_ordered), search.port), found.failure)
            return
        kind, name = key
        is_mx = kind == "mx"  # a host of the configuration is our own fault: the mail can wait until it is put right
        text = f"mail for {name} loops back to this host" if is_mx else f"next hop {name}:{search.port} is this host"
        self._say(search, [], LookupFailure(is_mx, "5.4.6" if is_mx else "4.4.6", text))

    def _say(self, search: Search, hops: list[Hop], failure: LookupFailure | None) -> None:
        done = search.done
        if done is not None:
            search.done = None
            done(hops, failure)
