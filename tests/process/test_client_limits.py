"""Limits of a client and of the host, held over several workers: what is refused, told and counted; none outlives a worker."""

from __future__ import annotations

import os
import signal
import smtplib
import socket
from pathlib import Path

import pytest
from gateway import Gateway, running_gateway, wait_until

STRANGERS = {"policy": {"trusted": ["192.0.2.1"]}}  # loopback is a client like any other


def greeting(gateway: Gateway, source: str = "") -> tuple[socket.socket, bytes]:
    """Connect, from another loopback address if one is given; return the socket and what was said first."""
    sock = socket.create_connection((gateway.host, gateway.port), 20, source_address=(source, 0) if source else None)
    return sock, sock.recv(1024)


def open_many(gateway: Gateway, count: int, source: str = "") -> tuple[list[socket.socket], list[bytes]]:
    pairs = [greeting(gateway, source) for _ in range(count)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs if not pair[1].startswith(b"220 ")]


def close_all(socks: list[socket.socket]) -> None:
    for sock in socks:
        sock.close()


def denied(gateway: Gateway, reason: str) -> float:
    return gateway.metric("smtpd_connections_denied_total", listener="mx", reason=reason)


def test_one_client_gets_so_many_connections_over_all_workers(tmp_path: Path) -> None:
    limits = {"limits": {"connections_per_client": 7}, "workers": 3, **STRANGERS}
    with running_gateway(tmp_path, limits) as gateway:
        socks, refused = open_many(gateway, 10)
        assert refused == [b"421 4.7.0 Error: too many connections from your address\r\n"] * 3
        other, words = greeting(gateway, "127.0.0.77")
        assert words.startswith(b"220 ")
        other.close()
        assert denied(gateway, "client_limit") == 3
        assert gateway.metric("smtpd_replies_total", code="421") == 3
        close_all(socks)
        line = "Connection concurrency limit exceeded: unknown["
        wait_until("a line in the log", lambda: line in gateway.log_text(), 20)

        def room() -> bool:
            again, refused = open_many(gateway, 7)
            close_all(again)
            return not refused

        wait_until("room for seven connections again", room, 20)


def test_the_host_has_a_limit_that_holds_for_trusted_clients_too(tmp_path: Path) -> None:
    with running_gateway(tmp_path, {"limits": {"connections": 5}}) as gateway:
        socks, refused = open_many(gateway, 6)
        assert refused == [b"421 4.3.2 All server ports are busy\r\n"]
        assert denied(gateway, "host_limit") == 1
        close_all(socks)


def test_trusted_and_exempt_clients_have_no_limit_of_their_own(tmp_path: Path) -> None:
    limits = {"connections_per_client": 1, "connection_rate": "1/d", "mail_rate": "1/d"}
    with running_gateway(tmp_path, {"limits": limits, "policy": {"trusted": ["127.0.0.77"]}}) as gateway:
        gateway.settings["listener"][0]["exempt"] = ["127.0.0.88/31"]
        gateway.write_config()
        gateway.signal(signal.SIGHUP)
        wait_until("the new configuration", lambda: gateway.metric("smtpd_config_last_reload_success") == 1, 20)
        for source in ("127.0.0.77", "127.0.0.88"):

            def is_free(source: str = source) -> bool:
                socks, refused = open_many(gateway, 4, source)
                close_all(socks)
                return not refused

            wait_until(f"no limit for {source}", is_free, 20)
        socks, refused = open_many(gateway, 3, "127.0.0.90")
        close_all(socks)
        assert len(refused) == 2


def test_connections_mails_and_recipients_in_a_time(tmp_path: Path) -> None:
    limits = {"connection_rate": "4/d", "mail_rate": "2/d", "recipient_rate": "5/d"}
    with running_gateway(tmp_path, {"limits": limits, **STRANGERS}) as gateway:
        with smtplib.SMTP(gateway.host, gateway.port, timeout=20) as client:
            client.ehlo()
            for _ in range(2):
                assert client.mail("alice@example.org")[0] == 250
                assert [client.rcpt("bob@example.org")[0] for _ in range(2)] == [250, 250]
                assert client.rset()[0] == 250
            assert client.mail("alice@example.org") == (450, b"4.7.1 Error: too much mail from your address")
        with smtplib.SMTP(gateway.host, gateway.port, timeout=20, source_address=("127.0.0.77", 0)) as client:
            client.ehlo()
            client.mail("alice@example.org")
            codes = [client.rcpt("bob@example.org")[0] for _ in range(6)]
            assert codes == [250] * 5 + [450]
        socks, refused = open_many(gateway, 4)
        assert refused == [b"421 4.7.0 Error: too many connections from your address\r\n"]
        close_all(socks)
        assert denied(gateway, "rate") == 1
        assert gateway.metric("smtpd_rejections_total", reason="rate", stage="mail") == 1
        assert gateway.metric("smtpd_rejections_total", reason="rate", stage="rcpt") == 1


@pytest.mark.full
def test_after_a_hundred_kills_of_workers_nothing_is_counted_any_more(tmp_path: Path) -> None:
    limits = {"limits": {"connections": 8, "connections_per_client": 4}, "workers": 2, **STRANGERS}
    with running_gateway(tmp_path, limits) as gateway:
        kills = 0
        while kills < 100:
            socks, _ = open_many(gateway, 6)
            pids = gateway.worker_pids()
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
                kills += 1
            close_all(socks)

            def is_back(gone: list[int] = pids) -> bool:
                return len(gateway.worker_pids()) == 2 and not set(gone) & set(gateway.worker_pids())

            wait_until("two new workers", is_back, 30)
            gateway.wait_ready()
        for source in ("127.0.0.66", ""):
            socks, refused = open_many(gateway, 4, source)
            assert refused == []
            close_all(socks)


def test_a_refused_client_that_has_written_already_still_reads_why(tmp_path: Path) -> None:
    limits = {"limits": {"connections_per_client": 1}, "workers": 1, **STRANGERS}
    with running_gateway(tmp_path, limits) as gateway:
        first, _ = greeting(gateway)
        with socket.create_connection((gateway.host, gateway.port), 20) as sock:
            sock.sendall(b"EHLO client.example.org\r\n" * 10)  # into a connection that nobody reads
            heard = b""
            while octets := sock.recv(1024):
                heard += octets
        assert heard == b"421 4.7.0 Error: too many connections from your address\r\n"
        first.close()
