"""When a slot gets its next worker."""

from smtpd.master.comeback import Comeback


def test_a_worker_that_served_for_long_is_replaced_at_once() -> None:
    comeback = Comeback()
    assert [comeback.next_delay_s(60.0, was_ready=True) for _ in range(20)] == [0.0] * 20


def test_failing_boots_are_tried_later_and_later_up_to_half_a_minute() -> None:
    comeback = Comeback()
    delays = [comeback.next_delay_s(0.01, was_ready=False) for _ in range(1000)]
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert delays == sorted(delays)
    assert delays[-1] == 30.0


def test_once_ready_the_failing_boots_are_forgotten() -> None:
    comeback = Comeback()
    for _ in range(10):
        comeback.next_delay_s(0.01, was_ready=False)
    comeback.note_ready()
    assert comeback.next_delay_s(0.01, was_ready=False) == 0.1


def test_short_lives_in_a_row_are_slowed_but_service_stays_within_a_second() -> None:
    comeback = Comeback()
    delays = [comeback.next_delay_s(0.5, was_ready=True) for _ in range(50)]
    assert delays[0] == 0.0
    assert 0.0 < delays[-1] < 1.0
    assert comeback.next_delay_s(60.0, was_ready=True) == 0.0
