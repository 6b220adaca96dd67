"""Started as root: bound as root, run as the configured user, with no way back but to bind low ports."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway import wait_until
from stand_in import StandIn

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
