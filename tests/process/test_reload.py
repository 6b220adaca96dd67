"""HUP: a good file takes over without a refused connection, a bad one changes nothing and is reported."""

import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway import free_port, wait_until
from stand_in import Callers, StandIn


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StandIn]:
    with StandIn(tmp_path, {"drain_timeout": "60 s"}) as stand_in:
        yield stand_in


def reload(server: StandIn, *, success: bool) -> None:
    """Write the settings, send HUP, wait for the outcome: after a success the old workers accept nothing more."""
    before, workers = server.status()["last_reload"], server.worker_pids()
    server.write_config()
    server.signal(signal.SIGHUP)
    wait_until("the reload is over", lambda: server.status()["last_reload"] != before, 20)
    assert server.status()["last_reload"]["success"] is success, server.log_text()
    if success:
        server.await_left(workers)


def test_a_good_file_takes_over_with_new_workers_on_the_same_sockets(server: StandIn) -> None:
    old = server.ready_pids()
    client, greeting = server.connect()
    assert greeting["hostname"] == "mx.example.net"
    server.settings["hostname"] = "mx2.example.net"
    reload(server, success=True)
    assert {server.greeting()["hostname"] for _ in range(20)} == {"mx2.example.net"}
    assert not set(server.ready_pids().values()) & set(old.values())
    assert server.metric("smtpd_config_last_reload_success") == 1
    wait_until("the old worker without a client is gone", lambda: len(server.worker_pids()) == 3, 20)
    assert greeting["pid"] in server.worker_pids()  # the other one ends only when its client has left
    client.close()
    wait_until("the old workers are gone", lambda: len(server.worker_pids()) == 2, 30)


def test_a_bad_file_changes_nothing_and_every_fault_is_reported(server: StandIn) -> None:
    before = server.ready_pids()
    server.settings["hostnam"] = "x"
    server.settings["workers"] = "many"
    reload(server, success=False)
    log = server.log_text()
    assert "hostnam" in log
    assert "workers" in log
    assert "the old configuration serves on" in log
    assert server.ready_pids() == before
    assert server.metric("smtpd_config_last_reload_success") == 0
    assert server.greeting()["hostname"] == "mx.example.net"
    del server.settings["hostnam"]
    server.settings["workers"] = 2
    reload(server, success=True)
    assert server.metric("smtpd_config_last_reload_success") == 1


def test_a_file_that_is_gone_changes_nothing(server: StandIn) -> None:
    before = server.ready_pids()
    server.config.unlink()
    server.signal(signal.SIGHUP)
    wait_until("the reload is over", lambda: server.status()["last_reload"], 20)
    assert server.status()["last_reload"]["success"] is False
    assert server.ready_pids() == before


def test_workers_that_cannot_boot_with_the_new_file_leave_the_old_serving(server: StandIn) -> None:
    before = server.ready_pids()
    server.set_behaviour("fail")
    server.settings["hostname"] = "mx2.example.net"
    reload(server, success=False)
    assert server.ready_pids() == before
    assert {server.greeting()["hostname"] for _ in range(20)} == {"mx.example.net"}
    assert "no luck today" in server.log_text()


def test_a_listener_is_added_and_removed_while_others_serve_on(server: StandIn) -> None:
    port = free_port(server.host)
    server.settings["listener"].append({"name": "second", "address": f"{server.host}:{port}"})
    reload(server, success=True)
    assert {server.greeting(port)["slot"] for _ in range(40)} == {0, 1}
    assert server.greeting()["slot"] in (0, 1)
    server.settings["listener"].pop()
    reload(server, success=True)
    wait_until("the removed port is closed", lambda: _is_refused(server.host, port), 30)
    assert server.greeting()["slot"] in (0, 1)


def test_a_listener_whose_port_is_taken_changes_nothing(server: StandIn) -> None:
    with socket.create_server((server.host, 0)) as other:
        port = other.getsockname()[1]
        server.settings["listener"].append({"name": "second", "address": f"{server.host}:{port}"})
        reload(server, success=False)
    assert "in use" in server.log_text()
    assert server.greeting()["slot"] in (0, 1)


def test_a_changed_number_of_workers_is_applied_both_ways(server: StandIn) -> None:
    server.settings["workers"] = 4
    reload(server, success=True)
    wait_until("four are ready", lambda: len(server.ready_pids()) == 4, 30)
    assert {server.greeting()["slot"] for _ in range(120)} == {0, 1, 2, 3}
    server.settings["workers"] = 1
    reload(server, success=True)
    wait_until("one is ready", lambda: list(server.ready_pids()) == [0], 30)
    assert {server.greeting()["slot"] for _ in range(40)} == {0}


def test_the_metrics_address_moves(server: StandIn) -> None:
    old_port = server.metrics_port
    server.metrics_port = free_port(server.host)
    server.settings["metrics"]["address"] = f"{server.host}:{server.metrics_port}"
    server.write_config()
    server.signal(signal.SIGHUP)
    wait_until("the new address answers", lambda: not _is_refused(server.host, server.metrics_port), 30)
    assert server.status()["last_reload"]["success"] is True
    assert _is_refused(server.host, old_port)


def test_an_address_of_the_metrics_that_is_taken_changes_nothing(server: StandIn) -> None:
    before = server.ready_pids()
    with socket.create_server((server.host, 0)) as other:
        server.settings["metrics"]["address"] = f"{server.host}:{other.getsockname()[1]}"
        server.settings["hostname"] = "mx2.example.net"
        reload(server, success=False)
    assert server.ready_pids() == before
    assert server.greeting()["hostname"] == "mx.example.net"


def test_one_of_two_new_ports_is_taken_and_the_other_is_given_back(server: StandIn) -> None:
    free = free_port(server.host)
    with socket.create_server((server.host, 0)) as other:
        for name, port in (("second", free), ("third", other.getsockname()[1])):
            server.settings["listener"].append({"name": name, "address": f"{server.host}:{port}"})
        reload(server, success=False)
    assert _is_refused(server.host, free)
    assert server.greeting()["slot"] in (0, 1)


def test_a_listener_gets_another_name_and_backlog_on_the_same_sockets(server: StandIn) -> None:
    with Callers(server) as callers:
        server.settings["listener"][0] |= {"name": "edge", "backlog": 7}
        reload(server, success=True)
        callers.wait_served()
    assert callers.trouble == []
    assert [entry["name"] for entry in server.status()["listeners"]] == ["edge"]
    assert _backlogs(server) == {7}


def test_connections_that_wait_on_a_removed_listener_are_still_served(server: StandIn) -> None:
    second = free_port(server.host)
    server.settings["listener"].append({"name": "second", "address": f"{server.host}:{second}"})
    reload(server, success=True)
    with Callers(server, second) as callers:
        callers.wait_served()
        server.settings["listener"].pop()
        reload(server, success=True)
        callers.wait_refused()
    assert set(callers.trouble) == {"ConnectionRefusedError(111, 'Connection refused')"}


def test_a_reload_while_the_server_drains_does_nothing(server: StandIn) -> None:
    client, _ = server.connect()
    server.signal(signal.SIGTERM)
    wait_until("it drains", lambda: server.status()["is_draining"], 20)
    server.signal(signal.SIGHUP)
    server.signal(signal.SIGUSR2)
    client.close()
    assert server.running.wait(30) == 0
    assert "reading the configuration" not in server.log_text()
    assert "starting the new program" not in server.log_text()


def test_a_hundred_reloads_in_a_row(server: StandIn) -> None:
    with Callers(server) as callers:
        for number in range(100):
            server.settings["hostname"] = f"mx{number}.example.net"
            server.write_config()
            server.signal(signal.SIGHUP)
            if number % 10 == 0:
                callers.wait_served()
        wait_until("the last is in effect", lambda: server.greeting()["hostname"] == "mx99.example.net", 60)
    assert callers.trouble == []
    wait_until("only two workers are left", lambda: len(server.worker_pids()) == 2, 60)


def test_user_and_run_dir_stay_until_a_restart(server: StandIn) -> None:
    server.settings["run_dir"] = str(server.folder / "elsewhere")
    reload(server, success=True)
    assert "a change of run_dir needs a restart" in server.log_text()
    assert not (server.folder / "elsewhere").exists()


def test_twenty_reloads_under_load_refuse_reset_and_leave_out_nobody(server: StandIn) -> None:
    with Callers(server) as callers:
        for number in range(20):
            name = f"mx{number}.example.net"
            server.settings["hostname"] = name
            server.write_config()
            server.signal(signal.SIGHUP)
            if number % 4:  # the others come while a reload runs
                wait_until("it is in effect", lambda name=name: server.greeting()["hostname"] == name, 30)
        callers.wait_served()
    assert callers.trouble == []
    assert server.status()["generation"] > 15
    wait_until("only two workers are left", lambda: len(server.worker_pids()) == 2, 20)
    assert server.status()["restarts"] == {"0": 0, "1": 0}


def _is_refused(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except ConnectionError:
        return True
    return False


def _backlogs(server: StandIn) -> set[int]:
    """The kernel's queue lengths of the listening sockets (ss shows them as Send-Q)."""
    lines = subprocess.run(
        ["ss", "-Hltn", "src", f"{server.host}:{server.port}"], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    return {int(line.split()[2]) for line in lines}
