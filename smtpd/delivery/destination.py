"""Where deliveries wait for the same next hop: one queue for each, so that a dead or slow one holds up nobody else's mail.

A route whose next hops are the same for all its mail has one destination; a route by MX has one for each domain. Loop thread
only. Decides nothing about when; the scheduler does.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from smtpd.mail.outcome import Outcome

if TYPE_CHECKING:
    from smtpd.delivery.attempt import Attempt
    from smtpd.delivery.lane import Lane


class Destination:
    """`key` is "" or a domain. `body_bytes` are of bodies in memory, waiting or under way. `is_listed`: the scheduler looks
    at it."""

    __slots__ = ("body_bytes", "finished", "in_flight", "is_listed", "key", "lane", "opened_at_s", "waiting")

    def __init__(self, lane: Lane, key: str, now_s: float) -> None:
        self.lane = lane
        self.key = key
        self.waiting: deque[Share] = deque()
        self.in_flight = 0
        self.body_bytes = 0
        self.is_listed = False
        self.finished = 0
        self.opened_at_s = now_s

    @property
    def is_idle(self) -> bool:
        return not self.in_flight and not self.waiting

    def drain_time_s(self, now_s: float) -> float:
        """Return how long what waits will take at the pace so far; while nothing has been finished, as long as it has waited."""
        open_s = max(0.001, now_s - self.opened_at_s)
        return len(self.waiting) * open_s / self.finished if self.finished else open_s


class Share:
    """The recipients of one mail that travel together. `destination` None: no route takes them any more."""

    __slots__ = ("attempt", "body_bytes", "destination", "indexes", "is_done", "is_started", "is_waiting", "started_at_s")

    def __init__(self, attempt: Attempt, destination: Destination | None, indexes: list[int]) -> None:
        self.attempt = attempt
        self.destination = destination
        self.indexes = indexes
        self.body_bytes = 0
        self.is_started = False
        self.is_waiting = False
        self.is_done = False
        self.started_at_s = 0.0

    def on_outcomes(self, outcomes: list[Outcome], connect_s: float) -> None:
        """The transport's answer."""
        self.attempt.take(self, outcomes, connect_s)
