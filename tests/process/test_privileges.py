"""Started as root: bound as root, run as the configured user, with no way back but to bind low ports."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from gateway import wait_until
from peers import require_peer
from stand_in import SERVER, StandIn
from successor import upgrade
from tls_files import OTHER, Authority

NOBODY = 65534
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def server() -> Iterator[StandIn]:
    folder = Path(tempfile.mkdtemp(prefix="smtpd-"))
    folder.chmod(0o755)  # pytest's own folders are closed to other users
    stand_in = StandIn(folder, {"user": "nobody"})
    stand_in.settings["listener"][0]["address"] = f"{stand_in.host}:25"
    stand_in.port = 25
    stand_in.write_config()
    with stand_in:
        yield stand_in
    shutil.rmtree(folder)


def status(pid: int) -> dict[str, str]:
    """The fields of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_master_and_workers_are_the_user_and_the_master_alone_may_bind_low_ports(server: StandIn) -> None:
    greeting = server.greeting()
    assert greeting["uid"] == [NOBODY] * 3
    assert 0 not in greeting["groups"]
    master, workers = server.running.pid, server.worker_pids()
    assert len(workers) == 2
    for pid in (master, *workers):
        fields = status(pid)
        assert fields["Uid"].split() == [str(NOBODY)] * 4
        assert fields["Gid"].split() == [str(NOBODY)] * 4
        assert fields["NoNewPrivs"] == "1"
        allowed = 1 << 10 if pid == master else 0  # CAP_NET_BIND_SERVICE
        assert int(fields["CapPrm"], 16) == int(fields["CapEff"], 16) == allowed
        assert int(fields["CapInh"], 16) == int(fields["CapAmb"], 16) == 0


def test_nobody_of_the_same_user_looks_into_a_process_and_the_spool_is_closed_to_others(server: StandIn) -> None:
    for pid in (server.running.pid, *server.worker_pids()):
        assert os.stat(f"/proc/{pid}/environ").st_uid == 0  # not dumpable: what /proc shows is root's
        assert status(pid)["Umask"] == "0077"


@pytest.mark.full
def test_a_new_program_started_by_the_user_may_bind_low_ports_and_its_workers_may_not() -> None:
    probe = subprocess.run([require_peer("util-linux", "unshare"), "--mount", "true"], capture_output=True, text=True)
    if probe.returncode != 0:
        pytest.skip(f"mounting is not allowed here: {probe.stderr.strip()}")
    with readable_server() as server:
        old = upgrade_with(server, 26)
        master, workers = server.running.pid, server.worker_pids()
        assert len(workers) == 2
        for pid in (master, *workers):
            fields = status(pid)
            assert fields["Uid"].split() == [str(NOBODY)] * 4
            assert fields["NoNewPrivs"] == "1"
            assert fields["Umask"] == "0077"
            allowed = 1 << 10 if pid == master else 0
            assert int(fields["CapPrm"], 16) == int(fields["CapEff"], 16) == allowed
            assert int(fields["CapInh"], 16) == int(fields["CapAmb"], 16) == 0
            assert os.stat(f"/proc/{pid}/environ").st_uid == 0
        assert server.greeting(26)["uid"] == [NOBODY] * 3
        assert old.wait(30) == 0
        upgrade_with(server, 27)  # and so on
        assert server.greeting(27)["uid"] == [NOBODY] * 3
        server.settings["listener"].append({"name": "l28", "address": f"{server.host}:28"})
        server.write_config()
        server.signal(signal.SIGHUP)
        wait_until("the reload is over", lambda: server.status()["generation"] == 2, 20)
        assert server.greeting(28)["uid"] == [NOBODY] * 3


def upgrade_with(server: StandIn, port: int) -> object:
    server.settings["listener"].append({"name": f"l{port}", "address": f"{server.host}:{port}"})
    server.write_config()
    return upgrade(server)


# Becomes the program that it is given, in a mount namespace where everybody may pass through to what the program needs.
OPEN = """
import os, subprocess, sys, tempfile

def mount(*words):
    subprocess.run(["mount", *words], check=True)

os.unshare(os.CLONE_NEWNS)
mount("--make-rprivate", "/")
needed = sys.argv[1].split(":")
for path in needed:
    steps = ["/".join(path.split("/")[:n]) for n in range(2, path.count("/") + 1)]
    closed = next((step for step in steps if not os.stat(step).st_mode & 1), None)
    if closed:
        inside = [entry for entry in needed if entry.startswith(closed + "/")]
        held = [tempfile.mkdtemp(dir="/tmp") for _ in inside]
        for source, hold in zip(inside, held):
            mount("--bind", source, hold)
        mount("-t", "tmpfs", "-o", "mode=0755", "none", closed)
        for target, hold in zip(inside, held):
            os.makedirs(target, 0o755, exist_ok=True)
            mount("--move", hold, target)
            os.rmdir(hold)
os.chdir(sys.argv[2])
os.execv(sys.argv[3], sys.argv[3:])
"""


class ReadableServer(StandIn):
    """Its interpreter and code can be read by every user, wherever they are installed."""

    def start(self, *, wait: bool = True) -> None:
        repository = str(Path(__file__).parents[2])
        needed = sorted({sys.base_prefix, os.path.realpath(sys.base_prefix), repository, sys.prefix}, key=len)
        program = [sys.executable, "-B", "-W", "error::DeprecationWarning", str(SERVER), str(self.config)]
        with self.stderr.open("ab") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-c", OPEN, ":".join(needed), str(self.folder), *program],
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                start_new_session=True,
            )
        if wait:
            self.wait_ready()


@contextmanager
def readable_server() -> Iterator[StandIn]:
    folder = Path(tempfile.mkdtemp(prefix="smtpd-"))
    folder.chmod(0o755)
    stand_in = ReadableServer(folder, {"user": "nobody"})
    stand_in.settings["listener"][0]["address"] = f"{stand_in.host}:25"
    stand_in.port = 25
    stand_in.write_config()
    with stand_in:
        yield stand_in
    shutil.rmtree(folder)


def test_directories_and_pid_file_belong_to_the_user(server: StandIn) -> None:
    for path in (server.spool, server.mail, server.folder / "run", server.folder / "run" / "smtpd.pid"):
        assert path.stat().st_uid == NOBODY, path
    assert server.spool.stat().st_mode & 0o777 == 0o700
    assert server.stop() == 0
    assert not (server.folder / "run" / "smtpd.pid").exists()


def test_a_worker_more_shares_the_port_that_root_bound(server: StandIn) -> None:
    server.signal(signal.SIGTTIN)
    wait_until("three workers are ready", lambda: len(server.ready_pids()) == 3, 30)
    assert {server.greeting()["slot"] for _ in range(90)} == {0, 1, 2}


def test_a_reload_may_bind_another_low_port(server: StandIn) -> None:
    server.settings["listener"].append({"name": "second", "address": f"{server.host}:26"})
    server.write_config()
    server.signal(signal.SIGHUP)
    wait_until("the reload is over", lambda: server.status()["last_reload"], 20)
    assert server.status()["last_reload"]["success"] is True, server.log_text()
    assert server.greeting(26)["uid"] == [NOBODY] * 3


def test_a_key_for_root_alone_is_read_before_the_drop_and_not_after(server: StandIn) -> None:
    authority = Authority(server.folder)
    pair = authority.issue("mx")
    server.stop()
    os.chown(pair.key, 0, 0)
    pair.key.chmod(0o600)
    server.settings["tls"] = {"certificate": [pair.settings]}
    server.settings["listener"][0]["tls"] = "starttls"
    server.write_config()
    server.start()
    server.wait_ready()
    reload(server, success=True)  # unchanged files need not be read again
    authority.issue("mx")
    reload(server, success=False)
    assert f"tls.certificate.key: {pair.key}: Permission denied; user nobody has to read it" in server.log_text(1 << 20)
    os.chown(pair.key, 0, NOBODY)
    pair.key.chmod(0o640)
    reload(server, success=True)


def test_one_new_certificate_needs_all_keys_and_says_so(server: StandIn) -> None:
    authority = Authority(server.folder)
    pairs = [authority.issue("mx"), authority.issue("other", OTHER)]
    server.stop()
    for pair in pairs:
        os.chown(pair.key, 0, 0)
        pair.key.chmod(0o600)
    server.settings["tls"] = {"certificate": [pair.settings for pair in pairs]}
    server.settings["listener"][0]["tls"] = "starttls"
    server.write_config()
    server.start()
    server.wait_ready()
    authority.issue("mx")
    os.chown(pairs[0].key, 0, NOBODY)
    pairs[0].key.chmod(0o640)
    reload(server, success=False)
    assert f"{pairs[1].key}: Permission denied; user nobody has to read it" in server.log_text(1 << 20)
    os.chown(pairs[1].key, 0, NOBODY)
    pairs[1].key.chmod(0o640)
    reload(server, success=True)


def reload(server: StandIn, *, success: bool) -> None:
    before = server.status()["last_reload"]
    server.signal(signal.SIGHUP)
    wait_until("the reload is over", lambda: server.status()["last_reload"] != before, 20)
    assert server.status()["last_reload"]["success"] is success, server.log_text()
