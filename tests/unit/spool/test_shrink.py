"""The pace of giving free pages back."""

from __future__ import annotations

from smtpd.spool.shrink import KEPT_FREE_BYTES, QUIET_S, Shrinker

GIB = 1 << 30


def test_nothing_is_given_back_of_what_stays_in_the_file() -> None:
    shrinker = Shrinker()
    shrinker.note_free(KEPT_FREE_BYTES, 0.0)
    assert not shrinker.is_wanted
    assert not shrinker.is_due(100.0, is_idle=True)


def test_it_begins_when_the_backlog_has_drained() -> None:
    shrinker = Shrinker()
    for second in range(20):
        shrinker.note_free(GIB + second * (32 << 20), float(second))
        assert not shrinker.is_due(float(second), is_idle=True)
    assert not shrinker.is_due(19.0 + QUIET_S - 0.1, is_idle=True)
    assert shrinker.is_due(19.0 + QUIET_S, is_idle=True)
    shrinker.note_free(GIB + (620 << 20), 25.0)  # grows again
    assert not shrinker.is_due(25.0, is_idle=True)


def test_small_changes_of_busy_traffic_do_not_put_it_off() -> None:
    shrinker = Shrinker()
    shrinker.note_free(GIB, 0.0)
    for second in range(1, 20):
        shrinker.note_free(GIB + (second % 3) * (1 << 20), float(second))
    assert shrinker.is_due(20.0, is_idle=False)


def test_steps_get_the_size_that_fits_and_pauses_between_them() -> None:
    shrinker = Shrinker()
    shrinker.note_free(GIB, 0.0)
    sizes = []
    for _ in range(6):
        shrinker.note_step(0.001, 10.0)
        sizes.append(shrinker.pages)
    assert sizes == [128, 256, 512, 1024, 1024, 1024]
    for _ in range(6):
        shrinker.note_step(1.0, 10.0)
    assert shrinker.pages == 8
    assert not shrinker.is_due(13.9, is_idle=True)
    assert shrinker.is_due(14.0, is_idle=True)
    assert not shrinker.is_due(14.0, is_idle=False)
    assert shrinker.is_due(60.0, is_idle=False)
    assert shrinker.wait_s(12.0) == 2.0
    assert shrinker.wait_s(99.0) == 0.0
