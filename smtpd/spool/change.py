"""What a queue command does to the mails of a shard: found and changed in one transaction, a page at a time.

Filled in on the thread that owns the connection (`find`), read on the loop thread by whoever asked (`done`). Mail that is leased
is never touched: only its owner in the process knows what becomes of it. Raises what find_page raises.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from smtpd.errors import SpoolError
from smtpd.mail.outcome import DEFERRED, UNDELIVERABLE, Outcome, encode_outcomes
from smtpd.spool import queued
from smtpd.spool.queued import ACTIVE, HELD, Narrowing, QueuedMail, find_page

FLUSH, HOLD, RELEASE, REQUEUE, DELETE, LEASE = ACTIONS = ("flush", "hold", "release", "requeue", "delete", "lease")
_PAGE_MAILS = 100  # changed at most by one transaction


@dataclass(frozen=True, slots=True)
class Changed:
    """A mail before and after; `after` None: removed. LEASE leaves it as it is, handed out to the one who asked."""

    before: QueuedMail
    after: QueuedMail | None


class Change:
    """One page: `action` for the mails behind `after_row` that meet `narrowing` and `matches`. The lists hold the answer: what
    was `changed`, what was `unchanged` (queue ids), what is `leased`. Go on after `last_row` unless `is_last`; with an `error`
    nothing was done."""

    __slots__ = (
        "action",
        "after_row",
        "changed",
        "deleted_rows",
        "done",
        "error",
        "is_last",
        "kept",
        "last_row",
        "leased",
        "leased_held_rows",
        "leased_rows",
        "matches",
        "narrowing",
        "unchanged",
        "unlinks",
    )

    def __init__(
        self,
        action: str,
        after_row: int,
        narrowing: Narrowing,
        matches: Callable[[QueuedMail], bool],
        done: Callable[[Change], object],
    ) -> None:
        self.action = action
        self.after_row = after_row
        self.narrowing = narrowing
        self.matches = matches
        self.done = done
        self.error: SpoolError | None = None
        self.forget()

    def forget(self) -> None:
        """What was done is rolled back."""
        self.changed: list[Changed] = []
        self.unchanged: list[str] = []
        self.leased: list[str] = []
        self.deleted_rows: list[int] = []
        self.leased_rows: list[int] = []
        self.leased_held_rows: list[int] = []  # those of them that stay held meanwhile, whatever becomes of this process
        self.unlinks: list[str] = []  # queue ids of deleted mails with a spill file
        self.kept: list[Any] = []  # as Batch.kept
        self.last_row = self.after_row
        self.is_last = False

    def find(self, connection: sqlite3.Connection, is_leased: Callable[[QueuedMail], bool]) -> None:
        """Look for the mails and note what is to be written of each."""
        self.forget()
        found = find_page(connection, self.after_row, self.narrowing, _PAGE_MAILS)
        self.last_row, self.is_last = found.last_row, found.is_last
        now_s = time.time()
        for mail in found.mails:
            if not self.matches(mail):
                continue
            if is_leased(mail):
                self.leased.append(mail.queue_id)
            else:
                self._apply(mail, now_s)

    def _apply(self, mail: QueuedMail, now_s: float) -> None:
        after: QueuedMail | None = None
        if self.action == DELETE:
            self.deleted_rows.append(mail.row)
            if mail.spill_name:
                self.unlinks.append(mail.queue_id)
        else:
            after = changed_mail(mail, self.action, now_s)
            if after is None:
                self.unchanged.append(mail.queue_id)
                return
            outcomes = None if after.outcomes is None else encode_outcomes(after.outcomes)
            self.kept += (mail.row, after.due_s, int(after.state == HELD), after.attempts, outcomes)
            if self.action == LEASE:
                self.leased_rows.append(mail.row)
                if mail.state == HELD:
                    self.leased_held_rows.append(mail.row)
        self.changed.append(Changed(mail, after))


def changed_mail(mail: QueuedMail, action: str, now_s: float) -> QueuedMail | None:
    """Return the mail as `action` makes it, None when it is so already or the action isn't for mail in this state."""
    is_held = mail.state == HELD
    outcomes, attempts = mail.outcomes, mail.attempts
    due_s: float | None = now_s
    if action == FLUSH and not is_held:
        pass
    elif action == HOLD and not is_held:
        due_s, is_held = None, True
    elif action == RELEASE and is_held:
        outcomes, is_held = revived(outcomes), False
    elif action == REQUEUE:
        outcomes, attempts, is_held = forgotten(outcomes), 0, False
    elif action == LEASE:
        due_s = None
    else:
        return None
    state = HELD if is_held else ACTIVE if attempts == 0 or due_s is None else queued.DEFERRED
    return msgspec.structs.replace(mail, state=state, due_s=due_s, outcomes=outcomes, attempts=attempts)


def revived(outcomes: list[Outcome] | None) -> list[Outcome] | None:
    """Return the outcomes with what was undeliverable to be tried again; what was said stays to be read."""
    if outcomes is None:
        return None
    return [
        msgspec.structs.replace(outcome, status=DEFERRED) if outcome.status == UNDELIVERABLE and not outcome.is_done else outcome
        for outcome in outcomes
    ]


def forgotten(outcomes: list[Outcome] | None) -> list[Outcome] | None:
    """Return the outcomes of a mail that starts anew: only what is delivered stays so, and that its sender was told of a delay.
    None: nothing of both."""
    if outcomes is None or not any(outcome.is_done or outcome.is_warned for outcome in outcomes):
        return None
    return [outcome if outcome.is_done else Outcome(is_warned=outcome.is_warned) for outcome in outcomes]
