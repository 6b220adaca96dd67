"""`smtpd queue export|import`: mail moves whole, with its history, and is in one place or in both, whenever it is cut short."""

import errno
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway import PROGRAM, wait_until
from queue_desk import Desk, fill
from queue_rig import deferred, delivered, envelope_of, put, put_all

from smtpd.control import folder
from smtpd.control.stored import StoredMail
from smtpd.mail.outcome import Outcome
from smtpd.spool.item import SpoolItem

both = pytest.mark.parametrize("is_running", [True, False])
LARGE = b"Subject: large\r\n\r\n" + b"0123456789" * 60_000 + b"\r\n"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    place = Desk(tmp_path / "here")
    yield place
    place.rig.close()


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Desk]:
    place = Desk(tmp_path / "there")
    yield place
    place.rig.close()


def open_or_close(desk: Desk, is_running: bool) -> None:
    if is_running:
        desk.rig.serve()
    else:
        desk.rig.close()


def settle_all(desk: Desk, items: list[SpoolItem]) -> None:
    for item in items:
        item.attempts = 1
        desk.rig.spool.settle(item, [deferred()], 4e9, False, lambda error: None)
    desk.rig.spool.hand_over()
    desk.rig.wait_for_thread()


def senders(desk: Desk) -> list[str]:
    return sorted(mail["sender"] for mail in desk.list_json())


@both
def test_mail_moves_with_envelope_outcomes_and_octets(desk: Desk, there: Desk, tmp_path: Path, is_running: bool) -> None:
    box = tmp_path / "box"
    two = envelope_of(b"two@example.com", b"a@example.org", "é@example.net".encode())
    mails = [
        put(desk.rig, two, [delivered(), deferred()]),
        put(desk.rig, envelope_of(b"", b"c\xff@example.org"), [deferred("expired")], is_held=True),
        put(desk.rig, envelope_of(b"large@example.com", b"d@example.org"), [deferred()], body=LARGE),
        put(desk.rig, envelope_of(b"new@example.com", b"e@example.org"), [Outcome()]),
    ]
    open_or_close(desk, is_running)
    before = {mail["sender"]: mail for mail in desk.list_json()}
    answer = desk.run_json("export", str(box))
    assert sorted(answer["exported_ids"]) == sorted(item.queue_id for item in mails)
    assert desk.list_json() == []
    assert (box / f"{mails[2].queue_id}.eml").read_bytes() == LARGE
    shown = json.loads((box / f"{mails[0].queue_id}.json").read_text())
    assert shown["recipients"] == ["a@example.org", "é@example.net"]
    assert len(os.listdir(box)) == 8

    open_or_close(there, is_running)
    assert there.run_json("import", str(box))["imported"] == 4
    assert os.listdir(box) == []
    after = {mail["sender"]: mail for mail in there.list_json()}
    for sender, mail in before.items():
        moved = after.pop(sender)
        assert moved.pop("queue_id") != mail.pop("queue_id")
        assert moved == mail
    assert after == {}
    [large] = there.list_json("--sender", "large@example.com")
    assert there.run("show", "--headers", "--body", large["queue_id"]).stdout_bytes == LARGE


@both
def test_only_what_the_filter_wants_is_exported(desk: Desk, tmp_path: Path, is_running: bool) -> None:
    first, second, third = fill(desk)
    open_or_close(desk, is_running)
    assert desk.run_json("export", "--state", "held", str(tmp_path / "box"))["exported_ids"] == [second]
    assert [mail["queue_id"] for mail in desk.list_json()] == [first, third]


def test_mail_under_way_is_left_and_told(desk: Desk, tmp_path: Path) -> None:
    _, _, third = fill(desk)
    desk.rig.serve()
    answer = desk.run_json("export", str(tmp_path / "box"), code=75)
    assert (answer["exported"], answer["busy"]) == (2, [third])
    assert [mail["queue_id"] for mail in desk.list_json()] == [third]


@both
def test_a_directory_that_can_not_be_written_costs_nothing(desk: Desk, tmp_path: Path, is_running: bool) -> None:
    ids = fill(desk)[:2]
    box = tmp_path / "box"
    box.mkdir()
    (box / f"{ids[1]}.eml.tmp").mkdir()
    open_or_close(desk, is_running)
    done = desk.run("export", str(box))
    assert done.exit_code == 73
    listed = [mail["queue_id"] for mail in desk.list_json()]
    assert set(ids) <= set(listed)
    (box / f"{ids[1]}.eml.tmp").rmdir()
    assert desk.run_json("export", "--state", "held", str(box))["exported_ids"] == [ids[1]]  # its lease was given back


@both
def test_what_is_no_whole_mail_is_not_imported(desk: Desk, there: Desk, tmp_path: Path, is_running: bool) -> None:
    box = tmp_path / "box"
    ids = [put(desk.rig, envelope_of(b"s@example.com", b"a@example.org"), [deferred()]).queue_id for _ in range(4)]
    desk.rig.close()
    desk.run_json("export", str(box))
    (box / f"{ids[0]}.eml").write_bytes(b"cut")
    (box / f"{ids[1]}.json").write_text("{}")
    (box / f"{ids[2]}.json").unlink()
    (box / "notes.txt").write_text("not ours")
    open_or_close(there, is_running)
    done = there.run("import", str(box))
    assert (done.exit_code, done.stdout) == (75, "1 mail imported\n")
    assert done.stderr.count("smtpd: ") == 2
    assert len(there.list_json()) == 1
    assert not (box / f"{ids[3]}.json").exists()
    assert (box / f"{ids[0]}.json").exists()


def test_hostile_ids_are_no_names_of_files(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="can't be the name"):
        folder.MailFile(str(tmp_path), StoredMail(1, "../evil", "", [], 0, 0, 0.0, False, b""))


def run_until_killed(desk: Desk, command: str, box: Path, is_time: object) -> None:
    """Start a command and kill it when `is_time()`, or let it end."""
    arguments = [str(PROGRAM), "queue", command, "-c", str(desk.config), str(box)]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        wait_until("its time has come", lambda: process.poll() is not None or is_time(), 60)  # type: ignore[operator]
    finally:
        process.kill()
        process.communicate()


def whole_mails(box: Path) -> set[str]:
    found = set()
    for path in box.glob("*.json"):
        stored = json.loads(path.read_text())
        if path.with_suffix(".eml").exists():
            assert path.with_suffix(".eml").stat().st_size == stored["size_bytes"]
            found.add(stored["sender"])
    return found


@pytest.mark.parametrize("is_running", [True, pytest.param(False, marks=pytest.mark.full)])
def test_killed_at_any_point_nothing_is_lost(desk: Desk, there: Desk, tmp_path: Path, is_running: bool) -> None:
    count = 120
    box = tmp_path / "box"
    box.mkdir()
    everything = {f"s{number}@example.com" for number in range(count)}
    settle_all(desk, put_all(desk.rig, [envelope_of(sender.encode(), b"a@example.org") for sender in everything]))
    open_or_close(desk, is_running)
    chance = random.Random(is_running)
    for _ in range(2):
        enough = len(os.listdir(box)) + chance.randrange(1, 100)
        run_until_killed(desk, "export", box, lambda: len(os.listdir(box)) >= enough)  # noqa: B023
        wait_until("its leases are given back", lambda: desk.run("list", "--state", "active").stdout.startswith("Mail"), 30)
        assert set(senders(desk)) | whole_mails(box) == everything
    desk.run_json("export", str(box))
    assert desk.list_json() == []
    assert whole_mails(box) == everything

    open_or_close(there, is_running)
    for _ in range(2):
        few = len(os.listdir(box)) - chance.randrange(1, 80)
        run_until_killed(there, "import", box, lambda: len(os.listdir(box)) <= few)  # noqa: B023
        assert set(senders(there)) | whole_mails(box) == everything
    there.run_json("import", str(box))
    assert whole_mails(box) == set()
    assert set(senders(there)) == everything
    repeated = len(senders(there)) - count
    print(f"{repeated} of {count} came twice", file=sys.stderr)
    assert 0 <= repeated <= 2 * 51


@both
def test_one_mail_that_can_not_be_read_keeps_no_other_from_export(desk: Desk, tmp_path: Path, is_running: bool) -> None:
    items = put_all(desk.rig, [envelope_of(b"s@example.com", b"a@example.org")] * 5)
    [large] = put_all(desk.rig, [envelope_of(b"s@example.com", b"a@example.org")], LARGE)
    [cut] = put_all(desk.rig, [envelope_of(b"s@example.com", b"a@example.org")], LARGE)
    settle_all(desk, [*items, large, cut])
    spill = Path(desk.rig.spool.shards[0].spill_directory)
    (spill / large.queue_id).unlink()
    (spill / cut.queue_id).write_bytes(b"cut")
    desk.rig.query(lambda connection: connection.execute("DELETE FROM body WHERE id = ?", (items[2].row,)).fetchall())
    open_or_close(desk, is_running)
    bad = {items[2].queue_id, large.queue_id, cut.queue_id}
    done = desk.run("export", "--json", str(tmp_path / "box"))
    assert done.exit_code == 75
    assert set(json.loads(done.stdout)["exported_ids"]) == {item.queue_id for item in items} - bad
    assert all(queue_id in done.stderr for queue_id in bad)
    assert {mail["queue_id"] for mail in desk.list_json()} == bad
    assert {path.stem for path in (tmp_path / "box").glob("*.json")}.isdisjoint(bad)


@both
def test_an_import_goes_on_behind_a_bad_file(desk: Desk, there: Desk, tmp_path: Path, is_running: bool) -> None:
    box = tmp_path / "box"
    settle_all(desk, put_all(desk.rig, [envelope_of(b"s@example.com", b"a@example.org")] * 60))
    desk.rig.close()
    desk.run_json("export", str(box))
    first, second = sorted(box.glob("*.json"))[:2]
    first.write_text("{")
    second.write_text(second.read_text().replace('"format": 1', '"format": 2'))
    open_or_close(there, is_running)
    done = there.run("import", str(box))
    assert (done.exit_code, done.stdout) == (75, "58 mails imported\n")
    assert sorted(box.glob("*.json")) == [first, second]


def test_what_fails_at_the_end_of_a_file_is_told_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = folder.MailFile(str(tmp_path), StoredMail(1, "ABC", "", [], 1, 0, 0.0, False, b""))
    file.write(b"x")

    def fail(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        file.finish()
    file.abandon()
    assert folder.queue_ids(str(tmp_path)) == []


def test_a_new_directory_is_made_durable_in_those_above_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(folder, "sync_directory", synced.append)
    folder.make(str(tmp_path / "new" / "box"))
    assert sorted(synced) == [str(tmp_path), str(tmp_path / "new")]
    folder.make(str(tmp_path / "new" / "box"))
    assert len(synced) == 2
