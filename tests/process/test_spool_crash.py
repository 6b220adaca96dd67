"""A process with a spool that dies, or whose disk fails, at chosen system calls and at random moments.

Nothing acknowledged is lost; what was not acknowledged is absent or whole; what was settled does not come back, unless its
settling was in flight.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from peers import require_peer
from spool_rig import Rig, is_whole

from smtpd.spool import sqlite
from smtpd.spool.item import SpoolItem

CHILD = Path(__file__).parents[1] / "spool_child.py"
WATCHED = "fdatasync,fsync,pwrite64,ftruncate,linkat,unlink,rename,mkdir"
SMALL = {"sizes": [500, 5000, 20_000], "spill": 16_384, "wal_bytes": 40_000, "group": 3, "keep": 2}


class Story:
    """What the child told, and what is in its spool afterwards."""

    def __init__(self, output: str) -> None:
        self.acknowledged: set[str] = set()
        self.leaving: set[str] = set()
        self.gone: set[str] = set()
        self.refused = 0
        self.is_open = self.is_closed = False
        self.reports: list[str] = []
        for line in output.splitlines():
            word, _, rest = line.partition(" ")
            if word == "ack":
                self.acknowledged.add(rest)
            elif word == "leaving":
                self.leaving.add(rest)
            elif word == "gone":
                self.gone.add(rest)
            elif word == "refused":
                self.refused += 1
            elif word == "report":
                self.reports.append(rest)
            self.is_open |= word == "open"
            self.is_closed |= word == "closed"

    def check(self, spool: Path) -> list[SpoolItem]:
        """Open the spool and hold it against the story; returns the mail that is there."""
        with Rig(spool) as rig:
            rig.run_until(lambda: rig.spool._adoption_timer is not None)
            found = rig.claim_all()
            for item in found:
                assert is_whole(rig.read(item)), item.queue_id
            ids = [item.queue_id for item in found]
            assert len(set(ids)) == len(ids), "a mail came back twice"
            assert self.acknowledged - self.leaving <= set(ids), "an acknowledged mail is lost"
            assert not self.gone & set(ids), "a mail came back after its settling was confirmed"
            assert not [text for level, text in rig.reports if "not opened" in text]
        for shard in spool.glob("shards/*"):
            lost = shard / "lost"
            assert not lost.exists() or not self.gone & set(os.listdir(lost)), "a delivered mail was kept as lost"
            assert not list(shard.glob("spill/*.part"))
        return found


def run_child(
    spool: Path, count: int, options: dict[str, Any], strace: list[str] | None = None, log: Path | None = None
) -> tuple[int, Story]:
    command = [sys.executable, str(CHILD), str(spool), str(count), json.dumps(options)]
    if strace is not None:
        command = [
            require_peer("strace", "strace"),
            "-f",
            "--seccomp-bpf",
            "-qq",
            "-o",
            str(log or "/dev/null"),
            *strace,
            *command,
        ]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert "Traceback" not in ran.stderr, ran.stderr
    return ran.returncode, Story(ran.stdout)


def count_calls(tmp_path: Path, calls: str) -> int:
    """How often a run makes these calls after the spool was opened, and before."""
    log = tmp_path / "calls"
    code, story = run_child(tmp_path / "count", 12, SMALL, ["-e", f"trace={calls}"], log)
    assert code == 0
    assert story.is_closed
    return len(log.read_text().splitlines())


CRASHES = ["fdatasync", "fsync", "linkat", "unlink", "pwrite64"]


@pytest.mark.parametrize("call", CRASHES)
def test_killed_at_some_calls(tmp_path: Path, call: str) -> None:
    total = count_calls(tmp_path, call)
    assert total >= 3
    chosen = random.Random(7).sample(range(1, total + 1), min(total, 3))
    check_kills(tmp_path, call, chosen)


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("call", [*CRASHES, "mkdir", "ftruncate"])
def test_killed_at_every_call(tmp_path: Path, call: str) -> None:
    check_kills(tmp_path, call, list(range(1, count_calls(tmp_path, call) + 1)))


def check_kills(tmp_path: Path, call: str, moments: list[int]) -> None:
    def check(moment: int) -> None:
        spool = tmp_path / f"spool-{moment}"
        code, story = run_child(spool, 12, SMALL, ["-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={moment}"])
        assert code in (0, -signal.SIGKILL, 128 + signal.SIGKILL)
        assert not story.refused
        if spool.exists():
            story.check(spool)

    for_each(check, moments)


def for_each(check: Callable[[int], object], moments: Iterable[int]) -> None:
    """Check all of these moments, some at a time: their processes and spools know nothing of each other."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(check, moments))


def broken_moments(log: Path, calls: str) -> Iterator[int]:
    """Numbers of the calls on a shard's database or WAL after the shard was made, from a log with paths (-y)."""
    seen_insert = False
    for number, line in enumerate(log.read_text().splitlines(), 1):
        seen_insert |= "mail.db-wal" in line
        if seen_insert and re.search(r"mail\.db(-wal)?>", line):
            yield number


@pytest.mark.parametrize("call", ["fdatasync", "pwrite64"])
def test_the_disk_fails_once_under_the_database(tmp_path: Path, call: str) -> None:
    """In commits and in checkpoints: mail of the batch is refused, the shard never written again, nothing lost."""
    log = tmp_path / "log"
    run_child(tmp_path / "count", 12, SMALL, ["-y", "-e", f"trace={call}"], log)
    moments = list(broken_moments(log, call))
    assert len(moments) > 5
    for_each(partial(check_disk_failure, tmp_path, call), random.Random(3).sample(moments, 5))


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("call", ["fdatasync", "pwrite64"])
def test_the_disk_fails_at_every_call_under_the_database(tmp_path: Path, call: str) -> None:
    log = tmp_path / "log"
    run_child(tmp_path / "count", 12, SMALL, ["-y", "-e", f"trace={call}"], log)
    for_each(partial(check_disk_failure, tmp_path, call), broken_moments(log, call))


def check_disk_failure(tmp_path: Path, call: str, moment: int) -> None:
    spool = tmp_path / f"spool-{call}-{moment}"
    log = tmp_path / f"log-{call}-{moment}"
    watched = f"trace={WATCHED}"
    inject = f"inject={call}:error=EIO:when={moment}"
    code, story = run_child(spool, 12, SMALL, ["-y", "-e", watched, "-e", inject], log)
    if not story.is_open:  # the very first commit, which makes the tables: refused at the start
        assert code != 0
        return
    assert code == 0, story.reports
    assert story.is_closed
    assert len(story.acknowledged) + story.refused == 12
    assert_never_written_again(log)
    story.check(spool)


def assert_never_written_again(log: Path) -> None:
    lines = log.read_text().splitlines()
    failures = [at for at, line in enumerate(lines) if "(INJECTED)" in line]
    if not failures:
        return  # threads ran in another order this time, and there were fewer calls
    (failed,) = failures
    begun = lines[failed]
    if "resumed>" in begun:  # the line was cut by another thread's
        thread = begun.split()[0]
        begun = [line for line in lines[:failed] if line.startswith(thread) and "<unfinished" in line][-1]
    shard = re.search(r"<([^>]*/shards/\d{4})/mail\.db", begun)
    if shard is None:
        return  # threads ran in another order this time, and the failure met another file
    opened = shard.group(1) + "/mail.db"
    after = [line for line in lines[failed + 1 :] if f"<{opened}>" in line or f"<{opened}-wal>" in line]
    assert after == []


def test_a_file_size_limit_is_a_full_disk(tmp_path: Path) -> None:
    """RLIMIT_FSIZE: SQLite calls it an I/O error; the shard lives on, and room in the WAL is used again."""
    limit = require_peer("util-linux", "prlimit")
    command = [limit, "--fsize=300000", sys.executable, str(CHILD), str(tmp_path / "spool"), "300"]
    options = {**SMALL, "spill": 1 << 20, "wal_bytes": 1 << 30}
    ran = subprocess.run([*command, json.dumps(options)], capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in ran.stderr, ran.stderr
    story = Story(ran.stdout)
    assert story.is_closed
    assert "refused SpoolFullError" in ran.stdout
    assert "refused ShardBrokenError" not in ran.stdout
    assert story.gone == story.leaving
    assert os.listdir(tmp_path / "spool/shards") == ["0000"]
    story.check(tmp_path / "spool")


@pytest.mark.parametrize("rounds", [4, pytest.param(20, marks=[pytest.mark.full, pytest.mark.timeout(600)])])
def test_killed_at_random_moments(tmp_path: Path, rounds: int) -> None:
    spool = tmp_path / "spool"
    chance = random.Random(11)
    owed: set[str] = set()
    gone: set[str] = set()
    leaving: set[str] = set()
    options = {**SMALL, "wal_bytes": 200_000, "group": 20, "keep": 5}
    for _ in range(rounds):
        command = [sys.executable, str(CHILD), str(spool), "1000000", json.dumps(options)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            lines = []
            enough = chance.randrange(10, 1500)
            for line in child.stdout:
                lines.append(line)
                if len(lines) == enough:
                    child.send_signal(signal.SIGKILL)
        story = Story("".join(lines))
        owed |= story.acknowledged
        gone |= story.gone
        leaving |= story.leaving
        merged = Story("")
        merged.acknowledged, merged.leaving, merged.gone = owed, leaving, gone
        # what this look finds stays in the spool for the next rounds
        merged.check(spool)
    assert len(owed) > rounds


def test_two_processes_on_one_spool_own_different_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_ADOPTION_PERIOD_S", 0.1)
    spool = tmp_path / "spool"
    options = json.dumps({**SMALL, "keep": 1, "stay": True})
    children = [
        subprocess.Popen([sys.executable, str(CHILD), str(spool), "30", options], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    ids: set[str] = set()
    try:
        for child in children:
            assert child.stdout is not None
            for line in child.stdout:
                word, _, queue_id = line.strip().partition(" ")
                if word == "ack":
                    assert queue_id not in ids
                    ids.add(queue_id)
                    if len(ids) % 30 == 0:
                        break
        assert len(ids) == 90
        assert sorted(os.listdir(spool / "shards")) == ["0000", "0001", "0002"]
        holders = {int((spool / f"shards/000{number}/lock").read_text()) for number in range(3)}
        assert holders == {child.pid for child in children}
        with Rig(spool) as rig:
            assert rig.spool.shards[0].number == 3
            for child in (children[0], children[2]):
                child.send_signal(signal.SIGSTOP)  # or they would be as quick to adopt
            children[1].kill()
            rig.run_until(lambda: len(rig.spool.shards) == 2)
            found = {item.queue_id for item in rig.claim_all()}
            assert len(found) == 30
            assert found <= ids
    finally:
        for child in children:
            child.kill()
            child.send_signal(signal.SIGCONT)
            child.wait()
            assert child.stdout is not None
            child.stdout.close()
