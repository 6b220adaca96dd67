"""The scheduler with a clock that tests set, and a spool and transports that do as they say."""

from collections.abc import Callable
from typing import Any

import delivery_rig
import pytest
from delivery_rig import START_S, Bench, FakeSpool, defer

from smtpd.errors import ShardBrokenError, SpoolError
from smtpd.mail.outcome import DEFERRED, DELIVERED, PENDING, UNDELIVERABLE, Outcome

MakeBench = Callable[..., Any]


@pytest.fixture
def make_bench(monkeypatch: pytest.MonkeyPatch) -> MakeBench:
    return lambda **settings: Bench(monkeypatch, **settings)


def undeliverable(path: bytes) -> Outcome:
    return Outcome(UNDELIVERABLE, 550, "5.1.1", "no such user", "fake")


# --- fresh mail ------------------------------------------------------------------------------------------------------


def test_fresh_mail_is_delivered_from_memory_at_once_and_removed(make_bench: MakeBench) -> None:
    bench = make_bench()
    row = bench.send(b"a@example.org", b"b@example.org")
    assert bench.transports["first"].tried == [("Q1", [0, 1], b"text\r\n")]
    assert bench.spool.rows == {}
    assert bench.spool.opened == []
    assert row.item.body is None
    delivered = bench.log.named("delivered")
    assert [line[:3] for line in delivered] == [("Q1", b"a@example.org", "fake"), ("Q1", b"b@example.org", "fake")]
    assert delivered[0][3:] == (0.0, (0.0, 0.0, 0.0, 0.0), "2.0.0", "sent", "250 2.0.0 ok", "fake")
    assert bench.log.named("removed") == [("Q1",)]
    assert bench.counter("smtpd_delivery_attempts_total", route="first", result="delivered") == 2


def test_delays_say_where_the_time_went(make_bench: MakeBench) -> None:
    bench = make_bench(concurrency=1)
    transport = bench.transports["first"]
    transport.is_slow = True
    bench.send()
    row = bench.store()
    bench.loop.wall_s += 1.0  # in the commit
    row.item.body = delivery_rig.Body(b"", "", 0)
    bench.scheduler.accepted(row.item)
    bench.loop.wall_s += 2.0  # waiting for the first
    transport.finish()
    bench.loop.wall_s += 4.0  # on its way
    transport.finish()
    assert bench.log.named("delivered")[1][3:5] == (7.0, (1.0, 2.0, 0.0, 4.0))


def test_recipients_of_one_route_travel_together_and_routes_apart(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.transports["second"].answer = defer()
    row = bench.send(b"a@example.org", b"b@example.net", b"c@example.org", b"d@nowhere.example")
    assert bench.transports["first"].tried == [("Q1", [0, 2], b"text\r\n")]
    assert bench.transports["second"].tried == [("Q1", [1], b"text\r\n")]
    assert [outcome.status for outcome in row.outcomes] == [DELIVERED, DEFERRED, DELIVERED, DEFERRED]
    assert [outcome.attempts for outcome in row.outcomes] == [1, 1, 1, 1]
    assert (row.outcomes[3].dsn, row.outcomes[3].text) == ("4.4.4", "no route for this domain")
    assert row.attempts == 1


def test_a_mail_without_any_route_stays_deferred(make_bench: MakeBench) -> None:
    bench = make_bench()
    row = bench.send(b"d@nowhere.example")
    assert row.outcomes[0].dsn == "4.4.4"
    assert row.due_s == pytest.approx(START_S + 300, abs=31)
    assert bench.log.named("delivered")[0][2:] == (
        "none", 0.0, (0.0, 0.0, 0.0, 0.0), "4.4.4", "deferred", "no route for this domain", "error",
    )  # fmt: skip


def test_no_more_than_the_configured_number_at_once(make_bench: MakeBench) -> None:
    bench = make_bench(concurrency=3)
    transport = bench.transports["first"]
    transport.is_slow = True
    for _ in range(10):
        bench.send()
    assert len(transport.tried) == 3
    transport.finish()
    assert len(transport.tried) == 4
    transport.finish(9)
    assert bench.spool.rows == {}
    assert [queue_id for queue_id, _, _ in transport.tried] == [f"Q{number}" for number in range(1, 11)]


def test_quick_transports_do_not_nest(make_bench: MakeBench) -> None:
    bench = make_bench(concurrency=1)
    transport = bench.transports["first"]
    transport.is_slow = True
    for _ in range(2000):
        bench.send()
    transport.is_slow = False
    transport.finish()  # all the others follow
    bench.loop.run_ready()
    assert bench.spool.rows == {}
    assert len(transport.tried) == 2000


def test_bodies_over_the_memory_budget_are_dropped_and_read_back(make_bench: MakeBench) -> None:
    bench = make_bench(concurrency=1, memory=200)  # of which one destination may have half
    transport = bench.transports["first"]
    transport.is_slow = True
    rows = [bench.send(body=b"x" * 40) for _ in range(6)]
    assert [row.item.body is not None for row in rows] == [True, True, False, False, False, False]
    transport.finish(6)
    assert bench.spool.opened == ["Q3", "Q4", "Q5", "Q6"]
    assert [data for _, _, data in transport.tried] == [b"x" * 40] * 6
    assert bench.spool.rows == {}
    assert bench.scheduler._body_bytes == 0


def test_a_mail_larger_than_the_budget_is_delivered_alone(make_bench: MakeBench) -> None:
    bench = make_bench(concurrency=4, memory=0)
    transport = bench.transports["first"]
    for _ in range(4):
        bench.store(due_s=START_S - 1, body=b"x" * 40)
    transport.is_slow = True
    bench.scheduler.start()
    assert len(transport.tried) == 1
    for _ in range(4):
        transport.finish()
    assert bench.spool.rows == {}


def test_mail_beyond_what_memory_holds_goes_back_and_comes_again(make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery_rig.scheduler_module, "_WAITING_MAX", 2)
    bench = make_bench(concurrency=1)
    transport = bench.transports["first"]
    bench.scheduler.start()
    transport.is_slow = True
    rows = [bench.send() for _ in range(5)]
    assert [row.due_s is not None for row in rows] == [False, False, False, True, True]
    assert all(START_S < (row.due_s or 0.0) <= START_S + 1.0 for row in rows[3:])
    assert [outcome.status for outcome in rows[4].outcomes] == [PENDING]
    assert bench.gauge("smtpd_queue_messages", route="first", state="active") == 5
    transport.is_slow = False
    transport.finish()
    bench.loop.advance(2.0)
    assert bench.spool.rows == {}
    assert bench.gauge("smtpd_queue_messages", route="first", state="active") == 0


# --- deferred mail ---------------------------------------------------------------------------------------------------


def test_a_deferred_mail_is_tried_again_when_it_is_due_and_only_for_who_is_left(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.scheduler.start()
    transport = bench.transports["first"]
    transport.answer = lambda path: defer()(path) if path == b"b@example.org" else Outcome(DELIVERED, 250, "2.0.0", "ok", "fake")
    row = bench.send(b"a@example.org", b"b@example.org")
    assert row.due_s == pytest.approx(START_S + 300, abs=30)
    assert bench.log.named("delivered")[1][5:] == ("4.2.0", "deferred", "host fake said: 450 4.2.0 try later", "fake")
    bench.loop.advance(260)
    assert len(transport.tried) == 1
    bench.loop.advance(75)
    assert transport.tried[1] == ("Q1", [1], b"text\r\n")
    assert [outcome.attempts for outcome in row.outcomes] == [1, 2]
    assert row.due_s == pytest.approx(bench.loop.wall_s + 600, abs=100)
    transport.answer = lambda path: Outcome(DELIVERED, 250, "2.0.0", "ok", "fake")
    bench.loop.advance(700)
    assert transport.tried[2] == ("Q1", [1], b"text\r\n")
    assert bench.spool.rows == {}
    assert bench.counter("smtpd_delivery_attempts_total", route="first", result="deferred") == 2
    assert len(bench.log.named("queued")) == 2  # the claims; the first time the worker says it


def test_a_mail_is_held_with_its_reason_when_its_lifetime_ends(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.scheduler.start()
    transport = bench.transports["first"]
    transport.answer = defer("disk full")
    row = bench.send()
    bench.loop.advance(3650)
    assert row.is_held
    assert row.due_s is None
    assert row.outcomes[0].status == DEFERRED
    assert row.outcomes[0].text == "expired, last: disk full"
    assert bench.log.named("held") == [("Q1", "expired, last: host fake said: 450 4.2.0 disk full (bounces are off)")]
    tried = len(transport.tried)
    assert bench.loop.wall_s - START_S >= 3600
    bench.loop.advance(10_000)
    assert len(transport.tried) == tried
    assert bench.gauge("smtpd_queue_messages", route="first", state="held") == 1
    assert bench.gauge("smtpd_queue_oldest_age_seconds", route="first", state="held") == pytest.approx(13_650, abs=10)


def test_undeliverable_recipients_are_held_once_nobody_is_deferred(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.scheduler.start()
    bench.transports["first"].answer = undeliverable
    bench.transports["second"].answer = defer()
    row = bench.send(b"a@example.org", b"b@example.net")
    assert not row.is_held
    bench.transports["second"].answer = lambda path: Outcome(DELIVERED, 250, "2.0.0", "ok", "fake")
    bench.loop.advance(400)
    assert row.is_held
    assert [outcome.status for outcome in row.outcomes] == [UNDELIVERABLE, DELIVERED]
    assert len(bench.transports["first"].tried) == 1
    assert bench.log.named("held") == [("Q1", "host fake said: 550 5.1.1 no such user (bounces are off)")]
    assert bench.log.named("delivered")[0][5:7] == ("5.1.1", "bounced")
    assert bench.counter("smtpd_delivery_attempts_total", route="first", result="bounced") == 1


def test_a_body_that_cannot_be_read_defers_the_mail(make_bench: MakeBench) -> None:
    bench = make_bench(spool=FakeSpool(body_error=SpoolError("spill file missing")))
    row = bench.store(due_s=START_S - 1)
    bench.scheduler.start()
    assert row.outcomes[0].text == "the stored message can't be read: spill file missing"
    assert (row.outcomes[0].status, row.outcomes[0].dsn) == (DEFERRED, "4.3.0")
    assert bench.transports["first"].tried == []
    assert bench.counter("smtpd_delivery_attempts_total", route="first", result="deferred") == 1


def test_due_mail_gets_its_share_while_fresh_mail_floods_in(make_bench: MakeBench) -> None:
    bench = make_bench(concurrency=8)
    transport = bench.transports["first"]
    transport.is_slow = True
    old = [bench.store(due_s=START_S - 1) for _ in range(6)]
    for _ in range(30):
        bench.send()
    bench.scheduler.start()
    for _ in range(40):
        transport.finish()
        bench.loop.advance(1.0)
        bench.send()
    assert [row for row in old if row.item.row in bench.spool.rows] == []


def test_claims_are_bounded_by_the_room_there_is(make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery_rig.scheduler_module, "_CLAIMED_MAX", 5)
    monkeypatch.setattr(delivery_rig.scheduler_module, "_SHARE_OF_ROOM", 0.1)  # one destination may have it all
    bench = make_bench(concurrency=5)
    bench.transports["first"].is_slow = True
    for _ in range(20):
        bench.store(due_s=START_S - 1)
    bench.scheduler.start()
    assert [limit for limit, _ in bench.spool.claims] == [5]
    bench.transports["first"].finish(2)
    bench.loop.advance(1.0)
    assert sum(limit for limit, _ in bench.spool.claims) == 7
    assert len(bench.transports["first"].tried) == 7


def test_mail_due_too_far_ahead_is_found_behind_mail_whose_time_is_right(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.transports["first"].answer = defer()
    bench.store(due_s=START_S + 86_400)
    bench.scheduler.start()
    bench.loop.advance(1.0)
    assert [queue_id for queue_id, _, _ in bench.transports["first"].tried] == ["Q1"]  # alone it is seen at once
    far = bench.store(due_s=START_S + 86_400)
    bench.loop.advance(70.0)
    assert [queue_id for queue_id, _, _ in bench.transports["first"].tried] == ["Q1", "Q2"]
    assert (far.due_s or START_S * 2) < START_S + 1000


def test_a_clock_set_back_by_a_day_does_not_strand_mail(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.scheduler.start()
    bench.transports["first"].answer = defer()
    bench.send()
    bench.transports["first"].answer = lambda path: Outcome(DELIVERED, 250, "2.0.0", "ok", "fake")
    bench.loop.wall_s -= 86_400
    bench.loop.advance(2.0)
    assert bench.spool.rows == {}


def test_mails_due_too_far_ahead_are_tried_once_and_not_again_and_again(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.scheduler.start()
    bench.transports["first"].answer = defer()
    for number in range(10):
        bench.store(due_s=START_S + 86_400 + number, attempts=1)
    bench.loop.advance(60.0)
    assert len(bench.transports["first"].tried) == 10
    assert all(START_S + 300 < (row.due_s or 0) < START_S + 1000 for row in bench.spool.rows.values())


def test_a_settlement_that_fails_is_reported_and_nothing_is_said_to_be_removed(make_bench: MakeBench) -> None:
    bench = make_bench(spool=FakeSpool(settle_error=ShardBrokenError("I/O error")))
    bench.send()
    assert bench.log.named("removed") == []
    [(component, text)] = bench.log.named("error")
    assert component == "queue"
    assert "Q1" in text
    assert "I/O error" in text


def test_a_quiet_log_is_not_asked_about_mails(make_bench: MakeBench) -> None:
    bench = make_bench(level="warning")
    bench.send()
    assert bench.log.lines == []


# --- figures, start and end ------------------------------------------------------------------------------------------


def test_the_queue_is_counted_at_the_start_before_anything_is_claimed(make_bench: MakeBench) -> None:
    spool = FakeSpool(is_slow=True)
    bench = make_bench(spool=spool)
    bench.store(b"a@example.org", b"b@example.net", due_s=START_S - 1, attempts=2, received_at_s=START_S - 500)
    bench.store(b"a@example.org", due_s=START_S + 600, attempts=1, body=b"x" * 1000, received_at_s=START_S - 100)
    bench.store(b"a@example.org", is_held=True, received_at_s=START_S - 4000)
    bench.scheduler.start()
    assert bench.spool.claims == []
    spool.is_slow = False
    spool.answer()
    assert len(bench.spool.claims) == 1
    assert bench.gauge("smtpd_queue_messages", route="first", state="deferred") == 1
    assert bench.gauge("smtpd_queue_bytes", route="first", state="deferred") == 1000
    assert bench.gauge("smtpd_queue_oldest_age_seconds", route="first", state="deferred") == pytest.approx(100, abs=10)
    assert bench.gauge("smtpd_queue_messages", route="second", state="deferred") == 0
    assert bench.gauge("smtpd_queue_messages", route="first", state="held") == 1
    assert bench.gauge("smtpd_queue_oldest_age_seconds", route="first", state="held") == pytest.approx(4000, abs=10)


def test_a_shard_that_is_taken_over_is_counted_too(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.scheduler.start()
    bench.spool.shards.append(delivery_rig.FakeShard(next_row=100))
    bench.store(is_held=True)
    bench.store(due_s=START_S + 0.5)
    bench.loop.advance(3.0)
    assert bench.gauge("smtpd_queue_messages", route="first", state="held") == 1
    assert bench.transports["first"].tried != []


def test_figures_return_to_zero(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.scheduler.start()
    bench.transports["first"].answer = defer()
    bench.transports["first"].is_slow = True
    bench.send(b"a@example.org", b"b@example.org", b"c@example.net")
    bench.loop.wall_s += 7
    assert bench.gauge("smtpd_queue_messages", route="first", state="active") == 1
    assert bench.gauge("smtpd_queue_messages", route="second", state="active") == 1
    assert bench.gauge("smtpd_queue_oldest_age_seconds", route="first", state="active") == 7
    bench.transports["first"].finish()
    assert bench.gauge("smtpd_queue_messages", route="first", state="deferred") == 1
    bench.transports["first"].is_slow = False
    bench.transports["first"].answer = lambda path: Outcome(DELIVERED, 250, "2.0.0", "ok", "fake")
    bench.loop.advance(400)
    for route in ("first", "second"):
        for state in ("active", "deferred", "held"):
            for what in ("messages", "bytes", "oldest_age_seconds"):
                assert bench.gauge(f"smtpd_queue_{what}", route=route, state=state) == 0, (route, state, what)


def test_drain_finishes_what_is_in_flight_and_leaves_the_rest(make_bench: MakeBench) -> None:
    bench = make_bench(concurrency=2)
    bench.scheduler.start()
    transport = bench.transports["first"]
    transport.is_slow = True
    rows = [bench.send() for _ in range(4)]
    ended: list[bool] = []
    bench.scheduler.drain(lambda: ended.append(True))
    late = bench.send()
    transport.finish()
    assert ended == []
    transport.finish()
    assert ended == [True]
    assert len(transport.tried) == 2
    assert list(bench.spool.rows) == [rows[2].item.row, rows[3].item.row, late.item.row]
    assert [row.due_s for row in bench.spool.rows.values()] == [None] * 3  # which a start takes for due
    bench.loop.advance(1000)
    assert len(transport.tried) == 2


def test_drain_of_an_idle_scheduler_ends_at_once(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.scheduler.start()
    ended: list[bool] = []
    bench.scheduler.drain(lambda: ended.append(True))
    assert ended == [True]
