"""Decides when each mail is tried: just accepted mail at once, deferred mail when it is due, so many at a time.

Owns the mails that this process has leased: those in flight and those that wait their turn, within bounds of number and memory.
Never touches a socket or file (transports and spool do) and never loses a lease silently: whatever is not settled here is found
in the spool by the next start. What can't be delivered stays deferred with its reason; when its lifetime is over, or a transport
says that it is undeliverable, it is held. Loop thread only.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from smtpd.delivery.attempt import Attempt, Share
from smtpd.delivery.census import Census
from smtpd.delivery.lane import Lane
from smtpd.delivery.retry import RetrySchedule
from smtpd.delivery.router import Route, Router
from smtpd.errors import SpoolError
from smtpd.mail.outcome import DEFERRED, DELIVERED, PENDING, UNDELIVERABLE, Outcome
from smtpd.metrics._cells import Cells
from smtpd.metrics.slab import CellIndex
from smtpd.net.files import FilesThread
from smtpd.net.loop import Loop, Timer
from smtpd.settings import Settings
from smtpd.spool.base import Spool, SpoolItem
from smtpd.transports.base import Transport
from smtpd.transports.discard import DiscardTransport
from smtpd.transports.maildir import MaildirTransport

if TYPE_CHECKING:
    from smtpd.log.maillog import MailLog

_CHORES_S = 1.0
_CLAIM_MAX = 100  # mails in one claim: envelopes to be decoded in one turn
_STARTS_PER_TURN = 100
_WAITING_MAX = 10_000  # accepted mails that wait in memory, about 1 KiB each without their bodies


class Scheduler:
    """`accepted` gets every mail in custody; `lanes` are the routes at work, in the order of the configuration."""

    def __init__(
        self,
        loop: Loop,
        files: FilesThread,
        spool: Spool,
        router: Router,
        settings: Settings,
        cells: Cells,
        index: CellIndex,
        log: MailLog,
    ) -> None:
        self._loop = loop
        self._spool = spool
        self._router = router
        self.log = log
        self.is_logging = settings.log.level == "info" and settings.log.destination != "none"
        delivery = settings.delivery
        self._concurrency = delivery.concurrency
        self._claimed_share = max(1, delivery.concurrency // 4)  # due mail gets so much even while fresh mail floods in
        self._memory_bytes = delivery.memory
        self._schedule = RetrySchedule(delivery.retry, delivery.lifetime)
        self.lanes = [Lane(route, _make_transport(route, settings, files), cells, index) for route in router.routes]
        self._lane_of = dict(zip(router.routes, self.lanes, strict=True))
        self._fresh: deque[Attempt] = deque()
        self._claimed: deque[Attempt] = deque()
        self._claimed_count = 0  # waiting or in flight
        self._body_bytes = 0  # of bodies in memory, waiting or in flight
        self._in_flight = 0
        self._is_starting = False
        self._is_claiming = False
        self._census = Census(loop, spool, self._count_stored, self._maybe_claim)
        self._on_drained: Callable[[], None] | None = None
        self._is_draining = False
        self._timer: Timer | None = None

    # --- life --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin with the mail that is in the spool; call it before mail is accepted."""
        self._do_chores()

    def drain(self, done: Callable[[], None]) -> None:
        """Finish what is in flight, then call `done`; the rest stays in the spool and is due at the next start.

        Settlements are handed to the spool by then; that they are durable is what `Spool.close` waits for."""
        self._is_draining = True
        if self._timer is not None:
            self._timer.cancel()
        self._on_drained = done
        self._maybe_drained()

    def _maybe_drained(self) -> None:
        if not self._in_flight and self._on_drained is not None:
            done, self._on_drained = self._on_drained, None
            done()

    # --- taking mail in ----------------------------------------------------------------------------------------------

    def accepted(self, item: SpoolItem) -> None:
        """Take a mail that was just committed and is leased to this process."""
        if self._is_draining:
            return  # it has no due time, so the next start takes it up
        now_s = time.time()
        envelope = item.envelope
        recipients = envelope.recipients
        if len(recipients) == 1:
            route = self._router.route_for(recipients[0].domain)
            shares: list[Share] = [(self._lane_of[route] if route is not None else None, _FIRST)]
        else:
            shares = self._shares_of(item)
        attempt = Attempt(self, item, shares, now_s, False)
        for lane, _ in shares:
            if lane is not None:
                lane.enter(attempt)
        body = item.body
        if body is not None and body.data is not None:
            attempt.body_bytes = body.size_bytes
            self._body_bytes += body.size_bytes
        if body is not None and not self._fresh and self._in_flight < self._concurrency:
            self._in_flight += 1
            attempt.transmit(now_s)
        else:
            self._wait(attempt)

    def _wait(self, attempt: Attempt) -> None:
        if len(self._fresh) >= _WAITING_MAX:
            self._give_back(attempt)
            return
        if self._body_bytes > self._memory_bytes:
            self._drop_body(attempt)
        self._fresh.append(attempt)

    def _drop_body(self, attempt: Attempt) -> None:
        if attempt.item.is_spilled:
            return  # its body takes no memory
        self._body_bytes -= attempt.body_bytes
        attempt.body_bytes = 0
        attempt.item.body = None

    def _give_back(self, attempt: Attempt) -> None:
        """End the lease without an attempt: the mail is due at once and claimed when there is room."""
        item = attempt.item
        self._drop_body(attempt)
        for lane, _ in attempt.shares:
            if lane is not None:
                lane.leave(attempt)
                lane.untried.add(item.envelope.received_at_s, item.size_bytes)
        outcomes = item.outcomes or [_PENDING] * len(item.envelope.recipients)
        self._spool.settle(item, outcomes, time.time(), False, attempt.on_kept)

    def _shares_of(self, item: SpoolItem) -> list[Share]:
        """Group the recipients that are still to be delivered by route, in the order of the routes' first recipients."""
        shares: dict[Lane | None, list[int]] = {}
        outcomes = item.outcomes
        for index, recipient in enumerate(item.envelope.recipients):
            if outcomes is not None and outcomes[index].status not in (PENDING, DEFERRED):
                continue
            route = self._router.route_for(recipient.domain)
            lane = self._lane_of[route] if route is not None else None
            known = shares.get(lane)
            if known is None:
                shares[lane] = [index]
            else:
                known.append(index)
        return list(shares.items())

    # --- claims ------------------------------------------------------------------------------------------------------

    def _do_chores(self) -> None:
        """Once a second: publish the queue's figures, look for mail that has become due."""
        now_s = time.time()
        for lane in self.lanes:
            lane.publish(now_s)
        self._maybe_claim()
        self._timer = self._loop.call_later(_CHORES_S, self._do_chores)

    def _maybe_claim(self) -> None:
        if self._census.is_counting() or self._is_claiming or self._is_draining or self._claimed:
            return
        room = max(self._concurrency - self._in_flight - len(self._fresh), self._claimed_share - self._claimed_count)
        if room <= 0:
            return
        due_s = self._spool.next_due_s()
        now_s = time.time()
        if due_s is None or not self._schedule.is_due(due_s, now_s):
            return
        self._is_claiming = True
        self._spool.claim(min(room, _CLAIM_MAX), max(now_s, due_s), self._on_claimed)

    def _on_claimed(self, items: list[SpoolItem], error: SpoolError | None) -> None:
        self._is_claiming = False
        if error is not None:
            self.log.error("queue", f"due mail can't be claimed: {error}")
            return
        if self._is_draining:
            return  # leased by nobody then: the next start takes them up
        now_s = time.time()
        for item in items:
            self._take_claimed(item, now_s)
        self._start_waiting()

    def _take_claimed(self, item: SpoolItem, now_s: float) -> None:
        envelope = item.envelope
        attempt = Attempt(self, item, self._shares_of(item), now_s, True)
        for lane in self._lanes_left(item):
            (lane.deferred if item.attempts else lane.untried).remove(envelope.received_at_s, item.size_bytes)
        for known, _ in attempt.shares:
            if known is not None:
                known.enter(attempt)
        if self.is_logging:
            self.log.queued(item.queue_id, envelope.reverse_path, item.size_bytes, len(envelope.recipients))
        self._claimed_count += 1
        self._claimed.append(attempt)

    def _count_stored(self, item: SpoolItem, is_held: bool) -> None:
        """The census has found a mail that was in the spool before us."""
        for lane in self._lanes_left(item):
            tally = lane.held if is_held else lane.deferred if item.attempts else lane.untried
            tally.add(item.envelope.received_at_s, item.size_bytes)

    def _lanes_left(self, item: SpoolItem) -> set[Lane]:
        """The lanes on whose account a mail waits in the spool: those of recipients that aren't delivered."""
        recipients = item.envelope.recipients
        outcomes = item.outcomes or [_PENDING] * len(recipients)
        routes = {
            self._router.route_for(recipient.domain)
            for recipient, outcome in zip(recipients, outcomes, strict=True)
            if outcome.status != DELIVERED
        }
        return {self._lane_of[route] for route in routes if route is not None}

    # --- starting and finishing --------------------------------------------------------------------------------------

    def _start_waiting(self) -> None:
        """Start what there is room for; never nested, however fast the transports answer."""
        if self._is_starting or self._is_draining:
            return
        self._is_starting = True
        left = _STARTS_PER_TURN
        while left and self._in_flight < self._concurrency:
            attempt = self._next_waiting()
            if attempt is None:
                break
            left -= 1
            self._in_flight += 1
            self._fetch_and_transmit(attempt)
        self._is_starting = False
        if not left:
            self._loop.ready(self._start_waiting)
        elif not self._claimed:
            self._maybe_claim()

    def _next_waiting(self) -> Attempt | None:
        claimed_in_flight = self._claimed_count - len(self._claimed)
        queue = self._claimed if self._claimed and (claimed_in_flight < self._claimed_share or not self._fresh) else self._fresh
        if not queue:
            return None
        attempt = queue[0]
        item = attempt.item
        if item.body is None and not item.is_spilled and attempt.needs_body:
            if self._body_bytes + item.size_bytes > self._memory_bytes and self._in_flight:
                return None  # when something ends there is room, or nothing left to wait for
            attempt.body_bytes = item.size_bytes
            self._body_bytes += item.size_bytes
        return queue.popleft()

    def _fetch_and_transmit(self, attempt: Attempt) -> None:
        if attempt.item.body is None and attempt.needs_body:
            self._spool.open_body(attempt.item, attempt.on_body)
        else:
            attempt.transmit(time.time())

    def finished(self, attempt: Attempt) -> None:
        """Every route of the mail has answered: settle it (called by the attempt)."""
        item = attempt.item
        for lane, _ in attempt.shares:
            if lane is not None:
                lane.leave(attempt)
        self._in_flight -= 1
        self._body_bytes -= attempt.body_bytes
        item.body = None
        if attempt.is_claimed:
            self._claimed_count -= 1
        outcomes = attempt.outcomes
        if outcomes is None:
            self._spool.settle(item, None, 0.0, False, attempt.on_removed)
        else:
            self._settle_outcomes(attempt, outcomes)
        if self._fresh or self._claimed or attempt.is_claimed:
            self._start_waiting()
        if self._on_drained is not None:
            self._maybe_drained()

    def _settle_outcomes(self, attempt: Attempt, outcomes: list[Outcome]) -> None:
        item = attempt.item
        statuses = {outcome.status for outcome in outcomes}
        if statuses <= {DELIVERED}:
            self._spool.settle(item, None, 0.0, False, attempt.on_removed)
            return
        item.attempts += 1
        item.outcomes = outcomes
        received_at_s = item.envelope.received_at_s
        due_s: float | None = None
        if not statuses <= {DELIVERED, UNDELIVERABLE}:
            due_s = self._schedule.next_due_s(item.attempts, received_at_s, time.time())
            if due_s is None:
                for outcome in outcomes:  # made by this attempt or read from the spool: nobody else's
                    if outcome.status == DEFERRED and not outcome.text.startswith(_EXPIRED):
                        outcome.text = _EXPIRED + outcome.text
        for lane in self._lanes_left(item):
            (lane.held if due_s is None else lane.deferred).add(received_at_s, item.size_bytes)
        if due_s is None:
            self._spool.settle(item, outcomes, 0.0, True, attempt.on_held)
        else:
            self._spool.settle(item, outcomes, due_s, False, attempt.on_kept)

    def settled(self, attempt: Attempt, kept_as: str, error: SpoolError | None) -> None:
        """The spool has stored what became of a mail: "" removed, "kept" for another attempt, or "held"."""
        queue_id = attempt.item.queue_id
        if error is not None:
            self.log.error("queue", f"{queue_id}: what was delivered could not be stored, it comes again: {error}")
        elif not kept_as:
            if self.is_logging:
                self.log.removed(queue_id)
        elif kept_as == "held":
            self.log.held(queue_id, attempt.held_text())


_FIRST = [0]  # the only recipient of most mails
_PENDING = Outcome()
_EXPIRED = "expired, last: "


def _make_transport(route: Route, settings: Settings, files: FilesThread) -> Transport:
    if route.settings.transport == "discard":
        return DiscardTransport()
    if route.settings.transport == "maildir":
        return MaildirTransport(route.settings.path, settings.hostname, files)
    raise ValueError(f"route {route.name}: no transport {route.settings.transport!r}")
