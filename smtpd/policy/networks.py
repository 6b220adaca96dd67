"""Sets of networks, and tables from networks to values where the longest prefix wins. A bounded number of answers is kept."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

_KNOWN_ADDRESSES = 10_000
_MISSING = object()


class NetworkTable[T]:
    """Look up by a dict for each prefix length: the cost does not grow with the number of networks."""

    def __init__(self, table: Mapping[str, T]) -> None:
        self._by_prefix: dict[tuple[int, int], dict[int, T]] = {}
        for text, value in table.items():
            network = ipaddress.ip_network(text, strict=False)
            self._by_prefix.setdefault((network.version, network.prefixlen), {})[int(network.network_address)] = value
        self._lengths = {version: self._lengths_of(version) for version in (4, 6)}
        self._known: dict[str, T | None] = {}

    def _lengths_of(self, version: int) -> list[tuple[int, dict[int, T]]]:
        bits = 32 if version == 4 else 128
        found = [(length, table) for (v, length), table in self._by_prefix.items() if v == version]
        return [(bits - length, table) for length, table in sorted(found, key=lambda pair: -pair[0])]

    def __bool__(self) -> bool:
        return bool(self._by_prefix)

    def get(self, address: str) -> T | None:
        """The value of the narrowest network with this address; None for what is no address, such as a unix socket's peer."""
        known = self._known.get(address, _MISSING)
        if known is _MISSING:
            if len(self._known) >= _KNOWN_ADDRESSES:
                self._known.clear()
            known = self._known[address] = self._look_up(address)
        return known  # type: ignore[return-value]

    def _look_up(self, address: str) -> T | None:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return None
        if parsed.version == 6 and parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        number = int(parsed)
        for shift, table in self._lengths[parsed.version]:
            value = table.get(number >> shift << shift)
            if value is not None:
                return value
        return None


class NetworkSet:
    """Whether an address is in any of them."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._table: NetworkTable[bool] = NetworkTable(dict.fromkeys(networks, True))

    def __bool__(self) -> bool:
        return bool(self._table)

    def __contains__(self, address: str) -> bool:
        return self._table.get(address) is not None
