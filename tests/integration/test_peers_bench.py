"""The comparison itself, driven against real peers: every server starts, is measured, and is gone afterwards.

smtp-sink and aiosmtpd have to be there. Go, Node and uvloop are wanted by the benchmarks only, and to install them takes longer
than all of these tests (bench/install-peers): their servers are collected where they are installed, elsewhere there is no test.
"""

from __future__ import annotations

import hashlib
import os
import smtplib
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from gateway import free_port, own_loopback_address, wait_until
from peers import require_peer

from bench import latency
from bench.generator import GeneratorError, Load, drive
from bench.peer_servers import Aiosmtpd, AiosmtpdUvloop, GoSmtp, Haraka, SmtpServer
from bench.postfix_instance import PostfixInstance
from bench.processes import is_alive, tree_pids
from bench.results import scratch_folder
from bench.servers import ROOT, Server, SmtpSink

LOAD = Load("some", 50, 4096, is_kept=True, sessions=5)
NEEDED: tuple[type[Server], ...] = (SmtpSink, Aiosmtpd)
OPTIONAL: tuple[type[Server], ...] = (AiosmtpdUvloop, GoSmtp, SmtpServer, Haraka)


def is_installed(kind: type[Server]) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        return not kind(Path(folder)).missing()


PEERS = [*NEEDED, *filter(is_installed, OPTIONAL)]


def test_a_quick_comparison_measures_and_leaves_nothing(tmp_path: Path) -> None:
    require_peer("postfix", "smtp-source")
    require_peer("cc", "cc")
    readme = (ROOT / "bench" / "README.md").read_bytes()
    command = [sys.executable, "-m", "bench.compare", "--quick", "--servers", "floor,smtp-sink", "--dir", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("| floor | ") == 2
    assert result.stdout.count("| smtp-sink | ") == 2
    assert list(tmp_path.iterdir()) == []
    assert (ROOT / "bench" / "README.md").read_bytes() == readme  # only a full run is kept


def test_what_can_not_start_is_left_out_by_name(tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": str(tmp_path)}  # no cc there
    command = [sys.executable, "-m", "bench.compare", "--quick", "--servers", "floor", "--dir", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert "left out: floor: no C compiler" in result.stderr


@pytest.mark.parametrize("kind", PEERS, ids=lambda kind: kind.name)
def test_a_peer_takes_all_mail_and_ends(kind: type[Server], tmp_path: Path) -> None:
    require_peer("postfix", "smtp-source")
    server = kind(tmp_path)
    assert server.missing() == ""
    assert server.version()
    server.start()
    try:
        pids = tree_pids(server.pid)
        run = drive(LOAD, 50, server.host, server.port, server.pid)
        assert run.mails == 50
        assert run.cpu_ns > 0
    finally:
        server.stop()
    assert not any(map(is_alive, pids))


def test_a_refusal_ends_the_run(tmp_path: Path) -> None:
    require_peer("postfix", "smtp-source")
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        with pytest.raises(GeneratorError):
            drive(LOAD, 1, *unheard.getsockname(), os.getpid())


def fingerprint(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): f"{path.stat().st_mtime_ns} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files}


def test_a_private_postfix_leaves_the_machines_own_alone() -> None:
    require_peer("postfix", "postfix")
    if os.geteuid() != 0:
        pytest.skip(PostfixInstance.missing())
    before = fingerprint(Path("/etc/postfix"))
    assert before
    with scratch_folder("/var/tmp") as folder:
        host = own_loopback_address()
        instance = PostfixInstance(folder, host, port := free_port(host), {"inet_interfaces": "127.0.0.1"})
        pid = instance.start()
        try:
            pids = tree_pids(pid)
            with smtplib.SMTP(host, port, timeout=30) as client:
                assert client.sendmail("a@example.com", ["b@example.org"], "x\r\n") == {}
        finally:
            instance.stop()
        wait_until("all of its processes are gone", lambda: not any(map(is_alive, pids)), 30)
    assert fingerprint(Path("/etc/postfix")) == before


@pytest.mark.full
@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (["bench.relay", "--mails", "200"], "smtpd-relay by postfix-relay: "),
        (["bench.relay", "--hung", "--mails", "200", "--hung-mails", "100"], "beside hung by beside nothing: "),
        (["bench.backlog", "--mails", "2000", "--accept", "200"], "2,000 deferred mails in "),
    ],
    ids=["relay", "hung", "backlog"],
)
def test_relaying_is_measured_in_short_and_leaves_nothing(options: list[str], shown: str) -> None:
    require_peer("postfix", "smtp-sink")
    readme = (ROOT / "bench" / "README.md").read_bytes()
    with scratch_folder(tempfile.gettempdir()) as folder:
        command = [sys.executable, "-m", *options, "--quick", "--dir", str(folder)]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
        assert result.returncode == 0, result.stderr
        assert shown in result.stdout
        assert list(folder.iterdir()) == []
    assert (ROOT / "bench" / "README.md").read_bytes() == readme


@pytest.mark.full
@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (
            ["bench.sessions", "--servers", "floor,smtpd sink", "--counts", "5,20"],
            "smtpd sink ×1 with 20 active",
        ),
        (["bench.session_memory", "--servers", "floor,smtpd sink"], "| smtpd sink | 100 | "),
        (["bench.sizes", "--servers", "floor,smtpd sink"], "| server | 1 KB | 64 KB | 1 MB | mix |"),
    ],
    ids=["sessions", "memory", "sizes"],
)
def test_a_part_is_measured_in_short_and_leaves_nothing(options: list[str], shown: str) -> None:
    require_peer("postfix", "smtp-source")
    require_peer("cc", "cc")
    before = sorted((ROOT / "bench" / "results").iterdir())
    with scratch_folder(tempfile.gettempdir()) as folder:
        command = [sys.executable, "-m", *options, "--quick", "--dir", str(folder)]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
        assert result.returncode == 0, result.stderr
        assert shown in result.stdout
        assert "Failed: " not in result.stdout
        assert list(folder.iterdir()) == []
    assert sorted((ROOT / "bench" / "results").iterdir()) == before


@pytest.mark.full
def test_latency_at_half_load_is_measured_in_short(tmp_path: Path) -> None:
    require_peer("cc", "cc")
    assert latency.missing() == ""
    command = [sys.executable, "-m", "bench.half_load", "--quick", "--servers", "floor,smtpd sink", "--dir", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert result.returncode == 0, result.stderr
    assert "| smtpd sink" in result.stdout
    assert "Failed: " not in result.stdout
