"""Large bodies: files of their own, back-pressure, and what is left after failures."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from spool_rig import Rig, is_whole, make_body, make_envelope

from smtpd.errors import SpoolError, SpoolFullError
from smtpd.mail.outcome import DEFERRED, Outcome
from smtpd.spool import query
from smtpd.spool.item import SpoolItem


def spill_names(rig: Rig) -> list[str]:
    return sorted(os.listdir(os.path.join(rig.path, "shards/0000/spill")))


def test_a_body_over_the_threshold_is_a_file_until_it_is_settled(tmp_path: Path) -> None:
    body = make_body(1_000_000)
    with Rig(tmp_path / "spool") as rig:
        item = rig.accept(body, piece=10_000)
        assert spill_names(rig) == [item.queue_id]
        assert item.body is not None
        assert item.body.data is None
        assert rig.read(item) == body
        assert rig.spool.memory_bytes == 0
        rig.settle(item, [Outcome(DEFERRED)], 1.0)
        (again,) = rig.claim()
        assert again.body is None
        assert rig.read(again) == body
        (mail,) = rig.query(lambda connection: query.list_page(connection, 0, 10))
        assert mail.spill_name == item.queue_id
        rig.settle(again)
        rig.run_until(lambda: not spill_names(rig))
        rig.run_until(lambda: rig.query(lambda c: c.execute("SELECT count(*) FROM unlinked").fetchone()) == (0,))


def test_files_and_directories_are_private(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        with Rig(tmp_path / "spool") as rig:
            rig.accept(make_body(200_000))
            for directory, _, names in os.walk(rig.path):
                assert os.stat(directory).st_mode & 0o777 == 0o700
                for name in names:
                    assert os.stat(os.path.join(directory, name)).st_mode & 0o777 == 0o600, name
    finally:
        os.umask(previous)


def test_small_mail_becomes_a_file_when_memory_runs_short(tmp_path: Path) -> None:
    with Rig(tmp_path / "spool") as rig:
        rig.spool._memory_budget_bytes = 50_000
        writer = rig.spool.begin(rig.spool.next_queue_id(), make_envelope())
        writer.write(b"x" * 60_000)
        rig.loop.turn(0.0)
        item = rig.accept(make_body(20_000))
        assert item.is_spilled
        writer.abort()
        rig.loop.turn(0.0)
        assert not rig.accept(make_body(20_000)).is_spilled


def test_a_slow_disk_stops_the_sender_and_bounds_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may_write = threading.Event()
    real = os.write

    def slow(fd: int, data: bytes) -> int:
        may_write.wait()
        return real(fd, data)

    with Rig(tmp_path / "spool") as rig:
        monkeypatch.setattr(os, "write", slow)
        writer = rig.spool.begin(rig.spool.next_queue_id(), make_envelope())
        drained: list[bool] = []
        writer.on_drain = lambda: drained.append(True)
        body = make_body(4_000_000)
        sent = 0
        while writer.write(body[sent : sent + 50_000]):
            sent += 50_000
        sent += 50_000
        assert rig.spool.memory_bytes < 1_000_000
        may_write.set()
        rig.run_until(lambda: bool(drained))
        writer.on_drain = None
        while sent < len(body):
            rig.write(writer, body[sent : sent + 50_000])
            sent += 50_000
        answers: list[object] = []
        rig.spool.commit(writer, lambda item, error: answers.append(item))
        rig.run_until(lambda: bool(answers))
        (item,) = answers
        assert isinstance(item, SpoolItem)
        assert rig.read(item) == body
        assert rig.spool.memory_bytes == 0


@pytest.mark.parametrize("sent", [1000, 150_000, 900_000])
def test_an_aborted_mail_leaves_no_file(tmp_path: Path, sent: int) -> None:
    with Rig(tmp_path / "spool") as rig:
        writer = rig.spool.begin(rig.spool.next_queue_id(), make_envelope())
        for start in range(0, sent, 7000):
            rig.write(writer, b"x" * min(7000, sent - start))
        writer.abort()
        rig.run_until(lambda: rig.files.backlog == 0)
        assert spill_names(rig) == []
        assert rig.spool.memory_bytes == 0


@pytest.mark.parametrize(("number", "kind"), [(28, SpoolFullError), (5, SpoolError), (122, SpoolFullError)])
@pytest.mark.parametrize("call", ["write", "fdatasync", "link"])
def test_a_file_that_cannot_be_written_refuses_its_mail_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, kind: type[SpoolError]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with Rig(tmp_path / "spool") as rig:
        monkeypatch.setattr(os, call, fail)
        answers = rig.accept_all([make_body(200_000), make_body(2000)])
        monkeypatch.undo()
        assert type(answers[0]) is kind
        assert isinstance(answers[1], SpoolItem)
        assert rig.spool.is_full == (kind is SpoolFullError)
        rig.run_until(lambda: rig.files.backlog == 0)
        assert spill_names(rig) == []
        assert rig.spool.memory_bytes == 0
        assert isinstance(rig.accept(make_body(200_000)), SpoolItem)


@pytest.mark.parametrize("suffix", ["", ".part"])
@pytest.mark.parametrize("planted", ["file", "symlink", "directory"])
def test_a_planted_name_is_neither_followed_nor_overwritten(tmp_path: Path, planted: str, suffix: str) -> None:
    target = tmp_path / "precious"
    target.write_text("precious")
    with Rig(tmp_path / "spool") as rig:
        queue_id = rig.spool.next_queue_id()
        path = Path(rig.path, "shards/0000/spill", queue_id + suffix)
        if planted == "file":
            path.write_text("planted")
        elif planted == "symlink":
            path.symlink_to(target)
        else:
            path.mkdir()
        writer = rig.spool.begin(queue_id, make_envelope())
        rig.write(writer, b"x" * 300_000)
        answers: list[object] = []
        rig.spool.commit(writer, lambda item, error: answers.append(error))
        rig.run_until(lambda: bool(answers))
        assert type(answers[0]) is SpoolError
        rig.run_until(lambda: rig.files.backlog == 0)
        assert spill_names(rig) == [queue_id + suffix]
        assert target.read_text() == "precious"
        if planted == "file":
            assert path.read_text() == "planted"


def test_a_missing_file_holds_its_mail_at_the_next_start(tmp_path: Path) -> None:
    with Rig(tmp_path / "spool") as rig:
        lost = rig.accept(make_body(200_000))
        rig.accept(make_body(200_000))
        lost.body = None
        os.unlink(os.path.join(rig.path, "shards/0000/spill", lost.queue_id))
        with pytest.raises(SpoolError, match="missing"):
            rig.read(lost)
    with Rig(tmp_path / "spool") as rig:
        (good,) = rig.claim_all()
        assert is_whole(rig.read(good))
        mail = rig.query(lambda connection: query.find(connection, lost.queue_id))
        assert mail.state == query.HELD
        assert "missing" in mail.outcomes[0].text
        assert any(lost.queue_id in text for _, text in rig.reports)


def test_a_file_that_was_cut_is_not_given_out(tmp_path: Path) -> None:
    with Rig(tmp_path / "spool") as rig:
        item = rig.accept(make_body(200_000))
        os.truncate(os.path.join(rig.path, "shards/0000/spill", item.queue_id), 100)
        item.body = None
        with pytest.raises(SpoolError, match="cut"):
            rig.read(item)


def test_extra_files_are_kept_unless_they_cannot_be_mail(tmp_path: Path) -> None:
    with Rig(tmp_path / "spool") as rig:
        item = rig.accept(make_body(200_000))
        gone = rig.accept(make_body(200_000))
        copy = Path(rig.path, "shards/0000/spill", gone.queue_id).read_bytes()
        rig.settle(gone)
    spill = tmp_path / "spool/shards/0000/spill"
    (spill / "0000000000BBBBB.part").write_text("half")
    (spill / "0000000000BBBBB").write_text("unknown")
    (spill / "link").symlink_to("/etc/passwd")
    (spill / gone.queue_id).write_bytes(copy)
    with Rig(tmp_path / "spool") as rig:
        assert spill_names(rig) == sorted([item.queue_id, "link"])
        lost = tmp_path / "spool/shards/0000/lost"
        assert (lost / "0000000000BBBBB").read_text() == "unknown"
        rig.loop.turn(0.0)
        assert any("belongs to no mail" in text for _, text in rig.reports)
        assert is_whole(rig.read(rig.claim_all()[0]))
