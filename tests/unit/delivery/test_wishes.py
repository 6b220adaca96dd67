"""Queue commands about mail at work: what is wanted of it is done when it is settled, and the figures stay right."""

import pytest
from delivery_rig import Bench, Row, defer

from smtpd.mail.outcome import DELIVERED, UNDELIVERABLE, Outcome
from smtpd.spool.change import DELETE, FLUSH, HOLD, RELEASE, REQUEUE, Changed, changed_mail
from smtpd.spool.query import QueuedMail


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    bench = Bench(monkeypatch)
    bench.scheduler.start()
    return bench


def messages(bench: Bench, state: str) -> float:
    return bench.gauge("smtpd_queue_messages", route="first", state=state)


def send_slowly(bench: Bench) -> Row:
    bench.transports["first"].is_slow = True
    return bench.send()


@pytest.mark.parametrize("is_delivered", [True, False])
def test_a_hold_during_delivery_is_not_undone_by_the_settlement(bench: Bench, is_delivered: bool) -> None:
    if not is_delivered:
        bench.transports["first"].answer = defer()
    row = send_slowly(bench)
    assert bench.scheduler.wishes.wish(["Q1", "Q9"], HOLD) == {"Q1"}
    bench.transports["first"].finish()
    if is_delivered:
        assert bench.spool.rows == {}
    else:
        assert (row.is_held, row.due_s, row.attempts) == (True, None, 1)
        assert row.outcomes is not None
        assert row.outcomes[0].text == "try later"
        assert (messages(bench, "held"), messages(bench, "active"), messages(bench, "deferred")) == (1, 0, 0)
        assert bench.log.named("held")
    assert bench.scheduler.wishes.pending == {}


def test_a_hold_that_is_released_in_time_is_forgotten(bench: Bench) -> None:
    bench.transports["first"].answer = defer()
    row = send_slowly(bench)
    bench.scheduler.wishes.wish(["Q1"], HOLD)
    bench.scheduler.wishes.wish(["Q1"], RELEASE)
    bench.transports["first"].finish()
    assert not row.is_held


def test_a_delete_during_delivery_removes_what_is_left(bench: Bench) -> None:
    bench.transports["first"].answer = defer()
    send_slowly(bench)
    assert bench.scheduler.wishes.wish(["Q1"], DELETE) == {"Q1"}
    assert len(bench.spool.rows) == 1
    bench.transports["first"].finish()
    assert bench.spool.rows == {}
    assert [messages(bench, state) for state in ("active", "deferred", "held")] == [0, 0, 0]


def test_a_requeue_during_delivery_starts_anew_with_what_is_left(bench: Bench) -> None:
    bench.transports["first"].is_slow = True
    bench.transports["first"].answer = lambda path: (
        Outcome(DELIVERED, 250, "2.0.0", "ok", "fake")
        if path.startswith(b"a")
        else Outcome(UNDELIVERABLE, 550, "5.1.1", "no", "fake")
    )
    row = bench.send(b"a@example.org", b"b@example.org")
    bench.scheduler.wishes.wish([row.item.queue_id], REQUEUE)
    bench.transports["first"].finish()
    assert row.outcomes is not None
    assert [outcome.status for outcome in row.outcomes] == [DELIVERED, 0]
    assert (row.attempts, row.is_held) == (0, False)
    assert row.due_s is not None
    assert row.due_s <= bench.loop.wall_s


@pytest.mark.parametrize("action", [HOLD, DELETE, REQUEUE])
@pytest.mark.parametrize("is_claimed", [False, True])
def test_mail_that_waits_for_its_turn_goes_back_at_once(monkeypatch: pytest.MonkeyPatch, action: str, is_claimed: bool) -> None:
    bench = Bench(monkeypatch, concurrency=1)
    bench.transports["second"].room = 0
    bench.scheduler.start()
    first = send_slowly(bench)
    paths = (b"a@example.org", b"b@example.net")
    if is_claimed:
        second = bench.store(*paths, due_s=bench.loop.wall_s)
        bench.loop.advance(1)
    else:
        second = bench.send(*paths)
    third = bench.send()
    assert bench.scheduler.wishes.wish([first.item.queue_id, second.item.queue_id], action) == {first.item.queue_id}
    assert second.due_s is not None  # the spool may change it now
    assert second.due_s > bench.loop.wall_s
    assert [messages(bench, state) for state in ("active", "deferred", "held")] == [3, 0, 0]
    assert bench.scheduler.wishes.pending == {first.item.queue_id: action}
    second.due_s = None
    bench.transports["first"].finish()
    bench.loop.run_ready()
    assert [queue_id for queue_id, _, _ in bench.transports["first"].tried] == [first.item.queue_id, third.item.queue_id]
    assert bench.transports["second"].tried == []
    bench.transports["first"].finish()
    assert bench.scheduler._body_bytes == 0
    assert bench.scheduler._claimed_count == 0


def test_a_wish_for_what_waits_of_a_mail_at_work_is_done_before_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, concurrency=1)
    bench.scheduler.start()
    bench.transports["first"].answer = defer()
    bench.transports["first"].is_slow = True
    bench.transports["second"].room = 0
    mail = bench.send(b"a@example.org", b"b@example.net")
    assert bench.scheduler.wishes.wish([mail.item.queue_id], HOLD) == {mail.item.queue_id}
    drained: list[bool] = []
    bench.scheduler.drain(lambda: drained.append(True))
    assert bench.transports["second"].tried == []
    assert drained == []
    bench.transports["first"].finish()
    assert mail.is_held
    assert drained == [True]


def queued(row: Row, state: str) -> QueuedMail:
    item = row.item
    return QueuedMail(item.row, item.queue_id, state, item.size_bytes, row.attempts, row.due_s, item.envelope, row.outcomes, "")


def test_the_figures_follow_a_change(bench: Bench) -> None:
    bench.transports["first"].answer = defer()
    row = bench.send()
    assert messages(bench, "deferred") == 1
    before = queued(row, "deferred")
    shard = bench.spool.shards[0]
    held = changed_mail(before, HOLD, bench.loop.wall_s)
    assert held is not None
    bench.scheduler.wishes.changed(shard, [Changed(before, held)])
    assert [messages(bench, state) for state in ("active", "deferred", "held")] == [0, 0, 1]
    released = changed_mail(held, RELEASE, bench.loop.wall_s)
    bench.scheduler.wishes.changed(shard, [Changed(held, released)])
    assert [messages(bench, state) for state in ("active", "deferred", "held")] == [0, 1, 0]
    assert released is not None
    anew = changed_mail(released, REQUEUE, bench.loop.wall_s)
    bench.scheduler.wishes.changed(shard, [Changed(released, anew)])
    assert [messages(bench, state) for state in ("active", "deferred", "held")] == [1, 0, 0]
    assert anew is not None
    bench.scheduler.wishes.changed(shard, [Changed(anew, None)])
    assert [messages(bench, state) for state in ("active", "deferred", "held")] == [0, 0, 0]


def test_what_the_census_has_not_seen_yet_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    row = bench.store(attempts=1, outcomes=[Outcome()], due_s=bench.loop.wall_s + 100)
    bench.spool.is_slow = True
    bench.scheduler.start()
    before = queued(row, "deferred")
    after = changed_mail(before, HOLD, 0.0)
    bench.scheduler.wishes.changed(bench.spool.shards[0], [Changed(before, after)])
    row.is_held = True
    bench.spool.answer()
    assert messages(bench, "deferred") + messages(bench, "held") == 1


def test_a_flushed_mail_is_tried_and_an_expired_one_that_is_released_gets_one_attempt(bench: Bench) -> None:
    bench.transports["first"].answer = defer()
    row = bench.send()
    bench.loop.advance(4000)  # beyond the lifetime
    assert row.is_held
    held = queued(row, "held")
    released = changed_mail(held, RELEASE, bench.loop.wall_s)
    assert released is not None
    row.is_held, row.due_s, row.outcomes = False, released.due_s, released.outcomes
    tried = len(bench.transports["first"].tried)
    bench.scheduler.wishes.changed(bench.spool.shards[0], [Changed(held, released)])
    bench.loop.run_ready()
    assert len(bench.transports["first"].tried) == tried + 1
    assert row.is_held
    assert changed_mail(queued(row, "held"), FLUSH, 0.0) is None


# --- suspended routes ------------------------------------------------------------------------------------------------


def test_mail_of_a_suspended_route_is_put_off_and_other_mail_is_not(bench: Bench) -> None:
    first, second = bench.scheduler.lanes
    first.is_suspended = True
    row = bench.send(b"a@example.org", b"b@example.net")
    assert bench.transports["first"].tried == []
    assert len(bench.transports["second"].tried) == 1
    assert row.outcomes is not None
    assert [(outcome.status, outcome.dsn) for outcome in row.outcomes] == [(2, "4.3.2"), (1, "2.0.0")]
    assert row.outcomes[0].text == "deliveries by route first are suspended"
    assert second.name == "second"


def test_no_lifetime_ends_at_a_suspended_route(bench: Bench) -> None:
    bench.scheduler.lanes[0].is_suspended = True
    row = bench.send()
    bench.loop.advance(8000)
    assert not row.is_held
    bench.scheduler.lanes[0].is_suspended = False
    bench.loop.advance(1000)
    assert bench.spool.rows == {}
