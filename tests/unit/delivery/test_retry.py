"""The retry schedule."""

from hypothesis import given
from hypothesis import strategies as st

from smtpd.delivery.retry import RetrySchedule

HOUR_S = 3600.0


def make_schedule(chance: float = 0.5) -> RetrySchedule:
    return RetrySchedule([300.0, 600.0, HOUR_S], 5 * 24 * HOUR_S, lambda: chance)


def test_waits_follow_the_list_and_the_last_repeats() -> None:
    schedule = make_schedule()
    waits = [schedule.next_due_s(attempts, 1000.0, 2000.0) for attempts in (1, 2, 3, 4, 100)]
    assert waits == [2300.0, 2600.0, 2000.0 + HOUR_S, 2000.0 + HOUR_S, 2000.0 + HOUR_S]


def test_jitter_is_a_tenth_both_ways() -> None:
    assert make_schedule(0.0).next_due_s(1, 0.0, 0.0) == 270.0
    assert make_schedule(0.999999).next_due_s(1, 0.0, 0.0) == 300.0 * (0.9 + 0.2 * 0.999999)


def test_the_last_attempt_comes_when_the_lifetime_ends() -> None:
    schedule = RetrySchedule([HOUR_S], 1.5 * HOUR_S, lambda: 0.5)
    assert schedule.next_due_s(1, 0.0, 0.0) == HOUR_S
    assert schedule.next_due_s(2, 0.0, HOUR_S) == 1.5 * HOUR_S
    assert schedule.next_due_s(3, 0.0, 1.5 * HOUR_S) is None


def test_a_clock_that_was_set_back_makes_mail_due_rather_than_late() -> None:
    schedule = make_schedule()
    assert 100.0 + HOUR_S * 1.1 < schedule.horizon_s(100.0) < 100.0 + 2 * HOUR_S


@given(
    st.integers(1, 10_000), st.floats(0, 4e9), st.floats(0, 4e9), st.floats(0, 1, exclude_max=True)
)  # fmt: skip
def test_a_due_time_lies_ahead_and_within_reach(attempts: int, received_at_s: float, now_s: float, chance: float) -> None:
    schedule = make_schedule(chance)
    due_s = schedule.next_due_s(attempts, received_at_s, now_s)
    if due_s is None:
        assert now_s >= received_at_s + 5 * 24 * HOUR_S
    else:
        assert now_s <= due_s <= now_s + 1.1 * HOUR_S
