"""What `smtpd load` says as a front end: PROXY headers before each connection's first octet, and attributes of XCLIENT.

Names our own address, or those of a network in turn, so that limits for clients can be tried from one machine. Owns the number of
the next one. Source: "The PROXY protocol, versions 1 & 2" of HAProxy (proxy-protocol.txt), XCLIENT_README of Postfix.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct

VERSIONS = ("v1", "v2")
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_PROXY_V2 = 0x21  # version 2, command PROXY
_FAMILIES = {4: 0x11, 6: 0x21}  # TCP over IPv4 and IPv6
_FIRST_PORT, _PORTS = 1024, 64512
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Clients:
    """The addresses of a network in turn, with ports. Of `shares` processes this is number `share`: together they miss none."""

    def __init__(self, network: str, share: int, shares: int) -> None:
        self.network = ipaddress.ip_network(network)
        self._next = share
        self._step = shares

    def next_client(self) -> tuple[Address, int]:
        number, self._next = self._next, self._next + self._step
        return self.network[number % self.network.num_addresses], _FIRST_PORT + number % _PORTS


class Introductions:
    """What XCLIENT says of each connection's client."""

    def __init__(self, network: str, share: int, shares: int) -> None:
        self._clients = Clients(network, share, shares)

    def next_attributes(self) -> bytes:
        address, port = self._clients.next_client()
        prefix = "IPV6:" if address.version == 6 else ""
        return f"ADDR={prefix}{address} PORT={port}".encode()


class ProxyHeaders:
    """`network` "" = our own address."""

    def __init__(self, version: str, network: str, share: int, shares: int) -> None:
        self._is_text = version == "v1"
        self._clients = Clients(network, share, shares) if network else None

    def header_for(self, fd: int) -> bytes:
        """Return the header of a connection that is just open."""
        with socket.socket(fileno=os.dup(fd)) as sock:
            ours, theirs = sock.getsockname(), sock.getpeername()
        if isinstance(theirs, tuple):
            source, source_port = ipaddress.ip_address(ours[0].partition("%")[0]), ours[1]
            target, target_port = ipaddress.ip_address(theirs[0].partition("%")[0]), theirs[1]
        elif self._clients is None:  # a unix socket has none
            return b"PROXY UNKNOWN\r\n" if self._is_text else _SIGNATURE + struct.pack("!BBH", _PROXY_V2, 0, 0)
        else:
            source = target = self._clients.network[0]
            source_port = target_port = 0
        if self._clients is not None:
            source, source_port = self._clients.next_client()
        return self._render(source, source_port, _of_family(target, source.version), target_port)

    def _render(self, source: Address, source_port: int, target: Address, target_port: int) -> bytes:
        if self._is_text:
            return f"PROXY TCP{source.version} {source} {target} {source_port} {target_port}\r\n".encode()
        content = source.packed + target.packed + struct.pack("!HH", source_port, target_port)
        return _SIGNATURE + struct.pack("!BBH", _PROXY_V2, _FAMILIES[source.version], len(content)) + content


def _of_family(address: Address, version: int) -> Address:
    """A header has addresses of one family."""
    if address.version == version:
        return address
    return ipaddress.IPv6Address(f"::ffff:{address}") if version == 6 else ipaddress.IPv4Address("0.0.0.0")
