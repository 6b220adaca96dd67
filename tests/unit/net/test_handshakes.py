"""Handshakes by the thousand, and what hostile peers do with TLS: others have their turn meanwhile, and memory stays bounded."""

from __future__ import annotations

import resource
import select
import socket
import ssl
from collections.abc import Iterator

import pytest
import trustme

from smtpd.net.loop import HEAVY_PER_TURN, Loop
from smtpd.net.stream import TLS_READ_BYTES, Stream, StreamOwner
from smtpd.net.tls.contexts import harden

CLIENTS = 1000


class Server(StreamOwner):
    """A stream that shakes hands as a server."""

    def __init__(self, loop: Loop, sock: socket.socket, context: ssl.SSLContext) -> None:
        sock.setblocking(False)
        self.handshakes: list[str] = []
        self.data = bytearray()
        self.offers: list[int] = []
        self.calls: list[str] = []
        self.stream = Stream(loop, sock.detach(), self)
        self.stream.start()
        self.stream.start_tls(context, True, None, self.handshakes.append)

    def on_data(self, buffer: bytearray, start: int, end: int) -> int:
        self.data += buffer[start:end]
        self.offers.append(end - start)
        return end

    def on_end(self) -> None:
        self.calls.append("end")

    def on_lost(self) -> None:
        self.calls.append("lost")


class Client:
    """The other end, by memory BIOs: the test decides which octets leave when."""

    def __init__(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing)

    def shake(self) -> bool:
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True


@pytest.fixture(scope="module")
def context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    harden(context)
    trustme.CA().issue_cert("mx.example").configure_cert(context)
    return context


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096) if hard != resource.RLIM_INFINITY else 4096, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_thousand_handshakes_at_once_leave_the_others_every_turn(
    loop: Loop, context: ssl.SSLContext, many_descriptors: None
) -> None:
    client = Client()
    client.shake()
    hello = client.outgoing.read()
    servers, clients = [], []
    for _ in range(CLIENTS):
        ours, theirs = socket.socketpair()
        theirs.sendall(hello)
        servers.append(Server(loop, ours, context))
        clients.append(theirs)
    other_turns: list[int] = []

    def other() -> None:
        other_turns.append(1)
        loop.ready(other)

    loop.ready(other)
    poller = select.poll()
    for sock in clients:
        poller.register(sock, select.POLLIN)
    answered = turns = 0
    while answered < CLIENTS:
        loop.turn(0)
        turns += 1
        ready = poller.poll(0)
        for fd, _ in ready:
            poller.unregister(fd)
        assert len(ready) <= HEAVY_PER_TURN, "one turn did more handshakes than its share"
        answered += len(ready)
        assert turns <= CLIENTS, "turns went by without a handshake"
    assert len(other_turns) >= turns - 1
    for server, sock in zip(servers, clients, strict=True):
        server.stream.destroy()
        sock.close()


@pytest.fixture
def secured(loop: Loop, context: ssl.SSLContext) -> Iterator[tuple[Server, Client, socket.socket]]:
    """A server and its client, hands shaken."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    server, client = Server(loop, ours, context), Client()
    is_done = False
    for _ in range(100):
        is_done = is_done or client.shake()
        if client.outgoing.pending:
            theirs.send(client.outgoing.read())
        loop.turn(0.01)
        try:
            client.incoming.write(theirs.recv(1 << 16))
        except BlockingIOError:
            if is_done and server.handshakes:
                break
    assert server.handshakes == [""]
    yield server, client, theirs
    server.stream.destroy()
    theirs.close()


def test_a_flood_of_tiny_records_is_taken_by_quanta(loop: Loop, secured: tuple[Server, Client, socket.socket]) -> None:
    server, client, theirs = secured
    for _ in range(5000):
        client.tls.write(b"x")
    flood = client.outgoing.read()
    theirs.setblocking(True)
    theirs.settimeout(20)
    sent = 0
    for _ in range(10_000):
        if sent < len(flood):
            sent += theirs.send(flood[sent : sent + 4096])
        loop.turn(0)
        assert server.stream.buffered_bytes <= TLS_READ_BYTES
        if len(server.data) == 5000:
            break
    assert bytes(server.data) == b"x" * 5000
    assert max(server.offers) <= TLS_READ_BYTES // 22  # a record of one octet has 22 at least


def test_a_broken_record_ends_the_connection_and_what_came_before_is_good(
    loop: Loop, secured: tuple[Server, Client, socket.socket]
) -> None:
    server, client, theirs = secured
    client.tls.write(b"good")
    record = client.outgoing.read()
    client.tls.write(b"bad")
    broken = bytearray(client.outgoing.read())
    broken[-1] ^= 1
    theirs.send(record + broken)
    for _ in range(20):
        loop.turn(0.01)
        if server.calls:
            break
    assert bytes(server.data) == b"good"
    assert server.calls == ["lost"]
    assert server.stream.tls is not None
    assert server.stream.tls.failure


def test_an_end_without_close_notify_is_a_lost_connection(loop: Loop, secured: tuple[Server, Client, socket.socket]) -> None:
    server, client, theirs = secured
    client.tls.write(b"half a mail")
    theirs.send(client.outgoing.read())
    theirs.close()
    for _ in range(20):
        loop.turn(0.01)
        if server.calls:
            break
    assert bytes(server.data) == b"half a mail"
    assert server.calls == ["lost"]
