"""Marks: when a state begins, when it ends, and that it does neither in between."""

from __future__ import annotations

from smtpd.limits.marks import LagMark, Mark


def test_a_state_begins_at_the_high_mark_and_ends_below_the_low_one() -> None:
    mark = Mark(0.8, 0.7)
    found = [(mark.look(value), mark.is_over) for value in (0.79, 0.8, 0.75, 0.9, 0.7, 0.69, 0.75)]
    assert found == [
        (False, False), (True, True), (False, True), (False, True), (False, True), (True, False), (False, False),
    ]  # fmt: skip


def test_a_high_mark_of_zero_is_never_reached_and_ends_what_somebody_else_began() -> None:
    mark = Mark(0, 0.7)
    assert not mark.look(1e12)
    assert not mark.is_over
    assert mark.judge(1e12, was_over=True) is False


def test_one_slow_turn_is_no_stress_and_one_quick_turn_no_end_of_it() -> None:
    mark = LagMark(1.0, 0.25)
    assert [mark.look(lag) for lag in (5.0, 0.0, 1.0, 1.0, 0.9)] == [False] * 5
    assert [mark.look(lag) for lag in (1.0, 1.0, 1.0)] == [False, False, True]
    assert [mark.look(0.1) for _ in range(7)] + [mark.look(0.3)] == [False] * 8
    assert mark.is_over
    assert [mark.look(0.1) for _ in range(8)] == [False] * 7 + [True]
    assert not mark.is_over


def test_a_lag_mark_of_zero_is_never_reached() -> None:
    mark = LagMark(0.0, 0.25)
    assert not any(mark.look(60.0) for _ in range(10))
