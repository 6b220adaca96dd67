"""A real HAProxy in front, with PROXY headers of both versions and its health checks; and peers that only pretend to be one."""

from __future__ import annotations

import smtplib
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from gateway import Gateway, free_port, running_gateway, wait_until
from peers import require_peer

BALANCER = "127.0.0.0/9"  # what HAProxy connects from

CONFIG = """
global
    maxconn 200
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend mx
    bind {host}:{port}
    default_backend mx
backend mx
    option smtpchk EHLO check.example.org
    server one {gateway_host}:{gateway_port} {send} check {check} inter 200ms fastinter 200ms
"""


@contextmanager
def haproxy(gateway: Gateway, folder: Path, send: str, check: str) -> Iterator[int]:
    """A HAProxy in front of a gateway; yields its port."""
    program = require_peer("haproxy", "haproxy")
    port = free_port(gateway.host)
    config = folder / "haproxy.cfg"
    config.write_text(
        CONFIG.format(host=gateway.host, port=port, gateway_host=gateway.host, gateway_port=gateway.port, send=send, check=check)
    )
    with (folder / "haproxy.log").open("wb") as log:
        process = subprocess.Popen([program, "-db", "-f", config], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:

        def is_there() -> bool:
            assert process.poll() is None, (folder / "haproxy.log").read_text()
            try:
                with socket.create_connection((gateway.host, port), 5) as sock:
                    return sock.recv(100).startswith(b"220 ")
            except OSError:
                return False

        wait_until("HAProxy with a server that is up", is_there, 30)
        yield port
    finally:
        process.terminate()
        process.wait(20)


def await_log(gateway: Gateway, text: str) -> None:
    wait_until(f"a line with {text!r}", lambda: text in gateway.log_text(40000), 20)


def balanced(folder: Path, **more: object) -> dict[str, object]:
    address = Gateway(folder / "unused").host
    return {
        "listener": [{"name": "mx", "address": f"{address}:{free_port(address)}", "proxy_protocol": [BALANCER]}],
        **more,
    }


@contextmanager
def behind(folder: Path, **more: object) -> Iterator[Gateway]:
    gateway_settings = balanced(folder, **more)
    with running_gateway(folder / "gateway", gateway_settings) as gateway:
        listener = gateway_settings["listener"]
        assert isinstance(listener, list)
        gateway.port = int(listener[0]["address"].rpartition(":")[2])
        yield gateway


@pytest.mark.peer("haproxy")
@pytest.mark.parametrize(("send", "check"), [("send-proxy", "check-send-proxy"), ("send-proxy-v2", "check-send-proxy")])
def test_the_client_behind_a_balancer_is_the_one_that_counts(tmp_path: Path, send: str, check: str) -> None:
    with (
        behind(tmp_path, limits={"mail_rate": "2/d"}, policy={"trusted": ["127.0.0.0/30"]}) as gateway,
        haproxy(gateway, tmp_path, send, check) as port,
    ):
        source = "127.200.0.5"
        with smtplib.SMTP(gateway.host, port, timeout=20, source_address=(source, 0)) as client:
            client.ehlo("client.example.org")
            for _ in range(2):
                assert client.mail("alice@example.org")[0] == 250
                assert client.rcpt("bob@example.org")[0] == 250
                assert client.data(b"Subject: x\r\n\r\ntext\r\n")[0] == 250
            assert client.mail("alice@example.org")[0] == 450
        mails = gateway.await_mails("bob", 2)
        assert all(b"from client.example.org (unknown [127.200.0.5])" in mail for mail in mails)
        await_log(gateway, f"client=unknown[{source}]")
        with smtplib.SMTP(gateway.host, port, timeout=20, source_address=("127.200.0.6", 0)) as client:
            client.ehlo("client.example.org")
            assert client.mail("alice@example.org")[0] == 250  # another client, though the balancer is the same
        assert gateway.metric("smtpd_connections_denied_total", reason="proxy_header") == 0


def test_a_health_check_is_greeted_and_may_send_nothing(tmp_path: Path) -> None:
    with behind(tmp_path) as gateway:
        for header in (b"PROXY UNKNOWN\r\n", b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00"):
            with socket.create_connection((gateway.host, gateway.port), 20) as sock:
                stream = sock.makefile("rwb")
                stream.write(header + b"EHLO check.example.org\r\n")
                stream.flush()
                assert stream.readline().startswith(b"220 mx.example.net")
                while (line := stream.readline())[3:4] == b"-":
                    assert line.startswith(b"250-")
                stream.write(b"MAIL FROM:<>\r\nQUIT\r\n")
                stream.flush()
                assert stream.readline().startswith(b"451 4.3.0 ")
                assert stream.readline().startswith(b"221 ")


@pytest.mark.parametrize(
    "octets",
    [
        b"EHLO client.example.org\r\n",
        b"PROXY TCP4 127.0.0.1\r\n",
        b"PROXY TCP4 999.0.0.1 127.0.0.1 1 25\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x04abcd",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        b"x" * 5000,
        b"",
    ],
)
def test_what_is_no_header_ends_the_connection_without_a_word(tmp_path: Path, octets: bytes) -> None:
    with behind(tmp_path, workers=1) as gateway:
        with socket.create_connection((gateway.host, gateway.port), 20) as sock:
            sock.sendall(octets)
            if not octets:
                sock.shutdown(socket.SHUT_WR)
            heard = b""
            try:
                heard = sock.recv(100)
            except ConnectionResetError:
                pass  # as good as an end: there was input that nobody wanted
        assert heard == b""
        wait_until(
            "the denial in the metrics", lambda: gateway.metric("smtpd_connections_denied_total", reason="proxy_header") == 1, 20
        )
        await_log(gateway, "for service mx")


def test_a_header_that_never_comes_is_waited_for_briefly_and_keeps_nobody_else(tmp_path: Path) -> None:
    with behind(tmp_path, workers=1) as gateway:
        late = socket.create_connection((gateway.host, gateway.port), 20)
        late.sendall(b"PROXY TCP4 192.0.2.7")
        with socket.create_connection((gateway.host, gateway.port), 20) as sock:
            sock.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.1 5 25\r\n")
            assert sock.recv(100).startswith(b"220 ")
        assert late.recv(100) == b""
        late.close()
        await_log(gateway, "no PROXY header within 5 s")


def test_a_peer_that_is_not_listed_can_not_tell_who_it_is(tmp_path: Path) -> None:
    with running_gateway(tmp_path) as gateway:
        for header in (b"PROXY TCP4 192.0.2.7 192.0.2.1 5 25\r\n", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c" + bytes(12)):
            with socket.create_connection((gateway.host, gateway.port), 20) as sock:
                sock.sendall(header + b"EHLO client.example.org\r\nMAIL FROM:<>\r\n")
                heard = b""
                try:
                    while octets := sock.recv(4096):
                        heard += octets
                except ConnectionResetError:
                    pass
            assert heard.startswith(b"220 ")
            assert b"250 2.1.0" not in heard
        wait_until("both ends in the log", lambda: gateway.log_text(40000).count("disconnect from ") == 2, 20)
        assert "192.0.2.7" not in gateway.log_text(40000)
