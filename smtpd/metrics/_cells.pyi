"""Counter cells: doubles in a shared buffer, written by one thread each and read by whoever scrapes.

Plain additions without a lock and without giving the GIL up, a few tens of ns each. Every cell is a double: counts are exact
up to 2**53. Numbers of cells come from `slab.CellIndex`. A counter is one cell; a gauge is two, its value and 1.0 once it was
set; a histogram is its sum, one cell for each bucket (not cumulative), and one for what is above the last bound.
"""

from typing import Self

from typing_extensions import disjoint_base

RULER_SHIFT: int  # a histogram's number is its first cell | ruler << RULER_SHIFT
INDEX_MASK: int  # of the first cell in a histogram's number

@disjoint_base
class Cells:
    """The cells `offset` (octets, a multiple of 8) and following of a writable buffer, `count` of them.

    `rulers` are the bucket bounds of histograms, ascending, by ruler number: at most 16 of at most 32 bounds.
    Every method raises IndexError for a cell that isn't there. ValueError: arguments that make no sense.
    """

    def __new__(cls, buffer: object, offset: int, count: int, rulers: tuple[tuple[float, ...], ...]) -> Self: ...
    def inc(self, index: int) -> None:
        """Add 1 to a counter."""
    def add(self, index: int, amount: float) -> None:
        """Add to a counter; ValueError when `amount` is negative or not a number."""
    def set(self, index: int, value: float) -> None:
        """Set a gauge."""
    def observe(self, histogram: int, value: float) -> None:
        """Count a value in its bucket (value <= bound); negative values and NaN count as 0."""
    def get(self, index: int) -> float:
        """Return a counter, a gauge's value, or a histogram's sum."""
