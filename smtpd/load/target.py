"""Where the load goes: what the target's text means, its addresses, and whether they are ours to load.

Raises ValueError with a text for people. Looks names up with the system's resolver, once, before the run.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass

from smtpd.net.listeners import Address

SMTP_PORT = 25


@dataclass(frozen=True)
class Target:
    """`name` is the host as it was given (for TLS), `addresses` what connect takes, in the order to try."""

    text: str
    name: str
    addresses: tuple[Address, ...]


def find_target(text: str, family: socket.AddressFamily = socket.AF_UNSPEC) -> Target:
    """Parse `[inet:]HOST[:PORT]`, `[ADDRESS]:PORT` or `unix:PATH` and look the host up, for one `family` only perhaps."""
    if text.startswith("unix:"):
        path = text[5:]
        if not path or "\0" in path:
            raise ValueError("a path is missing, as in unix:/run/lmtp")
        return Target(text, "localhost", (path,))
    host, port = split_host(text.removeprefix("inet:"))
    try:
        found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ValueError(f'"{host}" leads to no address: {words}') from None
    addresses = dict.fromkeys((str(sockaddr[0]), port) for *_, sockaddr in found)
    shown = f"[{host}]" if ":" in host else host
    return Target(f"{shown}:{port}", host, tuple(addresses))


def split_host(text: str) -> tuple[str, int]:
    """Host without brackets, and port."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f'"{text}" is not a target such as "[::1]:25"')
        port = rest[1:] if rest else str(SMTP_PORT)
    elif text.count(":") > 1:
        raise ValueError('an IPv6 address stands in brackets, as in "[::1]:25"')
    else:
        host, colon, port = text.partition(":")
        port = port if colon else str(SMTP_PORT)
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f'"{text}" is not a target such as "127.0.0.1:25", "[::1]:25" or "unix:/run/lmtp"')
    return host, int(port)


def find_public(target: Target) -> list[str]:
    """The addresses that belong to strangers: neither loopback nor private, link-local or for documentation."""
    return [address[0] for address in target.addresses if not isinstance(address, str) and not _is_ours(address[0])]


def _is_ours(text: str) -> bool:
    ip = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if ip.is_loopback or ip.is_unspecified:
        return True
    return (ip.is_private or ip.is_link_local) and not ip.is_multicast and not ip.is_reserved
