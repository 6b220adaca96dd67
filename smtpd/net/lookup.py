"""The look-ups themselves, as coroutines for the side thread: MX with addresses of all its hosts, and addresses of one host.

Asks by the worker's DnsChannel and keeps nothing. Without aiodns host names still go by the system's resolver; MX doesn't.
Nothing is raised for what DNS answers: it is in `Found`.
RFC 5321 5.1, RFC 7505 (null MX), RFC 8020 (NXDOMAIN means nothing below either); a CNAME as MX host is tolerated.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from smtpd.net.dns_channel import DnsChannel, NoAnswerError, words_of
from smtpd.net.hops import MISSING, Found, LookupFailure, NamedHost, find_missing

HOSTS_MAX = 20  # of one domain; a list of hundreds would be a way to keep us busy
ADDRESSES_MAX = 20  # of one host
TTL_LEAST_S = 300.0
TTL_MOST_S = 3600.0
NEGATIVE_TTL_S = 300.0
FAILURE_TTL_S = 30.0  # the resolver is not asked for every mail while it fails
_TEMPORARY = "4.4.3"


class DnsClient:
    """`timeout_s` is for all questions of one look-up. Both look-ups run on the side thread."""

    def __init__(self, channel: DnsChannel, timeout_s: float) -> None:
        self._channel = channel
        self._timeout_s = timeout_s

    async def find_mx(self, domain: str) -> Found:
        """Look up where mail for a domain goes: its MX, or itself if it has none."""
        if find_missing():
            return _failed(LookupFailure(False, "4.3.5", MISSING))
        try:
            name = _ascii_name(domain)
        except ValueError:
            return _absent("5.1.2", f"{domain} is not a domain")
        try:
            async with asyncio.timeout(self._timeout_s * 0.5):
                records, ttl_s = await self._channel.query(name, "MX")
        except TimeoutError:
            return _failed(LookupFailure(False, _TEMPORARY, f"no answer about the MX of {domain}"))
        except NoAnswerError as error:
            if error.is_absent:
                return _absent("5.1.2", f"the domain {domain} does not exist")
            if not error.is_empty:
                return _failed(LookupFailure(False, _TEMPORARY, f"MX of {domain}: {error}"))
            records, ttl_s = [], TTL_MOST_S
        targets = [(int(data.priority), str(data.exchange).rstrip(".").lower()) for data in records]
        if not targets:
            return await self._find_addresses(domain, [(0, name)], ttl_s, is_implicit=True)
        if all(not target for _, target in targets):
            return _absent("5.1.10", f"the domain {domain} takes no mail (null MX)", ttl_s)
        hosts: dict[str, int] = {}
        for preference, target in sorted(targets):
            if target:
                hosts.setdefault(target, preference)
        chosen = [(preference, target) for target, preference in hosts.items()][:HOSTS_MAX]
        return await self._find_addresses(domain, chosen, ttl_s, is_implicit=False)

    async def find_host(self, name: str) -> Found:
        """Look up a host of the configuration: also in /etc/hosts, and with the search list."""
        addresses, ttl_s = [], TTL_LEAST_S
        try:
            if find_missing():
                infos = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
                addresses = [str(info[4][0]) for info in infos]
            else:
                nodes = (await self._channel.open().getaddrinfo(name, type=socket.SOCK_STREAM)).nodes
                addresses = [_node_address(node) for node in nodes]
                ttl_s = min((float(node.ttl) for node in nodes), default=TTL_LEAST_S)
        except Exception as error:  # noqa: BLE001 gaierror or aiodns's, which can't be named without aiodns
            return _failed(LookupFailure(False, "4.4.4", f"host {name}: {words_of(error)}"))
        if not addresses:
            return _failed(LookupFailure(False, "4.4.4", f"host {name} has no address"))
        host = NamedHost(0, name, tuple(dict.fromkeys(addresses))[:ADDRESSES_MAX])
        return Found((host,), None, _clamp(ttl_s), is_ordered=True)

    # --- running -----------------------------------------------------------------------------------------------------

    async def _find_addresses(self, domain: str, hosts: list[tuple[int, str]], ttl_s: float, is_implicit: bool) -> Found:
        """Look all hosts up at once; those without an address are passed over."""
        tasks = [asyncio.ensure_future(self._addresses_of(name)) for _, name in hosts]
        try:
            await asyncio.wait(tasks, timeout=self._timeout_s * 0.4)
        finally:
            for task in tasks:
                task.cancel()  # changes nothing for one that is done
        await asyncio.gather(*tasks, return_exceptions=True)
        found: list[NamedHost] = []
        failures: list[NoAnswerError] = []
        for (preference, name), task in zip(hosts, tasks, strict=True):
            if task.cancelled():
                failures.append(NoAnswerError(f"no answer about the addresses of {name}"))
                continue
            error = task.exception()
            if isinstance(error, NoAnswerError):
                failures.append(error)
                continue
            addresses, address_ttl_s = task.result()
            ttl_s = min(ttl_s, address_ttl_s)
            found.append(NamedHost(preference, name, tuple(addresses[:ADDRESSES_MAX])))
        if found:
            return Found(tuple(found), None, _clamp(ttl_s))
        lasting = [error for error in failures if not error.is_final]
        if lasting:
            return _failed(LookupFailure(False, _TEMPORARY, f"{domain}: {lasting[0]}"))
        if is_implicit:
            if failures[0].is_absent:
                return _absent("5.1.2", f"the domain {domain} does not exist", ttl_s)
            return _absent("5.4.4", f"the domain {domain} has neither MX nor address", ttl_s)
        return _absent("5.4.4", f"no mail host of {domain} has an address", ttl_s)

    async def _addresses_of(self, name: str) -> tuple[list[str], float]:
        results = await asyncio.gather(self._channel.query(name, "AAAA"), self._channel.query(name, "A"), return_exceptions=True)
        addresses: list[str] = []
        ttl_s = TTL_MOST_S
        failures: list[NoAnswerError] = []
        for result in results:
            if isinstance(result, NoAnswerError):
                failures.append(result)
            elif isinstance(result, BaseException):
                raise result
            else:
                addresses += [str(data.addr) for data in result[0]]
                ttl_s = min(ttl_s, result[1])
        if addresses:
            return addresses, ttl_s
        raise next((error for error in failures if not error.is_final), failures[0])


def _node_address(node: Any) -> str:
    address = node.addr[0]
    return address.decode("ascii") if isinstance(address, bytes) else str(address)


def _ascii_name(domain: str) -> str:
    """A domain as A-labels (RFC 6531 3.2), in lower case; ValueError when it has none."""
    name = domain.removesuffix(".").lower()
    if not name.isascii():
        import idna  # here: its tables take long to load

        try:
            name = idna.encode(name, uts46=True).decode("ascii")
        except UnicodeError as error:
            raise ValueError(str(error)) from None
    if not name or len(name) > 253 or not all(0 < len(label) <= 63 for label in name.split(".")):
        raise ValueError("not a domain")
    return name


def _clamp(ttl_s: float) -> float:
    return min(max(ttl_s, TTL_LEAST_S), TTL_MOST_S)


def _absent(dsn: str, text: str, ttl_s: float = NEGATIVE_TTL_S) -> Found:
    return Found((), LookupFailure(True, dsn, text), min(_clamp(ttl_s), NEGATIVE_TTL_S))


def _failed(failure: LookupFailure) -> Found:
    return Found((), failure, FAILURE_TTL_S)
