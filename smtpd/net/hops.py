"""What looking a next hop up gives: hosts by preference, or why there are none; and the order in which hops are tried.

Pure: no look-up is made here, nothing is raised. RFC 5321 5.1 (order, implicit MX, our own host among them), RFC 3974 (IPv6).
"""

from __future__ import annotations

import importlib.util
import ipaddress
import random
import socket
from dataclasses import dataclass, field

MISSING = "the package aiodns is not installed, the extra `dns` (`make build` installs it)"
ANY_ADDRESSES = ("0.0.0.0", "::")


@dataclass(frozen=True, slots=True)
class Hop:
    """One address to connect to. `host` is the name for TLS, logs and health; `address` an IP address without brackets, or the
    path of a unix socket with `port` 0."""

    host: str
    address: str
    port: int

    @property
    def target(self) -> str | tuple[str, int]:
        """What `connect` takes."""
        return (self.address, self.port) if self.port else self.address


@dataclass(frozen=True, slots=True)
class LookupFailure:
    """Why there is no hop: `dsn` is an enhanced status code ("5.1.2"), `text` one line for the sender and the log."""

    is_permanent: bool
    dsn: str
    text: str


@dataclass(frozen=True, slots=True)
class NamedHost:
    """A host of a domain with its addresses, in no order."""

    preference: int
    name: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """The answer of one look-up, good for `ttl_s` seconds. Either `hosts`, by preference, or `failure`. `is_ordered` says that
    the addresses come in the order in which they are to be tried."""

    hosts: tuple[NamedHost, ...]
    failure: LookupFailure | None
    ttl_s: float
    is_ordered: bool = False


@dataclass(frozen=True, slots=True)
class OwnHost:
    """Who we are. `names` in lower case; `endpoints` are (address, port) on which we listen, "0.0.0.0" or "::" for every
    address of this machine."""

    names: frozenset[str] = frozenset()
    endpoints: frozenset[tuple[str, int]] = field(default_factory=frozenset)

    def is_named(self, host: NamedHost) -> bool:
        return host.name in self.names

    def listens_on(self, address: str, port: int) -> bool:
        """Whether a connection there would come back to us."""
        if (address, port) in self.endpoints:
            return True
        any_address = ANY_ADDRESSES[":" in address]
        return (any_address, port) in self.endpoints and _is_of_this_machine(address)


def find_missing() -> str:
    """Return what hinders look-ups of MX, "" if nothing does."""
    return "" if importlib.util.find_spec("aiodns") is not None else MISSING


def drop_own(hosts: tuple[NamedHost, ...], own: OwnHost, port: int) -> tuple[NamedHost, ...]:
    """Return the hosts that are preferred to us: without our own and all of the same or a worse preference, between which and
    us mail would go round in circles (RFC 5321 5.1)."""
    ours = [
        host.preference
        for host in hosts
        if own.is_named(host) or any(own.listens_on(address, port) for address in host.addresses)
    ]
    return tuple(host for host in hosts if host.preference < min(ours)) if ours else hosts


def order_hops(found: Found, port: int) -> list[Hop]:
    """Return the hops in the order to try: by preference, in random order among equals, a host's addresses of both families by
    turns with IPv6 first (RFC 3974 3 leaves that to us)."""
    hosts = list(found.hosts)
    random.shuffle(hosts)
    hosts.sort(key=lambda host: host.preference)
    return [
        Hop(host.name, address, port)
        for host in hosts
        for address in (host.addresses if found.is_ordered else _alternate(host.addresses))
    ]


def parse_literal(domain: str) -> str:
    """Return the address of "[192.0.2.1]" or "[IPv6:2001:db8::1]" (RFC 5321 4.1.3); ValueError when it is none."""
    text = domain[1:-1] if domain.startswith("[") and domain.endswith("]") else ""
    if text[:5].lower() == "ipv6:":
        return str(ipaddress.IPv6Address(text[5:]))
    return str(ipaddress.IPv4Address(text))


def _alternate(addresses: tuple[str, ...]) -> list[str]:
    families = [[a for a in addresses if ":" in a], [a for a in addresses if ":" not in a]]
    for family in families:
        random.shuffle(family)
    six, four = families
    common = min(len(six), len(four))
    return [address for pair in zip(six, four, strict=False) for address in pair] + six[common:] + four[common:]


def _is_of_this_machine(address: str) -> bool:
    """Whether the kernel would let us be there."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
