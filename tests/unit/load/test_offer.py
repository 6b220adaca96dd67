from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd.load.offer import NEVER, ClosedOffer, OpenOffer
from smtpd.load.plan import share_of


def times_of(offer: OpenOffer) -> list[float]:
    found = []
    while offer.next_at != NEVER:
        found.append(offer.take(0.0))
    return found


def test_a_steady_rate_has_even_distances() -> None:
    assert times_of(OpenOffer(100.0, 102.0, 1000, 4.0)) == [100 + n / 4 for n in range(8)]


@given(st.integers(1, 7), st.integers(1, 100))
def test_the_shares_of_all_processes_are_the_whole_schedule(shares: int, rate: int) -> None:
    whole = times_of(OpenOffer(0.0, 3.0, 10_000, rate))
    parts = [times_of(OpenOffer(0.0, 3.0, 10_000, rate, share=share, shares=shares)) for share in range(shares)]
    assert sorted(time for part in parts for time in part) == pytest.approx(whole)


def test_the_rate_grows_evenly_while_it_ramps_up() -> None:
    times = times_of(OpenOffer(0.0, 20.0, 10_000, 100.0, ramp_up_s=10.0))
    assert sum(time < 5.0 for time in times) == pytest.approx(125, abs=1)
    assert sum(time < 10.0 for time in times) == pytest.approx(500, abs=1)
    assert sum(time >= 10.0 for time in times) == pytest.approx(1000, abs=1)


def test_random_distances_keep_the_rate_and_are_the_seeds() -> None:
    times = times_of(OpenOffer(0.0, 100.0, 100_000, 100.0, random=Random(1)))
    assert 9_500 < len(times) < 10_500
    assert times == times_of(OpenOffer(0.0, 100.0, 100_000, 100.0, random=Random(1)))
    gaps = [after - before for before, after in pairwise(times)]
    assert sum(gap < 0.01 for gap in gaps) / len(gaps) == pytest.approx(1 - 2.718281828**-1, abs=0.02)


def test_a_stopped_one_still_has_what_was_due() -> None:
    offer = OpenOffer(0.0, 10.0, 1000, 10.0)
    offer.take(0.0)
    offer.stop(1.0)
    assert offer.count_due(5.0) == 9
    assert offer.next_at == NEVER


def test_a_count_ends_it() -> None:
    assert len(times_of(OpenOffer(0.0, 10.0, 7, 10.0))) == 7
    closed = ClosedOffer(5.0, 2)
    assert closed.next_at == 5.0
    assert [closed.take(6.0), closed.next_at, closed.take(7.0), closed.next_at] == [6.0, 5.0, 7.0, NEVER]


@given(st.integers(0, 1000), st.integers(1, 20))
def test_shares_add_up(whole: int, shares: int) -> None:
    parts = [share_of(whole, share, shares) for share in range(shares)]
    assert sum(parts) == whole
    assert max(parts) - min(parts) <= 1
