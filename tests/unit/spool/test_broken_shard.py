"""A shard whose disk failed: never written again, its mail goes on elsewhere, nothing acknowledged is lost."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest
from spool_rig import Rig, is_whole, make_body

from smtpd.errors import ShardBrokenError, SpoolError, SpoolFullError
from smtpd.mail.outcome import DEFERRED, Outcome
from smtpd.spool import database, query, salvage, shard
from smtpd.spool.batch import Batch
from smtpd.spool.database import ShardDatabase
from smtpd.spool.item import SpoolItem
from smtpd.spool.schema import Pragmas


def disk_error(code: int = sqlite3.SQLITE_IOERR_FSYNC) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = code
    error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
    return error


class Failing:
    """Makes chosen commits fail after they were rolled back, as SQLite does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error: Exception | None = None
        self.settlements_fail = True
        self.directories: list[str] = []
        real = ShardDatabase.commit
        real_checkpoint = ShardDatabase.checkpoint

        def commit(opened: ShardDatabase, batch: Batch) -> None:
            self.directories.append(opened.directory)
            if self.error is not None and (batch.mails or self.settlements_fail):
                error = self.error
                if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode == sqlite3.SQLITE_IOERR_FSYNC:
                    self.error = None
                raise error
            real(opened, batch)

        def checkpoint(opened: ShardDatabase) -> None:
            self.directories.append(opened.directory)
            if self.checkpoint_error is not None:
                error, self.checkpoint_error = self.checkpoint_error, None
                raise error
            real_checkpoint(opened)

        self.checkpoint_error: Exception | None = None
        monkeypatch.setattr(ShardDatabase, "commit", commit)
        monkeypatch.setattr(ShardDatabase, "checkpoint", checkpoint)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Failing:
    monkeypatch.setattr(shard, "_RETRY_S", 0.05)
    return Failing(monkeypatch)


def accepted(answers: list[SpoolItem | SpoolError]) -> list[SpoolItem]:
    assert all(isinstance(answer, SpoolItem) for answer in answers), answers
    return [answer for answer in answers if isinstance(answer, SpoolItem)]


def is_salvaged(rig: Rig) -> bool:
    return not rig.spool.shards[0].salvages  # type: ignore[attr-defined]


def wait_for_salvage(rig: Rig) -> None:
    rig.run_until(lambda: is_salvaged(rig))
    rig.wait_for_thread()  # what it had to tell is told


def test_a_failed_commit_refuses_its_batch_and_moves_the_rest(tmp_path: Path, failing: Failing) -> None:
    spool = tmp_path / "spool"
    with Rig(spool) as rig:
        before = accepted(rig.accept_all([make_body(3000) for _ in range(150)]))
        large = rig.accept(make_body(300_000))
        rig.settle(before[3], [Outcome(DEFERRED, text="later")], 5.0)
        rig.settle(before[4], [Outcome(DEFERRED, text="held")], 5.0, is_held=True)
        failing.error = disk_error()
        refused = rig.accept_all([make_body(100), make_body(100)])
        assert [type(answer) for answer in refused] == [ShardBrokenError] * 2
        after = accepted(rig.accept_all([make_body(3000) for _ in range(5)]))  # goes on without a restart
        assert rig.spool.shards[0].number == 1
        assert parse_shard(rig.spool.next_queue_id()) == 1
        wait_for_salvage(rig)
        assert sorted(os.listdir(spool / "shards")) == ["0000.broken", "0001"]
        assert failing.directories[-1].endswith("0001")
        last_old = max(at for at, name in enumerate(failing.directories) if name.endswith("0000"))
        assert not any(name.endswith("0000") for name in failing.directories[last_old + 1 :])
        for item in [*before, *after, large]:
            item.body = None
            assert is_whole(rig.read(item))
        (due,) = rig.claim()
        assert due.queue_id == before[3].queue_id
        assert due.outcomes is not None
        assert due.outcomes[0].text == "later"
        held = rig.query(lambda connection: query.find(connection, before[4].queue_id))
        assert held.state == query.HELD
        rig.settle(large)
        expected = sorted(item.queue_id for item in [*before, *after] if item is not before[4])
    with Rig(spool) as rig:
        found = sorted(item.queue_id for item in rig.claim_all())
        assert found == expected


def parse_shard(queue_id: str) -> int:
    from smtpd.mail.queue_id import parse_queue_id

    return parse_queue_id(queue_id)[2]


def test_a_failed_checkpoint_ends_the_shard_too(tmp_path: Path, failing: Failing) -> None:
    with Rig(tmp_path / "spool", Pragmas(wal_bytes=1 << 18)) as rig:
        failing.checkpoint_error = disk_error()
        items = accepted(rig.accept_all([make_body(30_000) for _ in range(30)]))
        rig.run_until(lambda: rig.spool.shards[0].number == 1 and is_salvaged(rig))
        assert failing.checkpoint_error is None
        for item in items:
            item.body = None
            assert is_whole(rig.read(item))


def test_what_is_settled_during_the_copy_is_not_copied(tmp_path: Path, failing: Failing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(salvage, "_ROWS", 2)
    spool = tmp_path / "spool"
    with Rig(spool) as rig:
        items = accepted(rig.accept_all([make_body(1000) for _ in range(40)]))
        failing.error = disk_error()
        # the settlements are part of the very batch that fails
        settled: list[object] = []
        for item in items[:10]:
            rig.spool.settle(item, None, 0.0, False, settled.append)
        rig.accept_all([make_body(100)])
        for item in items[30:]:
            rig.spool.settle(item, None, 0.0, False, settled.append)
        rig.spool.settle(items[29], [Outcome(DEFERRED)], 7.0, False, settled.append)
        rig.run_until(lambda: len(settled) == 21 and is_salvaged(rig))
        assert settled == [None] * 21
        assert rig.spool.shards[0].count == 20
        listed = rig.query(lambda connection: query.list_page(connection, 0, 100))
        assert [mail.queue_id for mail in listed] == [item.queue_id for item in items[10:30]]
        assert listed[-1].due_s == 7.0
    with Rig(spool) as rig:
        assert len(rig.claim_all()) == 20


def test_recovered_mail_survives_the_break_of_its_shard(tmp_path: Path, failing: Failing) -> None:
    spool = tmp_path / "spool"
    with Rig(spool) as rig:
        ids = [item.queue_id for item in accepted(rig.accept_all([make_body(1000) for _ in range(200)]))]
    with Rig(spool) as rig:
        first = rig.claim(50)
        failing.error = disk_error()
        rig.accept_all([make_body(100)])
        wait_for_salvage(rig)
        found = [item.queue_id for item in first + rig.claim_all()]
        assert found == ids


def test_a_shard_breaks_again_while_it_is_copied(tmp_path: Path, failing: Failing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(salvage, "_ROWS", 3)
    spool = tmp_path / "spool"
    with Rig(spool) as rig:
        items = accepted(rig.accept_all([make_body(1000) for _ in range(60)]))
        for _ in range(3):
            failing.error = disk_error()
            (answer,) = rig.accept_all([make_body(100)])
            assert isinstance(answer, ShardBrokenError)
            items.append(rig.accept(make_body(1000)))
            rig.settle(items.pop(len(items) // 2))
        wait_for_salvage(rig)
        assert rig.spool.shards[0].number == 3
        expected = sorted(item.queue_id for item in items)
        assert sorted(m.queue_id for m in rig.query(lambda c: query.list_page(c, 0, 100))) == expected
    with Rig(spool) as rig:
        assert sorted(item.queue_id for item in rig.claim_all()) == expected


def test_no_new_shard_can_be_made_for_a_while(tmp_path: Path, failing: Failing, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that went read-only: 451, mail that is settled stays settled, and all goes on by itself."""
    real = os.mkdir

    def fail(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    spool = tmp_path / "spool"
    with Rig(spool) as rig:
        items = accepted(rig.accept_all([make_body(1000) for _ in range(10)]))
        monkeypatch.setattr(os, "mkdir", fail)
        failing.error = disk_error()
        for _ in range(3):
            (answer,) = rig.accept_all([make_body(100)])
            assert isinstance(answer, ShardBrokenError)
        rig.settle(items[0])
        items[1].body = None
        assert is_whole(rig.read(items[1]))
        monkeypatch.setattr(os, "mkdir", real)
        rig.run_until(lambda: rig.spool.shards[0].number == 1 and is_salvaged(rig))
        rig.accept(make_body(100))
        assert rig.spool.shards[0].count == 10
    with Rig(spool) as rig:
        assert len(rig.claim_all()) == 10


def test_a_full_disk_refuses_new_mail_but_not_settlements(tmp_path: Path, failing: Failing) -> None:
    spool = tmp_path / "spool"
    with Rig(spool) as rig:
        items = accepted(rig.accept_all([make_body(1000) for _ in range(4)]))
        failing.error = disk_error(sqlite3.SQLITE_FULL)
        failing.settlements_fail = False
        settled: list[object] = []
        rig.spool.settle(items[0], None, 0.0, False, settled.append)
        (answer,) = rig.accept_all([make_body(100)])
        assert type(answer) is SpoolFullError
        assert rig.spool.is_full
        rig.run_until(lambda: bool(settled))
        # not even room for a settlement: it waits, and is done when there is room
        failing.settlements_fail = True
        rig.spool.settle(items[1], None, 0.0, False, settled.append)
        (answer,) = rig.accept_all([make_body(100)])
        assert type(answer) is SpoolFullError
        assert len(settled) == 1
        failing.error = None
        rig.accept(make_body(100))
        rig.run_until(lambda: len(settled) == 2)
        assert settled == [None, None]
        assert rig.spool.shards[0].number == 0
    with Rig(spool) as rig:
        assert len(rig.claim_all()) == 3


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_FULL, SpoolFullError),
        (sqlite3.SQLITE_IOERR_FSYNC, ShardBrokenError),
        (sqlite3.SQLITE_IOERR_WRITE, ShardBrokenError),
        (sqlite3.SQLITE_CORRUPT, ShardBrokenError),
        (sqlite3.SQLITE_READONLY, ShardBrokenError),
        (sqlite3.SQLITE_NOMEM, SpoolError),
    ],
)
def test_each_failure_of_sqlite_has_one_name(tmp_path: Path, code: int, kind: type[SpoolError]) -> None:
    assert type(database.failure_of(disk_error(code), str(tmp_path))) is kind


def test_a_quota_is_told_from_a_broken_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(122, "Disk quota exceeded")

    monkeypatch.setattr(os, "pwrite", fail)
    failure = database.failure_of(disk_error(sqlite3.SQLITE_IOERR_WRITE), str(tmp_path))
    assert type(failure) is SpoolFullError
    assert os.listdir(tmp_path) == []


def damage_pages(path: Path, keep_first: int) -> None:
    """Overwrite some leaf pages in the middle of the file."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        for page in range(keep_first, size // 4096, 23):
            file.seek(page * 4096)
            file.write(b"\xff" * 4096)


def test_the_good_part_of_a_corrupted_shard_serves(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    with Rig(spool) as rig:
        accepted(rig.accept_all([make_body(1000) for _ in range(1000)]))
    database_path = spool / "shards/0000/mail.db"
    damage_pages(database_path, 40)
    with Rig(spool) as rig:
        fresh = accepted(rig.accept_all([make_body(1000) for _ in range(10)]))
        whole: dict[str, SpoolItem] = {}
        wait_for_salvage(rig)
        for item in rig.claim_all():
            try:
                if is_whole(rig.read(item)):
                    whole[item.queue_id] = item
            except SpoolError:
                continue
        assert 300 < len(whole) < 1000
        assert any("corrupt" in text or "malformed" in text for _, text in rig.reports), rig.reports
        for item in fresh:
            item.body = None
            assert is_whole(rig.read(item))
        assert rig.spool.shards[0].count == len(rig.query(lambda c: query.list_page(c, 0, 2000)))
    assert any(name.endswith(".broken") for name in os.listdir(spool / "shards"))  # nothing deleted
