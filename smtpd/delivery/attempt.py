"""One mail being delivered: its recipients by route, what became of each, and the log lines about it.

Lives from acceptance or claim until the mail is settled. Loop thread only. Knows no queue and no schedule: the scheduler starts
it and is told when the last route has answered.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from smtpd.delivery.lane import Lane
from smtpd.errors import SpoolError
from smtpd.mail.outcome import DEFERRED, DELIVERED, STATUS_NAMES, Outcome
from smtpd.spool.base import Body, SpoolItem

if TYPE_CHECKING:
    from smtpd.delivery.scheduler import Scheduler

Share = tuple[Lane | None, list[int]]  # a route's lane (None: no route any more) and indexes of recipients
NO_BODY = Body(None, "", 0)


class Attempt:
    """`shares` cover the recipients that are still to be delivered. `activated_at_s` is Unix time; `body_bytes` is what its body
    takes of the memory budget. `outcomes` stays None while everything is simply delivered."""

    __slots__ = ("_left", "_scheduler", "_started_at_s", "activated_at_s", "body_bytes", "is_claimed", "item", "outcomes",
                 "shares")  # fmt: skip

    def __init__(self, scheduler: Scheduler, item: SpoolItem, shares: list[Share], now_s: float, is_claimed: bool) -> None:
        self._scheduler = scheduler
        self.item = item
        self.shares = shares
        self.activated_at_s = now_s
        self.is_claimed = is_claimed
        self.body_bytes = 0
        self.outcomes: list[Outcome] | None = None
        self._started_at_s = now_s
        self._left = len(shares)
        if item.outcomes is not None:
            self.outcomes = list(item.outcomes)
        elif self._left != 1:
            self.outcomes = [Outcome()] * len(item.envelope.recipients)

    @property
    def needs_body(self) -> bool:
        """Whether a transport of this mail reads the body."""
        return any(lane is not None and lane.transport.needs_body for lane, _ in self.shares)

    def on_body(self, body: Body | None, error: SpoolError | None) -> None:
        """The spool has fetched the body, or can't: then all that is pending is deferred."""
        if body is not None:
            self.item.body = body
            self.transmit(time.time())
            return
        self._started_at_s = time.time()
        self._take_all("4.3.0", f"the stored message can't be read: {error}")

    def transmit(self, now_s: float) -> None:
        """Hand the mail to its transports."""
        self._started_at_s = now_s
        shares = self.shares
        body = self.item.body or NO_BODY
        if not shares:
            self._scheduler.finished(self)
            return
        if len(shares) == 1:
            lane, indexes = shares[0]
            if lane is not None:
                lane.transport.deliver(self.item, body, indexes, self._on_only_share)
                return
        for lane, indexes in shares:
            if lane is None:
                self._take(None, indexes, [Outcome(DEFERRED, 0, "4.4.4", "no route for this domain", "none")] * len(indexes))
            else:
                lane.transport.deliver(self.item, body, indexes, _ShareDone(self, lane, indexes).on_outcomes)

    def _on_only_share(self, outcomes: list[Outcome]) -> None:
        lane, indexes = self.shares[0]
        self._take(lane, indexes, outcomes)

    def _take_all(self, dsn: str, text: str) -> None:
        for lane, indexes in self.shares:
            self._take(lane, indexes, [Outcome(DEFERRED, 0, dsn, text, "none")] * len(indexes))

    def _take(self, lane: Lane | None, indexes: list[int], outcomes: list[Outcome]) -> None:
        """Note, count and log what became of one route's recipients; tell the scheduler after the last route."""
        now_s = time.time()
        scheduler = self._scheduler
        received_at_s = self.item.envelope.received_at_s
        if lane is not None:
            started_at_s = self._started_at_s
            lane.count(outcomes, started_at_s - self.activated_at_s, now_s - started_at_s, now_s - received_at_s)
        if self.outcomes is not None or len(outcomes) != 1 or outcomes[0].status != DELIVERED:
            self._merge(indexes, outcomes, now_s)
        if scheduler.is_logging:
            self._log(lane, indexes, outcomes, now_s)
        self._left -= 1
        if not self._left:
            scheduler.finished(self)

    def _merge(self, indexes: list[int], outcomes: list[Outcome], now_s: float) -> None:
        merged = self.outcomes
        if merged is None:
            if all(outcome.status == DELIVERED for outcome in outcomes):
                return
            merged = self.outcomes = [Outcome()] * len(self.item.envelope.recipients)
        for index, new in zip(indexes, outcomes, strict=True):
            attempts = merged[index].attempts + 1
            merged[index] = Outcome(new.status, new.code, new.dsn, new.text, new.relay, attempts, now_s)

    def _log(self, lane: Lane | None, indexes: list[int], outcomes: list[Outcome], now_s: float) -> None:
        log = self._scheduler.log
        envelope = self.item.envelope
        queue_id = self.item.queue_id
        received_at_s, activated_at_s, started_at_s = envelope.received_at_s, self.activated_at_s, self._started_at_s
        delays = (
            max(0.0, activated_at_s - received_at_s),
            max(0.0, started_at_s - activated_at_s),
            0.0,
            max(0.0, now_s - started_at_s),
        )
        delay = max(0.0, now_s - received_at_s)
        transport = lane.transport.name if lane is not None else "error"
        for index, outcome in zip(indexes, outcomes, strict=True):
            log.delivered(
                queue_id, envelope.recipients[index].path, outcome.relay, delay, delays, outcome.dsn,
                STATUS_NAMES[outcome.status or DEFERRED], outcome.text, transport,
            )  # fmt: skip

    def held_text(self) -> str:
        """What was said of the first recipient that is not delivered."""
        return next((outcome.text for outcome in self.outcomes or () if outcome.status != DELIVERED), "")

    def on_removed(self, error: SpoolError | None) -> None:
        """The settlement of a mail that is done is durable, or failed: then it comes again at a later start."""
        self._scheduler.settled(self, "", error)

    def on_kept(self, error: SpoolError | None) -> None:
        self._scheduler.settled(self, "kept", error)

    def on_held(self, error: SpoolError | None) -> None:
        self._scheduler.settled(self, "held", error)


class _ShareDone:
    """Remembers which share a transport answers for, where there are several."""

    __slots__ = ("_attempt", "_indexes", "_lane")

    def __init__(self, attempt: Attempt, lane: Lane, indexes: list[int]) -> None:
        self._attempt = attempt
        self._lane = lane
        self._indexes = indexes

    def on_outcomes(self, outcomes: list[Outcome]) -> None:
        self._attempt._take(self._lane, self._indexes, outcomes)
