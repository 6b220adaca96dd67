"""The spool on a disk that is full, has no inodes left, or loses what was not flushed when the power goes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mounts import mounted
from peers import require_peer
from spool_rig import Rig, is_whole, make_body, make_envelope

from smtpd.errors import SpoolFullError
from smtpd.mail.outcome import DEFERRED, Outcome
from smtpd.spool import query, shard, space
from smtpd.spool.change import DELETE, Change
from smtpd.spool.item import SpoolItem
from smtpd.spool.query import Narrowing
from smtpd.spool.schema import Pragmas

CHILD = Path(__file__).parents[1] / "spool_child.py"
TOO_SMALL_FOR_ALL = 4 << 20


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard, "_RETRY_S", 0.05)
    monkeypatch.setattr(space, "_PERIOD_S", 0.1)


@pytest.fixture
def mount_tmpfs(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    opened = []

    def mount(options: str) -> Path:
        manager = mounted("none", tmp_path / f"disk{len(opened)}", "-t", "tmpfs", "-o", options)
        opened.append(manager)
        return manager.__enter__()

    yield mount
    for manager in reversed(opened):
        manager.__exit__(None, None, None)


@pytest.mark.parametrize("size", [2000, 30_000, 200_000], ids=["small", "overflowing", "spilled"])
def test_a_full_disk_refuses_mail_keeps_what_it_has_and_recovers(mount_tmpfs: Callable[[str], Path], size: int) -> None:
    disk = mount_tmpfs(f"size={TOO_SMALL_FOR_ALL}")
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(1 << 20))
    kept: list[SpoolItem] = []
    refused = 0
    with Rig(disk / "spool", Pragmas(wal_bytes=1 << 19)) as rig:
        while refused < 20:
            for answer in rig.accept_all([make_body(size) for _ in range(4)]):
                if isinstance(answer, SpoolItem):
                    kept.append(answer)
                else:
                    assert type(answer) is SpoolFullError, answer
                    refused += 1
        assert rig.spool.is_full
        assert len(kept) > 5
        for item in kept:  # what was taken is still there, and deliveries go on
            item.body = None
            assert is_whole(rig.read(item))
        settled: list[object] = []
        for item in kept[::2]:
            rig.spool.settle(item, None, 0.0, False, settled.append)
        rig.loop.turn(0.1)  # there may be no room to write even that down: it is kept until there is
        ballast.unlink()
        rig.run_until(lambda: len(settled) == len(kept[::2]))
        assert set(settled) == {None}
        again = rig.accept_all([make_body(size)])
        assert isinstance(again[0], SpoolItem)
        kept = kept[1::2] + [again[0]]
        seen = len(rig.space)
        rig.run_until(lambda: len(rig.space) > seen)
        assert not rig.spool.is_full
        assert rig.spool.shards[0].number == 0
        assert rig.spool.memory_bytes == 0
    with Rig(disk / "spool") as rig:
        assert sorted(i.queue_id for i in rig.claim_all()) == sorted(i.queue_id for i in kept)


def test_a_spool_on_a_full_disk_opens_and_recovers(mount_tmpfs: Callable[[str], Path]) -> None:
    disk = mount_tmpfs(f"size={TOO_SMALL_FOR_ALL}")
    with Rig(disk / "spool") as rig:
        ids = [rig.accept(make_body(5000)).queue_id for _ in range(10)]
    with (disk / "ballast").open("wb") as file:
        fill(file.fileno())
    with Rig(disk / "spool", free_bytes=1 << 16) as rig:
        assert rig.spool.is_full
        assert rig.query(lambda connection: len(query.list_page(connection, 0, 100))) == 10
        (disk / "ballast").unlink()
        found = rig.claim_all()
        assert [item.queue_id for item in found] == ids
        for item in found:
            rig.settle(item)
    with Rig(disk / "spool") as rig:
        assert rig.claim_all() == []


def test_room_is_made_by_hand_on_a_full_disk(mount_tmpfs: Callable[[str], Path]) -> None:
    disk = mount_tmpfs(f"size={TOO_SMALL_FOR_ALL}")
    with Rig(disk / "spool", Pragmas(wal_bytes=1 << 19)) as rig:
        for item in [rig.accept(make_body(20_000)) for _ in range(40)]:
            item.attempts = 1
            rig.settle(item, [Outcome(DEFERRED)], 4e9)
        with (disk / "ballast").open("wb") as file:
            fill(file.fileno())
        done: list[Change] = []
        answers: list[object] = []
        writers = []
        for _ in range(20):  # more than the log of the database has room for
            writers.append(rig.spool.begin(rig.spool.next_queue_id(), make_envelope()))
            rig.write(writers[-1], make_body(100_000))
        for writer in writers:
            rig.spool.commit(writer, lambda item, error: answers.append(error))
        rig.spool.change(rig.spool.shards[0], Change(DELETE, 0, Narrowing(), lambda mail: True, done.append))
        rig.run_until(lambda: bool(done) and len(answers) == len(writers))
        assert {type(error) for error in answers} == {SpoolFullError}
        assert done[0].error is None
        assert len(done[0].changed) == 40
        assert rig.query(lambda connection: query.list_page(connection, 0, 100)) == []
        assert rig.spool.shards[0].count == 0


def fill(fd: int) -> None:
    for size in (1 << 16, 1 << 12, 1):
        try:
            while True:
                os.write(fd, bytes(size))
        except OSError:
            continue


def test_without_inodes_large_mail_is_refused_and_small_mail_goes_on(mount_tmpfs: Callable[[str], Path]) -> None:
    disk = mount_tmpfs("size=64m,nr_inodes=40")
    with Rig(disk / "spool", free_inodes=5) as rig:
        assert not rig.spool.is_full
        taken = 0
        for number in range(40):
            try:
                (disk / f"file{number}").touch()
                taken += 1
            except OSError:
                break
        assert taken < 40
        (answer,) = rig.accept_all([make_body(200_000)])
        assert type(answer) is SpoolFullError
        seen = len(rig.space)
        rig.run_until(lambda: len(rig.space) > seen)
        assert rig.spool.is_full
        rig.accept(make_body(2000))
        for number in range(taken):
            (disk / f"file{number}").unlink()
        seen = len(rig.space)
        rig.run_until(lambda: len(rig.space) > seen + 1)
        assert not rig.spool.is_full
        rig.accept(make_body(200_000))


@pytest.mark.parametrize("chance", [0, 1, *(pytest.param(number, marks=pytest.mark.full) for number in range(2, 12))])
def test_a_power_cut_loses_nothing_that_was_acknowledged(tmp_path: Path, chance: int) -> None:
    """A copy of the file system's image holds only what was flushed: what a disk shows after the power went."""
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(192 << 20)
    subprocess.run([require_peer("e2fsprogs", "mkfs.ext4"), "-q", "-F", str(image)], check=True)
    drawn = random.Random(chance)
    options = {
        "sizes": [500, 5000, 40_000, 200_000],
        "spill": 100_000,
        "wal_bytes": 500_000,
        "group": drawn.choice([1, 5, 20]),
        "keep": drawn.choice([2, 5]),
    }
    acknowledged: set[str] = set()
    leaving: set[str] = set()
    gone: set[str] = set()
    words = {"ack": acknowledged, "leaving": leaving, "gone": gone}
    copy = tmp_path / "copy"
    with mounted(image, tmp_path / "disk", "-o", "loop,commit=300") as disk:
        command = [sys.executable, str(CHILD), str(disk / "spool"), "1000000", json.dumps(options)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            enough = drawn.randrange(20, 1200)
            for number, line in enumerate(child.stdout):
                word, _, queue_id = line.strip().partition(" ")
                if word in words:
                    words[word].add(queue_id)
                if number == enough:
                    child.send_signal(signal.SIGSTOP)
                    os.waitid(os.P_PID, child.pid, os.WSTOPPED)  # all of its threads
                    break
            subprocess.run(["cp", "--sparse=always", str(image), str(copy)], check=True)
            child.kill()
            for line in child.stdout:  # told before the copy, read only now
                word, _, queue_id = line.strip().partition(" ")
                if word in words:
                    words[word].add(queue_id)
    with mounted(copy, tmp_path / "after", "-o", "loop") as disk, Rig(disk / "spool") as rig:
        found = rig.claim_all()
        assert all(is_whole(rig.read(item)) for item in found)
        ids = {item.queue_id for item in found}
        assert len(ids) == len(found)
        assert acknowledged - leaving <= ids
        assert not gone & ids
        assert len(acknowledged) > 3
