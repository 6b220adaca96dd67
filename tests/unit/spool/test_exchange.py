"""Settlements that bring new mail: both or neither, whatever becomes of the disk; nothing is handed out before it is durable."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from spool_rig import Rig, is_whole, make_body

from smtpd.errors import SpoolError, SpoolFullError
from smtpd.mail.outcome import DEFERRED, UNDELIVERABLE, Outcome
from smtpd.spool import lock, salvage, schema, shard, sqlite
from smtpd.spool.base import NewMail
from smtpd.spool.batch import Batch
from smtpd.spool.database import ShardDatabase
from smtpd.spool.discard import DiscardSpool
from smtpd.spool.exchange import Exchange, join
from smtpd.spool.item import SpoolItem


def rows_of(directory: Path) -> list[tuple[int, str]]:
    """What another process would find in the database after a crash."""
    connection = sqlite3.connect(directory / lock.DATABASE)
    try:
        return connection.execute("SELECT id, queue_id FROM mail ORDER BY id").fetchall()
    finally:
        connection.close()


def queue_ids(rig: Rig) -> list[str]:
    return [row[0] for row in rig.query(lambda c: c.execute("SELECT queue_id FROM mail ORDER BY id").fetchall())]


def disk_error() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
    error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
    return error


def full_error() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    error.sqlite_errorname = "SQLITE_FULL"
    return error


class Disk:
    """Lets commits fail as long as `allows(batch)` says no."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error: Exception | None = None
        self.is_once = True
        self.takes_removals = False
        self.takes_copies = True
        monkeypatch.setattr(shard, "_RETRY_S", 0.02)
        real_commit, real_write = ShardDatabase.commit, salvage.Salvage._write

        def commit(database: ShardDatabase, batch: Batch) -> None:
            if self.error is not None and not (self.takes_removals and not batch.exchanges and not batch.mails):
                error = self.error
                if self.is_once:
                    self.error = None
                raise error
            real_commit(database, batch)

        def write(one: salvage.Salvage, target: ShardDatabase, rows: list[Any]) -> None:
            if not self.takes_copies:
                raise full_error()
            real_write(one, target, rows)

        monkeypatch.setattr(ShardDatabase, "commit", commit)
        monkeypatch.setattr(salvage.Salvage, "_write", write)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def test_the_new_mail_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        old = rig.accept(make_body(3000))
        body = make_body(200_000)
        new = rig.new_mail(body)
        (item,) = rig.exchange(old, new)
        assert (item.queue_id, item.size_bytes, item.envelope.reverse_path) == (new.queue_id, len(body), b"")
        assert item.body is not None
        assert item.body.data == body
        assert rig.spool.shards[0].count == 1
        assert queue_ids(rig) == [new.queue_id]
        item.body = None
        assert rig.read(item) == body
        following = rig.accept(make_body(100))
        assert following.row == item.row + 1
        rig.settle(item)
        rig.settle(following)
        assert rig.spool.shards[0].count == 0
    with Rig(tmp_path) as rig:
        assert rig.claim_all() == []


def test_mail_that_arrives_in_the_same_turn_is_stored_beside_it(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        old = rig.accept(make_body(1000))
        new = rig.new_mail(make_body(1000))
        items: list[SpoolItem] = []
        rig.spool.settle(old, None, 0.0, False, lambda error: None, [new], items.append)
        fresh = rig.accept(make_body(1000))
        rig.run_until(lambda: bool(items))
        assert sorted(queue_ids(rig)) == sorted([new.queue_id, fresh.queue_id])
        assert rig.spool.shards[0].count == 2
        assert rig.commits[-1][1:] == (1, 1)  # one commit


def test_a_mail_that_is_kept_can_bring_new_ones_too(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        old = rig.accept(make_body(3000))
        outcomes = [Outcome(DEFERRED, text="later")]
        items = rig.exchange(old, rig.new_mail(make_body(100)), rig.new_mail(make_body(100)), outcomes=outcomes, due_s=5.0)
        assert len(items) == 2
        assert rig.spool.shards[0].count == 3
        (again,) = rig.claim()
        assert again.queue_id == old.queue_id
        assert again.outcomes == outcomes
    with Rig(tmp_path) as rig:
        assert {item.queue_id for item in rig.claim_all()} == {old.queue_id, *(item.queue_id for item in items)}


def test_the_file_of_a_large_mail_goes_with_it(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        old = rig.accept(make_body(300_000))
        assert old.is_spilled
        rig.exchange(old, rig.new_mail(make_body(100)))
        directory = Path(rig.spool.shards[0].spill_directory)
        rig.run_until(lambda: not os.listdir(directory))


def test_both_are_one_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever statement fails, the file holds what it held before."""
    database = ShardDatabase(str(tmp_path))
    first = Batch()
    first.mails += [1, 3, 0, "OLD", b"envelope"]
    first.bodies += [1, b"old"]
    database.commit(first)

    def exchange() -> Batch:
        batch, one = Batch(), Exchange()
        one.mails += [2, 3, 0, "NEW", b"envelope"]
        one.bodies += [2, b"new"]
        one.removed.append(1)
        batch.exchanges.append(one)
        return batch

    for name in ("insert_mail", "insert_body", "delete_mail"):
        with monkeypatch.context() as patch:
            patch.setattr(schema, name, lambda rows: "SELECT no_such_column")
            with pytest.raises(sqlite3.OperationalError, match="no_such_column"):
                database.commit(exchange())
        database.checkpoint()
        assert database.connection.execute("SELECT queue_id FROM mail").fetchall() == [("OLD",)]
        assert database.next_row == 2
    database.commit(exchange())
    assert database.next_row == 3
    database.abandon()  # as after a crash: what was committed lies in the WAL
    again = ShardDatabase(str(tmp_path))
    assert again.connection.execute("SELECT id, queue_id FROM mail").fetchall() == [(2, "NEW")]
    assert again.read_body(2) == b"new"
    assert again.next_row == 3
    again.abandon()


def test_exchanges_are_joined_in_order() -> None:
    exchanges = []
    for number in range(3):
        one = Exchange()
        one.mails += [number, 1, 0, f"Q{number}", b""]
        one.bodies += [number, b"x"]
        one.body_bytes = 1
        one.removed.append(10 + number)
        one.kept += [20 + number, 1.0, 0, 1, b""]
        one.removed_files.append(f"F{number}")
        exchanges.append(one)
    whole = join(exchanges)
    assert whole.removed == [10, 11, 12]
    assert whole.removed_files == ["F0", "F1", "F2"]
    assert (whole.rows, whole.body_bytes) == (9, 3)
    assert [row for row, _ in whole.take_mails()] == [(n, None, 0, 0, 1, 0, f"Q{n}", b"", None) for n in range(3)]
    assert (whole.mails, whole.bodies, whole.body_bytes, whole.rows) == ([], [], 0, 6)


def test_a_full_disk_keeps_both_back_and_lets_other_settlements_go(tmp_path: Path, disk: Disk) -> None:
    with Rig(tmp_path) as rig:
        old, other, third = (rig.accept(make_body(1000)) for _ in range(3))
        new = rig.new_mail(make_body(1000))
        disk.error, disk.is_once, disk.takes_removals = full_error(), False, True
        told: list[str] = []
        rig.spool.settle(old, None, 0.0, False, lambda error: told.append(f"old {error}"), [new], lambda item: told.append("new"))
        rig.spool.settle(other, None, 0.0, False, lambda error: told.append(f"other {error}"))
        rig.spool.hand_over()
        rig.wait_for_thread()
        rig.settle(third)  # comes later and isn't held up
        rig.wait_for_thread()
        assert told == []
        assert queue_ids(rig) == [old.queue_id]
        assert rig.spool.shards[0].retained is not None  # type: ignore[attr-defined]
        disk.error = None
        rig.run_until(lambda: len(told) == 3)
        assert sorted(told) == ["new", "old None", "other None"]
        assert told.index("new") < told.index("old None")
        assert queue_ids(rig) == [new.queue_id]
        assert rig.spool.shards[0].count == 1


def test_many_exchanges_on_a_full_disk_go_in_pieces(tmp_path: Path, disk: Disk) -> None:
    with Rig(tmp_path) as rig:
        olds = [item for item in rig.accept_all([make_body(500) for _ in range(50)]) if isinstance(item, SpoolItem)]
        news = [rig.new_mail(make_body(500)) for _ in olds]
        items: list[SpoolItem] = []
        disk.error = full_error()  # once: pieces then fit
        for old, new in zip(olds, news, strict=True):
            rig.spool.settle(old, None, 0.0, False, lambda error: None, [new], items.append)
        rig.run_until(lambda: len(items) == 50)
        assert queue_ids(rig) == [new.queue_id for new in news]
        assert rig.spool.shards[0].count == 50


def test_on_a_closed_spool_nothing_is_handed_out(tmp_path: Path, disk: Disk) -> None:
    rig = Rig(tmp_path)
    old = rig.accept(make_body(100))
    new = rig.new_mail(make_body(100))
    rig.close()
    answers: list[Any] = []
    rig.spool.settle(old, None, 0.0, False, answers.append, [new], answers.append)
    assert [type(answer) for answer in answers] == [SpoolError]
    with Rig(tmp_path) as again:
        assert [item.queue_id for item in again.claim_all()] == [old.queue_id]


def test_a_spool_that_closes_with_the_disk_full_has_the_old_mail_still(tmp_path: Path, disk: Disk) -> None:
    rig = Rig(tmp_path)
    old = rig.accept(make_body(100))
    disk.error, disk.is_once = full_error(), False
    answers: list[Any] = []
    rig.spool.settle(old, None, 0.0, False, answers.append, [rig.new_mail(make_body(100))], answers.append)
    rig.close()
    assert answers == []
    disk.error = None
    with Rig(tmp_path) as again:
        assert [item.queue_id for item in again.claim_all()] == [old.queue_id]


def break_with(rig: Rig, disk: Disk, old: SpoolItem, new: NewMail, outcomes: list[Outcome] | None = None) -> SpoolItem:
    disk.error = disk_error()
    (item,) = rig.exchange(old, new, outcomes=outcomes, due_s=5.0)
    return item


def is_salvaged(rig: Rig) -> bool:
    return not rig.spool.shards[0].salvages  # type: ignore[attr-defined]


@pytest.mark.parametrize("outcomes", [None, [Outcome(UNDELIVERABLE, text="no")]])
def test_a_shard_that_breaks_at_it_has_both_in_its_successor(tmp_path: Path, disk: Disk, outcomes: list[Outcome] | None) -> None:
    with Rig(tmp_path) as rig:
        others = [rig.accept(make_body(1000)) for _ in range(3)]
        old = rig.accept(make_body(1000))
        body = make_body(1000)
        new = rig.new_mail(body)
        item = break_with(rig, disk, old, new, outcomes)
        rig.run_until(lambda: is_salvaged(rig))
        rig.wait_for_thread()
        expected = [one.queue_id for one in others] + ([] if outcomes is None else [old.queue_id]) + [new.queue_id]
        assert queue_ids(rig) == expected
        assert rig.spool.shards[0].count == len(expected)
        item.body = None
        assert is_whole(rig.read(item))
        later = rig.accept(make_body(100))
        assert later.row == item.row + 1
    assert rows_of(tmp_path / "shards" / "0000.broken")[3][1] == old.queue_id
    with Rig(tmp_path) as rig:
        assert sorted(one.queue_id for one in rig.claim_all()) == sorted([*expected, later.queue_id])


def test_the_broken_shard_is_not_set_aside_before_the_new_mail_is_stored(tmp_path: Path, disk: Disk) -> None:
    with Rig(tmp_path) as rig:
        old = rig.accept(make_body(1000))
        new = rig.new_mail(make_body(1000))
        disk.takes_copies = False
        item = break_with(rig, disk, old, new)
        rig.wait_for_thread()
        assert sorted(os.listdir(tmp_path / "shards")) == ["0000", "0001"]
        assert queue_ids(rig) == []
        item.body = None
        with pytest.raises(SpoolError, match="missing"):
            rig.read(item)  # deferred then, and tried again
        disk.takes_copies = True
        rig.run_until(lambda: is_salvaged(rig))
        assert queue_ids(rig) == [new.queue_id]


def test_a_new_mail_that_is_settled_before_it_was_copied_stays_away(tmp_path: Path, disk: Disk) -> None:
    with Rig(tmp_path) as rig:
        olds = [rig.accept(make_body(1000)) for _ in range(2)]
        disk.takes_copies = False
        delivered = break_with(rig, disk, olds[0], rig.new_mail(make_body(100)))
        (deferred,) = rig.exchange(olds[1], rig.new_mail(make_body(100)))
        rig.settle(delivered)
        deferred.attempts = 1
        rig.settle(deferred, [Outcome(DEFERRED, text="later")], 5.0)
        disk.takes_copies = True
        rig.run_until(lambda: is_salvaged(rig))
        rig.wait_for_thread()
        assert queue_ids(rig) == [deferred.queue_id]
        (again,) = rig.claim()
        assert (again.queue_id, again.attempts) == (deferred.queue_id, 1)


def test_without_a_successor_yet_the_new_mail_waits_for_it(tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    with Rig(tmp_path) as rig:
        olds = [rig.accept(make_body(1000)) for _ in range(2)]
        news = [rig.new_mail(make_body(1000)) for _ in olds]
        real = lock.new_shard_directory
        is_possible: list[bool] = []

        def refuse(path: str) -> str:
            if not is_possible:
                raise OSError(28, "No space left on device")
            return real(path)

        monkeypatch.setattr(lock, "new_shard_directory", refuse)
        break_with(rig, disk, olds[0], news[0])
        rig.exchange(olds[1], news[1])
        is_possible.append(True)
        rig.run_until(lambda: sorted(os.listdir(tmp_path / "shards")) == ["0000.broken", "0001"])
        rig.wait_for_thread()
        assert queue_ids(rig) == [new.queue_id for new in news]
        assert rig.spool.shards[0].count == 2


def test_retained_new_mail_survives_the_break_of_its_shard(tmp_path: Path, disk: Disk) -> None:
    with Rig(tmp_path) as rig:
        old, other = rig.accept(make_body(1000)), rig.accept(make_body(1000))
        new = rig.new_mail(make_body(1000))
        items: list[SpoolItem] = []
        answers: list[SpoolError | None] = []
        disk.error, disk.is_once = full_error(), False
        rig.spool.settle(old, None, 0.0, False, answers.append, [new], items.append)
        rig.spool.hand_over()
        rig.wait_for_thread()
        assert rig.spool.shards[0].retained is not None  # type: ignore[attr-defined]
        disk.error, disk.is_once = disk_error(), True
        rig.settle(other)
        rig.run_until(lambda: bool(answers) and is_salvaged(rig))
        rig.wait_for_thread()
        assert [item.queue_id for item in items] == [new.queue_id]
        assert queue_ids(rig) == [new.queue_id]
        assert rig.spool.shards[0].count == 1


def test_a_mail_of_an_adopted_shard_has_its_new_ones_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_ADOPTION_PERIOD_S", 0.05)
    with Rig(tmp_path) as first, Rig(tmp_path) as second:
        old = second.accept(make_body(1000))
        second.close()
        first.run_until(lambda: len(first.spool.shards) == 2)
        (claimed,) = first.claim_all()
        assert claimed.queue_id == old.queue_id
        adopted = first.spool.shards[1]
        active = first.spool.shards[0]
        new = first.new_mail(make_body(1000))
        (item,) = first.exchange(claimed, new)
        assert item.shard is adopted
        assert (adopted.count, active.count) == (1, 0)
        first.wait_for_thread()
        ceiling = first.query(lambda c: c.execute("SELECT value FROM meta WHERE name = 'ceiling_us'").fetchone()[0])
        assert ceiling >= first.spool._ids.last_us  # the ids are of the active shard
        item.body = None
        assert is_whole(first.read(item))
        first.settle(item)
        first.run_until(lambda: len(first.spool.shards) == 1)


def test_a_full_disk_refuses_no_settlement_whose_new_mail_has_room(tmp_path: Path, disk: Disk) -> None:
    """A mail that was refused in the same turn does not hold back the exchange."""
    with Rig(tmp_path) as rig:
        old = rig.accept(make_body(1000))
        new = rig.new_mail(make_body(100))
        items: list[SpoolItem] = []
        disk.error = full_error()
        rig.spool.settle(old, None, 0.0, False, lambda error: None, [new], items.append)
        (refused,) = rig.accept_all([make_body(100)])
        assert isinstance(refused, SpoolFullError)
        rig.run_until(lambda: bool(items))
        assert queue_ids(rig) == [new.queue_id]


def test_the_engine_discard_keeps_nothing_of_it() -> None:
    spool = DiscardSpool(1, 0)
    answers: list[Any] = []
    item: Any = None
    spool.settle(item, None, 0.0, False, answers.append, [item], answers.append)
    assert answers == [None]
