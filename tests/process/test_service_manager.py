"""systemd as this server sees it: sockets that are there at the start, by name, and what is told on NOTIFY_SOCKET."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway import START_TIMEOUT_S, wait_until
from peers import require_peer
from stand_in import SERVER, Callers, StandIn
from successor import upgrade

UNITS = Path(__file__).parents[2] / "conf" / "systemd"
# Puts the descriptors that it inherits where sd_listen_fds(3) has them, says so in the environment, and becomes the server.
LAUNCH = """
import fcntl, os, sys
fds = [int(text) for text in sys.argv[1].split(",") if text]
high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in fds]
for n, fd in enumerate(high):
    os.dup2(fd, 3 + n, inheritable=True)
if fds:
    os.environ |= {"LISTEN_FDS": str(len(fds)), "LISTEN_FDNAMES": sys.argv[2], "LISTEN_PID": str(os.getpid())}
if "WATCHDOG_USEC" in os.environ:
    os.environ["WATCHDOG_PID"] = str(os.getpid())
os.execv(sys.argv[3], sys.argv[3:])
"""


class Manager(StandIn):
    """Starts the server as systemd would. `made` are its sockets by name."""

    def __init__(self, folder: Path, settings: dict[str, object] | None = None) -> None:
        super().__init__(folder, settings)
        self.made: dict[str, list[socket.socket]] = {}
        self.heard: list[dict[str, str]] = []
        self.watchdog_usec = 0
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(str(folder / "notify"))
        self.notify.setblocking(False)

    def make_socket(self, name: str, address: tuple[str, int]) -> None:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.made.setdefault(name, []).append(socket.create_server(address, family=family, backlog=100))

    def start(self, *, wait: bool = True) -> None:
        pairs = [(name, sock) for name, sockets in self.made.items() for sock in sockets]
        fds = [sock.fileno() for _, sock in pairs]
        names = ":".join(name for name, _ in pairs)
        environment = dict(os.environ) | {"NOTIFY_SOCKET": str(self.folder / "notify")}
        if self.watchdog_usec:
            environment["WATCHDOG_USEC"] = str(self.watchdog_usec)
        launch = [sys.executable, "-c", LAUNCH, ",".join(map(str, fds)), names]
        with self.stderr.open("ab") as stderr:
            self.process = subprocess.Popen(
                [*launch, sys.executable, "-W", "error::DeprecationWarning", str(SERVER), str(self.config)],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                env=environment,
                pass_fds=fds,
                start_new_session=True,
            )
        if wait:
            self.wait_ready(START_TIMEOUT_S)

    def listen(self) -> list[dict[str, str]]:
        """All that was told so far, one mapping for each datagram."""
        while True:
            try:
                text = self.notify.recv(4096).decode()
            except BlockingIOError:
                return self.heard
            self.heard.append(dict(line.split("=", 1) for line in text.splitlines()))

    def wait_told(self, key: str, value: str = "", count: int = 1) -> None:
        def is_told() -> bool:
            return sum(key in entry and (not value or entry[key] == value) for entry in self.listen()) >= count

        wait_until(f"{key}={value} is told", is_told, 30)

    def __exit__(self, *failure: object) -> None:
        super().__exit__(*failure)
        self.notify.close()
        for sockets in self.made.values():
            for sock in sockets:
                sock.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with_sockets = Manager(tmp_path, {"drain_timeout": "60 s"})
    yield with_sockets
    with_sockets.__exit__()


def test_sockets_are_taken_by_name_those_of_the_metrics_too_and_watched_by_all_workers(manager: Manager) -> None:
    manager.make_socket("mx", (manager.host, 0))
    manager.make_socket("mx", ("::1", 0))
    manager.make_socket("metrics", (manager.host, 0))
    manager.metrics_port = manager.made["metrics"][0].getsockname()[1]
    given = manager.made["mx"][0].getsockname()[1]
    manager.start()
    assert {manager.greeting(given)["slot"] for _ in range(200)} == {0, 1}
    assert manager.status()["listeners"] == [{"name": "mx", "address": f"{manager.host}:{given}"}]
    with pytest.raises(ConnectionRefusedError):  # the address of the configuration is not bound as well
        manager.greeting(manager.port)
    with socket.create_connection(manager.made["mx"][1].getsockname()[:2], timeout=10) as client:
        assert b"slot" in client.recv(1000)
    before = manager.ready_pids()
    manager.signal(signal.SIGHUP)
    wait_until("it is reloaded", lambda: manager.status()["generation"] == 2, 30)
    manager.await_left(before.values())
    assert manager.greeting(given)["pid"] not in before.values()
    upgrade(manager)  # its metrics are where they were, or this wouldn't return
    assert manager.status()["listeners"] == [{"name": "mx", "address": f"{manager.host}:{given}"}]


def test_connections_wait_for_the_next_start_where_the_socket_is_the_managers(manager: Manager) -> None:
    manager.make_socket("mx", (manager.host, 0))
    port = manager.made["mx"][0].getsockname()[1]
    manager.start()
    with Callers(manager, port) as callers:
        callers.wait_served()
        assert manager.stop() == 0
        manager.start()
        callers.wait_served()
        upgrade(manager)
        callers.wait_served()
    assert callers.trouble == []


def test_a_socket_that_no_listener_asks_for_is_a_fault(manager: Manager) -> None:
    manager.make_socket("submission", (manager.host, 0))
    manager.start(wait=False)
    assert manager.running.wait(30) == os.EX_CONFIG
    assert "no listener has this name" in manager.log_text()
    assert '"submission"' in manager.log_text()
    manager.process = None


def test_states_are_told(manager: Manager) -> None:
    manager.start()
    manager.wait_told("READY", "1")
    assert "2 workers" in next(entry["STATUS"] for entry in manager.listen() if "READY" in entry)
    manager.signal(signal.SIGHUP)
    manager.wait_told("READY", "1", count=2)
    reloading = next(entry for entry in manager.listen() if entry.get("RELOADING") == "1")
    assert int(reloading["MONOTONIC_USEC"]) > 0
    manager.settings["hostnam"] = "x"
    manager.write_config()
    manager.signal(signal.SIGHUP)
    manager.wait_told("READY", "1", count=3)
    assert "failed" in [entry["STATUS"] for entry in manager.listen() if "READY" in entry][-1]
    del manager.settings["hostnam"]
    manager.write_config()
    old = upgrade(manager)
    manager.wait_told("MAINPID", str(manager.running.pid))
    assert old.wait(30) == 0
    manager.wait_told("READY", "1", count=5)  # of the old with MAINPID, of the new
    assert manager.stop() == 0
    manager.wait_told("STOPPING", "1")


def test_the_watchdog_is_fed_only_while_the_workers_are_well(manager: Manager) -> None:
    manager.settings |= {"workers": 1, "heartbeat_timeout": "30 s"}
    manager.write_config()
    manager.watchdog_usec = 200_000
    manager.start()
    manager.wait_told("WATCHDOG", "1", count=3)
    manager.set_behaviour("mute")  # whoever follows never serves
    os.kill(manager.ready_pids()[0], signal.SIGKILL)
    wait_until("no worker is ready", lambda: not manager.ready_pids(), 30)
    for _ in range(3):  # what was on its way
        manager.http("/healthz")
    count = sum("WATCHDOG" in entry for entry in manager.listen())
    with pytest.raises(AssertionError, match="not within 1 s"):
        wait_until("it is fed", lambda: sum("WATCHDOG" in entry for entry in manager.listen()) > count, 1)


@pytest.mark.peer("systemd")
def test_the_units_are_good(tmp_path: Path) -> None:
    program = require_peer("systemd", "systemd-analyze")
    for unit in UNITS.iterdir():
        text = re.sub(r"/usr/local/bin/smtpd\b|/opt/smtpd/bin/smtpd\b", "/bin/true", unit.read_text())
        (tmp_path / unit.name).write_text(text)
    done = subprocess.run(
        [program, "verify", "--man=no", *map(str, sorted(tmp_path.iterdir()))], capture_output=True, text=True, timeout=60
    )
    complaints = [line for line in done.stderr.splitlines() if "smtpd" in line]
    assert (done.returncode, complaints) == (0, [])
