"""Too few descriptors, too little memory: nobody is lost, nothing spins, and it is said clearly and once."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from gateway import PROGRAM, Gateway, running_gateway, wait_until
from stand_in import StandIn

CLIENTS = 1000
DESCRIPTORS = 200
SHORT = "connections wait to be accepted until others end"


@contextmanager
def clients(gateway: Gateway, count: int) -> Iterator[list[socket.socket]]:
    """So many connections, served or not."""
    with ExitStack() as stack:
        yield [stack.enter_context(socket.create_connection((gateway.host, gateway.port), 60)) for _ in range(count)]


def lower_limit(gateway: Gateway, pid: int) -> None:
    """Leave a worker so few descriptors, and let it notice."""
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    wait_until("the worker has noticed", lambda: f"and is {DESCRIPTORS} now" in gateway.log_text(), 30)


@contextmanager
def many_descriptors(count: int) -> Iterator[None]:
    """This process may open so many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        pytest.skip(f"{count} descriptors are more than {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def cpu_s(pids: list[int]) -> float:
    """CPU seconds that these processes have used."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def open_descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def send_mail(sock: socket.socket, number: int) -> bytes:
    """A whole session from the greeting on; the reply to the end of the mail. Each 50th is large enough for a file of its own."""
    body = (b"x" * 70 + b"\r\n") * (3000 if number % 50 == 0 else 10)
    mail = b"Subject: %d\r\n\r\n%s.\r\nQUIT\r\n" % (number, body)
    with sock, sock.makefile("rb") as replies:

        def read_replies(*codes: bytes) -> bytes:
            """The first of so many replies."""
            lines = []
            for code in codes:
                while (line := replies.readline())[3:4] == b"-":
                    pass
                assert line.startswith(code + b" "), (number, line)
                lines.append(line)
            return lines[0]

        read_replies(b"220")
        sock.sendall(b"EHLO client.example\r\n")
        read_replies(b"250")
        sock.sendall(b"MAIL FROM:<alice@example.com>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\n")
        read_replies(b"250", b"250", b"354")
        sock.sendall(mail)
        answer = read_replies(b"250", b"221")
        assert replies.read() == b""
    return answer


def test_a_thousand_clients_are_served_in_turn_with_two_hundred_descriptors(tmp_path: Path) -> None:
    hours = {"stress_timeout": "1 h"}  # those that wait here for their turn are slow only because the test is
    settings = {"workers": 1, "overload": hours, "limits": {"connections_per_client": 0}}
    with ExitStack() as stack:
        stack.enter_context(many_descriptors(CLIENTS + 500))
        gateway = stack.enter_context(running_gateway(tmp_path, settings))
        (worker,) = gateway.worker_pids()
        resource.prlimit(gateway.running.pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
        lower_limit(gateway, worker)
        socks = stack.enter_context(clients(gateway, CLIENTS))
        wait_until("descriptors run short", lambda: SHORT in gateway.log_text(), 30)
        wait_until("stress mode", lambda: gateway.metric("smtpd_stress_mode") == 1, 30)
        assert open_descriptors(worker) <= DESCRIPTORS * 3 // 4 + 10  # a quarter is kept back

        began_s, used_s = time.monotonic(), cpu_s([worker, gateway.running.pid])
        wait_until("two seconds of idling", lambda: time.monotonic() - began_s >= 2.0, 30)
        assert cpu_s([worker, gateway.running.pid]) - used_s < 0.1 * (time.monotonic() - began_s) + 0.2

        for number, sock in enumerate(socks):
            assert b"queued as" in send_mail(sock, number)
        assert gateway.worker_pids() == [worker]
        assert len(gateway.await_mails("bob", CLIENTS, timeout_s=60)) == CLIENTS
        wait_until("it is over", lambda: "there are descriptors for connections again" in gateway.log_text(1 << 20), 30)
        assert gateway.log_text(1 << 20).count(SHORT) == 1
        wait_until("no stress", lambda: gateway.metric("smtpd_stress_mode") == 0, 30)
        assert gateway.metric("smtpd_messages_total", result="accepted") == CLIENTS
        assert gateway.metric("smtpd_sessions_ended_total", reason="quit") == CLIENTS


def test_deliveries_and_commands_find_descriptors_while_clients_hold_all_that_they_may(tmp_path: Path) -> None:
    settings = {"workers": 1, "overload": {"stress_timeout": "1 h"}}
    with running_gateway(tmp_path, settings) as gateway:
        (worker,) = gateway.worker_pids()
        lower_limit(gateway, worker)
        with clients(gateway, 1) as (sender,), clients(gateway, DESCRIPTORS):
            wait_until("descriptors run short", lambda: SHORT in gateway.log_text(), 30)
            assert b"queued as" in send_mail(sender, 50)
            gateway.await_mails("bob")
            wait_until("the queue answers", lambda: gateway.queue() == [], 30)


def test_a_worker_that_could_serve_nobody_says_why(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, {"workers": 1})
    command = ["prlimit", "--nofile=20", PROGRAM, "serve", "-c", gateway.config]
    with gateway.stderr.open("ab") as stderr:
        process = subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr)
    try:
        wait_until("it is said", lambda: "worker 0 can't start: " in gateway.log_text() or process.poll() is not None, 30)
        assert "Traceback" not in gateway.log_text()
        assert "RLIMIT_NOFILE is 20" in gateway.log_text()
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize("megabytes", [170, 210])
def test_without_memory_to_share_the_start_is_refused_in_one_line(tmp_path: Path, megabytes: int) -> None:
    gateway = Gateway(tmp_path)
    command = ["prlimit", f"--as={megabytes << 20}", PROGRAM, "serve", "-c", gateway.config]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == os.EX_OSERR
    assert "Traceback" not in ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("smtpd: no memory that workers can share: ")
    assert not (tmp_path / "run" / "smtpd.pid").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the limit holds for other users only")
def test_a_fork_that_fails_is_tried_again_until_there_are_processes(open_folder: Path) -> None:
    server = StandIn(open_folder, {"user": "games", "workers": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    hog = subprocess.Popen(["sleep", "600"], user="games")
    resource.setrlimit(resource.RLIMIT_NPROC, (2, hard))  # of that user: the master, and the hog or a worker
    try:
        server.start(wait=False)
        resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))
        wait_until("the fork fails", lambda: "worker 0 can't fork: " in server.log_text(), 30)
        assert server.http("/healthz")[0] == 200
        assert server.http("/readyz")[0] == 503
        hog.kill()
        hog.wait(30)
        server.wait_ready()
        wait_until("it is said", lambda: "worker 0 has started after all" in server.log_text(), 30)
        assert server.log_text().count("can't fork") == 1
    finally:
        resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))
        hog.kill()
        hog.wait(30)
        server.kill()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """pytest's own folders are closed to other users."""
    folder = Path(tempfile.mkdtemp(prefix="smtpd-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)
