"""What the scheduler asks when a mail is not simply delivered: who is told, and what is left of the mail. Loop thread only.

`decide` answers with a Settlement, at once or, when the original must be read first, in a later turn; `store` hands it to the
spool, where the reports and the end of the original are one transaction. What nobody can be told of is held, never dropped. Rules
are in plan.py, octets in report.py. A report returns what is in memory or the database; of a spill file the header only.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from smtpd.delivery.bounce.original import HEAD_BYTES, Original
from smtpd.delivery.bounce.plan import DOUBLE, Planner, Told
from smtpd.delivery.bounce.rate import SenderRate
from smtpd.delivery.bounce.report import DELAY, FAILURE, SUCCESS, Case, Entry, make_report
from smtpd.delivery.retry import RetrySchedule
from smtpd.delivery.router import Router
from smtpd.errors import SpoolError
from smtpd.mail.outcome import DEFERRED, PENDING, Outcome
from smtpd.metrics._cells import Cells
from smtpd.metrics.slab import CellIndex
from smtpd.net.files import FilesThread
from smtpd.settings import Settings
from smtpd.spool.base import NewMail, Spool
from smtpd.spool.item import Body, SpoolItem

if TYPE_CHECKING:
    from smtpd.log.maillog import MailLog

# In Postfix's words.
_NOTIFICATIONS = {
    FAILURE: "sender non-delivery notification",
    DELAY: "sender delay notification",
    SUCCESS: "sender delivery status notification",
    DOUBLE: "postmaster non-delivery notification",
}


@dataclass(frozen=True, slots=True)
class Settlement:
    """`outcomes` None: the mail is removed; else it is kept until Unix time `due_s`, or held for the reason `held_text`.

    `reports` are the new mails with their kind and the name of the route they are counted for ("": none). `is_expired`: the
    lifetime of what was left of it is over."""

    outcomes: list[Outcome] | None
    due_s: float
    is_held: bool
    held_text: str
    reports: list[tuple[NewMail, str, str]]
    is_expired: bool


class Reports:
    """`accept` gets each report once it is in custody."""

    def __init__(
        self,
        settings: Settings,
        router: Router,
        schedule: RetrySchedule,
        spool: Spool,
        files: FilesThread,
        cells: Cells,
        index: CellIndex,
        log: MailLog,
        accept: Callable[[SpoolItem], object],
    ) -> None:
        self._hostname = settings.hostname
        self._content_size = settings.bounce.content_size
        self._lifetime_s = settings.delivery.lifetime
        self._route_of = router.route_of
        self._schedule = schedule
        self._spool = spool
        self._files = files
        self._cells = cells
        self._counters = {
            route.name: index.counter("smtpd_bounces_total", route=route.name) for route in router.routes
        }  # fmt: skip
        self._log = log
        self._accept = accept
        self._failure_rate = SenderRate(settings.bounce.per_sender)
        self._other_rate = SenderRate(settings.bounce.per_sender)  # what was asked for must not use up what must be told
        self._planner = Planner(settings.bounce, router.route_of, self._may_tell)

    def _may_tell(self, kind: str, address: bytes) -> bool:
        rate = self._failure_rate if kind in (FAILURE, DOUBLE) else self._other_rate
        return rate.take(address, time.time())

    def decide(
        self, item: SpoolItem, outcomes: list[Outcome], done: Callable[[Settlement], object], *, is_postponed: bool = False
    ) -> None:
        """Call `done` with what is to become of a mail whose attempt gave these outcomes (one for each recipient).
        `is_postponed`: a suspended route has kept it, where no lifetime ends."""
        now_s = time.time()
        envelope = item.envelope
        due_s: float | None = 0.0
        if any(outcome.status in (PENDING, DEFERRED) for outcome in outcomes):
            due_s = self._schedule.next_due_s(item.attempts + 1, now_s if is_postponed else envelope.received_at_s, now_s)
        plan = self._planner.plan(
            envelope,
            outcomes,
            was_warned=any(outcome.is_warned for outcome in item.outcomes or ()),
            age_s=now_s - envelope.received_at_s,
            is_over=due_s is None,
        )

        def settle(original: Original | None) -> None:
            reports = [self._report(item, outcomes, told, plan.expired, original) for told in plan.told]
            done(Settlement(plan.outcomes, due_s or 0.0, plan.is_held, plan.held_text, reports, due_s is None))

        if plan.told:
            self._read_original(item, settle)
        else:
            settle(None)

    def store(self, item: SpoolItem, settlement: Settlement, done: Callable[[SpoolError | None], None]) -> None:
        """Hand a settlement to the spool; counts, logs and passes on its reports when they are in custody, before `done`."""
        outcomes = settlement.outcomes
        if outcomes is not None:
            item.attempts += 1
            item.outcomes = outcomes
        reports = settlement.reports
        if settlement.is_expired:
            is_told = any(kind in (FAILURE, DOUBLE) for _, kind, _ in reports)
            text = "held" if settlement.is_held else "returned to sender" if is_told else "nobody is told"
            self._log.expired(item.queue_id, item.envelope.reverse_path, text)
        self._spool.settle(
            item,
            outcomes,
            settlement.due_s,
            settlement.is_held,
            done,
            [new for new, _, _ in reports],
            partial(self._on_new, item.queue_id, {new.queue_id: (kind, route) for new, kind, route in reports}),
        )

    def _on_new(self, queue_id: str, reports: dict[str, tuple[str, str]], item: SpoolItem) -> None:
        kind, route = reports[item.queue_id]
        counter = self._counters.get(route)
        if counter is not None and kind in (FAILURE, DOUBLE):
            self._cells.inc(counter)
        log = self._log
        log.message_id(item.queue_id, f"<{item.queue_id}@{self._hostname}>".encode())
        log.reported(queue_id, _NOTIFICATIONS[kind], item.queue_id)
        log.queued(item.queue_id, b"", item.size_bytes, 1)
        self._accept(item)

    # --- making them -------------------------------------------------------------------------------------------------

    def _report(
        self, item: SpoolItem, outcomes: list[Outcome], told: Told, expired: frozenset[int], original: Original | None
    ) -> tuple[NewMail, str, str]:
        envelope = item.envelope
        queue_id = self._spool.next_queue_id()
        entries = [
            Entry(envelope.recipients[index], outcomes[index], action, index in expired) for index, action in told.actions.items()
        ]
        wants_whole = envelope.ret != "HDRS" and item.size_bytes <= self._content_size and not self._spool.is_full
        report_envelope, data = make_report(
            FAILURE if told.kind == DOUBLE else told.kind,
            Case(item.queue_id, envelope, original, envelope.received_at_s + self._lifetime_s),
            entries,
            to=told.to,
            wants_whole=wants_whole,
            hostname=self._hostname,
            queue_id=queue_id,
            boundary=f"=_{queue_id}_{secrets.token_hex(8)}",
            now_s=time.time(),
        )
        route = self._route_of(envelope, entries[0].recipient.domain)
        return NewMail(queue_id, report_envelope, data), told.kind, route.name if route is not None else ""

    def _read_original(self, item: SpoolItem, done: Callable[[Original | None], object]) -> None:
        """Give what can be returned of the mail, None if it can't be read."""

        def on_body(body: Body | None, _: SpoolError | None) -> None:
            if body is None:
                done(None)
            elif body.data is not None:
                done(Original(body.data, True))
            else:
                self._files.submit(lambda: _read_head(body.path), lambda head, _: done(head))

        self._spool.open_body(item, on_body)


def _read_head(path: str) -> Original:
    """Read as much of a spill file as a header may take (files thread)."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return Original(os.read(fd, HEAD_BYTES), False)
    finally:
        os.close(fd)
