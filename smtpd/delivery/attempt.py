"""One mail being delivered: its recipients by destination, what became of each, and the log lines about it.

Lives from acceptance or claim until the mail is settled. Loop thread only. Knows no queue and no schedule: the scheduler starts
each share of it and is told when one, and when the last one, has answered.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from smtpd.delivery.destination import Destination, Share
from smtpd.delivery.lane import Lane
from smtpd.errors import SpoolError
from smtpd.mail.envelope import NOTIFY_SUCCESS
from smtpd.mail.outcome import DEFERRED, DELIVERED, STATUS_NAMES, Outcome, describe, soften
from smtpd.spool.item import Body, SpoolItem

if TYPE_CHECKING:
    from smtpd.delivery.scheduler import Scheduler

NO_BODY = Body(None, "", 0)
_DELIVERED, _DEFERRED, _STATUS_NAMES = DELIVERED, DEFERRED, STATUS_NAMES  # in C variables of the module (attempt.pxd)


class Attempt:
    """`shares` cover the recipients that are still to be delivered, `lanes` are the routes among them. `activated_at_s` is Unix
    time. `outcomes` stays None while everything is simply delivered, unless `is_success_told`: the sender wants to know even that
    (RFC 3461, NOTIFY=SUCCESS)."""

    __slots__ = (
        "_for_body", "_left", "_scheduler", "activated_at_s", "is_claimed", "is_postponed", "is_success_told", "item", "lanes",
        "outcomes", "shares",
    )  # fmt: skip

    def __init__(self, scheduler: Scheduler, item: SpoolItem, now_s: float, is_claimed: bool) -> None:
        self.begin(scheduler, item, now_s, is_claimed)

    def begin(self, scheduler: Scheduler, item: SpoolItem, now_s: float, is_claimed: bool) -> None:
        """Fill a new one in: the same as Attempt(...) after `Attempt.__new__`, but no arguments are gathered and parsed."""
        self._scheduler = scheduler
        self.item = item
        self.shares: list[Share] = []
        self.lanes: list[Lane] = []
        self.activated_at_s = now_s
        self.is_claimed = is_claimed
        self.is_postponed = False  # a suspended route has kept some of it
        self.is_success_told = False
        self.outcomes: list[Outcome] | None = None
        self._left = 0
        self._for_body: list[Share] = []

    def new_share(self, destination: Destination | None, indexes: list[int]) -> Share:
        """The same as Share(self, destination, indexes), where it counts."""
        share = Share.__new__(Share)
        share.attempt = self
        share.destination = destination
        share.indexes = indexes
        share.body_bytes = 0
        share.is_started = share.is_waiting = share.is_done = False
        share.started_at_s = 0.0
        return share

    def set_shares(self, shares: list[Share]) -> None:
        """Take the shares over; called once, before any is started."""
        self.shares = shares
        self._left = len(shares)
        item = self.item
        for recipient in item.envelope.recipients:
            if recipient.notify & NOTIFY_SUCCESS:
                self.is_success_told = True
        if item.outcomes is not None:
            self.outcomes = list(item.outcomes)
        elif self._left != 1:
            self.outcomes = [Outcome()] * len(item.envelope.recipients)
        lanes = self.lanes
        for share in shares:
            destination = share.destination
            if destination is not None and destination.lane not in lanes:
                lanes.append(destination.lane)

    @property
    def is_started(self) -> bool:
        """Whether a share is under way, or over."""
        return any(share.is_started for share in self.shares)

    def start(self, share: Share, now_s: float, refusal: str = "") -> None:
        """Hand a share to its transport, after its body was fetched if need be; or defer it at once because of `refusal`."""
        share.is_started = True
        share.started_at_s = now_s
        destination = share.destination
        if destination is None:
            self._defer(share, "4.4.4", "no route for this domain")
            return
        if refusal or destination.lane.is_suspended:
            self.is_postponed = self.is_postponed or destination.lane.is_suspended
            self._defer(share, "4.3.2", refusal or suspended_text(destination.lane.name))
            return
        transport = destination.lane.transport
        body = self.item.body
        if body is None and transport.needs_body:
            self._for_body.append(share)
            if len(self._for_body) == 1:
                self._scheduler.fetch_body(self)
            return
        transport.deliver(self.item, body or NO_BODY, share.indexes, share.on_outcomes, destination.key)

    def on_body(self, body: Body | None, error: SpoolError | None) -> None:
        """The spool has fetched the body, or can't: then all that waits for it is deferred."""
        shares, self._for_body = self._for_body, []
        now_s = time.time()
        self.item.body = body
        for share in shares:
            destination = share.destination
            assert destination is not None
            share.started_at_s = now_s
            if body is not None:
                destination.lane.transport.deliver(self.item, body, share.indexes, share.on_outcomes, destination.key)
            else:
                self._defer(share, "4.3.0", f"the stored message can't be read: {error}")

    def _defer(self, share: Share, dsn: str, text: str) -> None:
        self.take(share, [Outcome(DEFERRED, 0, dsn, text, "none")] * len(share.indexes), 0.0)

    def take(self, share: Share, outcomes: list[Outcome], connect_s: float) -> None:
        """Note, count and log what became of a share's recipients; tell the scheduler."""
        now_s = time.time()
        scheduler = self._scheduler
        destination = share.destination
        lane = destination.lane if destination is not None else None
        if scheduler.is_softening:
            outcomes = soften(outcomes)
        if lane is not None:
            started_at_s = share.started_at_s
            lane.count(
                outcomes,
                started_at_s - self.activated_at_s,
                connect_s,
                now_s - started_at_s - connect_s,
                now_s - self.item.envelope.received_at_s,
            )
        if self.outcomes is not None or len(outcomes) != 1 or outcomes[0].status != _DELIVERED or self.is_success_told:
            self._merge(share.indexes, outcomes, now_s)
        if scheduler.is_logging:
            self._log(lane, share, outcomes, now_s, connect_s)
        self._left -= 1
        scheduler.share_done(self, share, not self._left)

    def _merge(self, indexes: list[int], outcomes: list[Outcome], now_s: float) -> None:
        merged = self.outcomes
        if merged is None:
            if not self.is_success_told and all(outcome.status == DELIVERED for outcome in outcomes):
                return
            merged = self.outcomes = [Outcome()] * len(self.item.envelope.recipients)
        for index, new in zip(indexes, outcomes, strict=True):
            attempts = merged[index].attempts + 1
            merged[index] = Outcome(new.status, new.code, new.dsn, new.text, new.relay, attempts, now_s, new.passes_dsn)

    def _log(self, lane: Lane | None, share: Share, outcomes: list[Outcome], now_s: float, connect_s: float) -> None:
        log = self._scheduler.log
        queue_id = self.item.queue_id
        recipients = self.item.envelope.recipients
        received_at_s = self.item.envelope.received_at_s
        delays = (
            max(0.0, self.activated_at_s - received_at_s),
            max(0.0, share.started_at_s - self.activated_at_s),
            connect_s,
            max(0.0, now_s - share.started_at_s - connect_s),
        )
        delay_s = max(0.0, now_s - received_at_s)
        transport = lane.transport_name if lane is not None else "error"
        for place, outcome in enumerate(outcomes):
            status = outcome.status
            dsn = outcome.dsn
            relay = outcome.relay
            code = outcome.code
            if status == _DELIVERED and code:  # as describe() says it
                text = f"{code} {dsn} {outcome.text}"
            else:
                text = describe(outcome)
            log.delivered(
                queue_id,
                recipients[share.indexes[place]].path,
                relay,
                delay_s,
                delays,
                dsn,
                _STATUS_NAMES[status or _DEFERRED],
                text,
                transport,
            )

    def on_removed(self, error: SpoolError | None) -> None:
        """The settlement of a mail that is done is durable, or failed: then it comes again at a later start."""
        self._scheduler.settled(self, "", error)

    def on_kept(self, error: SpoolError | None) -> None:
        self._scheduler.settled(self, "kept", error)


def suspended_text(route: str) -> str:
    """What mail is told to wait for; by this a resumed route finds its mail again."""
    return f"deliveries by route {route} are suspended"
