"""PROXY headers of the load maker, read by our own reader: our own address, or those of a network in turn over all processes."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from smtpd.load.proxied import VERSIONS, Introductions, ProxyHeaders
from smtpd.proto.proxy_header import ProxyHeader


def read(octets: bytes) -> tuple[str, int]:
    header = ProxyHeader()
    assert header.take(octets, 0, len(octets)) == len(octets)
    assert (header.is_done, header.failure) == (True, "")
    return header.address, header.port


@contextmanager
def connection(family: int) -> Iterator[socket.socket]:
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with socket.create_server((host, 0), family=family) as listener, socket.create_connection(listener.getsockname()[:2]) as sock:
        yield sock


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_we_ourselves_are_named_by_default(version: str, family: int) -> None:
    with connection(family) as sock:
        assert read(ProxyHeaders(version, "", 0, 1).header_for(sock.fileno())) == sock.getsockname()[:2]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize(("network", "first"), [("192.0.2.4/30", "192.0.2.4"), ("2001:db8::/126", "2001:db8::")])
def test_the_addresses_of_a_network_are_named_in_turn_by_all_processes(
    version: str, family: int, network: str, first: str
) -> None:
    with connection(family) as sock:
        shares = [ProxyHeaders(version, network, share, 2) for share in range(2)]
        seen = [read(shares[n % 2].header_for(sock.fileno())) for n in range(8)]
    assert seen[0][0] == first
    assert len({address for address, _ in seen}) == 4
    assert [address for address, _ in seen[:4]] == [address for address, _ in seen[4:]]
    assert len({port for _, port in seen}) == 8


@pytest.mark.parametrize("version", VERSIONS)
def test_over_a_unix_socket_nobody_is_named_but_a_network(version: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert read(ProxyHeaders(version, "", 0, 1).header_for(ours.fileno())) == ("", 0)
        assert read(ProxyHeaders(version, "192.0.2.7", 0, 1).header_for(ours.fileno()))[0] == "192.0.2.7"


def test_xclient_is_given_addresses_as_it_wants_them() -> None:
    six, four = Introductions("2001:db8::8/126", 1, 2), Introductions("192.0.2.7", 0, 1)
    assert [six.next_attributes() for _ in range(3)] == [
        b"ADDR=IPV6:2001:db8::9 PORT=1025", b"ADDR=IPV6:2001:db8::b PORT=1027", b"ADDR=IPV6:2001:db8::9 PORT=1029",
    ]  # fmt: skip
    assert [four.next_attributes() for _ in range(2)] == [b"ADDR=192.0.2.7 PORT=1024", b"ADDR=192.0.2.7 PORT=1025"]
