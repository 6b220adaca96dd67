"""The PROXY header, versions 1 and 2, that a load balancer sends before the client's octets: who the client really is.

Without socket or clock: octets in, in any pieces; nothing behind the header is taken. Owns at most MAX_BYTES of one header.
Everything that is not exactly a header is a failure: a guess here would be a spoofed address. Source: "The PROXY protocol,
versions 1 & 2" of HAProxy (proxy-protocol.txt).
"""

from __future__ import annotations

import functools
import ipaddress

V1_BYTES = 107  # the longest line of version 1, CRLF included (2.1)
MAX_BYTES = 4096  # of a whole header of version 2; the specification allows 64 KiB, nobody sends it
_V1 = b"PROXY "
_V2 = b"\r\n\r\n\0\r\nQUIT\n"
_V2_FIXED = 16  # signature, version and command, family, length
_LOCAL, _PROXY = 0, 1
_ADDRESS_BYTES = {0x00: 0, 0x11: 12, 0x21: 36, 0x31: 216}  # by family and transport; TCP over IPv4 and IPv6, a unix stream
_TLV_HEAD = 3
_CRC32C, _CRC_BYTES = 0x03, 4  # type and length of the attribute that is the header's checksum (2.2.3)
_CASTAGNOLI = 0x82F63B78  # its polynomial, lowest bit first (RFC 3309)
_FAMILIES: dict[bytes, type[ipaddress.IPv4Address] | type[ipaddress.IPv6Address]] = {
    b"TCP4": ipaddress.IPv4Address,
    b"TCP6": ipaddress.IPv6Address,
}


class ProxyHeader:
    """`take` octets until `is_done`, then read the rest of the attributes.

    `failure` is "" or what is wrong, in words without any octet of the peer. `is_local`: the balancer speaks for itself, or does
    not know for whom (UNKNOWN, LOCAL); then `address` is "". `address` is an IP address in its shortest form, mapped IPv4
    as IPv4.
    """

    __slots__ = ("_held", "address", "failure", "is_done", "is_local", "port")

    def __init__(self) -> None:
        self._held = bytearray()
        self.is_done = False
        self.is_local = False
        self.failure = ""
        self.address = ""
        self.port = 0

    def take(self, data: bytes | bytearray, start: int, end: int) -> int:
        """Take data[start:end] as far as the header goes; return the position after its last octet so far."""
        held = self._held
        while start < end and not self.is_done:
            take_bytes = min(self._wanted() - len(held), end - start)
            held += data[start : start + take_bytes]
            start += take_bytes
            self._look()
        return start

    def _wanted(self) -> int:
        """How many octets the header has at least, as far as is known by what came of it."""
        held = self._held
        if held[:1] == _V1[:1]:
            return len(held) + 1  # its end shows in no other way, and a line is short
        if len(held) < _V2_FIXED:
            return _V2_FIXED if held else 1
        return _V2_FIXED + int.from_bytes(held[14:16], "big")

    def _look(self) -> None:
        held = self._held
        if held[:1] == _V1[:1]:
            if not _V1.startswith(held[: len(_V1)]):
                self._fail("no PROXY header")
            elif held.endswith(b"\r\n"):
                self._read_line(bytes(held[:-2]))
            elif len(held) >= V1_BYTES:
                self._fail("the line of a PROXY header is too long")
            return
        if held[: len(_V2)] != _V2[: len(held)]:
            self._fail("no PROXY header")
        elif len(held) >= _V2_FIXED:
            if self._wanted() > MAX_BYTES:
                self._fail("a PROXY header is too long")
            elif len(held) == self._wanted():
                self._read_binary(bytes(held))

    def _fail(self, text: str) -> None:
        self.failure = text
        self.is_done = True

    def _read_line(self, line: bytes) -> None:
        words = line.split(b" ")
        if words[1] == b"UNKNOWN":  # whatever follows is to be ignored
            self.is_local = self.is_done = True
            return
        family = _FAMILIES.get(words[1])
        if family is None or len(words) != 6:
            self._fail("a PROXY header of unknown form")
            return
        try:
            source = family(words[2].decode("ascii"))
            family(words[3].decode("ascii"))
            ports = [_port(words[4]), _port(words[5])]
        except ValueError:  # UnicodeDecodeError is one
            self._fail("a PROXY header with an address or port that is none")
            return
        self._know(source, ports[0])

    def _read_binary(self, octets: bytes) -> None:
        version, command = octets[12] >> 4, octets[12] & 0x0F
        if version != 2 or command > _PROXY:
            self._fail("a PROXY header of unknown version or command")
            return
        if command == _LOCAL:  # families and addresses are to be ignored
            self.is_local = self.is_done = True
            return
        address_bytes = _ADDRESS_BYTES.get(octets[13])
        if address_bytes is None:
            self._fail("a PROXY header of unknown family")
            return
        addresses = octets[_V2_FIXED : _V2_FIXED + address_bytes]
        try:
            checksum_at = _find_checksum(octets, _V2_FIXED + address_bytes)
        except ValueError:
            self._fail("a PROXY header whose lengths contradict each other")
            return
        if checksum_at and not _is_whole(octets, checksum_at):
            self._fail("a PROXY header whose checksum is wrong")
            return
        if address_bytes == 12:
            self._know(ipaddress.IPv4Address(addresses[:4]), int.from_bytes(addresses[8:10], "big"))
        elif address_bytes == 36:
            self._know(ipaddress.IPv6Address(addresses[:16]), int.from_bytes(addresses[32:34], "big"))
        else:  # no address of a network
            self.is_local = self.is_done = True

    def _know(self, source: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> None:
        if isinstance(source, ipaddress.IPv6Address):
            if source.scope_id is not None:
                self._fail("a PROXY header with an address or port that is none")
                return
            source = source.ipv4_mapped or source
        self.address = str(source)
        self.port = port
        self.is_done = True


def _port(text: bytes) -> int:
    """Return a port as the specification writes it; ValueError."""
    if not text.isdigit() or len(text) > 5 or (text[:1] == b"0" and text != b"0") or int(text) > 65535:
        raise ValueError(text)
    return int(text)


def _find_checksum(octets: bytes, position: int) -> int:
    """Return where the checksum is, 0 = there is none. From `position` on a header has whole type-length-value triples (2.2),
    else ValueError; what the others say does not matter here, least of all that the client has spoken TLS with somebody."""
    found = 0
    while position < len(octets):
        end = position + _TLV_HEAD + int.from_bytes(octets[position + 1 : position + _TLV_HEAD], "big")
        if octets[position] == _CRC32C:
            if found or end - position != _TLV_HEAD + _CRC_BYTES:
                raise ValueError("no checksum")
            found = position + _TLV_HEAD
        position = end
    if position != len(octets):
        raise ValueError("lengths contradict each other")
    return found


def _is_whole(octets: bytes, checksum_at: int) -> bool:
    """Whether the header has this checksum, counted as if it were zeros (2.2.3)."""
    behind = checksum_at + _CRC_BYTES
    table = _crc_table()
    crc = 0xFFFFFFFF
    for octet in octets[:checksum_at] + bytes(_CRC_BYTES) + octets[behind:]:
        crc = table[(crc ^ octet) & 0xFF] ^ crc >> 8
    return (crc ^ 0xFFFFFFFF).to_bytes(_CRC_BYTES, "big") == octets[checksum_at:behind]


@functools.cache
def _crc_table() -> list[int]:
    """The checksum of each octet."""
    table = []
    for crc in range(256):
        for _ in range(8):
            crc = crc >> 1 ^ (_CASTAGNOLI if crc & 1 else 0)
        table.append(crc)
    return table
