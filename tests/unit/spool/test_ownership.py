"""Who owns a shard: locks, orphans, strange and hostile directories."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from spool_rig import Rig, is_whole, make_body

from smtpd.errors import ShardBusyError, ShardFormatError, StartupError
from smtpd.mail.outcome import DEFERRED, Outcome
from smtpd.spool import lock, sqlite
from smtpd.spool.item import SpoolItem


def leave_mail(path: Path, count: int = 3) -> list[str]:
    with Rig(path) as rig:
        items = rig.accept_all([make_body(300) for _ in range(count)])
        return sorted(item.queue_id for item in items if isinstance(item, SpoolItem))


def shard_names(path: Path) -> list[str]:
    return sorted(os.listdir(path / "shards"))


def test_two_owners_on_one_spool_take_different_shards(tmp_path: Path) -> None:
    with Rig(tmp_path / "spool") as one, Rig(tmp_path / "spool") as two:
        assert [one.spool.shards[0].number, two.spool.shards[0].number] == [0, 1]
        first = one.accept(make_body(100))
        second = two.accept(make_body(100))
        assert first.queue_id != second.queue_id
        assert first.queue_id[10:] != second.queue_id[10:]
    assert shard_names(tmp_path / "spool") == ["0000", "0001"]


def test_a_held_lock_names_its_holder(tmp_path: Path) -> None:
    with Rig(tmp_path / "spool") as rig, pytest.raises(ShardBusyError, match=str(os.getpid())) as caught:
        lock.ShardLock(os.path.join(rig.path, "shards/0000"))
    assert caught.value.holder == os.getpid()


def test_a_lock_is_free_after_its_holder_and_does_not_reach_a_program_it_starts(tmp_path: Path) -> None:
    os.mkdir(tmp_path / "0000", 0o700)
    held = lock.ShardLock(str(tmp_path / "0000"))
    assert not os.get_inheritable(held._fd)
    held.release()
    held.release()
    lock.ShardLock(str(tmp_path / "0000")).release()


def test_orphans_with_mail_are_adopted_drained_and_given_back(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    with Rig(spool) as one, Rig(spool) as two:
        mine = one.accept(make_body(300))
        one.settle(mine)
        orphans = [two.accept(make_body(300)).queue_id for _ in range(4)]
    with Rig(spool) as rig:
        rig.run_until(lambda: len(rig.spool.shards) == 2)
        found = rig.claim_all()
        assert sorted(item.queue_id for item in found) == orphans
        assert all(is_whole(rig.read(item)) for item in found)
        assert rig.spool.shards[1].count == 4
        for item in found:
            rig.settle(item)
        rig.run_until(lambda: len(rig.spool.shards) == 1)
        rig.wait_for_thread()
        with Rig(spool) as other:  # the drained shard is free again
            assert other.spool.shards[0].number == 1


def test_a_shard_is_adopted_when_its_owner_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_ADOPTION_PERIOD_S", 0.1)
    spool = tmp_path / "spool"
    two = Rig(spool)
    with Rig(spool) as one:
        left = two.accept(make_body(300)).queue_id
        one.run_until(lambda: one.spool._adoption_timer is not None)  # looked once, in vain
        two.close()
        one.run_until(lambda: len(one.spool.shards) == 2)
        assert [item.queue_id for item in one.claim_all()] == [left]


def test_an_adopted_shard_with_held_mail_stays(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    with Rig(spool) as _, Rig(spool) as two:
        two.settle(two.accept(make_body(300)), [Outcome(DEFERRED)], 0.0, is_held=True)
    with Rig(spool) as rig:
        rig.run_until(lambda: len(rig.spool.shards) == 2)
        assert rig.claim_all() == []
        assert rig.spool.shards[1].count == 1


def test_empty_orphans_are_opened_once_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = tmp_path / "spool"
    with Rig(spool), Rig(spool):
        pass
    with Rig(spool) as rig:
        adopter = rig.spool._adopter
        rig.run_until(lambda: rig.spool._adoption_timer is not None)
        opened: list[str] = []
        real: Callable[[str], object] = adopter._open
        monkeypatch.setattr(adopter, "_open", lambda directory: (opened.append(directory), real(directory))[1])
        rig.run_until(lambda: rig.spool._adoption_timer is not None)
        rig.spool._thread.call(adopter.find_orphan)
        rig.wait_for_thread()
        assert opened == [os.path.join(rig.path, "shards/0000")]  # its own, which it fails to lock


def test_without_descriptors_orphans_wait_and_are_found_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = tmp_path / "spool"
    with Rig(spool) as rig, Rig(spool) as other:
        left = other.accept(make_body(300)).queue_id
        rig.run_until(lambda: rig.spool._adoption_timer is not None)
        adopter = rig.spool._adopter
        answers: list[object] = []

        def run_short(*_: object) -> NoReturn:
            raise OSError(errno.EMFILE, "Too many open files")

        other.close()
        for target, name in ((lock, "shard_directories"), (adopter, "_open")):
            with monkeypatch.context() as short:
                short.setattr(target, name, run_short)
                for _ in range(2):
                    rig.spool._thread.call(lambda: answers.append(adopter.find_orphan()))
                rig.wait_for_thread()
        assert answers == [None] * 4
        assert sum("orphans not looked for" in text for _, text in rig.reports) == 1, rig.reports
        rig.spool._look_for_orphans()
        rig.run_until(lambda: len(rig.spool.shards) == 2)
        assert [item.queue_id for item in rig.claim_all()] == [left]


def replace_version(spool: Path) -> None:
    connection = sqlite3.connect(spool / "shards/0000/mail.db")
    connection.execute("PRAGMA user_version = 99")
    connection.close()


def replace_application(spool: Path) -> None:
    connection = sqlite3.connect(spool / "shards/0000/mail.db")
    connection.execute("PRAGMA application_id = 7")
    connection.close()


def write_garbage(spool: Path) -> None:
    (spool / "shards/0000/mail.db").write_bytes(os.urandom(50_000))
    (spool / "shards/0000/mail.db-wal").unlink()


def link_database(spool: Path) -> None:
    shutil.move(spool / "shards/0000/mail.db", spool / "elsewhere.db")
    (spool / "shards/0000/mail.db").symlink_to(spool / "elsewhere.db")


def link_wal(spool: Path) -> None:
    shutil.move(spool / "shards/0000/mail.db-wal", spool / "elsewhere-wal")
    (spool / "shards/0000/mail.db-wal").symlink_to(spool / "elsewhere-wal")


def link_lock(spool: Path) -> None:
    (spool / "shards/0000/lock").unlink()
    (spool / "shards/0000/lock").symlink_to(spool / "victim")


def make_lock_a_pipe(spool: Path) -> None:
    (spool / "shards/0000/lock").unlink()
    os.mkfifo(spool / "shards/0000/lock")


def link_spill(spool: Path) -> None:
    (spool / "shards/0000/spill").rmdir()
    (spool / "elsewhere").mkdir()
    (spool / "shards/0000/spill").symlink_to(spool / "elsewhere")


def link_shard(spool: Path) -> None:
    shutil.move(spool / "shards/0000", spool / "elsewhere")
    (spool / "shards/0000").symlink_to(spool / "elsewhere")


def open_to_all(spool: Path) -> None:
    os.chmod(spool / "shards/0000", 0o777)


def make_shard_a_file(spool: Path) -> None:
    shutil.move(spool / "shards/0000", spool / "elsewhere")
    (spool / "shards/0000").write_text("")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (replace_version, "format 99 is newer"),
        (replace_application, "not a mail shard"),
        (write_garbage, "not a database"),
        (link_database, "not a plain file"),
        (link_wal, "not a plain file"),
        (link_lock, "not a plain file"),
        (make_lock_a_pipe, "not a plain file"),
        (link_spill, "not a directory"),
        (link_shard, "not a directory"),
        (open_to_all, "can be written by others"),
        (make_shard_a_file, "not a directory"),
    ],
)
def test_a_shard_that_is_not_as_it_should_be_is_reported_and_left_alone(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    spool = tmp_path / "spool"
    leave_mail(spool)
    damage(spool)
    before = snapshot(spool / "shards/0000")
    with Rig(spool) as rig:
        assert rig.spool.shards[0].number == 1
        rig.run_until(lambda: rig.spool._adoption_timer is not None)
        assert is_whole(rig.read(rig.accept(make_body(300))))
        assert sum(message in text for level, text in rig.reports if level == "error") >= 1, rig.reports
        assert len(rig.reports) <= 2
    assert snapshot(spool / "shards/0000") == before
    assert not (spool / "victim").exists()


def snapshot(directory: Path) -> dict[str, bytes]:
    if not directory.is_dir():
        return {"": directory.read_bytes()}
    return {
        str(path): path.read_bytes() if path.is_file() and path.name != "lock" else b"" for path in sorted(directory.rglob("*"))
    }


def test_other_names_among_the_shards_are_ignored(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    leave_mail(spool)
    for name in ("0007.broken", "notes", "00001", "0000~"):
        (spool / "shards" / name).mkdir()
    with Rig(spool) as rig, Rig(spool) as other:
        assert rig.spool.shards[0].number == 0
        assert other.spool.shards[0].number == 8


def test_a_shard_directory_without_content_is_filled(tmp_path: Path) -> None:
    """A crash between mkdir and the first commit."""
    (tmp_path / "spool").mkdir(mode=0o700)
    (tmp_path / "spool/shards").mkdir(mode=0o700)
    (tmp_path / "spool/shards/0000").mkdir(mode=0o700)
    (tmp_path / "spool/shards/0000/mail.db").touch(mode=0o600)
    with Rig(tmp_path / "spool") as rig:
        assert rig.spool.shards[0].number == 0
        rig.accept(make_body(100))


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_text("a file"),
        lambda path: path.symlink_to(path.parent / "nowhere" / "at-all"),
        lambda path: (path.mkdir(), (path / "shards").write_text("a file")),
        lambda path: (path.mkdir(), (path / "shards").symlink_to(path.parent)),
        lambda path: (path.mkdir(), os.chmod(path, 0o777)),
    ],
)
def test_an_impossible_spool_is_one_clear_line(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "spool")
    with pytest.raises(StartupError, match="spool") as caught:
        Rig(tmp_path / "spool")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code in (os.EX_CANTCREAT, os.EX_NOPERM)


def test_a_spool_reached_by_a_symlink_is_fine(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "spool").symlink_to(tmp_path / "real")
    assert len(leave_mail(tmp_path / "spool")) == 3
    assert shard_names(tmp_path / "real") == ["0000"]


def test_a_directory_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkdir(tmp_path / "0000", 0o700)
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(tmp_path / "0000").st_uid + 1)
    with pytest.raises(ShardFormatError, match="another user"):
        lock.check_directory(str(tmp_path / "0000"))


def test_recovered_mail_of_an_orphan_is_due_at_once(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    with Rig(spool), Rig(spool) as two:
        item = two.accept(make_body(300))
        two.settle(item, [Outcome(DEFERRED)], time.time() + 1000)
        fresh = two.accept(make_body(300)).queue_id
    with Rig(spool) as rig:
        rig.run_until(lambda: len(rig.spool.shards) == 2)
        assert [item.queue_id for item in rig.claim_all()] == [fresh]
        assert rig.spool.next_due_s() > time.time() + 900
