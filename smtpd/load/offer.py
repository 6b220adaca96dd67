"""When mails are to begin: at once when a session is free (closed loop), or at times made before by the rate alone (open loop).

Pure: has no clock, is told the time (monotonic seconds) by whoever asks. That a mail of the open loop keeps its intended time,
however late it begins, is what makes a stalled target show in the latencies.
"""

from __future__ import annotations

import math
from random import Random

NEVER = math.inf


class Offer:
    """`next_at` is when the next mail is due, NEVER when there is none any more. `taken` mails have begun."""

    __slots__ = ("_count", "_ends_at", "is_open", "next_at", "taken")

    def __init__(self, starts_at: float, ends_at: float, count: int, is_open: bool) -> None:
        self.is_open = is_open
        self.next_at = starts_at
        self.taken = 0
        self._ends_at = ends_at
        self._count = count

    def take(self, now: float) -> float:
        """Begin the mail that is due at `next_at`; return its intended time."""
        raise NotImplementedError

    def stop(self, now: float) -> None:
        """Nothing is due from now on; what was due before still is."""
        if now < self._ends_at:
            self._ends_at = now
        if self.next_at >= self._ends_at:
            self.next_at = NEVER

    def count_due(self, now: float) -> int:
        """How many mails are due and have not begun. Ends the offer."""
        raise NotImplementedError


class ClosedOffer(Offer):
    """The next mail is due whenever a session is free, until `count` have begun or it is stopped."""

    __slots__ = ()

    def __init__(self, starts_at: float, count: int) -> None:
        super().__init__(starts_at, NEVER, count, False)

    def take(self, now: float) -> float:
        self.taken += 1
        if self.taken >= self._count:
            self.next_at = NEVER
        return now

    def stop(self, now: float) -> None:
        self.next_at = NEVER

    def count_due(self, now: float) -> int:
        self.next_at = NEVER
        return 0


class OpenOffer(Offer):
    """`rate` mails a second for all processes; of `shares` processes this is number `share`. The rate grows evenly from 0 in the
    first `ramp_up_s`. With `random` the distances are exponential, so the mails of all processes are a Poisson process."""

    __slots__ = ("_place", "_ramp_up_s", "_random", "_rate", "_shares", "_starts_at")

    def __init__(
        self,
        starts_at: float,
        ends_at: float,
        count: int,
        rate: float,
        *,
        share: int = 0,
        shares: int = 1,
        ramp_up_s: float = 0.0,
        random: Random | None = None,
    ) -> None:
        super().__init__(starts_at, ends_at, count, True)
        self._starts_at = starts_at
        self._rate = rate
        self._shares = shares
        self._ramp_up_s = ramp_up_s
        self._random = random
        self._place = float(share)  # of the next mail, counted in mails of all processes
        if random is not None:
            self._place = random.expovariate(1.0) * shares
        self._set_next()

    def take(self, now: float) -> float:
        intended = self.next_at
        self.taken += 1
        self._place += self._shares if self._random is None else self._random.expovariate(1.0) * self._shares
        self._set_next()
        return intended

    def count_due(self, now: float) -> int:
        self.stop(now)
        due = 0
        while self.next_at < now:
            self.take(now)
            due += 1
        self.next_at = NEVER
        return due

    def _set_next(self) -> None:
        """A mail's time is where the integral of the rate reaches its place."""
        ramp_up_s, rate, place = self._ramp_up_s, self._rate, self._place
        in_ramp_up = rate * ramp_up_s / 2
        if place < in_ramp_up:
            after_s = math.sqrt(2 * place * ramp_up_s / rate)
        else:
            after_s = ramp_up_s + (place - in_ramp_up) / rate
        self.next_at = self._starts_at + after_s
        if self.taken >= self._count or self.next_at >= self._ends_at:
            self.next_at = NEVER
