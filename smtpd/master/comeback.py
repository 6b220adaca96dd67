"""How soon a slot gets its next worker: at once after a rare death, later and later when it never gets going.

Pure arithmetic, one object per slot; seconds throughout.
"""

from __future__ import annotations

_FIRST_S = 0.1
_LONGEST_S = 30.0  # for a worker that never gets ready: what ails it needs a person or time
_LONGEST_READY_S = 0.5  # for one that serves for a while each time: half a service is better than none
_SHORT_LIFE_S = 10.0
_FREE_DEATHS = 3  # short lives in a row that cost no delay


class Comeback:
    """Counts the short lives in a row of one slot's workers."""

    __slots__ = ("_failed_boots", "_short_lives")

    def __init__(self) -> None:
        self._failed_boots = 0
        self._short_lives = 0

    def note_ready(self) -> None:
        """The worker serves: whatever kept the earlier ones from booting is over."""
        self._failed_boots = 0

    def next_delay_s(self, lived_s: float, *, was_ready: bool) -> float:
        """The worker is dead after `lived_s`; how long to wait before the next one."""
        if was_ready:
            self._short_lives = self._short_lives + 1 if lived_s < _SHORT_LIFE_S else 0
            return 0.0 if self._short_lives <= _FREE_DEATHS else _LONGEST_READY_S
        self._failed_boots += 1
        # the exponent is bounded: 2 ** 10000 would be a big number to compute
        return min(_LONGEST_S, _FIRST_S * 2.0 ** min(self._failed_boots - 1, 16))
