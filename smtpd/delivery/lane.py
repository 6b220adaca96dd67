"""One route at work: its transport, its counters, and what of it is in the queue. Loop thread only.

The queue's figures are kept as they change, not counted anew: a census of a large backlog would cost more than the deliveries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smtpd.delivery.destination import Destination
from smtpd.delivery.router import Route
from smtpd.mail.outcome import DELIVERED, Outcome
from smtpd.metrics._cells import Cells
from smtpd.metrics.slab import CellIndex
from smtpd.transports.base import Transport

if TYPE_CHECKING:
    from smtpd.delivery.attempt import Attempt

_AGE_STEP_S = 10.0  # how exactly ages are known
_STATES = ("active", "deferred", "held")


class Tally:
    """How many mails, how many octets, how old the oldest. `remove` of a mail that was never added changes nothing."""

    __slots__ = ("_by_time", "count", "size_bytes")

    def __init__(self) -> None:
        self.count = 0
        self.size_bytes = 0
        self._by_time: dict[int, int] = {}  # time of arrival in steps -> mails

    def add(self, received_at_s: float, size_bytes: int) -> None:
        self.count += 1
        self.size_bytes += size_bytes
        step = int(received_at_s // _AGE_STEP_S)
        by_time = self._by_time
        by_time[step] = by_time.get(step, 0) + 1

    def remove(self, received_at_s: float, size_bytes: int) -> None:
        step = int(received_at_s // _AGE_STEP_S)
        left = self._by_time.get(step, 0) - 1
        if left < 0:
            return
        self.count -= 1
        self.size_bytes = max(0, self.size_bytes - size_bytes)
        if left:
            self._by_time[step] = left
        else:
            del self._by_time[step]

    def figures(self, now_s: float) -> tuple[int, int, float]:
        """Return (mails, octets, age of the oldest in seconds)."""
        return self.count, self.size_bytes, self.oldest_age_s(now_s)

    def oldest_age_s(self, now_s: float) -> float:
        """Return the age of the oldest in seconds, 0.0 if there is none."""
        return max(0.0, now_s - min(self._by_time) * _AGE_STEP_S) if self._by_time else 0.0


class Lane:
    """See the module's head. `active` are the mails leased by this process, kept by `enter` and `leave`; the tallies are of mails
    that wait in the spool: `untried` (shown as active too: nobody has said no yet), `deferred` and `held`. `destinations` are
    those that have mail now, by key. A lane that `is_suspended` starts nothing."""

    __slots__ = (
        "_active_bytes",
        "_attempts",
        "_cells",
        "_connect_s",
        "_connections",
        "_gauges",
        "_is_per_domain",
        "_published",
        "_queue_s",
        "_total_s",
        "_transmit_s",
        "_unannounced_8bit",
        "_unconfirmed",
        "active",
        "deferred",
        "destinations",
        "held",
        "is_suspended",
        "name",
        "number",
        "transport",
        "transport_name",
        "untried",
    )  # fmt: skip

    def __init__(self, route: Route, transport: Transport, cells: Cells, index: CellIndex) -> None:
        self.number = route.number
        self.name = route.name
        self.transport = transport
        self.transport_name = transport.name
        self._is_per_domain = transport.is_per_domain
        self.is_suspended = False
        self.active: dict[Attempt, None] = {}
        self._active_bytes = 0
        self.untried = Tally()
        self.deferred = Tally()
        self.held = Tally()
        self.destinations: dict[str, Destination] = {}
        self._cells = cells
        name = route.name
        self._attempts = {
            status: index.counter("smtpd_delivery_attempts_total", route=name, result=result)
            for status, result in enumerate(("deferred", "delivered", "deferred", "bounced"))  # by outcome.STATUS
        }
        self._queue_s = index.histogram("smtpd_delivery_delay_seconds", route=name, stage="queue")
        self._connect_s = index.histogram("smtpd_delivery_delay_seconds", route=name, stage="connect")
        self._transmit_s = index.histogram("smtpd_delivery_delay_seconds", route=name, stage="transmit")
        self._total_s = index.histogram("smtpd_delivery_delay_seconds", route=name, stage="total")
        self._connections = index.gauge("smtpd_delivery_connections_active", route=name)
        self._unconfirmed = index.counter("smtpd_delivery_unconfirmed_total", route=name)
        self._unannounced_8bit = index.counter("smtpd_delivery_unannounced_8bit_total", route=name)
        self._published = (0, 0)
        self._gauges = [
            tuple(index.gauge(f"smtpd_queue_{what}", route=name, state=state)
                  for what in ("messages", "bytes", "oldest_age_seconds"))
            for state in _STATES
        ]  # fmt: skip

    def destination_for(self, domain: str, now_s: float) -> Destination:
        """Return where mail for a domain waits."""
        key = domain if self._is_per_domain else ""
        found = self.destinations.get(key)
        if found is None:
            found = self.destinations[key] = Destination(self, key, now_s)
        return found

    def forget_idle(self) -> None:
        """Let go of destinations that have no mail."""
        for key in [key for key, destination in self.destinations.items() if destination.is_idle]:
            del self.destinations[key]

    def enter(self, attempt: Attempt) -> None:
        """The mail is leased and has recipients on this route."""
        self.active[attempt] = None
        self._active_bytes += attempt.item.size_bytes

    def leave(self, attempt: Attempt) -> None:
        """The lease ends."""
        del self.active[attempt]
        self._active_bytes -= attempt.item.size_bytes

    def count(self, outcomes: list[Outcome], queue_s: float, connect_s: float, transmit_s: float, total_s: float) -> None:
        """Count what an attempt made of some recipients; times in seconds."""
        cells = self._cells
        for outcome in outcomes:
            status = outcome.status
            cells.inc(self._attempts[status])
            if status == DELIVERED:
                cells.observe(self._queue_s, queue_s)
                cells.observe(self._connect_s, connect_s)
                cells.observe(self._transmit_s, transmit_s)
                cells.observe(self._total_s, total_s)

    def publish(self, now_s: float) -> None:
        """Write the queue's figures into the gauges."""
        untried = self.untried
        oldest_s = min((attempt.item.envelope.received_at_s for attempt in self.active), default=now_s)
        figures = (
            (
                len(self.active) + untried.count,
                self._active_bytes + untried.size_bytes,
                max(0.0, now_s - oldest_s, untried.oldest_age_s(now_s)),
            ),
            self.deferred.figures(now_s),
            self.held.figures(now_s),
        )
        cells = self._cells
        transport = self.transport
        cells.set(self._connections, transport.connections)
        unconfirmed, unannounced = self._published
        self._published = (transport.unconfirmed, transport.unannounced_8bit)
        cells.add(self._unconfirmed, transport.unconfirmed - unconfirmed)
        cells.add(self._unannounced_8bit, transport.unannounced_8bit - unannounced)
        for gauges, values in zip(self._gauges, figures, strict=True):
            for gauge, value in zip(gauges, values, strict=True):
                cells.set(gauge, value)
