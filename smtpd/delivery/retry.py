"""When a deferred mail is tried again, and until when. Pure; times are Unix seconds, waiting times seconds."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

_JITTER = 0.1  # of the waiting time, both ways: what failed together must not come back together
_SLACK_S = 60.0


class RetrySchedule:
    """`waits_s` between attempts, the last repeats; `lifetime_s` since the mail was received; `chance()` is in [0, 1)."""

    __slots__ = ("_chance", "_lifetime_s", "_longest_s", "_waits_s")

    def __init__(self, waits_s: Sequence[float], lifetime_s: float, chance: Callable[[], float] = random.random) -> None:
        self._waits_s = tuple(waits_s) or (3600.0,)
        self._lifetime_s = lifetime_s
        self._chance = chance
        self._longest_s = max(self._waits_s) * (1 + _JITTER) + _SLACK_S

    def next_due_s(self, attempts: int, received_at_s: float, now_s: float) -> float | None:
        """Return when to try again after `attempts` >= 1 attempts, or None: the lifetime is over.

        The last attempt comes when the lifetime ends, not up to a whole waiting time before."""
        end_s = received_at_s + self._lifetime_s
        if now_s >= end_s:
            return None
        wait_s = self._waits_s[min(attempts, len(self._waits_s)) - 1]
        wait_s *= 1 - _JITTER + 2 * _JITTER * self._chance()
        return min(now_s + wait_s, max(end_s, now_s))

    def horizon_s(self, now_s: float) -> float:
        """Return the latest time for which a mail can have been put off by now; one that is due later is due now.

        The clock was set back since, or the waiting times were shortened."""
        return now_s + self._longest_s
