"""A mark that a figure may be over: on from the high one up, off below the low one, in between as it was.

Knows no clock and no unit; 0 as the high mark means never.
"""

from __future__ import annotations


class Mark:
    """`is_over` is the state after the last `look`."""

    __slots__ = ("high", "is_over", "low")

    def __init__(self, high: float, low: float) -> None:
        self.high = high
        self.low = low
        self.is_over = False

    def look(self, value: float) -> bool:
        """Take a new figure; return whether the state has changed."""
        was_over = self.is_over
        self.is_over = self.judge(value, was_over)
        return self.is_over != was_over

    def judge(self, value: float, was_over: bool) -> bool:
        """Return what the state becomes, where somebody else remembers it."""
        if not self.high:
            return False
        return value >= self.high or (was_over and value >= self.low)


class LagMark:
    """A mark of how late a loop turns: one slow turn is no stress, and one quick turn no end of it.

    On when each of `_LATE_LOOKS` looks in a row found the high mark, off when none of `_CALM_LOOKS` found the low one.
    """

    __slots__ = ("_calm", "_late", "_mark", "is_over")
    _LATE_LOOKS = 3
    _CALM_LOOKS = 8

    def __init__(self, high_s: float, low_s: float) -> None:
        self._mark = Mark(high_s, low_s)
        self._late = 0
        self._calm = 0
        self.is_over = False

    def look(self, lag_s: float) -> bool:
        """Take how late the loop was, in seconds; return whether the state has changed."""
        mark = self._mark
        if not mark.high:
            return False
        self._late = self._late + 1 if lag_s >= mark.high else 0
        self._calm = self._calm + 1 if lag_s < mark.low else 0
        was_over = self.is_over
        self.is_over = self._calm < self._CALM_LOOKS if was_over else self._late >= self._LATE_LOOKS
        return self.is_over != was_over
