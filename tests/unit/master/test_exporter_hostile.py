"""Those who mean ill: each costs bounded time and memory, gets a plain refusal, and keeps nobody else from an answer."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator

import pytest
from exporter_client import Client, Fixture

from smtpd.master import exporter as exporter_module

REQUEST = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
FIELD = b"X-Filler: " + b"y" * 1000 + b"\r\n"


@pytest.fixture
def site() -> Iterator[Fixture]:
    site = Fixture()
    yield site
    site.close()


def refused(site: Fixture, data: bytes) -> int:
    """Send it; return the status of the only response, after which the connection must end without a reset."""
    client = site.client()
    try:
        client.send(data)
    except BlockingIOError:  # more than the exporter wants to read
        pass
    responses = site.drive_to_end(client)
    assert len(responses) == 1, client.received[:200]
    assert responses[0][1]["connection"] == "close"
    assert site.get("/healthz")[0] == 200
    return responses[0][0]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\r\n\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"EHLO mx.example.net\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /healthz HTTP/9.9\r\nHost: x\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\nHost: x\r\n\r\nSM\r\n\r\n", 505),
        (b"GET /health\x00z HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nA\x00: b\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"GET /" + b"a" * 1100 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET /" + b"a" * 100_000, 414),
        (b"a" * 100_000, 414),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + FIELD * 100, 431),
        (b"GET /healthz HTTP/1.1\r\nX: " + b"y" * 100_000, 431),
    ],
    ids=range(18),
)
def test_what_is_no_request_is_refused(site: Fixture, data: bytes, status: int) -> None:
    assert refused(site, data) == status


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 41\r\n",
        b"Content-Length: 041\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Length: 41\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
        b"transfer-encoding:\tchunked\r\n",
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"POST", b"HEAD"])
def test_nothing_hides_in_a_body(site: Fixture, method: bytes, framing: bytes) -> None:
    client = site.client()
    client.send(method + b" /healthz HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n0\r\n\r\nGET /status HTTP/1.1\r\nHost: x\r\n\r\n")
    site.drive(lambda: client.is_ended)
    assert client.received.count(b"HTTP/1.1 ") == 1
    assert client.received.startswith(b"HTTP/1.1 413 ")
    assert not client.is_reset


def test_an_empty_body_is_none(site: Fixture) -> None:
    assert site.get("/healthz", "Content-Length: 0")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH", "get", "PRI"])
def test_other_methods_are_405(site: Fixture, method: str) -> None:
    target = "/metrics" if method != "CONNECT" else "mx.example.net:25"
    status, headers, _ = site.ask(f"{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert (status, headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "target",
    ["/../etc/passwd", "/metrics/..", "/metrics/", "//metrics", "/%2e%2e/metrics", "/metrics%00", "/./metrics", "/Metrics",
     "metrics", "*", "http://", "http://x", "file:///etc/passwd", "/status;x", "/healthz#x"],
)  # fmt: skip
def test_paths_are_compared_as_they_are(site: Fixture, target: str) -> None:
    status, _, body = site.get(target)
    assert status == (200 if target in ("http://", "http://x") else 404)
    assert b"root:" not in body


def test_an_upgrade_is_ignored(site: Fixture) -> None:
    client = site.client()
    headers = b"Host: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
    assert site.ask(b"GET /healthz HTTP/1.1\r\n" + headers, client)[0] == 200
    assert site.ask(REQUEST, client)[0] == 200


def test_pipelined_requests_are_answered_in_order_and_one_a_turn(site: Fixture) -> None:
    client, other = site.client(), site.client()
    client.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /nothing HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
    assert site.ask(REQUEST, other)[0] == 200
    assert len(client.responses()) < 100
    site.drive(lambda: client.received.count(b"HTTP/1.1 ") == 200)
    assert [status for status, _, _ in client.responses()] == [200, 404] * 100


def test_a_pipeline_that_is_never_read_is_not_buffered(site: Fixture) -> None:
    client = site.client(receive_buffer=4096)
    client.is_reading = False
    request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"

    def flood() -> None:
        for _ in range(10_000):  # 170 MB, had anybody taken it
            client.socket.send(request * 500)
            site.loop.turn(0.0)
            site.loop.turn(0.0)

    with pytest.raises(BlockingIOError):
        flood()
    assert site.get("/healthz")[0] == 200


def test_a_slow_reader_is_dropped_and_keeps_nobody_waiting(site: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    site.index.prepare(listeners=[f"listener-{number}" for number in range(300)])  # more than a socket's buffers hold
    slow = site.client(receive_buffer=4096)
    slow.is_reading = False
    slow.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    site.drive(lambda: site.exporter.connection_count == 1)
    assert site.get("/healthz")[0] == 200
    assert site.exporter.connection_count == 2
    monkeypatch.setattr(exporter_module, "SWEEP_S", 0.0)
    for connection in list(site.exporter._connections):
        connection.deadline_s = 0.0
    site.drive(lambda: site.exporter.connection_count == 0)
    slow.is_reading = True
    site.drive(lambda: slow.is_ended)
    assert not slow.responses()


@pytest.mark.parametrize("start", [b"", b"G", b"GET /healthz HTTP/1.1\r\nHost: x\r\n"])
def test_a_request_has_to_come_in_time(site: Fixture, start: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter_module, "REQUEST_S", 0.0)
    monkeypatch.setattr(exporter_module, "SWEEP_S", 0.01)
    client = site.client()
    client.send(start)
    site.drive(lambda: client.is_ended)
    assert client.received == b""


def test_a_trickle_does_not_move_the_deadline(site: Fixture) -> None:
    client = site.client()
    client.send(b"GET ")
    site.drive(lambda: site.exporter.connection_count == 1)
    site.loop.turn(0.01)
    (connection,) = site.exporter._connections
    deadline_s = connection.deadline_s
    for octet in b"/healthz HTTP/1.1\r\n":
        client.send(bytes([octet]))
        site.loop.turn(0.01)
        assert connection.deadline_s == deadline_s


def test_an_idle_connection_ends(site: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter_module, "IDLE_S", 0.0)
    monkeypatch.setattr(exporter_module, "SWEEP_S", 0.01)
    client = site.client()
    client.send(REQUEST)
    assert [status for status, _, _ in site.drive_to_end(client)] == [200]


def test_a_refused_peer_that_goes_on_talking_is_left(site: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter_module, "LINGER_S", 0.0)
    monkeypatch.setattr(exporter_module, "SWEEP_S", 0.01)
    client = site.client()
    client.send(b"a" * 20_000)
    site.drive(lambda: site.exporter.connection_count == 0 and client.is_ended)
    assert client.responses()[0][0] == 414


def test_what_a_refused_peer_still_sends_is_bounded(site: Fixture) -> None:
    client = site.client()
    client.send(b"a" * 20_000)
    site.drive(lambda: bool(client.responses()))

    def go_on() -> None:
        while True:
            try:
                client.send(b"a" * 10_000)
            except BlockingIOError:
                pass
            site.loop.turn(0.0)

    with pytest.raises(ConnectionError):
        go_on()


def test_hundreds_of_connections_leave_room_for_one_who_asks(site: Fixture) -> None:
    crowd: list[Client] = []
    for number in range(700):  # fewer than the 1024 descriptors that a process usually has
        crowd.append(Client(site.address))
        if number % 100 == 99:
            site.loop.turn(0.01)
    status, _, _ = site.get("/healthz")
    assert status == 200
    assert site.exporter.connection_count <= exporter_module.MAX_CONNECTIONS
    for client in crowd:
        client.close()
    site.drive(lambda: site.exporter.connection_count <= 1)


def test_the_one_that_was_silent_longest_makes_room(site: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter_module, "MAX_CONNECTIONS", 3)
    clients = [site.client() for _ in range(3)]
    for client in clients:
        assert site.ask(REQUEST, client)[0] == 200
    assert site.ask(REQUEST, clients[0])[0] == 200
    assert site.get("/healthz")[0] == 200
    site.drive(lambda: clients[1].is_ended)
    assert [client.is_ended for client in clients] == [False, True, False]


def test_resets_at_any_moment_are_survived(site: Fixture) -> None:
    for data in (b"", b"GET ", REQUEST, REQUEST * 50, b"a" * 20_000):
        for turns in range(4):
            client = Client(site.address)
            client.send(data)
            for _ in range(turns):
                site.loop.turn(0.0)
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
    assert site.get("/healthz")[0] == 200
    site.drive(lambda: site.exporter.connection_count == 1)


def test_no_descriptor_left_is_waited_out(site: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    class Short:
        """Fails once as accept(2) does without descriptors."""

        def __init__(self, real: socket.socket) -> None:
            self.real = real
            self.failures = 0

        def accept(self) -> tuple[socket.socket, object]:
            if not self.failures:
                self.failures += 1
                raise OSError(errno.EMFILE, "Too many open files")
            return self.real.accept()

        def __getattr__(self, name: str) -> object:
            return getattr(self.real, name)

    monkeypatch.setattr(exporter_module, "_RETRY_S", 0.01)
    short = Short(site.exporter._socket)
    monkeypatch.setattr(site.exporter, "_socket", short)
    assert site.get("/healthz")[0] == 200
    assert short.failures == 1
