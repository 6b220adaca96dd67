"""A real HAProxy in front, with PROXY headers of both versions and its health checks; and peers that only pretend to be one."""

from __future__ import annotations

import smtplib
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from gateway import Gateway, free_port, running_gateway, wait_until
from peers import require_peer

BALANCER = "127.0.0.0/9"  # what HAProxy connects from

EXAMPLE = Path(__file__).parents[2] / "conf" / "haproxy" / "haproxy.cfg"


def free_port_six() -> int:
    """A port of [::1], which has no addresses for each test process: taken at once."""
    with socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def haproxy(
    gateway: Gateway, folder: Path, send: str = "send-proxy-v2", check: str = "", other: Gateway | None = None
) -> Iterator[int]:
    """A HAProxy in front of a gateway; yields its port."""
    port = free_port(gateway.host)
    with haproxy_on(gateway, folder, f"{gateway.host}:{port}", send, check, other):
        yield port


@contextmanager
def haproxy_on(
    gateway: Gateway, folder: Path, address: str, send: str = "send-proxy-v2", check: str = "", other: Gateway | None = None
) -> Iterator[None]:
    """The example of conf/ on this address, with these options of its servers and this one for checks."""
    program = require_peer("haproxy", "haproxy")
    host, _, port = address.rpartition(":")
    config = folder / "haproxy.cfg"
    text = "".join(line for line in EXAMPLE.read_text().splitlines(True) if not line.startswith("#"))
    second = other or gateway
    for known, wanted in [
        ("bind 0.0.0.0:25", f"bind {address}"),
        ("maxconn 20000", "maxconn 200"),
        ("default-server send-proxy-v2", f"default-server {send}"),
        ("option smtpchk EHLO haproxy.example.net", check or "option smtpchk EHLO haproxy.example.net"),
        ("inter 5s", "inter 200ms fastinter 200ms downinter 200ms"),
        ("timeout connect 5s", "timeout connect 5s\n    timeout check 20s"),  # else a check has `inter` for all of it
        ("10.0.0.11:25", f"{gateway.host}:{gateway.port}"),
        ("10.0.0.12:25", f"{second.host}:{second.port}"),
    ]:
        assert text.count(known) == 1, known
        text = text.replace(known, wanted)
    config.write_text(text)
    with (folder / "haproxy.log").open("wb") as log:
        process = subprocess.Popen([program, "-db", "-f", config], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:

        def is_there() -> bool:
            assert process.poll() is None, (folder / "haproxy.log").read_text()
            try:
                with socket.create_connection((host.strip("[]"), int(port)), 5) as sock:
                    return sock.recv(100).startswith(b"220 ")
            except OSError:
                return False

        wait_until("HAProxy with a server that is up", is_there, 30)
        yield
    finally:
        process.terminate()
        process.wait(20)


def await_log(gateway: Gateway, text: str) -> None:
    wait_until(f"a line with {text!r}", lambda: text in gateway.log_text(40000), 20)


def balanced(folder: Path, listener: dict[str, object] | None = None, **more: object) -> dict[str, object]:
    address = Gateway(folder / "unused").host
    name: dict[str, object] = {"name": "mx", "address": f"{address}:{free_port(address)}", "proxy_protocol": [BALANCER]}
    return {"listener": [name | (listener or {})], **more}


@contextmanager
def behind(folder: Path, listener: dict[str, object] | None = None, **more: object) -> Iterator[Gateway]:
    gateway_settings = balanced(folder, listener, **more)
    with running_gateway(folder / "gateway", gateway_settings) as gateway:
        listeners = gateway_settings["listener"]
        assert isinstance(listeners, list)
        gateway.port = int(listeners[0]["address"].rpartition(":")[2])
        yield gateway


@pytest.mark.peer("haproxy")
@pytest.mark.parametrize(
    "send", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id,ssl,cert-cn,authority"]
)
def test_the_client_behind_a_balancer_is_the_one_that_counts(tmp_path: Path, send: str) -> None:
    with (
        behind(tmp_path, limits={"mail_rate": "2/d"}, policy={"trusted": ["127.0.0.0/30"]}) as gateway,
        haproxy(gateway, tmp_path, send) as port,
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


@pytest.mark.peer("haproxy")
def test_connections_are_counted_for_the_client_and_never_for_the_balancer(tmp_path: Path) -> None:
    with (
        behind(tmp_path, limits={"connections_per_client": 2}, policy={"trusted": ["192.0.2.1"]}) as gateway,
        haproxy(gateway, tmp_path) as port,
    ):
        opened = []
        for source in ["127.200.0.5"] * 3 + ["127.200.0.6"] * 3:
            sock = socket.create_connection((gateway.host, port), 20, source_address=(source, 0))
            opened.append((sock, sock.recv(100)[:4]))
        assert [code for _, code in opened] == [b"220 ", b"220 ", b"421 "] * 2
        for sock, _ in opened:
            sock.close()
        await_log(gateway, "Connection concurrency limit exceeded: unknown[127.200.0.5] for service mx")
        assert gateway.metric("smtpd_connections_denied_total", reason="client_limit") == 2


@pytest.mark.peer("haproxy")
@pytest.mark.parametrize(("send", "exempt"), [("send-proxy", ["127.0.0.1/32"]), ("send-proxy-v2", [])])
@pytest.mark.parametrize("check", ["option smtpchk EHLO check.example.org", "option smtpchk", "timeout check 5s"])
def test_its_checks_find_a_gateway_up_whatever_the_limits(tmp_path: Path, send: str, exempt: list[str], check: str) -> None:
    """By EHLO, by HELO and by TCP alone. With version 1 they carry HAProxy's own address, a client like any other."""
    limits = {"limits": {"connection_rate": "1/d"}, "policy": {"trusted": ["192.0.2.1"]}}
    with behind(tmp_path, {"exempt": exempt}, workers=1, **limits) as gateway, haproxy(gateway, tmp_path, send, check) as port:
        wait_until("a dozen checks", lambda: gateway.metric("smtpd_connections_total") >= 12, 20)
        with socket.create_connection((gateway.host, port), 20, source_address=("127.200.0.7", 0)) as sock:
            assert sock.recv(100).startswith(b"220 ")
        assert "DOWN" not in (tmp_path / "haproxy.log").read_text()
        assert gateway.metric("smtpd_connections_denied_total", reason="proxy_header") == 0


@pytest.mark.peer("haproxy")
def test_a_gateway_that_stops_leaves_the_rotation(tmp_path: Path) -> None:
    with (
        behind(tmp_path / "one", workers=1) as one,
        behind(tmp_path / "two", workers=1) as two,
        haproxy(one, tmp_path, other=two) as port,
    ):
        one.stop()
        for _ in range(10):  # refused connections are tried at the other
            with smtplib.SMTP(two.host, port, timeout=20, source_address=("127.200.0.5", 0)) as client:
                client.sendmail("a@example.com", ["b@example.org"], b"Subject: x\r\n\r\ntext\r\n")
        two.await_mails("b", 10)


@pytest.mark.peer("haproxy")
def test_a_client_by_ipv6_is_known_by_that_address(tmp_path: Path) -> None:
    with behind(tmp_path, workers=1) as gateway:
        port = free_port_six()
        with haproxy_on(gateway, tmp_path, f"[::1]:{port}"), smtplib.SMTP("::1", port, timeout=20) as client:
            client.ehlo("client.example.org")
            client.sendmail("a@example.com", ["six@example.org"], b"Subject: x\r\n\r\ntext\r\n")
            (mail,) = gateway.await_mails("six")
            assert b"from client.example.org (unknown [IPv6:::1])" in mail


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


def test_a_header_may_trickle_and_its_attributes_bring_nothing_but_themselves(tmp_path: Path) -> None:
    """Octet by octet, with 3,000 octets of attributes; that the client spoke TLS with the front end is no TLS of ours."""
    tls = b"\x20" + struct.pack("!H", 15) + b"\x07\0\0\0\0" + b"\x21\0\x07TLSv1.3"
    attributes = tls + b"\xe0" + struct.pack("!H", 3000) + bytes(3000)
    addresses = socket.inet_aton("192.0.2.7") + socket.inet_aton("192.0.2.1") + struct.pack("!HH", 4711, 25)
    size = struct.pack("!H", len(addresses) + len(attributes))
    header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + size + addresses + attributes
    with behind(tmp_path, workers=1) as gateway:
        with socket.create_connection((gateway.host, gateway.port), 20) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for octet in header:
                sock.sendall(bytes([octet]))
            stream = sock.makefile("rb")
            assert stream.readline().startswith(b"220 ")
            sock.sendall(b"EHLO client.example.org\r\n")
            while (line := stream.readline())[3:4] == b"-":
                assert line.startswith(b"250-")
            content = b"Subject: x\r\n\r\ntext\r\n"
            sock.sendall(b"MAIL FROM:<>\r\nRCPT TO:<bob@example.org>\r\nBDAT %d LAST\r\n" % len(content) + content + b"QUIT\r\n")
            assert [stream.readline()[:3] for _ in range(4)] == [b"250", b"250", b"250", b"221"]
            stream.close()
        (mail,) = gateway.await_mails("bob")
        assert b"(unknown [192.0.2.7])\n\tby mx.example.net (smtpd) with ESMTP id" in mail
