"""Signals to the master: TERM, INT, QUIT, TTIN, TTOU, USR1; reload has its own file."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway import wait_until
from stand_in import Callers, StandIn


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StandIn]:
    with StandIn(tmp_path, {"drain_timeout": "60 s"}) as stand_in:
        yield stand_in


def is_refused(server: StandIn) -> bool:
    try:
        socket.create_connection((server.host, server.port), timeout=5).close()
    except ConnectionError:
        return True
    return False


def test_term_refuses_new_clients_at_once_and_lets_the_open_ones_finish(server: StandIn) -> None:
    client, _ = server.connect()
    server.signal(signal.SIGTERM)
    wait_until("new connections are refused", lambda: is_refused(server), 30)
    code, body = server.http("/readyz")
    assert (code, b"draining" in body) == (503, True)
    assert server.running.poll() is None
    client.close()
    assert server.running.wait(30) == 0
    assert not (server.folder / "run" / "smtpd.pid").exists()
    assert server.worker_pids() == []


def test_a_second_term_does_not_wait_for_the_clients(server: StandIn) -> None:
    client, _ = server.connect()
    server.signal(signal.SIGTERM)
    wait_until("it drains", lambda: b"draining" in server.http("/readyz")[1], 30)
    server.signal(signal.SIGTERM)
    assert server.running.wait(30) == 0
    client.close()


def test_the_drain_ends_at_its_deadline(tmp_path: Path) -> None:
    with StandIn(tmp_path, {"drain_timeout": "1 s"}) as server:
        client, _ = server.connect()
        server.signal(signal.SIGTERM)
        assert server.running.wait(30) == 0
        client.close()


@pytest.mark.full
def test_a_worker_that_ignores_a_stop_is_killed(server: StandIn) -> None:
    workers = server.worker_pids()
    os.kill(workers[0], signal.SIGSTOP)
    server.signal(signal.SIGINT)
    assert server.running.wait(20) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_int_and_quit_stop_fast(server: StandIn, number: int) -> None:
    client, _ = server.connect()
    server.signal(number)
    assert server.running.wait(30) == 0
    client.close()


def test_ttin_adds_a_worker_that_gets_clients(server: StandIn) -> None:
    server.signal(signal.SIGTTIN)
    wait_until("three workers are ready", lambda: len(server.ready_pids()) == 3, 30)
    assert {server.greeting()["slot"] for _ in range(90)} == {0, 1, 2}
    assert server.metric("smtpd_worker_up", worker="2") == 1


def test_ttou_retires_a_worker_and_no_client_notices(server: StandIn) -> None:
    kept, _ = server.connect()
    server.signal(signal.SIGTTOU)
    wait_until("one worker is left", lambda: list(server.ready_pids()) == [0], 30)
    assert {server.greeting()["slot"] for _ in range(40)} == {0}
    kept.close()
    server.signal(signal.SIGTTIN)
    wait_until("two workers are ready", lambda: len(server.ready_pids()) == 2, 30)
    assert {server.greeting()["slot"] for _ in range(60)} == {0, 1}


def test_workers_come_and_go_under_load_without_a_refused_or_reset_connection(server: StandIn) -> None:
    with Callers(server) as callers:
        for count in (3, 4, 3, 2, 1, 2, 3):
            more = count > len(server.ready_pids())
            server.signal(signal.SIGTTIN if more else signal.SIGTTOU)
            wait_until("it has changed", lambda count=count: len(server.ready_pids()) == count, 30)
            callers.wait_served()
    assert callers.trouble == []


def test_the_last_worker_is_never_retired(server: StandIn) -> None:
    for _ in range(3):
        server.signal(signal.SIGTTOU)
        wait_until("a worker is left", lambda: list(server.ready_pids()) == [0], 30)
    assert server.greeting()["slot"] == 0


def test_usr1_reopens_the_logs_of_master_and_workers(tmp_path: Path) -> None:
    log, rotated = tmp_path / "mail.log", tmp_path / "mail.log.1"
    with StandIn(tmp_path, {"log": {"destination": str(log)}}) as server:
        log.rename(rotated)
        server.signal(signal.SIGUSR1)
        wait_until("both workers were told", lambda: _lines(tmp_path / "reopened") == ["0", "1"], 30)
        server.signal(signal.SIGTERM)
        assert server.running.wait(30) == 0
    assert "stopped" in log.read_text()
    assert "stopped" not in rotated.read_text()


def test_titles_say_what_each_process_is(server: StandIn) -> None:
    assert _title(server.running.pid) == f"smtpd: master [{server.config}]"
    assert {_title(pid) for pid in server.worker_pids()} == {"smtpd: worker 0", "smtpd: worker 1"}


def _title(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0")


def _lines(path: Path) -> list[str]:
    return sorted(path.read_text().split()) if path.exists() else []
