"""Changes of stored mail by queue commands: what each action makes of each state, with leases and recovery in between."""

from pathlib import Path
from typing import Any

import pytest
from queue_rig import deferred, delivered, envelope_of, put, put_all
from spool_rig import Rig

from smtpd.errors import ShardClosedError, SpoolError
from smtpd.mail.envelope import encode_envelope
from smtpd.mail.outcome import DEFERRED, UNDELIVERABLE, Outcome, encode_outcomes
from smtpd.mail.queue_id import QueueIdMaker
from smtpd.spool import lock, query
from smtpd.spool.batch import Batch
from smtpd.spool.change import DELETE, FLUSH, HOLD, LEASE, RELEASE, REQUEUE, Change
from smtpd.spool.database import ShardDatabase
from smtpd.spool.query import Narrowing


def change(rig: Rig, action: str, *queue_ids: str) -> Change:
    """Change these mails, or all."""
    done: list[Change] = []
    wanted = Change(action, 0, Narrowing(), lambda mail: not queue_ids or mail.queue_id in queue_ids, done.append)
    rig.spool.change(rig.spool.shards[0], wanted)
    rig.run_until(lambda: bool(done))
    assert done[0].error is None
    return done[0]


def stored(rig: Rig) -> dict[str, query.QueuedMail]:
    mails = rig.query(lambda connection: query.list_page(connection, 0, 1000))
    return {mail.queue_id: mail for mail in mails}


def changed_ids(done: Change) -> list[str]:
    return [entry.before.queue_id for entry in done.changed]


def test_flush_makes_deferred_mail_due_and_leaves_held_and_leased(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        waits = put(rig, envelope_of(b"", b"a@example.org"), [deferred()])
        held = put(rig, envelope_of(b"", b"a@example.org"), [deferred()], is_held=True)
        leased = put(rig, envelope_of(b"", b"a@example.org"))
        done = change(rig, FLUSH)
        assert changed_ids(done) == [waits.queue_id]
        assert done.unchanged == [held.queue_id]
        assert done.leased == [leased.queue_id]
        assert [item.queue_id for item in rig.claim()] == [waits.queue_id]


def test_hold_and_release(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        item = put(rig, envelope_of(b"", b"a@example.org", b"b@example.org"), [deferred(), Outcome(UNDELIVERABLE, 550, "5.1.1")])
        assert changed_ids(change(rig, HOLD)) == [item.queue_id]
        assert change(rig, HOLD).unchanged == [item.queue_id]
        assert rig.claim(now_s=5e9) == []
        assert rig.spool.next_due_s() is None
        assert changed_ids(change(rig, RELEASE)) == [item.queue_id]
        [again] = rig.claim()
        assert again.attempts == 1
        assert again.outcomes is not None
        assert [outcome.status for outcome in again.outcomes] == [DEFERRED, DEFERRED]
        assert again.outcomes[1].dsn == "5.1.1"


def test_requeue_forgets_all_but_what_is_delivered(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        some = put(rig, envelope_of(b"", b"a@example.org", b"b@example.org"), [delivered(), deferred()], is_held=True)
        none = put(rig, envelope_of(b"", b"a@example.org"), [deferred()])
        assert changed_ids(change(rig, REQUEUE)) == [some.queue_id, none.queue_id]
        items = {item.queue_id: item for item in rig.claim()}
        assert items[some.queue_id].outcomes == [delivered(), Outcome()]
        assert items[none.queue_id].outcomes is None
        assert {item.attempts for item in items.values()} == {0}


def test_delete_takes_body_and_file_too(tmp_path: Path) -> None:
    with Rig(tmp_path, spill_threshold=1000) as rig:
        large = put(rig, envelope_of(b"", b"a@example.org"), [deferred()], body=b"x" * 5000)
        put(rig, envelope_of(b"", b"a@example.org"), [deferred()])
        kept = put(rig, envelope_of(b"", b"a@example.org"))
        spill = Path(rig.spool.shards[0].spill_directory) / large.queue_id
        assert spill.exists()
        done = change(rig, DELETE)
        assert len(done.changed) == 2
        assert set(stored(rig)) == {kept.queue_id}
        assert rig.spool.shards[0].count == 1
        rig.run_until(lambda: not spill.exists())
        assert rig.query(lambda connection: connection.execute("SELECT count(*) FROM body").fetchone()) == (1,)


def test_mail_that_a_dead_process_had_leased_can_be_changed(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        put_all(rig, [envelope_of(b"", b"a@example.org")] * 3)
    with Rig(tmp_path) as rig:
        first, second, third = stored(rig)
        assert changed_ids(change(rig, HOLD, first)) == [first]
        assert changed_ids(change(rig, FLUSH, second)) == [second]
        assert changed_ids(change(rig, DELETE, third)) == [third]
        assert [item.queue_id for item in rig.claim_all()] == [second]
        assert change(rig, DELETE, second).leased == [second]


def test_a_lease_for_export_keeps_mail_from_the_deliveries(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        put_all(rig, [envelope_of(b"", b"a@example.org")] * 2)
    with Rig(tmp_path) as rig:
        first, second = stored(rig)
        assert changed_ids(change(rig, LEASE, first)) == [first]
        assert change(rig, DELETE, first).leased == [first]
        assert [item.queue_id for item in rig.claim_all()] == [second]


def test_pages_are_bounded_and_cover_everything(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        items = put_all(rig, [envelope_of(b"", b"a@example.org")] * 250)
    seen: list[str] = []
    with Rig(tmp_path) as rig:
        after_row = 0
        while True:
            done: list[Change] = []
            rig.spool.change(rig.spool.shards[0], Change(HOLD, after_row, Narrowing(), lambda mail: True, done.append))
            rig.run_until(lambda: bool(done))  # noqa: B023
            assert len(done[0].changed) <= 100
            seen += changed_ids(done[0])
            if done[0].is_last:
                break
            after_row = done[0].last_row
    assert seen == [item.queue_id for item in items]


def test_a_change_that_can_not_be_committed_is_an_error_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from smtpd.spool.database import ShardDatabase

    with Rig(tmp_path) as rig:
        item = put(rig, envelope_of(b"", b"a@example.org"), [deferred()])

        def fail(*_: Any) -> None:
            raise SpoolError("not now")

        with monkeypatch.context() as patch:
            patch.setattr(ShardDatabase, "_run", fail)
            done: list[Change] = []
            rig.spool.change(rig.spool.shards[0], Change(DELETE, 0, Narrowing(), lambda mail: True, done.append))
            rig.run_until(lambda: bool(done))
        assert str(done[0].error) == "not now"
        assert done[0].changed == []
        assert set(stored(rig)) == {item.queue_id}
        assert rig.spool.shards[0].count == 1
    done = []
    rig.spool.change(rig.spool.shards[0], Change(DELETE, 0, Narrowing(), lambda mail: True, done.append))
    assert done[0].error is not None


def test_searches_look_at_a_span_and_go_on(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        envelopes = [envelope_of(b"", b"a@%s" % (b"rare.example" if at % 10 == 9 else b"example.org")) for at in range(40)]
        items = put_all(rig, envelopes)
        narrowing = Narrowing("instr(envelope, ?)", (b"rare.example",))
        found: list[str] = []
        after_row = pages = 0
        while True:
            page = rig.query(lambda connection: query.find_page(connection, after_row, narrowing, 2, 15))  # noqa: B023
            found += [mail.queue_id for mail in page.mails]
            pages += 1
            if page.is_last:
                break
            after_row = page.last_row
        assert found == [item.queue_id for item in items[9::10]]
        assert pages >= 3


def test_held_mail_that_is_handed_out_is_nobody_elses(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        [item, other] = [put(rig, envelope_of(b"", b"a@example.org"), [deferred()], is_held=True) for _ in range(2)]
        assert changed_ids(change(rig, LEASE, item.queue_id)) == [item.queue_id]
        for action in (DELETE, RELEASE, REQUEUE, HOLD, LEASE):
            assert change(rig, action, item.queue_id).leased == [item.queue_id]
        rig.settle(item, [deferred()], 0.0, True)  # given back
        assert changed_ids(change(rig, LEASE, item.queue_id)) == [item.queue_id]
        rig.settle(item)
        assert rig.spool.shards[0].count == 1
        assert changed_ids(change(rig, DELETE)) == [other.queue_id]
        assert rig.spool.shards[0].count == 0


@pytest.mark.parametrize("is_held", [True, False])
def test_a_lease_that_was_rolled_back_leases_nothing(tmp_path: Path, is_held: bool) -> None:
    with Rig(tmp_path) as rig:
        if is_held:
            put(rig, envelope_of(b"", b"a@example.org"), [deferred()], is_held=True)
        else:
            put(rig, envelope_of(b"", b"a@example.org"))
    database = ShardDatabase(f"{tmp_path}/shards/0000")  # what was leased before it is recovered
    try:
        batch = Batch()
        batch.changes.append(Change(LEASE, 0, Narrowing(), lambda mail: True, lambda change: None))
        batch.ceiling_us = 1 << 70  # no number for SQLite, after all else
        with pytest.raises(OverflowError):
            database.commit(batch)
        again = Batch()
        again.changes.append(Change(DELETE, 0, Narrowing(), lambda mail: True, lambda change: None))
        database.commit(again)
        assert (len(again.changes[0].changed), again.changes[0].leased) == (1, [])
    finally:
        database.abandon()


def test_what_is_asked_of_a_shard_that_was_given_back_is_refused(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.run_until(lambda: rig.spool._adoption_timer is not None)  # its first look for orphans is over
        directory = lock.new_shard_directory(rig.path)
        held_lock = lock.ShardLock(directory)
        database = ShardDatabase(directory)
        batch = Batch()
        batch.mails += (1, 3, 0, QueueIdMaker(1, 7, 0).next_id(), encode_envelope(envelope_of(b"", b"a@example.org")))
        batch.bodies += (1, b"x\r\n")
        batch.kept += (1, 4e9, 0, 1, encode_outcomes([deferred()]))
        database.commit(batch)
        database.close()
        held_lock.release()
        rig.spool._look_for_orphans()
        rig.run_until(lambda: len(rig.spool.shards) == 2)
        orphan = rig.spool.shards[1]
        done: list[Change] = []
        for action in (DELETE, HOLD):  # the second reaches a shard that is empty and closed
            rig.spool.change(orphan, Change(action, 0, Narrowing(), lambda mail: True, done.append))
            rig.run_until(lambda: orphan not in rig.spool.shards and len(done) > 0)
        bodies: list[Any] = []
        errors: list[Any] = []
        item = put(rig, envelope_of(b"", b"a@example.org"))
        item.shard, item.body = orphan, None
        rig.spool.open_body(item, lambda body, error: bodies.append((body, error)))
        rig.spool.settle(item, None, 0.0, False, errors.append)
        rig.run_until(lambda: len(done) == 2 and bool(bodies) and bool(errors))
        assert len(done[0].changed) == 1
        assert isinstance(done[1].error, ShardClosedError)
        assert isinstance(errors[0], ShardClosedError)
        assert bodies[0][0] is None
        rig.wait_for_thread()  # it is still there
        assert not [text for level, text in rig.reports if level == "error"]
