"""Mail for many next hops at once: one that hangs holds up no other's, takes a bounded share of memory, and loses nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from delivery_rig import Bench

from smtpd.delivery import scheduler as scheduler_module
from smtpd.delivery.router import Router
from smtpd.delivery.scheduler import Scheduler
from smtpd.mail.outcome import DEFERRED, DELIVERED, Outcome
from smtpd.metrics.slab import CellIndex, Slabs
from smtpd.settings import RouteSettings
from smtpd.spool.item import Body, SpoolItem
from smtpd.transports.base import Done, LocalTransport

OK = Outcome(DELIVERED, 250, "2.0.0", "ok", "fake")
SHUT = Outcome(DEFERRED, 0, "4.3.2", "this host is shutting down", "none")


class Relay(LocalTransport):
    """A relaying transport whose next hops hang, one for each domain: `answer` and `close` give outcomes."""

    name = "smtp"
    needs_body = True

    def __init__(self, is_per_domain: bool) -> None:
        self.is_per_domain = is_per_domain
        self.windows: dict[str, int] = {}
        self.hanging: dict[str, deque[tuple[SpoolItem, list[int], Done]]] = {}
        self.hung_keys: set[str] = set()
        self.delivered: list[tuple[str, str, list[int]]] = []
        self.is_closed = False

    def window(self, key: str) -> int:
        return self.windows.get(key, 5)

    def deliver(self, item: SpoolItem, body: Body, recipients: list[int], done: Done, key: str = "") -> None:
        assert body.data is not None
        if key in self.hung_keys:
            self.hanging.setdefault(key, deque()).append((item, list(recipients), done))
            assert len(self.hanging[key]) <= self.window(key)
        else:
            self.delivered.append((item.queue_id, key, list(recipients)))
            done([OK] * len(recipients), 0.0)

    def answer(self, key: str, outcome: Outcome = OK, count: int = 1) -> None:
        for _ in range(count):
            _, recipients, done = self.hanging[key].popleft()
            done([outcome] * len(recipients), 0.0)

    def close(self) -> None:
        self.is_closed = True
        for key in self.hanging:
            self.answer(key, SHUT, len(self.hanging[key]))


class HopsBench(Bench):
    """A bench with the routes "mx" (each domain for itself) and "store" (domain store.example)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **delivery: Any) -> None:
        super().__init__(monkeypatch, **delivery)
        self.mx = Relay(is_per_domain=True)
        self.to_store = Relay(is_per_domain=False)
        relays = {"mx": self.mx, "store": self.to_store}
        monkeypatch.setattr("smtpd.delivery.scheduler.make_transport", lambda route, *_: relays[route.name])
        routes = [
            RouteSettings(domains=["store.example"], transport="lmtp", name="store", next_hop=["127.0.0.1:24"]),
            RouteSettings(domains=["*"], transport="smtp", name="mx", next_hop=["mx:"]),
        ]
        index = CellIndex()
        index.prepare(routes=["store", "mx"])
        slabs = Slabs(index)
        cells = slabs.cells(slabs.take_bank(0), 0)
        self.scheduler = Scheduler(
            self.loop, None, self.spool, Router(routes), self.settings, cells, index, self.log,  # type: ignore[arg-type]
        )  # fmt: skip

    @property
    def memory(self) -> int:
        """Octets of bodies that mails in the scheduler's hands hold, each counted once."""
        return self.scheduler._body_bytes

    def kept_bodies(self) -> int:
        """The same, as it is found in the mails."""
        attempts = {attempt for lane in self.scheduler.lanes for attempt in lane.active}
        return sum(len(attempt.item.body.data or b"") for attempt in attempts if attempt.item.body is not None)


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Callable[..., HopsBench]:
    return lambda **delivery: HopsBench(monkeypatch, **delivery)


def start(bench: HopsBench) -> None:
    bench.scheduler.start()
    bench.loop.run_ready()


def test_one_domain_that_hangs_holds_up_no_other(make: Callable[..., HopsBench]) -> None:
    bench = make()
    bench.mx.hung_keys = {"hung.example"}
    for _ in range(50):
        bench.send(b"a@hung.example")
    for number in range(20):
        bench.send(b"a@d%d.example" % number)
        bench.send(b"a@store.example")
    assert len(bench.mx.hanging["hung.example"]) == 5
    assert len(bench.mx.delivered) == 20
    assert len(bench.to_store.delivered) == 20
    assert bench.to_store.delivered[0][1] == ""  # one destination, whatever the domain


def test_what_waits_for_one_that_hangs_is_sent_in_order_when_it_answers(make: Callable[..., HopsBench]) -> None:
    bench = make()
    bench.mx.hung_keys = {"hung.example"}
    rows = [bench.send(b"a@hung.example") for _ in range(12)]
    bench.mx.hung_keys = set()
    bench.mx.answer("hung.example", count=5)
    bench.loop.run_ready()
    assert [queue_id for queue_id, _, _ in bench.mx.delivered] == [row.item.queue_id for row in rows[5:]]
    assert bench.spool.rows == {}
    assert bench.memory == 0


def test_claimed_mail_of_a_domain_that_hangs_waits_apart_too(make: Callable[..., HopsBench]) -> None:
    bench = make()
    start(bench)
    bench.mx.hung_keys = {"hung.example"}
    for number in range(700):
        bench.store(b"a@hung.example", due_s=bench.loop.wall_s - 1000 + number)
    for number in range(30):
        bench.store(b"a@d%d.example" % number, due_s=bench.loop.wall_s - 1)
    bench.loop.advance(10.0)
    assert len(bench.mx.delivered) == 30
    assert len(bench.mx.hanging["hung.example"]) == 5
    assert bench.scheduler._waiting_count <= 500
    bench.mx.hung_keys = set()
    bench.mx.answer("hung.example", count=5)
    bench.loop.advance(400.0)
    assert bench.spool.rows == {}
    assert bench.scheduler._claimed_count == 0


def test_fresh_mail_beyond_what_may_wait_returns_to_the_spool_and_comes_back(make: Callable[..., HopsBench]) -> None:
    bench = make()
    bench.mx.hung_keys = {"hung.example"}
    for _ in range(2600):
        bench.send(b"a@hung.example", body=b"x\r\n")
    assert bench.scheduler._waiting_count == 2500
    back = [row for row in bench.spool.rows.values() if row.due_s is not None]
    assert len(back) == 95
    assert all(row.attempts == 0 for row in back)  # nobody has tried
    bench.send(b"a@fine.example")
    assert bench.mx.delivered[-1][1] == "fine.example"
    bench.mx.hung_keys = set()
    bench.mx.answer("hung.example", count=5)
    start(bench)
    bench.loop.advance(120.0)
    assert bench.spool.rows == {}


def test_bodies_that_wait_take_no_more_memory_than_they_may(make: Callable[..., HopsBench]) -> None:
    bench = make(memory=100_000)
    bench.mx.hung_keys = {f"h{number}.example" for number in range(10)}
    for number in range(200):
        bench.send(b"a@h%d.example" % (number % 10), body=b"x" * 10_000)
    assert bench.memory <= 100_000 + 10 * 5 * 10_000  # what is under way beside what waits
    assert bench.kept_bodies() == bench.memory
    bench.send(b"a@fine.example", body=b"x" * 10_000)
    assert bench.mx.delivered[-1][1] == "fine.example"
    for key in bench.mx.hung_keys:
        bench.mx.answer(key, count=5)
    bench.mx.hung_keys, hung = set(), bench.mx.hung_keys
    for key in hung:
        bench.mx.answer(key, count=len(bench.mx.hanging[key]))
    bench.loop.run_ready()
    assert bench.spool.rows == {}
    assert (bench.memory, bench.kept_bodies()) == (0, 0)


def test_a_mail_that_is_half_delivered_keeps_no_body_that_is_not_paid_for(make: Callable[..., HopsBench]) -> None:
    bench = make(memory=50_000)
    bench.mx.hung_keys = {"hung.example"}
    for _ in range(300):
        bench.send(b"a@fine.example", b"b@hung.example", body=b"x" * 10_000)
    assert len(bench.mx.delivered) == 300
    assert bench.kept_bodies() <= 50_000 + 5 * 10_000
    bench.mx.hung_keys = set()
    bench.mx.answer("hung.example", count=5)
    bench.loop.run_ready()
    assert bench.spool.rows == {}
    assert (bench.memory, bench.kept_bodies()) == (0, 0)


def test_a_body_stays_for_the_next_share_while_the_mail_is_being_shared_out(make: Callable[..., HopsBench]) -> None:
    bench = make()
    bench.send(b"a@one.example", b"b@two.example", b"c@three.example")
    assert [key for _, key, _ in bench.mx.delivered] == ["one.example", "two.example", "three.example"]
    assert bench.spool.opened == []


def test_each_domain_is_a_share_of_its_own_and_its_outcome_its_own(make: Callable[..., HopsBench]) -> None:
    bench = make()
    bench.mx.hung_keys = {"hung.example"}
    row = bench.send(b"a@one.example", b"b@hung.example", b"c@one.example", b"d@store.example", b"e@hung.example")
    assert bench.mx.delivered == [("Q1", "one.example", [0, 2])]
    assert bench.to_store.delivered == [("Q1", "", [3])]
    assert row.outcomes is None  # it isn't settled before all have answered
    bench.mx.answer("hung.example", Outcome(DEFERRED, 450, "4.2.0", "later", "h"))
    assert [outcome.status for outcome in row.outcomes or ()] == [DELIVERED, DEFERRED, DELIVERED, DELIVERED, DEFERRED]
    bench.mx.hung_keys = set()
    start(bench)
    bench.loop.advance(400.0)
    assert bench.mx.delivered[1:] == [("Q1", "hung.example", [1, 4])]
    assert bench.spool.rows == {}


def test_destinations_without_mail_are_forgotten(make: Callable[..., HopsBench]) -> None:
    bench = make()
    start(bench)
    bench.mx.hung_keys = {"d7.example"}
    for number in range(100):
        bench.send(b"a@d%d.example" % number)
    bench.loop.advance(2.0)
    lane = next(lane for lane in bench.scheduler.lanes if lane.name == "mx")
    assert list(lane.destinations) == ["d7.example"]
    bench.mx.answer("d7.example")
    bench.loop.advance(2.0)
    assert lane.destinations == {}


def test_mail_of_a_suspended_lane_is_put_off_also_what_waits_already(make: Callable[..., HopsBench]) -> None:
    bench = make()
    start(bench)
    bench.mx.hung_keys = {"hung.example"}
    rows = [bench.send(b"a@hung.example") for _ in range(8)]
    lane = next(lane for lane in bench.scheduler.lanes if lane.name == "mx")
    lane.is_suspended = True
    bench.send(b"a@store.example")
    bench.loop.advance(1.5)
    assert len(bench.to_store.delivered) == 1
    waiting = [row for row in rows if row.outcomes is not None]
    assert len(waiting) == 3  # those under way end as they end
    assert all("suspended" in (row.outcomes or [OK])[0].text for row in waiting)
    bench.mx.answer("hung.example", count=5)
    lane.is_suspended = False
    bench.mx.hung_keys = set()
    bench.loop.advance(400.0)
    assert bench.spool.rows == {}


def test_a_window_that_grows_by_itself_is_seen_without_any_event(make: Callable[..., HopsBench]) -> None:
    bench = make()
    start(bench)
    bench.mx.hung_keys = {"hung.example"}
    for _ in range(20):
        bench.send(b"a@hung.example")
    bench.mx.windows["hung.example"] = 9
    bench.loop.advance(1.5)
    assert len(bench.mx.hanging["hung.example"]) == 9


def test_no_more_under_way_than_the_configured_number_over_all_destinations(make: Callable[..., HopsBench]) -> None:
    bench = make(concurrency=20)
    bench.mx.hung_keys = {f"h{number}.example" for number in range(10)}
    for number in range(100):
        bench.send(b"a@h%d.example" % (number % 10))
    assert sum(map(len, bench.mx.hanging.values())) == 20
    assert {len(hanging) for hanging in bench.mx.hanging.values()} == {2}  # in turn, none more than others


def test_abandon_gives_all_under_way_an_outcome_and_starts_nothing_new(make: Callable[..., HopsBench]) -> None:
    bench = make()
    start(bench)
    bench.mx.hung_keys = {"hung.example"}
    rows = [bench.send(b"a@hung.example") for _ in range(12)]
    drained: list[bool] = []
    bench.scheduler.drain(lambda: drained.append(True))
    assert not drained
    bench.scheduler.abandon()
    assert drained == [True]
    assert [row.due_s is not None for row in rows] == [True] * 5 + [False] * 7  # the rest is due at the next start
    assert bench.mx.is_closed


def test_connections_that_were_kept_are_closed_when_all_is_done(make: Callable[..., HopsBench]) -> None:
    bench = make()
    drained: list[bool] = []
    bench.scheduler.drain(lambda: drained.append(True))
    assert drained == [True]
    assert bench.mx.is_closed
    assert bench.to_store.is_closed


def test_a_destination_has_its_first_delivery_however_many_hang_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, concurrency=2)
    hung, good = bench.transports["first"], bench.transports["second"]
    hung.is_slow = True
    for _ in range(5):
        bench.send(b"a@example.org")
    for _ in range(3):
        bench.send(b"b@example.net")
    assert (len(hung.tried), len(good.tried)) == (2, 3)


def test_due_mail_is_claimed_behind_backlogs_of_destinations_that_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler_module, "_CLAIMED_MAX", 40)
    bench = Bench(monkeypatch)
    bench.transports["first"].is_slow = True
    bench.transports["first"].room = 10
    for _ in range(150):
        bench.store(b"a@example.org", due_s=bench.loop.wall_s - 100)
    late = bench.store(b"b@example.net", due_s=bench.loop.wall_s - 1)
    bench.scheduler.start()
    bench.loop.advance(30.0)
    assert late.item.row not in bench.spool.rows
    assert len(bench.transports["first"].tried) == 10


def test_deliveries_that_hang_by_the_thousand_take_a_bounded_share_of_everything(make: Callable[..., HopsBench]) -> None:
    bench = make(concurrency=10, memory=100_000)
    bench.mx.hung_keys = {f"h{number}.example" for number in range(1000)}
    for number in range(1000):
        bench.send(b"a@h%d.example" % number, body=b"x" * 10_000)
    assert sum(map(len, bench.mx.hanging.values())) == 20
    assert bench.memory <= 8 * 100_000
    assert bench.kept_bodies() == bench.memory
