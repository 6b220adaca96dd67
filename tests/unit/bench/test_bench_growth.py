"""bench.growth and bench.curves: what grows faster than linearly is named, what has a fixed share or is linear isn't."""

from __future__ import annotations

import pytest

from bench.curves import ratio_between
from bench.generator import Measured
from bench.growth import find_growth, slope, steepest
from bench.tables import Round

SIZES = [1e3, 4e3, 16e3, 64e3, 1e6]


def test_slopes_of_powers() -> None:
    assert slope((2, 4), (8, 64)) == pytest.approx(2)
    assert slope((2, 5), (8, 5)) == 0
    assert steepest([(100, 100), (1, 1), (10, 10), (1000, 4000)]) == pytest.approx((1.602, 100, 1000), abs=0.001)
    assert steepest([(1, 1)]) == (0, 0, 0)


def test_a_fixed_share_and_a_line_are_no_finding() -> None:
    curves = {"flat": [(x, 30.0) for x in SIZES], "line": [(x, 30 + x / 100) for x in SIZES]}
    assert find_growth(curves, "octets") == []


def test_what_is_quadratic_somewhere_is_named_with_its_floor() -> None:
    curves = {"floor": [(x, x) for x in SIZES], "thing": [(x, max(1e5, x * x / 1e4)) for x in SIZES]}
    found = find_growth(curves, "octets")
    assert found == [
        "thing grows faster than linearly from 64,000 to 1,000,000 octets: slope 2.00 (floor: 1.00)",
    ]


def test_a_base_without_these_points_is_not_compared_with() -> None:
    assert find_growth({"floor": [(1, 1)], "thing": [(1, 1), (10, 1000)]}, "sessions") == [
        "thing grows faster than linearly from 1 to 10 sessions: slope 3.00"
    ]


def one(number: int, server: str, load: str, cpu_us: float) -> Round:
    return Round(number, load, server, Measured(1000, 1.0, int(cpu_us * 1e6), True), None)


def test_ratios_between_places_are_taken_within_a_round() -> None:
    rounds = [one(0, "a", "few", 10), one(0, "a", "many", 20), one(1, "a", "few", 10), one(1, "a", "many", 40)]
    assert ratio_between(rounds, "a", "many", "a", "few", "cpu_us_per_mail") == 3.0
    assert ratio_between(rounds, "b", "many", "a", "few", "cpu_us_per_mail") is None
