"""When what a loop brings is handed to the shard thread: each hand-over is a commit, and a commit costs the disk a flush.

What somebody waits for (new mail, reads, claims, changes) goes when the loop has nothing else to do, at the latest a moment
later. Settlements alone wait for a commit that is needed anyway, since nobody waits for them. Loop thread only.
"""

from __future__ import annotations

from collections.abc import Callable

from smtpd.net.loop import Loop, Timer
from smtpd.spool.batch import Batch
from smtpd.spool.shard import Shard

AWAITED_S = 0.001  # while the loop has work
SETTLED_S = 0.01
_AWAITED_S, _SETTLED_S = AWAITED_S, SETTLED_S  # in C variables of the module


class Gathering:
    """The batches of this moment, one for each shard. `hand_over(batches)` gets them in the order of their first entry."""

    __slots__ = ("_batches", "_hand_over", "_is_awaited", "_loop", "_since_s", "_timer")

    def __init__(self, loop: Loop, hand_over: Callable[[list[tuple[Shard, Batch]]], object]) -> None:
        self._loop = loop
        self._hand_over = hand_over
        self._batches: list[tuple[Shard, Batch]] = []
        self._is_awaited = False
        self._since_s = 0.0
        self._timer: Timer | None = None
        loop.at_idle(self._on_idle)

    def batch_of(self, shard: Shard) -> Batch:
        """Return what gathers for the shard."""
        batch = shard.batch
        if batch is None:
            if not self._batches:
                self._since_s = self._loop.now
            batch = shard.batch = Batch()
            self._batches.append((shard, batch))
        return batch

    def awaited_batch_of(self, shard: Shard) -> Batch:
        """The same, for something that is waited for."""
        self._is_awaited = True
        return self.batch_of(shard)

    def end_turn(self) -> None:
        """Hand over what has gathered long enough."""
        if not self._batches:
            return
        until_s = self._since_s + (_AWAITED_S if self._is_awaited else _SETTLED_S)
        if self._loop.now >= until_s:
            self.hand_over()
        elif not self._is_awaited and self._timer is None:
            self._timer = self._loop.call_at(until_s, self._on_timer)

    def hand_over(self) -> None:
        """Let go of all, now."""
        self._is_awaited = False
        batches, self._batches = self._batches, []
        for shard, _ in batches:
            shard.batch = None
        self._hand_over(batches)

    def close(self) -> None:
        """Let go of all; settlements that come later are not looked at any more."""
        self.hand_over()
        if self._timer is not None:
            self._timer.cancel()

    def _on_idle(self) -> None:
        if self._is_awaited:
            self.hand_over()

    def _on_timer(self) -> None:
        self._timer = None  # what is due goes at the end of this turn
