"""Finds what grows faster than linearly: the slope of a cost over its size where both are drawn on logarithmic scales.

A slope of 1 is linear. A fixed share makes slopes smaller, never greater, so a slope above 1 between two neighbours is a finding;
MOST_SLOPE leaves room for the noise of a run. The floor's slope beside it tells whether it is the kernel's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

MOST_SLOPE = 1.1

type Points = Sequence[tuple[float, float]]


def slope(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Return d log(cost) / d log(size) between two points (size, cost), both above 0."""
    return math.log(other[1] / one[1]) / math.log(other[0] / one[0])


def steepest(points: Points) -> tuple[float, float, float]:
    """Return the greatest slope between neighbours, and the two sizes; (0, 0, 0) of fewer than two points."""
    steps = [(slope(one, other), one[0], other[0]) for one, other in pairwise(sorted(points))]
    return max(steps, default=(0.0, 0.0, 0.0))


def find_growth(curves: Mapping[str, Points], size_name: str, base: str = "floor") -> list[str]:
    """Return a sentence for each curve that grows faster than linearly anywhere."""
    found = []
    for name, points in curves.items():
        for one, other in pairwise(sorted(points)):
            steep = slope(one, other)
            if steep <= MOST_SLOPE:
                continue
            beside = dict(curves.get(base, ()))
            told = ""
            if name != base and one[0] in beside and other[0] in beside:
                told = f" ({base}: {slope((one[0], beside[one[0]]), (other[0], beside[other[0]])):.2f})"
            found.append(
                f"{name} grows faster than linearly from {one[0]:,.0f} to {other[0]:,.0f} {size_name}: slope {steep:.2f}{told}"
            )
    return found
