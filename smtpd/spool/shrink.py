"""When, and how much at a time, a shard's free pages are given back to the file system: the pace, not the work.

A SQLite file never shrinks by itself. Giving back begins when a backlog has drained, not while it drains: the pages at the
end are then free already and only cut off, where before live ones would have to be moved, which also leaves SQLite's list of
free pages in an order that makes every later step slow (docs/decisions/spool-layout.md). A step takes about 10 ms.
"""

from __future__ import annotations

KEPT_FREE_BYTES = 64 << 20  # stays in the file: to give it back and take it again costs writes
QUIET_S = 3.0  # without free pages growing in number: the backlog has drained
_GROWTH_BYTES = 4 << 20
_STEP_S = 0.01  # what a commit may have to wait for a step
_IDLE_PAUSE = 4.0  # times the length of the last step
_BUSY_PAUSE = 50.0
_FEWEST_PAGES, _MOST_PAGES = 8, 1024


class Shrinker:
    """Of one shard. Times are monotonic seconds. `pages` is the size of the next step; `is_wanted`: there is something to do."""

    __slots__ = ("_busy_at_s", "_idle_at_s", "_low_bytes", "is_wanted", "pages")

    def __init__(self) -> None:
        self.is_wanted = False
        self.pages = 64
        self._low_bytes = 0  # what was free when it last began to grow
        self._idle_at_s = 0.0  # when the next step may come if nothing else is to be done, and if there is
        self._busy_at_s = 0.0

    def note_free(self, free_bytes: int, now_s: float) -> None:
        """So much is free in the file now."""
        self.is_wanted = free_bytes > KEPT_FREE_BYTES
        if free_bytes > self._low_bytes + _GROWTH_BYTES:
            self._idle_at_s = self._busy_at_s = now_s + QUIET_S
            self._low_bytes = free_bytes
        elif free_bytes < self._low_bytes:
            self._low_bytes = free_bytes

    def is_due(self, now_s: float, is_idle: bool) -> bool:
        """Whether a step may be done now; `is_idle`: no commit waits."""
        return self.is_wanted and now_s >= (self._idle_at_s if is_idle else self._busy_at_s)

    def wait_s(self, now_s: float) -> float:
        """How long a thread with nothing else to do should wait."""
        return max(0.0, self._idle_at_s - now_s)

    def note_step(self, took_s: float, now_s: float) -> None:
        """A step was done: the next one gets the size that fits, and comes after a pause."""
        fitting = int(self.pages * _STEP_S / max(took_s, 1e-4))
        self.pages = max(_FEWEST_PAGES, min(_MOST_PAGES, fitting, self.pages * 2))
        self._idle_at_s = now_s + took_s * _IDLE_PAUSE
        self._busy_at_s = now_s + took_s * _BUSY_PAUSE
