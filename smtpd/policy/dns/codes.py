"""Answers of DNS lists that count, as patterns: "127.0.0.2", "127.0.0.[2..11]", "127.0.[1;3].[0..255]", "127.0.0.0/24".

Only an address within 127/8 can be an answer; 127.255.255.0/24 is how a list says that it doesn't answer us, and no pattern
matches it. Forms as in Postfix's postscreen_dnsbl_sites. `parse_codes` raises ValueError with what is wrong.
"""

from __future__ import annotations

import ipaddress

Octets = tuple[frozenset[int], ...]
_ERRORS = ipaddress.IPv4Network("127.255.255.0/24")
_LOOPBACK = ipaddress.IPv4Network("127.0.0.0/8")


class Codes:
    """A set of answers, asked by `matches`."""

    def __init__(self, patterns: list[str]) -> None:
        self._patterns: list[Octets] = []
        self._networks: list[ipaddress.IPv4Network] = []
        for pattern in patterns:
            if "/" in pattern:
                self._networks.append(_parse_network(pattern))
            else:
                self._patterns.append(parse_pattern(pattern))

    def matches(self, record: str) -> bool:
        """Whether this A record is an answer that counts."""
        try:
            address = ipaddress.IPv4Address(record)
        except ValueError:
            return False
        if is_error(record):
            return False
        if any(address in network for network in self._networks):
            return True
        octets = address.packed
        return any(all(octet in taken for octet, taken in zip(octets, pattern, strict=True)) for pattern in self._patterns)


def is_error(record: str) -> bool:
    """Whether an A record means that the list is broken, gone, or refuses us: it is never a listing."""
    address = ipaddress.IPv4Address(record)
    return address in _ERRORS or address not in _LOOPBACK


def parse_pattern(text: str) -> Octets:
    """Four parts between dots, each a number or numbers and ranges in brackets, separated by ";"."""
    parts = _split(text)
    if len(parts) != 4:
        raise ValueError(f'"{text}" is not an address or pattern such as "127.0.0.[2..11]"')
    octets = tuple(_parse_part(part, text) for part in parts)
    if octets[0] != {127}:
        raise ValueError(f'"{text}" is outside 127.0.0.0/8, where answers of lists are')
    return octets


def _split(text: str) -> list[str]:
    """At the dots outside of brackets."""
    parts = [""]
    depth = 0
    for character in text:
        depth += {"[": 1, "]": -1}.get(character, 0)
        if character == "." and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _parse_part(part: str, whole: str) -> frozenset[int]:
    inner = part[1:-1].split(";") if part.startswith("[") and part.endswith("]") else [part]
    taken: set[int] = set()
    for piece in inner:
        first, _, last = piece.partition("..")
        last = last or first
        if not (_is_octet(first) and _is_octet(last)) or int(first) > int(last):
            raise ValueError(f'"{whole}" is not an address or pattern such as "127.0.0.[2..11]"')
        taken.update(range(int(first), int(last) + 1))
    return frozenset(taken)


def _is_octet(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 3 and int(text) < 256


def _parse_network(text: str) -> ipaddress.IPv4Network:
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError:
        raise ValueError(f'"{text}" is not a network such as "127.0.0.0/24"') from None
    if not network.subnet_of(_LOOPBACK):
        raise ValueError(f'"{text}" is outside 127.0.0.0/8, where answers of lists are')
    return network
