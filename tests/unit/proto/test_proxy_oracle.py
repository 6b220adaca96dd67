"""Our reader of PROXY headers beside the package proxy-protocol: what it writes we read, what it refuses we never take."""

from __future__ import annotations

import random
import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from proxyprotocol import ProxyProtocol, ProxyProtocolChecksumError, ProxyProtocolSyntaxError
from proxyprotocol.result import ProxyResult, ProxyResultIPv4, ProxyResultIPv6, ProxyResultLocal, ProxyResultUnix, is_unknown
from proxyprotocol.tlv import ProxyProtocolTLV
from proxyprotocol.v1 import ProxyProtocolV1
from proxyprotocol.v2 import ProxyProtocolV2

from smtpd.proto.proxy_header import MAX_BYTES, ProxyHeader

PORTS = st.integers(0, 65535)
V4 = st.builds(
    ProxyResultIPv4,
    st.tuples(st.ip_addresses(v=4), PORTS),
    st.tuples(st.ip_addresses(v=4), PORTS),
)
V6 = st.builds(
    ProxyResultIPv6,
    st.tuples(st.ip_addresses(v=6), PORTS),
    st.tuples(st.ip_addresses(v=6), PORTS),
)
PATHS = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=100)
TLVS = st.dictionaries(st.sampled_from([1, 2, 4, 5, 0x20, 0x30, 0xE0, 0xF8]), st.binary(max_size=60), max_size=4)


def v2_octets(result: ProxyResult, tlvs: dict[int, bytes], has_checksum: bool) -> bytes:
    """A header with these attributes, as the oracle writes them; `has_checksum`: one of them guards the rest."""
    tail = b"".join(struct.pack("!BH", kind, len(value)) + value for kind, value in tlvs.items())
    packed = ProxyProtocolV2().pack(result)
    header, addresses = packed[:14], packed[16 : 16 + {0x10: 12, 0x20: 36, 0x30: 216}.get(packed[13] & 0xF0, 0)]
    header = header[:13] + bytes([packed[13] & 0xF0 | 1]) if addresses else header
    if not has_checksum:
        return header + struct.pack("!H", len(addresses) + len(tail)) + addresses + tail
    start = header + struct.pack("!H", len(addresses) + len(tail) + 7)
    return start + addresses + bytes(ProxyProtocolTLV(tail, auto_crc32c=True).with_checksum(start, addresses))


def ours(octets: bytes) -> ProxyHeader:
    header = ProxyHeader()
    taken = header.take(octets, 0, len(octets))
    assert header.failure or not header.is_done or taken == len(octets)
    return header


def address_of(result: ProxyResult) -> tuple[str, int]:
    """What a header should have told us, "" without an address."""
    if not isinstance(result, (ProxyResultIPv4, ProxyResultIPv6)):
        return "", 0
    address, port = result.source
    return str(getattr(address, "ipv4_mapped", None) or address), port


@given(V4 | V6, TLVS, st.booleans())
def test_what_it_writes_we_read(result: ProxyResult, tlvs: dict[int, bytes], has_checksum: bool) -> None:
    octets = [v2_octets(result, tlvs, has_checksum), ProxyProtocolV1().pack(result)]
    for header in map(ours, octets):
        assert (header.failure, header.is_done, header.is_local) == ("", True, False)
        assert (header.address, header.port) == address_of(result)


@given(st.builds(ProxyResultUnix, PATHS, PATHS) | st.just(ProxyResultLocal()), TLVS)
def test_what_names_no_client_names_none_here(result: ProxyResult, tlvs: dict[int, bytes]) -> None:
    header = ours(v2_octets(result, tlvs, False))
    assert (header.failure, header.is_local, header.address) == ("", True, "")


def mutated(octets: bytes, seed: int, count: int) -> bytes:
    chance = random.Random(seed)
    text = bytearray(octets)
    for _ in range(count):
        place = chance.randrange(len(text))
        match chance.randrange(4):
            case 0:
                text[place] = chance.randrange(256)
            case 1:
                text[place] ^= 1 << chance.randrange(8)
            case 2:
                text[place:place] = bytes([text[place]])
            case _:
                del text[place]
    return bytes(text)


@given(V4 | V6, TLVS, st.booleans(), st.booleans(), st.integers(0, 1 << 30), st.integers(1, 4))
def test_what_it_refuses_we_never_take(
    result: ProxyResult, tlvs: dict[int, bytes], has_checksum: bool, is_text: bool, seed: int, count: int
) -> None:
    octets = ProxyProtocolV1().pack(result) if is_text else v2_octets(result, tlvs, has_checksum)
    octets = mutated(octets, seed, count)
    header = ProxyHeader()
    taken = header.take(octets, 0, len(octets))
    if not header.is_done or header.failure or header.is_local:
        assert header.address == ""
        return
    oracle: ProxyProtocol = ProxyProtocolV1() if is_text else ProxyProtocolV2()
    assert (header.address, header.port) == address_of(oracle.unpack(octets[:taken]))


@pytest.mark.parametrize("place", [12, 13, 16, 27, 31, 40])
def test_a_header_that_does_not_fit_its_checksum_is_refused(place: int) -> None:
    result = ProxyResultIPv4((IPv4Address("192.0.2.7"), 4711), (IPv4Address("198.51.100.1"), 25))
    octets = v2_octets(result, {5: b"unique"}, True)
    assert ours(octets).address == "192.0.2.7"
    spoilt = octets[:place] + bytes([octets[place] ^ 0x10]) + octets[place + 1 :]
    header = ProxyHeader()
    header.take(spoilt, 0, len(spoilt))
    assert header.address == ""
    if place >= 16:
        assert header.failure == "a PROXY header whose checksum is wrong"
        with pytest.raises(ProxyProtocolChecksumError):
            ProxyProtocolV2().unpack(spoilt)


def test_a_checksum_comes_once_and_has_four_octets() -> None:
    result = ProxyResultIPv6((IPv6Address("2001:db8::7"), 4711), (IPv6Address("::1"), 25))
    good = v2_octets(result, {}, True)
    plain = v2_octets(result, {}, False)
    for tail in (good[-7:] * 2, b"\x03\x00\x00", b"\x03\x00\x03abc", b"\x03\x00\x05abcde"):
        octets = plain[:14] + struct.pack("!H", 36 + len(tail)) + plain[16:] + tail
        assert ours(octets).failure == "a PROXY header whose lengths contradict each other"


def test_the_oracle_refuses_what_is_no_header() -> None:
    """It can: else the comparison would mean nothing."""
    with pytest.raises(ProxyProtocolSyntaxError):
        ProxyProtocolV1().unpack(b"PROXY UDP4 192.0.2.7 198.51.100.1 1 25\r\n")
    assert is_unknown(ProxyProtocolV1().unpack(b"PROXY UNKNOWN\r\n"))
    assert len(v2_octets(ProxyResultLocal(), {1: b"x" * 60}, True)) < MAX_BYTES
