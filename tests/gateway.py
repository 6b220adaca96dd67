"""Runs a real `smtpd serve` for tests: configuration in a directory of its own, free ports, started by exec.

Owns the process from start to end: ready when /readyz says so, stopped by TERM, killed when that is too slow.
What it writes to stderr is kept in `stderr.log` beside its configuration and is part of every failure's text.
Ports come from bind(0) on a loopback address of this test process alone, so nobody else can be given them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.processes import child_pids, is_alive, tree_pids
from smtpd.control.client import QueueReader
from smtpd.control.wire import QueueEntry, Request

if TYPE_CHECKING:
    from successor import Successor

PROGRAM = Path(sys.executable).with_name("smtpd")
START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 40.0
_PAUSE_S = 0.02
_given_ports: set[int] = set()


def own_loopback_address() -> str:
    """Return an address of 127.0.0.0/8 that no other process with a living pid uses."""
    pid = os.getpid()
    return f"127.{100 + (pid >> 16) % 100}.{pid >> 8 & 255}.{max(1, pid & 255)}"


def free_port(host: str) -> int:
    """Return a TCP port of `host` that nobody is bound to and that was not returned before."""
    while True:
        with socket.socket() as probe:
            probe.bind((host, 0))
            port = int(probe.getsockname()[1])
        if port not in _given_ports:
            _given_ports.add(port)
            return port


def to_toml(settings: Mapping[str, Any], prefix: str = "") -> str:
    """Return nested mappings as TOML; a list of mappings becomes an array of tables."""
    lines: list[str] = []
    tables: list[str] = []
    for name, value in settings.items():
        key = name if name.replace("_", "").isalnum() else json.dumps(name)
        if isinstance(value, Mapping):
            tables.append(f"\n[{prefix}{key}]\n" + to_toml(value, f"{prefix}{key}."))
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            tables += [f"\n[[{prefix}{key}]]\n" + to_toml(row, f"{prefix}{key}.") for row in value]
        else:  # JSON's strings, numbers, booleans and lists of them are TOML's as well
            lines.append(f"{key} = {json.dumps(value, ensure_ascii=False)}\n")
    return "".join(lines + tables)


def wait_until[T](what: str, probe: Callable[[], T], timeout_s: float) -> T:
    """Return the first true answer of `probe`; AssertionError naming `what` when none comes in time."""
    deadline = time.monotonic() + timeout_s
    while not (answer := probe()):
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(_PAUSE_S)
    return answer


class Gateway:
    """One configuration and, between `start` and `stop`, its running server.

    `overrides` replace whole keys of the base settings; a mapping is merged into the section of its name.
    """

    def __init__(self, folder: Path, overrides: Mapping[str, Any] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.host = own_loopback_address()
        self.port = free_port(self.host)
        self.metrics_port = free_port(self.host)
        self.spool = folder / "spool"
        self.mail = folder / "mail"
        self.config = folder / "smtpd.toml"
        self.stderr = folder / "stderr.log"
        self.run_dir = folder / "run"
        self.process: subprocess.Popen[bytes] | Successor | None = None
        self.former: list[subprocess.Popen[bytes] | Successor] = []  # masters that were replaced by an upgrade
        self.settings: dict[str, Any] = {
            "hostname": "mx.example.net",
            "workers": 2,
            "run_dir": str(folder / "run"),
            "listener": [{"name": "mx", "address": f"{self.host}:{self.port}"}],
            "spool": {"path": str(self.spool)},
            "route": [{"domains": ["*"], "transport": "maildir", "path": str(self.mail)}],
            "metrics": {"address": f"{self.host}:{self.metrics_port}"},
            "log": {"destination": "stderr"},
        }
        for key, value in (overrides or {}).items():
            known = self.settings.get(key)
            self.settings[key] = {**known, **value} if isinstance(known, dict) else value
        self.write_config()

    def write_config(self) -> None:
        """Write `settings` to the configuration file."""
        self.config.write_text(to_toml(self.settings), encoding="utf-8")

    # --- the process ----------------------------------------------------------------------------------------

    def start(self, *, wait: bool = True) -> None:
        """Start the server; with `wait`, return when it is ready."""
        with self.stderr.open("ab") as stderr:
            self.process = subprocess.Popen(
                [PROGRAM, "serve", "-c", self.config],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                start_new_session=True,
            )
        if wait:
            self.wait_ready()

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Return when /readyz answers 200; AssertionError with its own words when it ended or is late."""

        def is_ready() -> bool:
            code = self.running.poll()
            assert code is None, f"smtpd ended with {code}:\n{self.log_text()}"
            try:
                return self.http("/readyz")[0] == 200
            except OSError:
                return False

        try:
            wait_until("smtpd is ready", is_ready, timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log_text()}") from None

    @property
    def running(self) -> subprocess.Popen[bytes] | Successor:
        assert self.process is not None, "not started"
        return self.process

    def signal(self, number: int) -> None:
        """Send a signal to the master."""
        self.running.send_signal(number)

    def worker_pids(self) -> list[int]:
        """Return the workers' pids as the kernel knows them now."""
        return child_pids(self.running.pid)

    def await_left(self, pids: Iterable[int]) -> None:
        """Return when none of these processes listens any more, so that no new connection is theirs.

        That others serve doesn't say it: a worker hears of its drain a moment later, and may accept until then."""
        for pid in pids:
            wait_until(f"process {pid} has left the listening sockets", lambda pid=pid: not _listens(pid), START_TIMEOUT_S)

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """End the server by TERM and return its exit code; AssertionError when it had to be killed."""
        process, self.process = self.running, None
        workers = child_pids(process.pid)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            for former in self.former:
                former.wait(timeout_s)
            return process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            for pid in workers:  # their lifeline is cut; they are ended here only if they hang
                _kill_quietly(pid)
            raise AssertionError(f"smtpd did not end in {timeout_s:.0f} s:\n{self.log_text()}") from None

    def kill(self) -> None:
        """Kill the master and its workers at once, as a crash of the machine would."""
        process, self.process = self.running, None
        masters = [process, *(former for former in self.former if former.poll() is None)]
        workers = [pid for master in masters for pid in tree_pids(master.pid)[1:]]
        for master in masters:
            master.kill()
        for pid in workers:
            _kill_quietly(pid)
        for master in masters:
            master.wait()
        self.former.clear()
        wait_until("the workers are gone", lambda: not any(map(is_alive, workers)), 10.0)

    def log_text(self, limit: int = 4000) -> str:
        """Return the end of what the server wrote to stderr."""
        return self.stderr.read_text(encoding="utf-8", errors="replace")[-limit:] if self.stderr.exists() else ""

    # --- what it shows --------------------------------------------------------------------------------------

    def http(self, path: str) -> tuple[int, bytes]:
        """Return (status, body) of a GET from the metrics listener; OSError when it doesn't answer."""
        try:
            with urllib.request.urlopen(f"http://{self.host}:{self.metrics_port}{path}", timeout=10) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def status(self) -> dict[str, Any]:
        """Return /status of the master."""
        answer: dict[str, Any] = json.loads(self.http("/status")[1])
        return answer

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of all samples of `name` that carry these labels; 0 when there are none."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        total = 0.0
        for line in self.http("/metrics")[1].decode().splitlines():
            sample, _, value = line.rpartition(" ")
            if sample.partition("{")[0] == name and all(text in sample for text in wanted):
                total += float(value)
        return total

    def queue(self) -> list[QueueEntry] | None:
        """Return the mails in the queue, those of shards without a worker too; None while some of them can't be asked for."""
        reader = QueueReader(str(self.settings["run_dir"]), str(self.settings["spool"]["path"]))
        entries = list(reader.entries(Request("list")))
        is_whole = all(text.endswith("nobody listens there any more") for text in reader.problems)  # left by a killed worker
        return entries if is_whole else None

    def await_empty_queue(self, timeout_s: float = 60.0) -> None:
        """Return when every mail has left the queue for good. The gauges, published once a second, may say so before."""
        wait_until("the queue is empty", lambda: self.queue() == [], timeout_s)

    def mail_paths(self, user: str, domain: str = "example.org") -> list[Path]:
        """Return the delivered mails of a mailbox, in the order of their file names."""
        folder = self.mail / domain / user / "new"
        return sorted(folder.iterdir()) if folder.is_dir() else []

    def await_any_mails(self, count: int, domain: str, timeout_s: float = 30.0) -> list[bytes]:
        """Return all mails of a domain, whatever its mailboxes are called on disk, once `count` are there."""
        folder = self.mail / domain

        def found() -> list[Path]:
            paths = list(folder.glob("*/new/*")) if folder.is_dir() else []
            return paths if len(paths) >= count else []

        return [path.read_bytes() for path in wait_until(f"{count} mails for {domain}", found, timeout_s)]

    def await_mails(self, user: str, count: int = 1, domain: str = "example.org", timeout_s: float = 30.0) -> list[bytes]:
        """Return the mails of a mailbox as stored once `count` are there; AssertionError on more or less."""
        try:
            paths = wait_until(
                f"{count} mails for {user}@{domain}",
                lambda: found if len(found := self.mail_paths(user, domain)) >= count else [],
                timeout_s,
            )
        except AssertionError as error:
            there = len(self.mail_paths(user, domain))
            raise AssertionError(f"{error} (there are {there})\n{self.log_text()}") from None
        assert len(paths) == count, f"{len(paths)} mails for {user}@{domain}, {count} were sent"
        return [path.read_bytes() for path in paths]


@contextmanager
def running_gateway(folder: Path, overrides: Mapping[str, Any] | None = None) -> Iterator[Gateway]:
    """A started Gateway, stopped at the end; its exit code must then be 0."""
    gateway = Gateway(folder, overrides)
    gateway.start()
    try:
        yield gateway
    except BaseException:
        if gateway.process is not None:
            gateway.kill()
        raise
    if gateway.process is not None:
        code = gateway.stop()
        assert code == 0, f"smtpd ended with {code} after TERM:\n{gateway.log_text()}"


def _listens(pid: int) -> bool:
    """Whether a process has a listening TCP socket; False when it is gone."""
    owned: set[str] = set()
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                owned.add(os.readlink(entry))
    except (FileNotFoundError, ProcessLookupError):
        return False
    inodes = {name[8:-1] for name in owned if name.startswith("socket:[")}
    for family in ("tcp", "tcp6"):
        rows = [line.split() for line in Path(f"/proc/net/{family}").read_text(encoding="ascii").splitlines()[1:]]
        if any(row[3] == "0A" and row[9] in inodes for row in rows):
            return True
    return False


def _kill_quietly(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
