"""The master keeps workers alive: killed, hung, failing to boot, crashing; and workers don't outlive the
master."""

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
    stand_in = StandIn(tmp_path)
    yield stand_in
    if stand_in.process is not None:
        stand_in.kill()


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_a_killed_worker_is_replaced_and_its_slot_served(server: StandIn) -> None:
    server.start()
    before = server.ready_pids()
    os.kill(before[0], signal.SIGKILL)
    after = wait_until("slot 0 has a new worker", lambda: server.ready_pids().get(0, before[0]), 30)
    wait_until("it is another process", lambda: server.ready_pids().get(0) not in (None, before[0]), 30)
    assert after
    assert server.ready_pids()[1] == before[1]
    greeted = {server.greeting()["slot"] for _ in range(40)}
    assert greeted == {0, 1}
    assert server.metric("smtpd_worker_restarts_total", worker="0") == 1
    assert server.metric("smtpd_worker_up") == 2
    assert "worker 0" in server.log_text()
    assert "SIGKILL" in server.log_text()


def test_a_worker_that_is_told_to_end_drains_and_is_replaced_at_once(server: StandIn) -> None:
    server.settings["drain_timeout"] = "60 s"
    server.write_config()
    server.start()
    client, greeting = server.connect()
    with Callers(server) as callers:
        os.kill(greeting["pid"], signal.SIGTERM)
        slot = greeting["slot"]
        wait_until("its slot has a ready worker", lambda: server.ready_pids().get(slot) not in (None, greeting["pid"]), 30)
        callers.wait_served()
    assert callers.trouble == []
    assert greeting["pid"] in server.worker_pids()  # its client is still there
    assert server.http("/readyz")[0] == 200
    client.close()
    wait_until("it is gone", lambda: greeting["pid"] not in server.worker_pids(), 30)
    assert server.metric("smtpd_worker_restarts_total", worker=str(slot)) == 1


def test_connections_waiting_for_a_dead_worker_are_served_by_its_successor_or_neighbour(server: StandIn) -> None:
    server.settings["workers"] = 1
    server.write_config()
    server.start()
    pid = server.ready_pids()[0]
    os.kill(pid, signal.SIGSTOP)
    waiting = [socket.create_connection((server.host, server.port), timeout=20) for _ in range(10)]
    os.kill(pid, signal.SIGKILL)
    for sock in waiting:
        assert sock.recv(1), "reset or closed instead of greeted"
        sock.close()


def test_a_hung_worker_is_killed_and_replaced(server: StandIn) -> None:
    server.settings["heartbeat_timeout"] = "1 s"  # here alone: a worker that is merely slow isn't to be taken for one
    server.write_config()
    server.start()
    pid = server.ready_pids()[1]
    os.kill(pid, signal.SIGSTOP)
    wait_until("another process serves slot 1", lambda: server.ready_pids().get(1) not in (None, pid), 30)
    assert is_gone(pid)
    assert "has not turned its loop" in server.log_text()


def test_workers_whose_master_was_killed_end_and_free_the_port_for_the_next(server: StandIn) -> None:
    server.start()
    workers = server.worker_pids()
    assert len(workers) == 2
    server.running.kill()
    server.running.wait()
    wait_until("the workers are gone", lambda: all(map(is_gone, workers)), 30)
    server.start()
    assert server.greeting()["pid"] not in workers


def test_workers_that_cannot_boot_are_retried_less_and_less_and_said_once(server: StandIn) -> None:
    server.set_behaviour("fail")
    server.start(wait=False)
    wait_until("several attempts", lambda: _restarts(server) >= 6, 30)
    code, body = server.http("/readyz")
    assert code == 503
    assert b"workers not ready: 0, 1" in body
    assert server.http("/healthz")[0] == 200
    assert server.log_text().count("worker 0 can't start: no luck today") == 1
    server.set_behaviour("serve")
    server.wait_ready()
    assert "worker 0 has started after all" in server.log_text()
    assert server.greeting()["slot"] in (0, 1)


def test_one_worker_that_cannot_boot_leaves_its_clients_to_the_others(server: StandIn) -> None:
    server.start()
    server.set_behaviour("crash")
    pids = server.ready_pids()
    os.kill(pids[0], signal.SIGKILL)
    wait_until("its successor failed", lambda: _restarts(server) >= 2, 30)
    assert {server.greeting()["pid"] for _ in range(40)} == {pids[1]}
    assert "SIGSEGV" in server.log_text()


def test_workers_that_crash_soon_after_they_are_ready_do_not_spin(server: StandIn) -> None:
    server.set_behaviour("late")
    server.start(wait=False)
    wait_until("some crashes", lambda: _restarts(server) >= 10, 20)
    server.set_behaviour("serve")
    server.wait_ready()
    assert server.greeting()["slot"] in (0, 1)


def test_every_worker_killed_at_once_comes_back(server: StandIn) -> None:
    server.start()
    before = set(server.ready_pids().values())
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    wait_until(
        "two others are ready",
        lambda: len(now := set(server.ready_pids().values())) == 2 and not now & before,
        30,
    )
    assert server.greeting()["pid"] not in before


def _restarts(server: StandIn) -> float:
    try:
        return server.metric("smtpd_worker_restarts_total")
    except OSError:
        return 0.0
