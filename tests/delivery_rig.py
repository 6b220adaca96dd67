"""A scheduler with everything around it replaced by stand-ins that tests can drive: clock, loop, spool, transport, log."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from smtpd.delivery import attempt as attempt_module
from smtpd.delivery import scheduler as scheduler_module
from smtpd.delivery.bounce import reports as reports_module
from smtpd.delivery.router import Router
from smtpd.delivery.scheduler import Scheduler
from smtpd.errors import SpoolError
from smtpd.mail.envelope import Envelope, Recipient
from smtpd.mail.outcome import DEFERRED, DELIVERED, Outcome
from smtpd.metrics.slab import CellIndex, Slabs
from smtpd.settings import BounceSettings, DeliverySettings, LogSettings, RouteSettings, Settings
from smtpd.spool.base import NewMail
from smtpd.spool.item import Body, SpoolItem
from smtpd.spool.query import QueuedMail
from smtpd.transports.base import Done, LocalTransport

START_S = 1_700_000_000.0


class FakeTimer:
    def __init__(self, fn: Callable[[], object]) -> None:
        self.fn: Callable[[], object] | None = fn

    def cancel(self) -> None:
        self.fn = None


class FakeLoop:
    """Time stands still unless `advance` is called."""

    def __init__(self) -> None:
        self.wall_s = START_S
        self.now = 0.0
        self._timers: list[tuple[float, int, FakeTimer]] = []
        self._count = 0
        self._ready: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()

    def time(self) -> float:
        return self.wall_s

    def call_later(self, delay_s: float, fn: Callable[[], object]) -> FakeTimer:
        timer = FakeTimer(fn)
        self._count += 1
        heapq.heappush(self._timers, (self.now + delay_s, self._count, timer))
        return timer

    def ready(self, fn: Callable[..., object], *args: Any) -> None:
        self._ready.append((fn, args))

    def run_ready(self) -> None:
        while self._ready:
            fn, args = self._ready.popleft()
            fn(*args)

    def advance(self, seconds: float) -> None:
        """Let time pass, timers included."""
        end_s = self.now + seconds
        self.run_ready()
        while self._timers and self._timers[0][0] <= end_s:
            at_s, _, timer = heapq.heappop(self._timers)
            self.wall_s += at_s - self.now
            self.now = at_s
            if timer.fn is not None:
                timer.fn()
            self.run_ready()
        self.wall_s += end_s - self.now
        self.now = end_s


@dataclass
class Row:
    """A mail as a spool would store it."""

    item: SpoolItem
    body: bytes
    attempts: int = 0
    outcomes: list[Outcome] | None = None
    due_s: float | None = None
    is_held: bool = False


@dataclass(eq=False)
class FakeShard:
    next_row: int = 1
    number: int = 0
    count: int = 0
    next_due_s: float | None = None


@dataclass
class FakeSpool:
    """Keeps rows in a dictionary; answers at once unless `is_slow`, then by `answer`."""

    rows: dict[int, Row] = field(default_factory=dict)
    settle_error: SpoolError | None = None
    body_error: SpoolError | None = None
    is_slow: bool = False
    claims: list[tuple[int, float]] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    is_full: bool = False
    made_ids: int = 0

    def __post_init__(self) -> None:
        self.shards = [FakeShard()]
        self._answers: deque[Callable[[], None]] = deque()

    def _answer(self, fn: Callable[[], None]) -> None:
        if self.is_slow:
            self._answers.append(fn)
        else:
            fn()

    def answer(self) -> None:
        while self._answers:
            self._answers.popleft()()

    def claim(
        self,
        limit: int,
        now_s: float,
        done: Callable[[list[SpoolItem], SpoolError | None], None],
        not_before_s: float = 0.0,
    ) -> None:
        self.claims.append((limit, now_s))
        due = sorted(
            (row for row in self.rows.values() if row.due_s is not None and not_before_s <= row.due_s <= now_s),
            key=lambda row: row.due_s or 0.0,
        )
        items = []
        for row in due[:limit]:
            row.due_s = None
            item = SpoolItem(row.item.queue_id, row.item.envelope, row.item.size_bytes, row.item.row, row.item.shard)
            item.attempts = row.attempts
            item.outcomes = list(row.outcomes) if row.outcomes is not None else None
            items.append(item)
        self._answer(lambda: done(items, None))

    def next_due_s(self) -> float | None:
        return min((row.due_s for row in self.rows.values() if row.due_s is not None), default=None)

    def open_body(self, item: SpoolItem, done: Callable[[Body | None, SpoolError | None], None]) -> None:
        if item.body is not None:
            done(item.body, None)
            return
        self.opened.append(item.queue_id)
        data = self.rows[item.row].body
        error = self.body_error
        self._answer(lambda: done(None, error) if error else done(Body(data, "", len(data)), None))

    def settle(
        self,
        item: SpoolItem,
        outcomes: list[Outcome] | None,
        due_s: float,
        is_held: bool,
        done: Callable[[SpoolError | None], None],
        new: Sequence[NewMail] = (),
        on_new: Callable[[SpoolItem], object] = lambda item: None,
    ) -> None:
        error = self.settle_error
        items: list[SpoolItem] = []
        if error is None:
            items = [self._insert(mail) for mail in new]
            row = self.rows[item.row]
            if outcomes is None:
                del self.rows[item.row]
            else:
                assert len(outcomes) == len(item.envelope.recipients)
                row.outcomes, row.attempts, row.is_held = list(outcomes), item.attempts, is_held
                row.due_s = None if is_held else due_s

        def answer() -> None:
            for item in items:
                on_new(item)
            done(error)

        self._answer(answer)

    def _insert(self, mail: NewMail) -> SpoolItem:
        shard = self.shards[0]
        item = SpoolItem(mail.queue_id, mail.envelope, len(mail.data), shard.next_row, shard)
        shard.next_row += 1
        item.body = Body(mail.data, "", len(mail.data))
        self.rows[item.row] = Row(item, mail.data)
        return item

    def next_queue_id(self) -> str:
        self.made_ids += 1
        return f"NEW{self.made_ids}"

    def query(self, shard: Any, job: Callable[[Any], Any], done: Callable[[Any, SpoolError | None], object]) -> None:
        mails = [
            QueuedMail(
                row.item.row, row.item.queue_id, "held" if row.is_held else "active", row.item.size_bytes, row.attempts,
                row.due_s, row.item.envelope, row.outcomes, "",
            )
            for row in self.rows.values()
        ]  # fmt: skip
        self._answer(lambda: done(mails, None))


class FakeTransport(LocalTransport):
    """Answers as `answer(recipient)` says, at once or, when `is_slow`, by `finish`."""

    name = "fake"
    needs_body = True

    def __init__(self) -> None:
        self.answer: Callable[[bytes], Outcome] = lambda path: Outcome(DELIVERED, 250, "2.0.0", "ok", "fake")
        self.is_slow = False
        self.room = 1000
        self.tried: list[tuple[str, list[int], bytes | None]] = []
        self.waiting: deque[Callable[[], None]] = deque()

    def deliver(self, item: SpoolItem, body: Body, recipients: list[int], done: Done, key: str = "") -> None:
        self.tried.append((item.queue_id, list(recipients), body.data))
        outcomes = [self.answer(item.envelope.recipients[index].path) for index in recipients]
        if self.is_slow:
            self.waiting.append(lambda: done(outcomes, 0.0))
        else:
            done(outcomes, 0.0)

    def window(self, key: str) -> int:
        return self.room

    def finish(self, count: int = 1) -> None:
        for _ in range(count):
            self.waiting.popleft()()


class FakeLog:
    """Keeps what it is told as (method, arguments)."""

    def __init__(self) -> None:
        self.lines: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args: self.lines.append((name, *args))

    def named(self, name: str) -> list[tuple[Any, ...]]:
        return [line[1:] for line in self.lines if line[0] == name]


def defer(text: str = "try later") -> Callable[[bytes], Outcome]:
    return lambda path: Outcome(DEFERRED, 450, "4.2.0", text, "fake")


class Bench:
    """`send` accepts a mail as the worker does; `spool`, `loop`, `log` and `transports[name]` are the stand-ins."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        *,
        level: str = "info",
        spool: FakeSpool | None = None,
        bounce: BounceSettings | None = None,
        routes: list[RouteSettings] | None = None,
        **delivery: Any,
    ) -> None:
        self.loop = FakeLoop()
        self.spool = spool or FakeSpool()
        self.log = FakeLog()
        self.transports: dict[str, FakeTransport] = {}
        monkeypatch.setattr(scheduler_module, "time", self.loop)
        monkeypatch.setattr(attempt_module, "time", self.loop)
        monkeypatch.setattr(reports_module, "time", self.loop)
        monkeypatch.setattr(scheduler_module, "make_transport", self._make_transport)
        self.settings = Settings(
            hostname="mx.example.net",
            route=routes
            or [
                RouteSettings(domains=["example.org"], transport="discard", name="first"),
                RouteSettings(domains=["example.net"], transport="discard", name="second"),
            ],
            bounce=bounce or BounceSettings(),
            delivery=DeliverySettings(**{"retry": [300.0, 600.0], "lifetime": 3600.0, **delivery}),
            log=LogSettings(level=level),
        )
        index = CellIndex()
        index.prepare(routes=[*(route.name for route in self.settings.route), "bounce"])
        slabs = Slabs(index)
        self.cells = slabs.cells(slabs.take_bank(0), 0)
        self.index = index
        router = Router(self.settings.route, self.settings.bounce)
        self.scheduler = Scheduler(
            self.loop, None, self.spool, router, self.settings, self.cells, index, self.log,  # type: ignore[arg-type]
        )  # fmt: skip

    def _make_transport(self, route: Any, settings: Any, files: Any, relay: Any) -> FakeTransport:
        return self.transports.setdefault(route.name, FakeTransport())

    def store(self, *paths: bytes, body: bytes = b"text\r\n", received_at_s: float | None = None, **row: Any) -> Row:
        """Put a mail into the spool, leased by nobody unless `due_s` says otherwise."""
        number = self.spool.shards[0].next_row
        self.spool.shards[0].next_row += 1
        recipients = [Recipient(path, path.rpartition(b"@")[2].decode()) for path in paths or (b"a@example.org",)]
        at_s = self.loop.wall_s if received_at_s is None else received_at_s
        envelope = Envelope(b"s@example.com", recipients, "192.0.2.1", "unknown", b"h", "ESMTP", at_s)
        item = SpoolItem(f"Q{number}", envelope, len(body), number, self.spool.shards[0])
        self.spool.rows[number] = stored = Row(item, body, **row)
        return stored

    def send(self, *paths: bytes, body: bytes = b"text\r\n", notify: Sequence[int] = (), **envelope: Any) -> Row:
        """Accept a mail; `notify` of its recipients, other fields of its envelope by name."""
        row = self.store(*paths, body=body)
        for name, value in envelope.items():
            setattr(row.item.envelope, name, value)
        for recipient, bits in zip(row.item.envelope.recipients, notify, strict=False):
            recipient.notify = bits
        row.item.body = Body(body, "", len(body))
        self.scheduler.accepted(row.item)
        return row

    def counter(self, name: str, **labels: str) -> float:
        return self.cells.get(self.index.counter(name, **labels))

    def gauge(self, name: str, **labels: str) -> float:
        for lane in self.scheduler.lanes:
            lane.publish(self.loop.wall_s)
        return self.cells.get(self.index.gauge(name, **labels))
