"""The door: who is turned away there, by what, with which words, and that it costs no session."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from smtpd.limits.clients import ClientLimits, Networks, make_client_table
from smtpd.net.loop import Loop
from smtpd.proto.dialogue import Peer
from smtpd.settings import LimitsSettings
from smtpd.worker.descriptors import Descriptors
from smtpd.worker.front import Front
from smtpd.worker.lingering import Lingering

HOST_BUSY = b"421 4.3.2 All server ports are busy\r\n"
TOO_MANY = b"421 4.7.0 Error: too many connections from your address\r\n"
OVERLOADED = b"421 4.3.2 Error: system overloaded, try again later\r\n"


class Door:
    def __init__(self, limits: LimitsSettings, **settings: Any) -> None:
        self.loop = Loop()
        self.lingering = Lingering(self.loop, Descriptors(print))
        self.denied: list[tuple[str, int]] = []
        self.lines: list[str] = []
        log = SimpleNamespace(warning=lambda component, text: self.lines.append(text))
        account = SimpleNamespace(denied=lambda *what: self.denied.append(what), log=log, listener="mx")
        self.overload = SimpleNamespace(denial="")
        self.begun: list[tuple[int, Peer]] = []
        table = make_client_table()
        table.open_bank(0)
        settings = {"proxies": Networks([]), "trusted": Networks([]), "introducers": Networks([]), **settings}
        self.front = Front(
            self.loop, account, ClientLimits(table, 0, limits), self.lingering, self.overload,  # type: ignore[arg-type]
            lambda fd, peer: self.begun.append((fd, peer)), **settings,
        )  # fmt: skip
        self.socks: list[socket.socket] = []

    def come(self, address: str = "192.0.2.1", first: bytes = b"") -> socket.socket:
        """A client comes from an address; its end of the connection."""
        ours, theirs = socket.socketpair()
        theirs.settimeout(20)
        theirs.sendall(first)
        ours.setblocking(False)
        self.front.accepted(ours.detach(), (address, 4711))
        self.socks.append(theirs)
        return theirs

    def close(self) -> None:
        self.front.close()
        self.lingering.close()
        for fd, _ in self.begun:
            socket.socket(fileno=fd).close()
        for sock in self.socks:
            sock.close()
        self.loop.close()


@pytest.fixture
def doors() -> Iterator[list[Door]]:
    made: list[Door] = []
    yield made
    for door in made:
        door.close()


def words(sock: socket.socket) -> bytes:
    heard = b""
    while octets := sock.recv(1000):
        heard += octets
    return heard


@pytest.mark.parametrize(
    ("is_implicit", "heard"), [(False, TOO_MANY), (True, b"")], ids=["in-words", "silently-where-tls-is-first"]
)
def test_one_connection_too_many_of_a_client(doors: list[Door], is_implicit: bool, heard: bytes) -> None:
    doors.append(door := Door(LimitsSettings(connections_per_client=1), is_implicit=is_implicit))
    door.come()
    assert words(door.come()) == heard
    door.come("192.0.2.2")
    assert [peer.address for _, peer in door.begun] == ["192.0.2.1", "192.0.2.2"]
    assert door.denied == [("client_limit", 421)]
    assert door.lines == ["Connection concurrency limit exceeded: unknown[192.0.2.1] for service mx"]


@pytest.mark.parametrize(
    ("is_implicit", "heard"), [(False, HOST_BUSY), (True, b"")], ids=["in-words", "silently-where-tls-is-first"]
)
def test_one_connection_too_many_of_the_host(doors: list[Door], is_implicit: bool, heard: bytes) -> None:
    doors.append(door := Door(LimitsSettings(connections=1), is_implicit=is_implicit))
    door.come()
    assert words(door.come("192.0.2.2")) == heard
    assert door.denied == [("host_limit", 421)]


@pytest.mark.parametrize(
    ("is_implicit", "heard"), [(False, OVERLOADED), (True, b"")], ids=["in-words", "silently-where-tls-is-first"]
)
@pytest.mark.parametrize("reason", ["shed_memory", "shed_disk"])
def test_nobody_is_let_in_while_there_is_too_much_and_no_line_is_written_for_each(
    doors: list[Door], is_implicit: bool, heard: bytes, reason: str
) -> None:
    doors.append(door := Door(LimitsSettings(connections=2), is_implicit=is_implicit, trusted=Networks(["192.0.2.1"])))
    door.overload.denial = reason
    assert [words(door.come()) for _ in range(5)] == [heard] * 5
    door.overload.denial = ""
    door.come()
    door.come()
    assert len(door.begun) == 2  # none of those before is counted
    assert door.denied == [(reason, 421)] * 5
    assert door.lines == []


def test_behind_a_front_end_the_limits_are_those_of_the_client_that_it_names(doors: list[Door]) -> None:
    doors.append(door := Door(LimitsSettings(connections_per_client=1), proxies=Networks(["10.0.0.1"])))

    def header(address: str) -> bytes:
        return f"PROXY TCP4 {address} 192.0.2.25 1024 25\r\n".encode()

    heard = []
    for address in ("192.0.2.1", "192.0.2.2", "192.0.2.1"):
        sock = door.come("10.0.0.1", header(address))
        door.loop.turn(5.0)
        heard.append(sock)
    assert [peer.address for _, peer in door.begun] == ["192.0.2.1", "192.0.2.2"]
    assert words(heard[2]) == TOO_MANY
    door.come("10.0.0.1", b"EHLO client.example\r\n")
    door.loop.turn(5.0)
    with pytest.raises(ConnectionResetError):  # without a word
        door.socks[-1].recv(100)
    assert door.denied == [("client_limit", 421), ("proxy_header", 0)]
