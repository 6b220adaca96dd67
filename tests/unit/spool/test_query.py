"""Pages, totals and single mails of a shard, open or stopped."""

from __future__ import annotations

from pathlib import Path

import pytest
from spool_rig import Rig, make_body

from smtpd.errors import ShardBusyError, ShardFormatError
from smtpd.mail.outcome import DEFERRED, Outcome
from smtpd.spool import query
from smtpd.spool.item import SpoolItem


def fill(rig: Rig) -> list[SpoolItem]:
    """Seven mails: 0 deferred, 1 held, the rest fresh."""
    answers = rig.accept_all([make_body(1000 + at) for at in range(7)])
    items = [answer for answer in answers if isinstance(answer, SpoolItem)]
    items[0].attempts = items[1].attempts = 1
    rig.settle(items[0], [Outcome(DEFERRED, 451, "4.3.0", "busy")], 4e9)
    rig.settle(items[1], [Outcome(DEFERRED)], 0.0, is_held=True)
    return items


def test_pages_cover_the_shard_in_order_of_arrival(tmp_path: Path) -> None:
    with Rig(tmp_path / "spool") as rig:
        items = fill(rig)
        seen: list[query.QueuedMail] = []
        after = 0
        while page := rig.query(lambda connection, after=after: query.list_page(connection, after, 3)):
            assert len(page) <= 3
            seen += page
            after = page[-1].row
        assert [mail.queue_id for mail in seen] == [item.queue_id for item in items]
        assert [mail.state for mail in seen] == ["deferred", "held"] + ["active"] * 5
        assert [mail.size_bytes for mail in seen] == [1000 + at for at in range(7)]
        assert seen[0].due_s == 4e9
        assert seen[0].outcomes is not None
        assert seen[0].outcomes[0].text == "busy"
        assert seen[2].envelope == items[2].envelope


def test_one_mail_is_found_with_its_body(tmp_path: Path) -> None:
    with Rig(tmp_path / "spool") as rig:
        item = fill(rig)[4]
        mail = rig.query(lambda connection: query.find(connection, item.queue_id))
        assert mail.row == item.row
        assert rig.query(lambda connection: query.read_body(connection, mail.row)) == rig.read(item)
        assert rig.query(lambda connection: query.find(connection, "0" * 15)) is None
        assert rig.query(lambda connection: query.read_body(connection, 999)) is None


@pytest.mark.parametrize("page", [1, 2, 7, 100])
def test_totals_add_up_over_pages(tmp_path: Path, page: int) -> None:
    with Rig(tmp_path / "spool") as rig:
        items = fill(rig)
        totals: dict[str, query.Totals] = {}
        after: int | None = 0
        while after is not None:
            after = rig.query(lambda connection, after=after: query.add_totals(connection, after, page, totals))
        assert totals["deferred"] == query.Totals(1, 1000, items[0].row)
        assert totals["held"] == query.Totals(1, 1001, items[1].row)
        assert totals["active"] == query.Totals(5, sum(range(1002, 1007)), items[2].row)


def test_totals_of_an_empty_shard(tmp_path: Path) -> None:
    with Rig(tmp_path / "spool") as rig:
        totals: dict[str, query.Totals] = {}
        assert rig.query(lambda connection: query.add_totals(connection, 0, 10, totals)) is None
        assert totals == {}


def test_a_stopped_shard_is_read_and_left_as_it_was(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    with Rig(spool) as rig:
        items = fill(rig)
        with pytest.raises(ShardBusyError), query.open_stopped_shard(query.shard_dirs(rig.path)[0]):
            pass
    (directory,) = query.shard_dirs(str(spool))
    with query.open_stopped_shard(directory) as database:
        assert [mail.queue_id for mail in query.list_page(database.connection, 0, 100)] == [i.queue_id for i in items]
        with pytest.raises(ShardBusyError), query.open_stopped_shard(directory):
            pass
    with Rig(spool) as rig:
        assert rig.spool.shards[0].number == 0
        assert rig.claim_all() != []


def test_directories_without_a_database_are_not_shards_to_list(tmp_path: Path) -> None:
    assert query.shard_dirs(str(tmp_path / "nowhere")) == []
    (tmp_path / "spool/shards/0000").mkdir(parents=True)
    (tmp_path / "spool/shards/0001.broken").mkdir(parents=True)
    assert query.shard_dirs(str(tmp_path / "spool")) == []


def test_a_stopped_shard_that_is_no_shard(tmp_path: Path) -> None:
    (tmp_path / "0000").mkdir(mode=0o700)
    (tmp_path / "0000/mail.db").symlink_to("/etc/passwd")
    with pytest.raises(ShardFormatError), query.open_stopped_shard(str(tmp_path / "0000")):
        pass
