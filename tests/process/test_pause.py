"""`smtpd pause` and `resume`: nobody new gets in, nobody who is in is cut off, and it lasts through reload and upgrade."""

import json
import os
import signal
import smtplib
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway import PROGRAM, Gateway, free_port, wait_until
from stand_in import Callers, StandIn
from successor import replace

from smtpd.control.client import connect


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StandIn]:
    with StandIn(tmp_path, {"drain_timeout": "60 s"}) as stand_in:
        yield stand_in


def ask(server: Gateway, command: str, *options: str, code: int = 0) -> str:
    """What the command prints."""
    done = subprocess.run(
        [PROGRAM, command, "-c", server.config, *options], cwd=server.folder, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == code, done.stderr + done.stdout + server.log_text()
    return done.stdout + done.stderr


def tell(server: Gateway, word: str) -> dict[str, object]:
    """What the command is told, without the time that it takes to start."""
    with connect(str(server.run_dir / "master.sock")) as client, client.makefile("rb") as answer:
        client.sendall(json.dumps({"do": word}).encode() + b"\n")
        standing: dict[str, object] = json.loads(answer.readline())
    assert standing["state"] == {"pause": "paused", "resume": "serving"}[word], server.log_text()
    return standing


def is_refused(server: Gateway, port: int = 0) -> bool:
    try:
        socket.create_connection((server.host, port or server.port), timeout=10).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_paused_node_refuses_at_once_says_so_and_comes_back(server: StandIn) -> None:
    client, greeting = server.connect()
    wait_until("the session is counted", lambda: server.status()["sessions"] == 1, 20)
    assert json.loads(ask(server, "pause", "--json")) == {"state": "paused", "sessions": 1}
    assert all(is_refused(server) for _ in range(20))
    code, body = server.http("/readyz")
    assert (code, json.loads(body)["problems"]) == (503, ["paused"])
    assert greeting["pid"] in server.worker_pids()
    client.settimeout(0.2)
    with pytest.raises(TimeoutError):  # it is still open
        client.recv(1)
    assert "paused: no connection is accepted, 1 session left" in ask(server, "pause")  # again, to see how many are left
    assert "serving: connections are accepted, 1 session" in ask(server, "resume")
    assert {server.greeting()["slot"] for _ in range(40)} == {0, 1}
    assert server.http("/readyz")[0] == 200
    client.close()


def test_nobody_who_got_a_connection_loses_it_when_the_node_pauses(server: StandIn) -> None:
    with Callers(server) as callers:
        for _ in range(3):
            callers.wait_served()
            tell(server, "pause")
            callers.wait_refused()
            tell(server, "resume")
        callers.wait_served()
    assert set(callers.trouble) <= {"ConnectionRefusedError(111, 'Connection refused')"}


def test_a_pause_lasts_through_reload_upgrade_and_the_death_of_a_worker(server: StandIn) -> None:
    tell(server, "pause")
    second = free_port(server.host)
    server.settings["listener"].append({"name": "second", "address": f"{server.host}:{second}"})
    server.settings["workers"] = 3
    server.write_config()
    server.signal(signal.SIGHUP)
    wait_until("the new generation has three workers", lambda: len(server.ready_pids()) == 3, 30)
    assert is_refused(server)
    assert is_refused(server, second)
    old = server.running
    server.signal(signal.SIGUSR2)
    wait_until("the old program is gone", lambda: old.poll() is not None, 40)
    _follow(server)
    wait_until("its workers are ready", lambda: len(server.ready_pids()) == 3, 30)
    assert is_refused(server)
    before = server.ready_pids()
    os.kill(before[1], signal.SIGKILL)
    wait_until("it has a successor", lambda: server.ready_pids().get(1, before[1]) != before[1], 30)
    assert is_refused(server)
    assert json.loads(server.http("/readyz")[1])["problems"] == ["paused"]
    tell(server, "resume")
    assert {server.greeting()["slot"] for _ in range(60)} == {0, 1, 2}
    assert {server.greeting(second)["slot"] for _ in range(60)} == {0, 1, 2}


def test_a_pause_that_is_asked_for_during_an_upgrade_is_done_by_the_new_program(server: StandIn) -> None:
    server.signal(signal.SIGUSR2)
    wait_until("it has begun", lambda: "starting the new program" in server.log_text(), 30)
    pausing = subprocess.Popen(
        [PROGRAM, "pause", "-c", server.config], cwd=server.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    output = pausing.communicate(timeout=100)[0]
    assert (pausing.returncode, output) == (0, "paused: no connection is accepted, 0 sessions left\n")
    _follow(server)
    assert is_refused(server)
    assert server.status()["is_paused"] is True


def test_a_unix_listener_pauses_too_and_a_paused_server_stops(server: StandIn) -> None:
    path = server.folder / "mail.sock"
    server.settings["listener"].append({"name": "local", "address": f"unix:{path}"})
    server.write_config()
    server.signal(signal.SIGHUP)
    wait_until("it listens", path.exists, 30)
    wait_until("the reload is over", lambda: server.status()["generation"] == 2, 30)
    tell(server, "pause")
    assert not path.exists()
    tell(server, "resume")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        assert b"slot" in client.recv(1000)
    tell(server, "pause")
    assert server.stop() == 0
    assert [entry.name for entry in server.folder.iterdir() if "mail.sock" in entry.name] == []
    server.start()
    assert server.greeting()["slot"] in (0, 1)


def test_without_a_server_the_command_says_so(tmp_path: Path) -> None:
    server = StandIn(tmp_path)
    assert "no server is running" in ask(server, "pause", code=os.EX_UNAVAILABLE)


def test_garbage_on_the_control_socket_has_no_effect(server: StandIn) -> None:
    for octets in (b"\n", b"{}\n", b'{"do": "stop"}\n', b"x" * 10_000, b'{"do": "pause"'):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(server.run_dir / "master.sock"))
            client.sendall(octets)
            client.shutdown(socket.SHUT_WR)
            try:
                answer = client.recv(1000)
            except ConnectionResetError:
                answer = b""
            assert b"state" not in answer
    assert server.greeting()["slot"] in (0, 1)
    assert (server.run_dir / "master.sock").stat().st_mode & 0o777 == 0o660


def test_deliveries_and_open_sessions_go_on_while_the_gateway_is_paused(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    gateway.start()
    try:
        with smtplib.SMTP(gateway.host, gateway.port, "client.example", timeout=30) as smtp:
            smtp.ehlo()
            tell(gateway, "pause")
            smtp.sendmail("a@example.com", ["b@example.org"], b"Subject: paused\r\n\r\nx\r\n")
        assert is_refused(gateway)
        gateway.await_mails("b", 1)
        wait_until("no session is left", lambda: gateway.status()["sessions"] == 0, 20)
        assert tell(gateway, "pause").get("sessions", 0) == 0
        tell(gateway, "resume")
        with smtplib.SMTP(gateway.host, gateway.port, "client.example", timeout=30) as smtp:
            assert smtp.noop()[0] == 250
        assert gateway.stop() == 0
    finally:
        if gateway.process is not None:
            gateway.kill()


def _follow(server: StandIn) -> None:
    replace(server, int((server.run_dir / "smtpd.pid").read_text()))
