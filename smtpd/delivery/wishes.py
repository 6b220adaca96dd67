"""What queue commands want of mail that this process is delivering, until its settlement; and the queue's figures after a change.

The spool names the mail that is leased, `wish` says which of it is really at work here and remembers what is to become of it. The
scheduler asks when it starts and when it settles a mail, and only while `pending` isn't empty. Loop thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from smtpd.mail.envelope import Envelope
from smtpd.mail.outcome import Outcome
from smtpd.spool.base import SpoolShard
from smtpd.spool.change import DELETE, HOLD, RELEASE, REQUEUE, Changed, forgotten
from smtpd.spool.query import HELD, QueuedMail

if TYPE_CHECKING:
    from smtpd.delivery.attempt import Attempt
    from smtpd.delivery.lane import Lane, Tally

_REMEMBERED = (HOLD, DELETE, REQUEUE)


class Waiting(Protocol):
    """What the lanes of a mail in the spool are found by: a SpoolItem or a QueuedMail."""

    @property
    def envelope(self) -> Envelope: ...
    @property
    def outcomes(self) -> list[Outcome] | None: ...


class Leases(Protocol):
    """What a queue command needs to know of whoever delivers."""

    def wish(self, queue_ids: Sequence[str], action: str) -> set[str]:
        """Return those that are being delivered; their settlement will do what `action` says with what is left of them. Mail
        that only waited for its turn is not among them: it is on its way back to the spool, to be changed there."""
        ...

    def changed(self, shard: SpoolShard, changes: Sequence[Changed]) -> None:
        """Bring the queue's figures up to date."""
        ...

    def added(self, shard: SpoolShard, mail: QueuedMail) -> None:
        """The same for a mail that was put into the spool, not leased."""
        ...


class NoLeases:
    """Where nothing is delivered."""

    def wish(self, queue_ids: Sequence[str], action: str) -> set[str]:
        return set()

    def changed(self, shard: SpoolShard, changes: Sequence[Changed]) -> None:
        pass

    def added(self, shard: SpoolShard, mail: QueuedMail) -> None:
        pass


class Wishes:
    """Leases of a scheduler. `active()` are its attempts, `take_back(attempt)` gives one back to the spool that only waits (else
    False), `lanes_of(mail)` the lanes on whose account a mail waits,
    `is_counted(shard, row)` whether the figures have it, `wake()` is called when mail may have become due."""

    def __init__(
        self,
        active: Callable[[], Iterable[Attempt]],
        take_back: Callable[[Attempt], bool],
        lanes_of: Callable[[Waiting], Iterable[Lane]],
        is_counted: Callable[[SpoolShard, int], bool],
        wake: Callable[[], object],
    ) -> None:
        self.pending: dict[str, str] = {}  # queue id -> action
        self._active = active
        self._take_back = take_back
        self._lanes_of = lanes_of
        self._is_counted = is_counted
        self._wake = wake

    def wish(self, queue_ids: Sequence[str], action: str) -> set[str]:
        wanted = set(queue_ids)
        found = {attempt.item.queue_id: attempt for attempt in self._active() if attempt.item.queue_id in wanted}
        for queue_id, attempt in list(found.items()):
            if action in _REMEMBERED:
                if self._take_back(attempt):
                    del found[queue_id]
                    self.pending.pop(queue_id, None)
                else:
                    self.pending[queue_id] = action
            elif action == RELEASE and self.pending.get(queue_id) == HOLD:
                del self.pending[queue_id]
        return set(found)

    def prevents(self, queue_id: str) -> bool:
        """Whether a mail that waits for its turn is not to be tried any more."""
        return queue_id in self.pending

    def take(self, queue_id: str) -> str:
        """Return what is to become of a mail that is settled now, "" for nothing special; it is forgotten here."""
        return self.pending.pop(queue_id, "")

    def changed(self, shard: SpoolShard, changes: Sequence[Changed]) -> None:
        for change in changes:
            if self._is_counted(shard, change.before.row):
                self._move(change.before, change.after)
        self._wake()

    def added(self, shard: SpoolShard, mail: QueuedMail) -> None:
        if self._is_counted(shard, mail.row):
            for lane in self._lanes_of(mail):
                tally_of(lane, mail).add(mail.envelope.received_at_s, mail.size_bytes)
        self._wake()

    def _move(self, before: QueuedMail, after: QueuedMail | None) -> None:
        received_at_s, size_bytes = before.envelope.received_at_s, before.size_bytes
        for lane in self._lanes_of(before):
            tally_of(lane, before).remove(received_at_s, size_bytes)
        if after is not None:
            for lane in self._lanes_of(after):
                tally_of(lane, after).add(received_at_s, size_bytes)


def tally_of(lane: Lane, mail: QueuedMail) -> Tally:
    """Return the figures that a mail in the spool belongs to."""
    return lane.held if mail.state == HELD else lane.deferred if mail.attempts else lane.untried


def started_anew(outcomes: list[Outcome]) -> list[Outcome]:
    """Return the outcomes of a mail that was asked to be routed anew while it was under way."""
    return forgotten(outcomes) or [Outcome()] * len(outcomes)


def still_warned(outcomes: list[Outcome], before: list[Outcome] | None) -> list[Outcome]:
    """Return the outcomes of an attempt with what was known before it: that the sender was told of the delay."""
    if not any(outcome.is_warned for outcome in before or ()):
        return outcomes
    return [outcome if outcome.is_done else msgspec.structs.replace(outcome, is_warned=True) for outcome in outcomes]
