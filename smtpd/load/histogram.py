"""Latencies in log-linear buckets: 128 of the same width in each doubling, so every value is known within 0.4 %.

Owns counts, and the exact least, greatest and sum. Merges with those of other processes and loses nothing by it. Raises nothing;
what is negative counts as 0, what is over two hours as that. Compiled: a record is a few steps in C.
"""

from __future__ import annotations

TICKS = 10_000_000  # in a second: a tick is 0.1 µs
_TICKS = float(TICKS)  # in C variables of the module, as the two below are
_MOST = (1 << 36) - 1
_LINEAR = 256  # values below are their own bucket
BUCKETS = 256 + 28 * 128
ERROR = 1 / 256  # of a bucket's middle, relative to any value in it


class Histogram:
    """All but `record` speak of seconds."""

    __slots__ = ("_counts", "_greatest", "_least", "_sum", "count")

    def __init__(self) -> None:
        self._counts: list[int] = [0] * BUCKETS
        self.count = 0
        self._least = _MOST
        self._greatest = 0
        self._sum = 0.0

    def record(self, seconds: float) -> None:
        """Count one value."""
        ticks = seconds * _TICKS + 0.5
        value = _MOST if ticks > _MOST else 0 if ticks < 0 else int(ticks)
        self.count += 1
        self._sum += value
        if value < self._least:
            self._least = value
        if value > self._greatest:
            self._greatest = value
        base = 0
        while value >= _LINEAR:
            value >>= 1
            base += 128
        counts = self._counts
        counts[base + value] += 1

    @property
    def least_s(self) -> float:
        return self._least / TICKS if self.count else 0.0

    @property
    def greatest_s(self) -> float:
        return self._greatest / TICKS

    @property
    def mean_s(self) -> float:
        return self._sum / self.count / TICKS if self.count else 0.0

    def percentile(self, percent: float) -> float:
        """The value, in seconds, that `percent` of all are at or below; 0.0 when there are none."""
        wanted = max(1, _round_up(self.count * percent / 100))
        seen = 0
        for bucket, count in enumerate(self._counts):
            seen += count
            if seen >= wanted:
                return min(max(middle(bucket), self._least), self._greatest) / TICKS
        return 0.0

    def pack(self) -> list[int]:
        """As numbers for another process: count, least, greatest, sum, then pairs of bucket and count."""
        packed = [self.count, self._least, self._greatest, round(self._sum)]
        if self.count:
            for bucket, count in enumerate(self._counts):
                if count:
                    packed.append(bucket)
                    packed.append(count)
        return packed

    def merge(self, packed: list[int]) -> None:
        """Add what `pack` gave."""
        self.count += packed[0]
        self._least = min(self._least, packed[1])
        self._greatest = max(self._greatest, packed[2])
        self._sum += packed[3]
        for position in range(4, len(packed), 2):
            self._counts[packed[position]] += packed[position + 1]


def middle(bucket: int) -> float:
    """The middle, in ticks, of the values that are counted in this bucket."""
    if bucket < _LINEAR:
        return float(bucket)
    shift = (bucket - 128) // 128
    first = (bucket - 128 * shift) << shift
    return first + ((1 << shift) - 1) / 2


def _round_up(number: float) -> int:
    whole = int(number)
    return whole if whole >= number - 1e-9 else whole + 1
