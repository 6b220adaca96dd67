"""USR2: the program is run anew with the sockets handed over, the old one drains; one that can't serve changes nothing."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway import free_port, wait_until
from peers import require_peer
from stand_in import SERVER, Callers, StandIn
from successor import follow, replace, upgrade

from bench.processes import child_pids, is_alive


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StandIn]:
    with StandIn(tmp_path, {"drain_timeout": "60 s"}) as stand_in:
        yield stand_in


def pid_in(path: Path) -> int:
    return int(path.read_text())


def fail_upgrade(server: StandIn) -> None:
    """Send USR2, return when the old program has said that it serves on."""
    count = server.log_text().count("upgrade failed: the old program serves on")
    server.signal(signal.SIGUSR2)
    wait_until("the upgrade has failed", lambda: server.log_text().count("upgrade failed: the old program serves on") > count, 60)


def test_the_new_program_serves_on_the_same_sockets_with_the_file_read_anew_and_the_old_drains(server: StandIn) -> None:
    client, greeting = server.connect()
    server.settings["hostname"] = "mx2.example.net"
    server.write_config()
    old = upgrade(server)
    assert {server.greeting()["hostname"] for _ in range(20)} == {"mx2.example.net"}
    assert server.status()["pid"] == server.running.pid != old.pid
    assert old.poll() is None  # its client is still there
    assert is_alive(greeting["pid"])
    assert pid_in(server.run_dir / "smtpd.pid.oldbin") == old.pid
    client.close()
    assert old.wait(30) == 0
    wait_until("only the new program is named", lambda: not (server.run_dir / "smtpd.pid.oldbin").exists(), 20)
    assert pid_in(server.run_dir / "smtpd.pid") == server.running.pid
    assert server.greeting()["hostname"] == "mx2.example.net"
    assert server.stop() == 0
    assert os.listdir(server.run_dir) == []


@pytest.mark.full
def test_upgrades_under_load_refuse_reset_and_leave_out_nobody(server: StandIn) -> None:
    with Callers(server) as callers:
        for number in range(3):
            server.settings["workers"] = (3, 1, 2)[number]  # more slots than sockets, and fewer
            server.write_config()
            upgrade(server)
            callers.wait_served()
            wait_until("all slots are served", lambda: len(server.ready_pids()) == server.settings["workers"], 20)
    assert callers.trouble == []


@pytest.mark.parametrize("behaviour", ["no program", "fail", pytest.param("crash", marks=pytest.mark.full)])
def test_a_program_that_cannot_start_leaves_the_old_serving(server: StandIn, behaviour: str) -> None:
    before = server.ready_pids()
    server.set_behaviour(behaviour)
    with Callers(server) as callers:
        fail_upgrade(server)
        callers.wait_served()
    assert callers.trouble == []
    assert server.ready_pids() == before
    assert server.metric("smtpd_config_last_reload_success") == 0
    assert server.status()["last_upgrade"]["success"] is False
    log = server.log_text()
    reason = {"no program": "the program is broken", "fail": "no luck today", "crash": "was ended by SIGSEGV"}[behaviour]
    assert f"upgrade: {reason}" in log or f": {reason}" in log or reason in log
    assert pid_in(server.run_dir / "smtpd.pid") == server.running.pid
    server.set_behaviour("serve")
    upgrade(server)
    assert server.metric("smtpd_config_last_reload_success") == 1


def test_a_program_with_a_bad_file_leaves_the_old_serving_and_the_fault_is_in_its_log(server: StandIn) -> None:
    server.settings["hostnam"] = "x"
    server.write_config()
    fail_upgrade(server)
    assert "hostnam" in server.log_text()
    assert "exit code 78" in server.log_text()
    assert server.greeting()["hostname"] == "mx.example.net"


def test_a_program_that_is_never_ready_is_ended_and_the_old_serves_on(tmp_path: Path) -> None:
    with StandIn(tmp_path, {"start_timeout": "2 s"}) as server:
        server.set_behaviour("mute")
        fail_upgrade(server)
        assert "is not ready after 2 s" in server.log_text()
        server.set_behaviour("serve")
        wait_until("the new program is gone", lambda: len(server.worker_pids()) == 2, 30)  # it was a child like the workers
        assert server.greeting()["slot"] in (0, 1)


def test_a_listener_whose_port_is_taken_leaves_the_old_serving(server: StandIn) -> None:
    with socket.create_server((server.host, 0)) as other:
        server.settings["listener"].append({"name": "second", "address": f"{server.host}:{other.getsockname()[1]}"})
        server.write_config()
        fail_upgrade(server)
    assert "in use" in server.log_text()
    assert server.greeting()["slot"] in (0, 1)


def test_listeners_and_metrics_are_added_removed_and_moved(server: StandIn) -> None:
    first, second = server.port, free_port(server.host)
    server.settings["listener"] = [{"name": "other", "address": f"{server.host}:{second}"}]
    server.metrics_port = free_port(server.host)
    server.settings["metrics"]["address"] = f"{server.host}:{server.metrics_port}"
    server.write_config()
    client, _ = server.connect()
    upgrade(server)
    assert server.greeting(second)["slot"] in (0, 1)
    wait_until("the removed port is closed", lambda: _is_refused(server, first), 30)
    client.close()


def test_reload_and_second_upgrade_wait_for_their_turn(server: StandIn) -> None:
    client, _ = server.connect()
    old = server.running
    server.set_behaviour("held")
    server.signal(signal.SIGHUP)
    server.signal(signal.SIGUSR2)  # after the reload
    server.signal(signal.SIGUSR2)  # the same one
    wait_until("the upgrade has begun", lambda: "starting the new program" in server.log_text(), 30)
    server.settings["hostname"] = "mx3.example.net"
    server.write_config()
    server.signal(signal.SIGHUP)  # the new program's, when it is in charge
    server.signal(signal.SIGUSR2)  # ignored
    ignored = "one is under way already, this one is ignored"
    wait_until("the old program has heard both", lambda: ignored in server.log_text(), 30)
    server.set_behaviour("serve")
    follow(server)
    upgraded = server.running.pid
    wait_until("the reload was passed on", lambda: server.status()["generation"] == 2, 30)
    server.await_left(set(server.worker_pids()) - set(server.ready_pids().values()))
    assert server.greeting()["hostname"] == "mx3.example.net"
    server.signal(signal.SIGUSR2)  # waits until the first program is gone
    server.signal(signal.SIGHUP)  # doesn't
    wait_until("a further reload is done", lambda: server.status()["generation"] == 3, 30)
    assert server.status()["pid"] == upgraded
    client.close()
    assert old.wait(30) == 0
    follow(server)


def test_term_during_an_upgrade_stops_both(server: StandIn) -> None:
    server.set_behaviour("mute")
    server.signal(signal.SIGUSR2)
    wait_until("both programs have workers", lambda: len(_grandchildren(server)) == 2, 30)
    new = _grandchildren(server)
    server.signal(signal.SIGTERM)
    assert server.running.wait(30) == 0
    assert not any(map(is_alive, new))
    assert os.listdir(server.run_dir) == []
    server.set_behaviour("serve")
    server.start()


@pytest.mark.full
def test_a_new_program_that_is_told_to_end_before_it_is_in_charge_leaves_the_old_serving(server: StandIn) -> None:
    server.set_behaviour("mute")
    server.signal(signal.SIGUSR2)
    pid = wait_until("the new program has workers", lambda: _new_master(server), 30)
    wait_until("they run", lambda: len(_grandchildren(server)) == 2, 30)
    os.kill(pid, signal.SIGTERM)
    wait_until("the upgrade has failed", lambda: "upgrade failed" in server.log_text(), 30)
    assert server.greeting()["slot"] in (0, 1)
    assert pid_in(server.run_dir / "smtpd.pid") == server.running.pid


def test_a_program_whose_starter_is_killed_takes_over_by_itself(server: StandIn) -> None:
    server.set_behaviour("mute")
    old = server.running
    server.signal(signal.SIGUSR2)
    pid = wait_until("the new program has workers", lambda: _new_master(server), 30)
    wait_until("they run", lambda: len(_grandchildren(server)) == 2, 30)
    workers = _grandchildren(server)
    old.kill()
    old.wait()
    replace(server, pid)
    wait_until("it names itself", lambda: pid_in(server.run_dir / "smtpd.pid") == pid, 30)
    server.set_behaviour("serve")
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    server.wait_ready()
    assert server.greeting()["slot"] in (0, 1)


def test_when_both_are_killed_nobody_serves_and_nothing_is_in_the_way_of_a_new_start(server: StandIn) -> None:
    client, greeting = server.connect()
    old = upgrade(server)
    new_workers = server.worker_pids()
    server.running.kill()
    old.kill()
    old.wait()
    server.running.wait(20)
    client.close()
    wait_until("the workers are gone", lambda: not any(map(is_alive, [*new_workers, greeting["pid"]])), 30)
    assert _is_refused(server, server.port)
    server.start()
    assert pid_in(server.run_dir / "smtpd.pid") == server.running.pid
    assert server.greeting()["slot"] in (0, 1)


class Contained(StandIn):
    """The server is process 1 of a namespace."""

    def start(self, *, wait: bool = True) -> None:
        with self.stderr.open("ab") as stderr:
            self.process = subprocess.Popen(
                [require_peer("util-linux", "unshare"), "--pid", "--fork", "--kill-child", sys.executable, SERVER, self.config],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                start_new_session=True,
            )
        if wait:
            self.wait_ready()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_process_1_of_a_container_is_not_upgraded(tmp_path: Path) -> None:
    with Contained(tmp_path) as server:
        assert server.status()["pid"] == 1
        os.kill(child_pids(server.running.pid)[0], signal.SIGUSR2)
        wait_until("the upgrade has failed", lambda: "upgrade failed: the old program serves on" in server.log_text(), 30)
        assert "this is process 1" in server.log_text()
        assert server.greeting()["slot"] in (0, 1)


@pytest.mark.full
def test_a_second_server_is_kept_out_during_and_after_an_upgrade(server: StandIn, tmp_path: Path) -> None:
    client, _ = server.connect()
    old = upgrade(server)
    other = StandIn(tmp_path / "other", {"run_dir": str(server.run_dir)})
    other.start(wait=False)
    assert other.running.wait(20) == os.EX_UNAVAILABLE
    client.close()
    assert old.wait(30) == 0
    other.start(wait=False)
    assert other.running.wait(20) == os.EX_UNAVAILABLE
    assert f"pid {server.running.pid}" in other.log_text()


def _is_refused(server: StandIn, port: int) -> bool:
    try:
        socket.create_connection((server.host, port), timeout=5).close()
    except ConnectionError:
        return True
    return False


def _new_master(server: StandIn) -> int:
    return next((pid for pid in server.worker_pids() if child_pids(pid)), 0)


def _grandchildren(server: StandIn) -> list[int]:
    return [pid for child in server.worker_pids() for pid in child_pids(child)]
