"""The transports smtp and lmtp: mail of one route to its next hops, each destination with a pool of connections of its own.

Owns the pools, the timer that looks at their deadlines, and what one route's pools share. A next hop that can't be reached is a
deferral; only a file of CA certificates that can't be used is a StartupError. Loop thread only.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from smtpd.errors import StartupError, TlsFileError
from smtpd.net.files import FilesThread
from smtpd.net.hop_table import HopTable
from smtpd.net.hops import Hop, LookupFailure
from smtpd.net.loop import Loop, Timer
from smtpd.net.resolver import Resolver, Search
from smtpd.net.tls.contexts import client_context
from smtpd.net.transcript import Transcript
from smtpd.proto.client.rules import ClientRules
from smtpd.settings import DeliverySettings, RouteSettings
from smtpd.spool.item import Body, SpoolItem
from smtpd.transports.base import Done
from smtpd.transports.relay.delivery import Delivery, begin_delivery
from smtpd.transports.relay.health import HopHealth
from smtpd.transports.relay.pool import Pool, first_window

_TIMEOUTS = ("connect", "greeting", "hello", "tls", "mail", "recipient", "data", "block", "end_of_data", "quit")
_HEAD_BYTES = 64 * 1024  # of a body in a file: what the session looks through for its header
_SWEEP_S = (0.01, 1.0)
_HEALTHS_MAX = 10_000  # addresses that are remembered when nobody is connected to them


@dataclass(frozen=True, slots=True)
class RelayHost:
    """What relaying needs of its process. `column` is this process's in the table of next hops; `warn` gets lines for the log.
    `transcript_for(host:port, whether it is connected already)` is what watches a connection."""

    loop: Loop
    files: FilesThread
    resolver: Resolver
    hops: HopTable | None
    column: int
    hostname: str
    warn: Callable[[str], object]
    transcript_for: Callable[[str, bool], Transcript | None] = lambda name, is_begun: None


class RelayTransport:
    """One route."""

    needs_body = True

    def __init__(self, route: RouteSettings, delivery: DeliverySettings, host: RelayHost) -> None:
        self.name = route.transport
        self.route_name = route.name
        self.is_per_domain = "mx:" in route.next_hop
        self.loop = host.loop
        self.files = host.files
        self.warn = host.warn
        self.transcript_for = host.transcript_for
        self._host = host
        self._route = route
        self.is_tls_optional = route.tls == "may"
        self.is_spread = route.balance == "spread"
        self.tls_name = route.tls_name
        self.source_address = route.source_address
        self.most_connections = route.connections
        self.most_mails = delivery.mails_per_connection
        self.age_s = delivery.connection_age
        self.idle_s = delivery.connection_idle
        self.retry_s = delivery.retry_next_hop
        self.timeouts: dict[str, float] = {name: getattr(delivery, name + "_timeout") for name in _TIMEOUTS}
        self.rules = self._rules(route.tls, delivery)
        self.plain_rules = self._rules("off", delivery) if self.is_tls_optional else self.rules
        self.unconfirmed = 0
        self.unannounced_8bit = 0
        self._pools: dict[str, Pool] = {}
        self._healths: dict[Hop, HopHealth] = {}
        self._context: ssl.SSLContext | None = None
        self._timer: Timer | None = None
        if route.tls == "require":
            self.tls_context()  # a file that can't be used is told at the start
        self._is_closed = False
        least_s, most_s = _SWEEP_S
        self._sweep_s = max(least_s, min(most_s, min(self.timeouts.values()) / 4, max(0.05, self.idle_s / 2)))

    def _rules(self, tls: str, delivery: DeliverySettings) -> ClientRules:
        return ClientRules(
            self._host.hostname.encode("ascii"),
            is_lmtp=self.name == "lmtp",
            tls=tls,
            uses_chunking=delivery.chunking,
            refused_early=delivery.refused_early,
        )

    # --- the scheduler's side ----------------------------------------------------------------------------------------

    def deliver(self, item: SpoolItem, body: Body, recipients: list[int], done: Done, key: str = "") -> None:
        """See Transport."""
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = Pool(self, key)
            if self._is_closed:
                pool.close()
        if self._timer is None:
            self._timer = self.loop.call_later(self._sweep_s, self._sweep)
        delivery = begin_delivery(item, body, recipients, done, self.loop.now)
        if body.data is None and item.envelope.smtputf8:  # whether its header needs SMTPUTF8 stands in the file
            self._read_head(pool, delivery)
        else:
            pool.start(delivery)

    def _read_head(self, pool: Pool, delivery: Delivery) -> None:
        def start(head: bytes | None, failure: BaseException | None) -> None:
            delivery.head = head or b""  # if it can't be read, the attempt will say so
            pool.start(delivery)

        self.files.submit(lambda: _read_head(delivery.body.path), start)

    def look_for_transcripts(self) -> None:
        """Somebody began or ended to watch: connections that are open already are shown from their next reply on."""
        for pool in self._pools.values():
            for link in pool.links:
                link.look_for_transcript(True)

    def window(self, key: str) -> int:
        pool = self._pools.get(key)
        if pool is not None:
            return pool.window()
        return first_window(self.is_per_domain)

    def close(self) -> None:
        """See Transport. Whatever comes later gets its outcome at once."""
        self._is_closed = True
        for pool in list(self._pools.values()):
            pool.close()

    @property
    def connections(self) -> int:
        """Connections open now."""
        return sum(len(pool.links) for pool in self._pools.values())

    def _sweep(self) -> None:
        now = self.loop.now
        for key, pool in list(self._pools.items()):
            pool.sweep(now)
            if pool.is_idle and self.is_per_domain:
                del self._pools[key]
        if len(self._healths) > _HEALTHS_MAX:
            self._healths = {health.hop: health for pool in self._pools.values() for health in pool.healths}
        is_over = all(pool.is_idle for pool in self._pools.values())
        self._timer = None if is_over else self.loop.call_later(self._sweep_s, self._sweep)

    # --- the pools' side ---------------------------------------------------------------------------------------------

    def tls_context(self) -> ssl.SSLContext:
        """Return the context of this route's connections, made once."""
        if self._context is None:
            route = self._route
            try:
                self._context = client_context(route.tls == "require" and route.tls_verify, route.tls_ca)
            except TlsFileError as error:
                raise StartupError(f"route {route.name}: tls_ca: {error}", os.EX_CONFIG) from error
        return self._context

    def health_of(self, hop: Hop) -> HopHealth:
        """Return what is known of an address; one object for all pools of the route."""
        health = self._healths.get(hop)
        if health is None:
            health = self._healths[hop] = HopHealth(hop, self._host.hops, self._host.column)
        return health

    def is_fixed(self, healths: list[HopHealth]) -> bool:
        """Whether next hops, once known, never change: they are given by address."""
        return bool(healths) and all(_is_address(next_hop) for next_hop in self._route.next_hop)

    def find_hops(self, key: str, done: Callable[[list[Hop], LookupFailure | None], object]) -> Search:
        """Look all next hops of the route up, in order; a failure is told only when none of them is found."""
        return _SearchAll(self._host.resolver, self._route.next_hop, key, done).start()


class _SearchAll(Search):
    """The hops of several next hops, one after the other."""

    def __init__(
        self, resolver: Resolver, next_hops: list[str], key: str, done: Callable[[list[Hop], LookupFailure | None], object]
    ) -> None:
        super().__init__(done, 0)
        self._resolver = resolver
        self._left = list(next_hops)
        self._key = key
        self._found: list[Hop] = []
        self._failure: LookupFailure | None = None

    def start(self) -> _SearchAll:
        self._resolver.find(self._left.pop(0), self._key, self._on_found)
        return self

    def _on_found(self, hops: list[Hop], failure: LookupFailure | None) -> None:
        self._found += [hop for hop in hops if hop not in self._found]
        if self._failure is None or self._failure.is_permanent:
            self._failure = failure or self._failure  # for good only when all say so
        if self._left:
            self.start()
            return
        done, self.done = self.done, None
        if done is not None:
            done(self._found, None if self._found else self._failure)


def _read_head(path: str) -> bytes:
    """The first octets of a body in a file, on the files thread."""
    with open(path, "rb") as file:
        return file.read(_HEAD_BYTES)


def _is_address(next_hop: str) -> bool:
    if next_hop.startswith("unix:"):
        return True
    host = next_hop.rpartition(":")[0]
    return not next_hop.startswith("mx:") and (host.startswith("[") or host.replace(".", "").isdigit())
