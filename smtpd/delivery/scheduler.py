"""Decides when each mail is tried: just accepted mail at once, deferred mail when it is due, so many at a time.

Owns the mails that this process has leased: those in flight and those that wait their turn, within bounds of number and memory.
Never touches a socket or file (transports and spool do) and never loses a lease silently: whatever is not settled here is found
in the spool by the next start. What can't be delivered stays deferred with its reason; when its lifetime is over, or a transport
says that it is undeliverable, bounce/ decides who is told and what is held. Loop thread only.
"""

from __future__ import annotations

import math
import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from smtpd.delivery.attempt import Attempt
from smtpd.delivery.bounce.reports import Reports, Settlement
from smtpd.delivery.census import Census
from smtpd.delivery.destination import Destination, Share
from smtpd.delivery.lane import Lane
from smtpd.delivery.making import make_transport
from smtpd.delivery.retry import RetrySchedule
from smtpd.delivery.router import Router
from smtpd.delivery.wishes import Waiting, Wishes, started_anew, still_warned
from smtpd.errors import SpoolError
from smtpd.mail.envelope import Envelope
from smtpd.mail.outcome import DEFERRED, PENDING, Outcome
from smtpd.metrics._cells import Cells
from smtpd.metrics.slab import CellIndex
from smtpd.net.files import FilesThread
from smtpd.net.loop import Loop, Timer
from smtpd.settings import Settings
from smtpd.spool.base import Spool
from smtpd.spool.change import DELETE, HOLD
from smtpd.spool.item import SpoolItem
from smtpd.transports.relay.transport import RelayHost

if TYPE_CHECKING:
    from smtpd.log.maillog import MailLog

_CHORES_S = 1.0
_CLAIM_MAX = 100  # mails in one claim: envelopes to be decoded in one turn
_STARTS_PER_TURN = 100
_WAITING_MAX = 10_000  # accepted mails that wait in memory, about 1 KiB each without their bodies
_DESTINATION_WAITING_MAX = 2500  # of them for one destination
_CLAIMED_WAITING_MAX = 500  # mails behind which claimed mail doesn't wait in memory
_CLAIMED_MAX = 2000  # mails claimed and not finished
_SHARE_OF_ROOM = 8
_MEMORY_AT_WORST = 8  # times `delivery.memory` may be in bodies under way, when many destinations hang
_FIRST_ONES = 2  # times `concurrency` may be under way, counting the first deliveries of destinations
_COME_BACK_S = (1.0, 60.0)  # when mail that found no room is looked at again: bounds of what the pace so far suggests
_LOOK_FAR_S = 60.0  # between looks for mail that is due too far ahead, behind others whose time is right
_BLOCKED_PAUSE_S = 0.25  # between claims that bring only mail for which there is no room


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
        relay: RelayHost | None = None,
    ) -> None:
        self._loop = loop
        self._spool = spool
        self._router = router
        self.log = log
        self.is_softening = settings.delivery.soft_bounce
        self.is_logging = settings.log.level == "info" and settings.log.destination != "none"
        delivery = settings.delivery
        self._concurrency = delivery.concurrency
        self._memory_bytes = delivery.memory
        self._schedule = RetrySchedule(delivery.retry, delivery.lifetime)
        self._reports = Reports(settings, router, self._schedule, spool, files, cells, index, log, self.accepted)
        self._undecided_count = 0  # mails of which `_reports` has still to say what becomes of them
        self.lanes = [Lane(route, make_transport(route, settings, files, relay), cells, index) for route in router.routes]
        self._runnable: deque[Destination] = deque()  # those with mail waiting, in turn
        self._waiting_count = 0  # shares
        self._claimed_count = 0  # mails, waiting or in flight
        self._body_bytes = 0  # of bodies in memory, waiting or in flight
        self._in_flight = 0  # shares
        self._claim_again_at = 0.0
        self._look_far_at = loop.now + _LOOK_FAR_S
        self._is_starting = False
        self._is_claiming = False
        self._census = Census(loop, spool, self._count_stored, partial(self._maybe_claim, 1))
        self.wishes = Wishes(
            self._active_attempts, self._take_back, self._lanes_left, self._census.is_counted, partial(self._maybe_claim, 1)
        )
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
        if self.wishes.pending:
            self._grant_waiting()
        self._on_drained = done
        self._maybe_drained()

    def abandon(self) -> None:
        """Give up what is in flight: each delivery gets its outcome now, and is tried again after the next start."""
        for lane in self.lanes:
            lane.transport.close()

    def _maybe_drained(self) -> None:
        if not self._in_flight and not self._undecided_count and self._on_drained is not None:
            done, self._on_drained = self._on_drained, None
            for lane in self.lanes:
                lane.transport.close()  # connections that were kept
            done()

    # --- taking mail in ----------------------------------------------------------------------------------------------

    def accepted(self, item: SpoolItem) -> None:
        """Take a mail that was just committed and is leased to this process."""
        if self._is_draining:
            return  # it has no due time, so the next start takes it up
        now_s = time.time()
        attempt = Attempt.__new__(Attempt)
        attempt.begin(self, item, now_s, False)
        self._share_out(attempt, now_s)
        body = item.body
        size_bytes = body.size_bytes if body is not None and body.data is not None else 0
        for share in attempt.shares:
            destination = share.destination
            if destination is None or destination.lane.is_suspended:
                self._launch(share, now_s)
            elif body is not None and not destination.waiting and self._has_room(destination) and self._has_memory(size_bytes):
                self._charge(share, size_bytes)
                self._launch(share, now_s)
            else:
                self._wait(share, destination, size_bytes)

    def _share_out(self, attempt: Attempt, now_s: float) -> None:
        """Group the recipients that are still to be delivered by destination, in the order of their first recipients."""
        item = attempt.item
        envelope = item.envelope
        recipients = envelope.recipients
        if len(recipients) == 1 and item.outcomes is None:
            attempt.set_shares([attempt.new_share(self._destination_of(envelope, recipients[0].domain, now_s), _FIRST)])
        else:
            shares: dict[Destination | None, list[int]] = {}
            for index, recipient in enumerate(recipients):
                if item.outcomes is None or item.outcomes[index].status in (PENDING, DEFERRED):
                    destination = self._destination_of(envelope, recipient.domain, now_s)
                    shares.setdefault(destination, []).append(index)
            attempt.set_shares([Share(attempt, destination, indexes) for destination, indexes in shares.items()])
        for lane in attempt.lanes:
            lane.enter(attempt)

    def _destination_of(self, envelope: Envelope, domain: str, now_s: float) -> Destination | None:
        route = self._router.route_of(envelope, domain)
        if route is None:
            return None
        lane = self.lanes[route.number]
        return lane.destination_for(domain, now_s)

    def _has_room(self, destination: Destination) -> bool:
        """Whether one more may be under way; the first of a destination also beyond the usual number, past those who hang."""
        in_flight = destination.in_flight
        if self._in_flight >= self._concurrency * _FIRST_ONES:
            return False
        return (not in_flight or self._in_flight < self._concurrency) and in_flight < destination.lane.transport.window(
            destination.key
        )

    def _has_memory(self, size_bytes: int) -> bool:
        """Whether one more body may be under way: those that hang must leave some to others, but not without end."""
        return self._body_bytes + size_bytes <= self._memory_bytes * _MEMORY_AT_WORST or not self._in_flight

    def _wait(self, share: Share, destination: Destination, size_bytes: int) -> None:
        """Queue a share, with its body if memory allows; when too much waits already, send the mail back to the spool."""
        attempt = share.attempt
        most = _DESTINATION_WAITING_MAX
        if attempt.is_claimed:  # no more than a share of what is left, so that there is always room for other destinations' mail
            most = min(_CLAIMED_WAITING_MAX, max(1, (_CLAIMED_MAX - self._claimed_count + 1) // _SHARE_OF_ROOM))
        if len(destination.waiting) >= most or self._waiting_count >= _WAITING_MAX:
            if len(attempt.shares) == 1:
                self._give_back(attempt, destination)
            else:  # its other recipients are tried all the same
                self._launch(share, time.time(), "too much mail waits for this next hop")
            return
        share.is_waiting = True
        budget = self._memory_bytes
        if self._body_bytes + size_bytes > budget or destination.body_bytes + size_bytes > budget // 2:
            if not attempt.is_started:
                self._drop_body(attempt)
            else:
                self._let_body_go(attempt)
        elif attempt.item.body is not None:
            self._charge(share, size_bytes)
        self._waiting_count += 1
        destination.waiting.append(share)
        if not destination.is_listed:
            destination.is_listed = True
            self._runnable.append(destination)

    def _charge(self, share: Share, size_bytes: int) -> None:
        share.body_bytes += size_bytes
        self._body_bytes += size_bytes
        if share.destination is not None:
            share.destination.body_bytes += size_bytes

    def _discharge(self, share: Share) -> None:
        self._body_bytes -= share.body_bytes
        if share.destination is not None:
            share.destination.body_bytes -= share.body_bytes
        share.body_bytes = 0

    def _drop_body(self, attempt: Attempt) -> None:
        if not attempt.item.is_spilled:  # a file takes no memory
            attempt.item.body = None
        for share in attempt.shares:
            self._discharge(share)

    def _let_body_go(self, attempt: Attempt) -> None:
        """Drop a body that was kept for shares that are over, while those left wait without having paid for it."""
        if all(share.is_done or (share.is_waiting and not share.body_bytes) for share in attempt.shares):
            self._drop_body(attempt)

    def _give_back(self, attempt: Attempt, destination: Destination) -> None:
        """End the lease without an attempt: the mail is claimed again when there may be room."""
        item = attempt.item
        self._drop_body(attempt)
        for lane in attempt.lanes:
            lane.leave(attempt)
            (lane.deferred if item.attempts else lane.untried).add(item.envelope.received_at_s, item.size_bytes)
        if attempt.is_claimed:
            self._claimed_count -= 1
        least_s, most_s = _COME_BACK_S
        now_s = time.time()
        wait_s = min(most_s, max(least_s, destination.drain_time_s(now_s)))
        outcomes = item.outcomes or [_PENDING] * len(item.envelope.recipients)
        self._spool.settle(item, outcomes, now_s + wait_s * random.uniform(0.5, 1.0), False, attempt.on_kept)

    # --- claims ------------------------------------------------------------------------------------------------------

    def _do_chores(self) -> None:
        """Once a second: publish the queue's figures, look for mail that has become due."""
        now_s = time.time()
        for lane in self.lanes:
            lane.publish(now_s)
            lane.forget_idle()
        self._start_waiting()  # windows may have grown meanwhile
        self._maybe_claim(1)
        self._timer = self._loop.call_later(_CHORES_S, self._do_chores)

    def _maybe_claim(self, least: int = _CLAIM_MAX // 2) -> None:
        """Claim what is due, unless there is room for less than `least` mails: a claim costs a commit."""
        if self._census.is_counting() or self._is_claiming or self._is_draining:
            return
        room = _CLAIMED_MAX - self._claimed_count
        if room < least:
            return
        due_s = self._spool.next_due_s()
        now_s = time.time()
        if due_s is None or self._loop.now < self._claim_again_at:
            return
        horizon_s = self._schedule.horizon_s(now_s)
        is_far = due_s > horizon_s or self._loop.now >= self._look_far_at
        if now_s < due_s and not is_far:
            return
        self._is_claiming = True
        if is_far:  # without what was put off meanwhile, or the same mails would be tried again and again
            self._look_far_at = self._loop.now + _LOOK_FAR_S
            self._spool.claim(min(room, _CLAIM_MAX), math.inf, self._on_claimed, horizon_s)
        else:
            self._spool.claim(min(room, _CLAIM_MAX), now_s, self._on_claimed)

    def _on_claimed(self, items: list[SpoolItem], error: SpoolError | None) -> None:
        self._is_claiming = False
        if error is not None:
            self.log.error("queue", f"due mail can't be claimed: {error}")
            return
        if self._is_draining:
            return  # leased by nobody then: the next start takes them up
        now_s = time.time()
        before = self._claimed_count
        for item in items:
            self._take_claimed(item, now_s)
        if self._claimed_count == before and items:
            self._claim_again_at = self._loop.now + _BLOCKED_PAUSE_S
        self._start_waiting()

    def _take_claimed(self, item: SpoolItem, now_s: float) -> None:
        envelope = item.envelope
        attempt = Attempt(self, item, now_s, True)
        for lane in self._lanes_left(item):
            (lane.deferred if item.attempts else lane.untried).remove(envelope.received_at_s, item.size_bytes)
        self._share_out(attempt, now_s)
        if self.is_logging:
            self.log.queued(item.queue_id, envelope.reverse_path, item.size_bytes, len(envelope.recipients))
        self._claimed_count += 1
        if not attempt.shares:
            self._finish(attempt)
            return
        for share in attempt.shares:
            destination = share.destination
            if destination is None or destination.lane.is_suspended:
                self._launch(share, now_s)
            else:
                self._wait(share, destination, 0)

    def _count_stored(self, item: SpoolItem, is_held: bool) -> None:
        """The census has found a mail that was in the spool before us."""
        for lane in self._lanes_left(item):
            tally = lane.held if is_held else lane.deferred if item.attempts else lane.untried
            tally.add(item.envelope.received_at_s, item.size_bytes)

    def _lanes_left(self, item: Waiting) -> set[Lane]:
        """The lanes on whose account a mail waits in the spool: those of recipients that aren't delivered."""
        envelope = item.envelope
        recipients = envelope.recipients
        outcomes = item.outcomes or [_PENDING] * len(recipients)
        routes = {
            self._router.route_of(envelope, recipient.domain)
            for recipient, outcome in zip(recipients, outcomes, strict=True)
            if not outcome.is_done
        }
        return {self.lanes[route.number] for route in routes if route is not None}

    # --- starting and finishing --------------------------------------------------------------------------------------

    def _start_waiting(self) -> None:
        """Start what there is room for, one share of each destination in turn; never nested, however fast the answers are."""
        if self._is_starting or self._is_draining:
            return
        self._is_starting = True
        left = _STARTS_PER_TURN
        now_s = time.time()
        runnable = self._runnable
        blocked = 0
        while left and blocked < len(runnable):
            destination = runnable.popleft()
            if not destination.waiting:
                destination.is_listed = False
                continue
            runnable.append(destination)
            share = destination.waiting[0]
            if not self._may_start(destination, share):
                blocked += 1
                continue
            blocked = 0
            left -= 1
            destination.waiting.popleft()
            self._waiting_count -= 1
            self._launch(share, now_s)
        self._is_starting = False
        if not left:
            self._loop.ready(self._start_waiting)
        else:
            self._maybe_claim()

    def _may_start(self, destination: Destination, share: Share) -> bool:
        lane = destination.lane
        if lane.is_suspended:
            return True  # its answer is that
        if not self._has_room(destination):
            return False
        item = share.attempt.item
        if item.body is None and not item.is_spilled and lane.transport.needs_body:
            size_bytes = item.size_bytes
            budget = self._memory_bytes
            is_short = self._body_bytes + size_bytes > budget or destination.body_bytes + size_bytes > budget // 2
            if is_short and (destination.in_flight or not self._has_memory(size_bytes)):
                return False  # when something ends there is room
            self._charge(share, size_bytes)
        return True

    def _launch(self, share: Share, now_s: float, refusal: str = "") -> None:
        """Start a share; or defer it at once because of `refusal`."""
        share.is_waiting = False
        self._in_flight += 1
        if share.destination is not None:
            share.destination.in_flight += 1
        if self.wishes.pending and self.wishes.prevents(share.attempt.item.queue_id):
            refusal = "not tried: a queue command came before"
        share.attempt.start(share, now_s, refusal)

    def fetch_body(self, attempt: Attempt) -> None:
        """Get the body from the spool (called by the attempt)."""
        self._spool.open_body(attempt.item, attempt.on_body)

    def share_done(self, attempt: Attempt, share: Share, is_last: bool) -> None:
        """A share of the mail has its outcomes (called by the attempt)."""
        self._in_flight -= 1
        destination = share.destination
        if destination is not None:
            destination.in_flight -= 1
            destination.finished += 1
        self._discharge(share)
        share.is_done = True
        if is_last:
            self._finish(attempt)
        else:
            self._let_body_go(attempt)
        if self._runnable or attempt.is_claimed:
            self._start_waiting()
        if self._on_drained is not None:
            self._maybe_drained()

    def _finish(self, attempt: Attempt) -> None:
        """Every share of the mail is done: settle it."""
        item = attempt.item
        for lane in attempt.lanes:
            lane.leave(attempt)
        if attempt.is_claimed:
            self._claimed_count -= 1
        outcomes = attempt.outcomes
        wish = self.wishes.take(item.queue_id) if self.wishes.pending else ""
        if outcomes is None:
            item.body = None
            self._spool.settle(item, None, 0.0, False, attempt.on_removed)
        elif wish and not _are_done(outcomes):
            self._settle_wish(attempt, still_warned(outcomes, item.outcomes), wish)
        else:
            self._undecided_count += 1
            self._reports.decide(item, outcomes, partial(self._store, attempt), is_postponed=attempt.is_postponed)

    def _store(self, attempt: Attempt, settlement: Settlement) -> None:
        """Store what was decided of a mail that was not simply delivered."""
        item = attempt.item
        item.body = None
        self._undecided_count -= 1
        self._reports.store(item, settlement, partial(self._on_stored, attempt, settlement))
        if settlement.outcomes is not None:
            for lane in self._lanes_left(item):
                (lane.held if settlement.is_held else lane.deferred).add(item.envelope.received_at_s, item.size_bytes)
        if self._on_drained is not None:
            self._maybe_drained()

    def _on_stored(self, attempt: Attempt, settlement: Settlement, error: SpoolError | None) -> None:
        if error is None and settlement.is_held:
            self.log.held(attempt.item.queue_id, settlement.held_text)
        else:
            self.settled(attempt, "" if settlement.outcomes is None else "kept", error)

    # --- what queue commands want of mail at work (wishes.py) --------------------------------------------------------

    def _active_attempts(self) -> Iterator[Attempt]:
        for lane in self.lanes:
            yield from lane.active

    def _take_back(self, attempt: Attempt) -> bool:
        """Give a mail that only waits for its turn back to the spool, where a queue command finds it; False: it is under way."""
        shares = attempt.shares
        destination = shares[0].destination
        if destination is None or not all(share.is_waiting for share in shares):
            return False
        for share in shares:
            share.is_waiting = False
            (share.destination or destination).waiting.remove(share)
        self._waiting_count -= len(shares)
        self._give_back(attempt, destination)
        return True

    def _grant_waiting(self) -> None:
        """Do what is wanted of mail that will not be started any more."""
        now_s = time.time()
        for destination in list(self._runnable):
            for share in [waiting for waiting in destination.waiting if self.wishes.prevents(waiting.attempt.item.queue_id)]:
                destination.waiting.remove(share)
                self._waiting_count -= 1
                self._launch(share, now_s)

    def _settle_wish(self, attempt: Attempt, outcomes: list[Outcome], wish: str) -> None:
        item = attempt.item
        item.body = None
        if wish == DELETE:
            self._spool.settle(item, None, 0.0, False, attempt.on_removed)
            return
        is_held = wish == HOLD
        item.attempts = item.attempts + 1 if is_held else 0
        item.outcomes = outcomes if is_held else started_anew(outcomes)
        for lane in self._lanes_left(item):
            (lane.held if is_held else lane.untried).add(item.envelope.received_at_s, item.size_bytes)
        if is_held and self.is_logging:
            self.log.held(item.queue_id, "by command")
        self._spool.settle(item, item.outcomes, time.time(), is_held, attempt.on_kept)

    def settled(self, attempt: Attempt, kept_as: str, error: SpoolError | None) -> None:
        """The spool has stored what became of a mail: "" removed, "kept" for another attempt."""
        queue_id = attempt.item.queue_id
        if error is not None:
            self.log.error("queue", f"{queue_id}: what was delivered could not be stored, it comes again: {error}")
        elif not kept_as and self.is_logging:
            self.log.removed(queue_id)


def _are_done(outcomes: list[Outcome]) -> bool:
    return all(outcome.is_done for outcome in outcomes)


_FIRST = [0]  # the only recipient of most mails
_PENDING = Outcome()
