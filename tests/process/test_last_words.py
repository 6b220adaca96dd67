"""A reply that ends a connection arrives, also when the process that said it is about to end."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from gateway import Gateway, wait_until


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    server = Gateway(tmp_path, {"workers": 1, "limits": {"connections_per_client": 2}, "policy": {"trusted": []}})
    try:
        yield server
    finally:
        if server.process is not None:
            server.kill()


def connect(gateway: Gateway) -> socket.socket:
    return socket.create_connection((gateway.host, gateway.port), timeout=30)


def read_all(client: socket.socket) -> bytes:
    """All until the end; ConnectionResetError if that is no orderly one."""
    octets = b""
    while piece := client.recv(4096):
        octets += piece
    return octets


def test_who_owes_a_proxy_header_while_the_worker_drains_gets_an_answer(gateway: Gateway) -> None:
    gateway.settings["listener"][0]["proxy_protocol"] = ["127.0.0.0/8"]
    gateway.write_config()
    gateway.start()
    with connect(gateway) as early, connect(gateway) as client:
        client.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 25\r\n")
        assert client.recv(4).startswith(b"220")  # the other one, which came before it, is accepted by now
        worker = gateway.worker_pids()[0]
        os.kill(worker, signal.SIGTERM)
        answer = read_all(client)
        assert b"421 4.3.2" in answer
        early.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 25\r\nEHLO client.example.org\r\n")
        assert b"421 4.3.2" in read_all(early)


def test_a_drain_tells_every_session_whatever_it_has_still_to_send(gateway: Gateway) -> None:
    gateway.settings["limits"] = {"connections_per_client": 0}
    gateway.write_config()
    gateway.start()
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(gateway)) for _ in range(20)]
        for client in clients:
            assert client.recv(4) == b"220 "
            client.sendall(b"NOOP\r\n" * 20 + b"NOO")  # a rest that is never taken
        gateway.signal(signal.SIGTERM)
        for client in clients:
            assert b"421 4.3.2" in read_all(client)
    assert gateway.running.wait(30) == 0


def test_who_is_turned_away_is_told_so_though_the_server_ends(gateway: Gateway) -> None:
    gateway.start()
    with connect(gateway) as first, connect(gateway) as second, connect(gateway) as denied:
        kept = [first, second]
        for client in kept:
            assert client.recv(4) == b"220 "
        wait_until("it is turned away", lambda: gateway.metric("smtpd_connections_denied_total") == 1, 20)
        gateway.signal(signal.SIGTERM)
        for client in kept:
            assert b"421 4.3.2" in read_all(client)
            client.close()
        assert b"421 4.7.0" in read_all(denied)
    assert gateway.running.wait(30) == 0
