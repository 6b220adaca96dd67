"""Overload over two workers: what is put off, who is not, how open sessions are hurried, one line for each change, recovery."""

from __future__ import annotations

import contextlib
import signal
import smtplib
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway import PROGRAM, Gateway, free_port, own_loopback_address, running_gateway, wait_until
from mounts import mounted

OVERLOADED = b"421 4.3.2 Error: system overloaded, try again later\r\n"
TIMEOUT = b"421 4.4.2 Error: timeout exceeded\r\n"
MIB = 1 << 20


def greeting(gateway: Gateway) -> tuple[socket.socket, bytes]:
    sock = socket.create_connection((gateway.host, gateway.port), 20)
    return sock, sock.recv(1024)


def first_words(gateway: Gateway) -> bytes:
    sock, words = greeting(gateway)
    sock.close()
    return words


@contextlib.contextmanager
def sessions(gateway: Gateway, count: int) -> Iterator[list[socket.socket]]:
    """So many sessions that say nothing."""
    pairs = [greeting(gateway) for _ in range(count)]
    try:
        assert all(words.startswith(b"220 ") for _, words in pairs)
        yield [sock for sock, _ in pairs]
    finally:
        for sock, _ in pairs:
            sock.close()


def read_all(sock: socket.socket) -> bytes:
    heard = b""
    while octets := sock.recv(4096):
        heard += octets
    return heard


def await_mark(gateway: Gateway, mark: str, is_over: bool) -> None:
    """Return when all know it: the state of the host is one, and each worker takes it up with its next beat."""
    what = f"{mark} is {'' if is_over else 'not '}over its mark"
    wait_until(what, lambda: gateway.metric("smtpd_overloaded", mark=mark) == is_over, 20)


def await_stress(gateway: Gateway, is_stressed: bool) -> None:
    wait_until("stress mode", lambda: gateway.metric("smtpd_stress_mode") == is_stressed, 20)


def lines(gateway: Gateway, text: str) -> int:
    return gateway.log_text(1 << 20).count(text)


def await_lines(gateway: Gateway, text: str, count: int) -> None:
    wait_until(f"{count} lines with {text!r}", lambda: lines(gateway, text) >= count, 20)
    assert lines(gateway, text) == count, gateway.log_text()


def denied(gateway: Gateway, reason: str) -> float:
    return gateway.metric("smtpd_connections_denied_total", listener="mx", reason=reason)


def test_a_full_spool_turns_new_clients_away_and_puts_off_open_ones_until_there_is_space(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(mounted("none", tmp_path / "disk", "-t", "tmpfs", "-o", f"size={64 * MIB}"))
        spool = {"spool": {"path": str(disk / "spool"), "free_bytes": 16 * MIB}}
        gateway = stack.enter_context(running_gateway(tmp_path / "gateway", spool))
        client = stack.enter_context(smtplib.SMTP(gateway.host, gateway.port, "client.example", timeout=20))
        client.sendmail("alice@example.com", ["bob@example.org"], "Subject: 1\r\n\r\n")
        (disk / "ballast").write_bytes(bytes(56 * MIB))
        # each worker looks by itself
        wait_until("nobody is let in", lambda: [first_words(gateway) for _ in range(20)] == [OVERLOADED] * 20, 30)
        assert client.mail("alice@example.com") == (452, b"4.3.1 Insufficient system storage")
        assert denied(gateway, "shed_disk") >= 20
        await_mark(gateway, "disk", True)
        assert gateway.metric("smtpd_stress_mode") == 0
        gateway.await_mails("bob")  # deliveries go on
        (disk / "ballast").unlink()
        await_mark(gateway, "disk", False)
        assert first_words(gateway).startswith(b"220 ")
        client.sendmail("alice@example.com", ["bob@example.org"], "Subject: 2\r\n\r\n")
        gateway.await_mails("bob", 2)
        await_lines(gateway, "overload: space of the spool: new mail is put off", 1)
        await_lines(gateway, "overload: space of the spool: over, new mail is put off no more", 1)


def test_memory_over_its_mark_turns_new_clients_away_until_it_is_under_it(tmp_path: Path) -> None:
    memory = {"memory_limit": 64 * MIB, "memory_high": 2, "memory_low": 1}  # less than a worker has
    with running_gateway(tmp_path, {"overload": memory}) as gateway:
        await_mark(gateway, "memory", True)
        wait_until("nobody is let in", lambda: [first_words(gateway) for _ in range(20)] == [OVERLOADED] * 20, 20)
        assert denied(gateway, "shed_memory") >= 20
        assert gateway.metric("smtpd_stress_mode") == 0
        await_lines(gateway, ": new mail is put off", 1)
        gateway.settings["overload"] = {"memory_limit": 8192 * MIB}
        gateway.write_config()
        gateway.signal(signal.SIGHUP)
        await_mark(gateway, "memory", False)
        wait_until("everybody is let in", lambda: all(first_words(gateway).startswith(b"220 ") for _ in range(20)), 20)
        await_lines(gateway, ": over, new mail is put off no more", 1)


def test_few_free_session_slots_hurry_idle_sessions_of_all_workers_and_end_them(tmp_path: Path) -> None:
    limits = {"limits": {"connections": 10}, "overload": {"stress_timeout": "300 ms"}}
    with running_gateway(tmp_path, limits) as gateway:
        with sessions(gateway, 8) as early:
            assert gateway.metric("smtpd_stress_mode") == 0
            with sessions(gateway, 1) as late:  # 90 percent
                assert [read_all(sock) for sock in early + late] == [TIMEOUT] * 9
        await_stress(gateway, False)
        await_lines(gateway, "overload: connections: 9 of 10: stress mode", 1)
        await_lines(gateway, "over, stress mode no more", 1)
        wait_until("they are counted", lambda: gateway.metric("smtpd_sessions_ended_total", reason="idle") == 9, 20)
        with smtplib.SMTP(gateway.host, gateway.port, "client.example", timeout=20) as client:
            client.sendmail("alice@example.com", ["bob@example.org"], "Subject: 1\r\n\r\n")
        gateway.await_mails("bob")


def test_under_stress_one_error_ends_a_session_that_was_open_before(tmp_path: Path) -> None:
    patient = {"stress_timeout": "1 h"}
    with (
        running_gateway(tmp_path, {"limits": {"connections": 4}, "workers": 1, "overload": patient}) as gateway,
        sessions(gateway, 1) as (first,),
    ):
        first.sendall(b"NONSENSE\r\n")
        assert first.recv(1024).startswith(b"500 5.5.2 ")
        first.sendall(b"EHLO client.example\r\n")
        assert first.recv(1024).startswith(b"250-")
        with sessions(gateway, 3):
            await_stress(gateway, True)
            first.sendall(b"NONSENSE\r\n")
            replies = read_all(first).splitlines()
            assert [reply[:9] for reply in replies] == [b"500 5.5.2", b"421 4.7.0"]


def store(host: str, port: int) -> dict[str, Any]:
    hop = {"transport": "smtp", "next_hop": [f"{host}:{port}"]}
    return {"name": "store", "domains": ["dead.example"], "queue_limit": 3, **hop}


def test_a_dead_store_puts_off_its_own_recipients_and_nobody_elses(tmp_path: Path) -> None:
    host = own_loopback_address()
    routes = [store(host, free_port(host)), {"domains": ["*"], "transport": "maildir", "path": str(tmp_path / "mail")}]
    with (
        running_gateway(tmp_path, {"route": routes, "policy": {"postmaster": "p@dead.example"}}) as gateway,
        smtplib.SMTP(gateway.host, gateway.port, "client.example", timeout=20) as client,
    ):
        for number in range(3):
            client.sendmail("alice@example.com", ["bob@dead.example"], f"Subject: {number}\r\n\r\n")

        def codes() -> list[tuple[int, bytes]]:
            client.mail("alice@example.com")
            answers = [client.rcpt(path) for path in ("bob@dead.example", "postmaster", "bob@example.org")]
            client.rset()
            return answers

        put_off = (451, b"4.3.0 Error: too much mail waits for this domain already")
        good = (250, b"2.1.5 Ok")
        await_mark(gateway, "queue", True)
        wait_until("its worker knows it too", lambda: codes() == [put_off, put_off, good], 20)
        assert denied(gateway, "shed_queue") >= 2
        assert gateway.metric("smtpd_rejections_total", stage="rcpt", reason="other") == denied(gateway, "shed_queue")
        assert gateway.metric("smtpd_stress_mode") == 0
        for _ in range(20):  # the door is open for everybody
            assert first_words(gateway).startswith(b"220 ")
        client.sendmail("alice@example.com", ["bob@example.org"], "Subject: 1\r\n\r\n")
        gateway.await_mails("bob")
        wait_until("only the store's mails are left", lambda: len(gateway.queue() or ()) == 3, 20)
        delete_all(gateway)
        await_mark(gateway, "queue", False)
        wait_until("its recipients are taken again", lambda: codes() == [good] * 3, 20)
        await_lines(gateway, "overload: queue of route store: 3 of 3 mails: its recipients are put off", 1)
        await_lines(gateway, "overload: queue of route store: 0 of 3 mails: over", 1)


def delete_all(gateway: Gateway) -> None:
    arguments = [PROGRAM, "queue", "delete", "-c", gateway.config, "--all", "--yes"]
    subprocess.run(arguments, check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize("is_always", [True, False], ids=["where-the-listener-says-so", "under-stress"])
def test_a_mail_that_comes_too_slowly_ends(tmp_path: Path, is_always: bool) -> None:
    limits = {"mail_deadline": "400 ms", "minimum_data_rate": "1 MiB", "connections": 4}
    with running_gateway(tmp_path, {"limits": limits, "workers": 1}) as gateway:
        if is_always:
            gateway.settings["listener"][0]["mail_deadline"] = True
            gateway.write_config()
            gateway.signal(signal.SIGHUP)
            wait_until("the reload", lambda: "generation 2 serves" in gateway.log_text(), 20)
            wait_until("the old worker is gone, which would not hold it to that", lambda: len(gateway.worker_pids()) == 1, 20)
        with sessions(gateway, 1) as (slow,), contextlib.ExitStack() as stack:
            slow.sendall(b"EHLO c.example\r\n")
            assert slow.recv(4096).startswith(b"250")
            slow.sendall(b"MAIL FROM:<a@example.com>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\n")  # at once: the time runs
            heard = b""
            while b"354 " not in heard:
                octets = slow.recv(4096)
                assert octets, heard
                heard += octets
            if not is_always:
                stack.enter_context(sessions(gateway, 3))
            slow.settimeout(0.05)
            for _ in range(400):  # 20 s
                try:
                    if not (octets := slow.recv(4096)):
                        break
                    heard += octets
                except TimeoutError:
                    slow.sendall(b"x\r\n")
            assert heard.partition(b"354 ")[2].partition(b"\r\n")[2] == TIMEOUT
        wait_until("it is counted", lambda: gateway.metric("smtpd_sessions_ended_total", reason="deadline") == 1, 20)
