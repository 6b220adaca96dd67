"""The PROXY header: every form of the specification, cut at every place, and nothing that only looks like one."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd.proto.proxy_header import MAX_BYTES, V1_BYTES, ProxyHeader

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
BEHIND = b"EHLO client.example.org\r\n"


def binary(command: int, family: int, content: bytes, length: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(content) if length is None else length) + content


def four(source: str, port: int) -> bytes:
    return socket.inet_aton(source) + socket.inet_aton("198.51.100.1") + struct.pack("!HH", port, 25)


def six(source: str, port: int) -> bytes:
    return socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, "::1") + struct.pack("!HH", port, 25)


GOOD = [
    (b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 25\r\n", "192.0.2.7", 56324),
    (b"PROXY TCP6 2001:db8::7 2001:db8::1 1 25\r\n", "2001:db8::7", 1),
    (b"PROXY TCP6 2001:0DB8:0:0:0:0:0:7 ::1 0 65535\r\n", "2001:db8::7", 0),
    (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 65535 25\r\n", "192.0.2.7", 65535),
    (b"PROXY UNKNOWN\r\n", "", 0),
    (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", "", 0),
    (binary(0x21, 0x11, four("192.0.2.7", 56324)), "192.0.2.7", 56324),
    (binary(0x21, 0x11, four("192.0.2.7", 56324) + b"\x04\x00\x03abc\x20\x00\x00"), "192.0.2.7", 56324),
    (binary(0x21, 0x21, six("2001:db8::7", 9)), "2001:db8::7", 9),
    (binary(0x21, 0x21, six("::ffff:192.0.2.7", 9)), "192.0.2.7", 9),
    (binary(0x21, 0x31, b"/a".ljust(108, b"\0") + b"/b".ljust(108, b"\0")), "", 0),
    (binary(0x21, 0x00, b""), "", 0),
    (binary(0x20, 0x00, b""), "", 0),
    (binary(0x20, 0x11, four("192.0.2.7", 56324)), "", 0),
    (binary(0x20, 0x77, b"whatever"), "", 0),
    (binary(0x21, 0x11, four("192.0.2.7", 1) + b"\xea\x0f\xe1" + bytes(4065)), "192.0.2.7", 1),  # 4,096 octets in all
]

BAD = [
    b"EHLO client.example.org\r\n",
    b"\x16\x03\x01\x02\x00",
    b"PROXX",
    b"PROXY\r\n",
    b"proxy TCP4",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 25\n" + b"x" * V1_BYTES,
    b"PROXY TCP4 192.0.2.7 198.51.100.1 56324\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 25 \r\n",
    b"PROXY TCP4  192.0.2.7 198.51.100.1 56324 25\r\n",
    b"PROXY TCP4 192.0.2.256 198.51.100.1 56324 25\r\n",
    b"PROXY TCP4 192.0.2.07 198.51.100.1 56324 25\r\n",
    b"PROXY TCP4 2001:db8::7 2001:db8::1 1 25\r\n",
    b"PROXY TCP6 192.0.2.7 198.51.100.1 1 25\r\n",
    b"PROXY TCP6 fe80::1%eth0 ::1 1 25\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 25\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 +1 25\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 01 25\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 \xc2\xb2 25\r\n",
    b"PROXY TCP4 192.0.2.7 \xff 1 25\r\n",
    b"PROXY UDP4 192.0.2.7 198.51.100.1 1 25\r\n",
    b"PROXY UNKNOWN" + b" " * V1_BYTES,
    b"\r\n\r\n\0\r\nQUIT\r",
    b"\r\n\r\nEHLO x",
    binary(0x11, 0x11, four("192.0.2.7", 1)),
    binary(0x22, 0x11, four("192.0.2.7", 1)),
    binary(0x21, 0x12, four("192.0.2.7", 1)),
    binary(0x21, 0x41, four("192.0.2.7", 1)),
    binary(0x21, 0x11, four("192.0.2.7", 1)[:-1]),
    binary(0x21, 0x21, four("192.0.2.7", 1)),
    binary(0x21, 0x11, four("192.0.2.7", 1) + b"\x04\x00"),
    binary(0x21, 0x11, four("192.0.2.7", 1) + b"\x04\x00\x04abc"),
    binary(0x21, 0x11, four("192.0.2.7", 1) + b"\x04\x00\x03abcd"),
    binary(0x21, 0x11, b"", length=MAX_BYTES - 15),
    binary(0x20, 0x00, b"", length=65535),
]


def read(octets: bytes, sizes: list[int]) -> tuple[ProxyHeader, int]:
    """Feed pieces of these sizes, the last one again and again; return the reader and how many octets it took."""
    header = ProxyHeader()
    position = 0
    while position < len(octets) and not header.is_done:
        size = sizes.pop(0) if len(sizes) > 1 else sizes[0]
        end = min(position + size, len(octets))
        taken = header.take(octets, position, end)
        assert taken == end or header.is_done
        position = taken
    return header, position


@pytest.mark.parametrize(("octets", "address", "port"), GOOD)
def test_a_header_tells_the_client_however_it_is_cut(octets: bytes, address: str, port: int) -> None:
    for size in (1, 2, 3, 7, 16, len(octets), len(octets) + 5):
        header, taken = read(octets + BEHIND, [size])
        assert header.is_done
        assert header.failure == ""
        assert (header.address, header.port, header.is_local) == (address, port, not address)
        assert taken == len(octets)  # what follows is the session's


@pytest.mark.parametrize("octets", BAD)
def test_anything_else_is_refused_however_it_is_cut(octets: bytes) -> None:
    whole, _ = read(octets, [len(octets)])
    assert whole.is_done
    for size in (1, 2, 5):
        header, taken = read(octets, [size])
        assert header.is_done
        assert header.failure == whole.failure != ""
        assert (header.address, header.port, header.is_local) == ("", 0, False)
        assert taken <= MAX_BYTES


@pytest.mark.parametrize("octets", [good[0] for good in GOOD])
def test_no_beginning_of_a_header_is_taken_for_one(octets: bytes) -> None:
    header, taken = read(octets[:-1], [1000])
    assert (header.is_done, header.failure, header.address) == (False, "", "")
    assert taken == len(octets) - 1


@given(st.binary(max_size=300), st.integers(1, 40))
def test_random_octets_never_raise_and_never_give_an_address(octets: bytes, size: int) -> None:
    header, _ = read(octets or b"x", [size])
    assert header.address == ""


@given(st.ip_addresses(v=4), st.ip_addresses(v=6), st.integers(0, 65535), st.lists(st.integers(1, 9), min_size=1))
def test_every_address_comes_through(v4: object, v6: object, port: int, sizes: list[int]) -> None:
    for octets, address in [
        (b"PROXY TCP4 %s 198.51.100.1 %d 25\r\n" % (str(v4).encode(), port), v4),
        (binary(0x21, 0x11, four(str(v4), port)), v4),
        (binary(0x21, 0x21, six(str(v6), port)), getattr(v6, "ipv4_mapped", None) or v6),
    ]:
        header, taken = read(octets + BEHIND, list(sizes))
        assert (header.failure, header.address, header.port) == ("", str(address), port)
        assert taken == len(octets)
