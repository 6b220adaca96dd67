from hypothesis import given
from hypothesis import strategies as st

from smtpd.load.histogram import BUCKETS, ERROR, TICKS, Histogram, middle

SECONDS = st.floats(min_value=0.0, max_value=6000.0)


def filled(values: list[float]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


@given(SECONDS)
def test_each_value_is_known_within_the_stated_error(value: float) -> None:
    histogram = filled([value, 0.0, 6500.0])  # so that nothing is clamped to the least or greatest
    assert abs(histogram.percentile(50) - value) <= value * ERROR + 0.5001 / TICKS


@given(st.lists(SECONDS, min_size=1, max_size=200), st.sampled_from([1, 10, 50, 90, 99, 99.9, 100]))
def test_percentiles_are_those_of_the_sorted_values(values: list[float], percent: float) -> None:
    exact = sorted(values)[max(0, -(-len(values) * percent // 100) - 1).__int__()]
    assert abs(filled(values).percentile(percent) - exact) <= exact * ERROR + 1 / TICKS


@given(st.lists(SECONDS), st.lists(SECONDS))
def test_merging_is_the_same_as_recording_all_in_one(one: list[float], other: list[float]) -> None:
    merged = filled(one)
    merged.merge(filled(other).pack())
    whole = filled(one + other)
    assert merged.pack()[:3] == whole.pack()[:3]
    assert merged.pack()[4:] == whole.pack()[4:]
    assert abs(merged.mean_s - whole.mean_s) < 1e-6


@given(st.lists(SECONDS, min_size=1))
def test_least_and_greatest_are_exact_and_bound_all_percentiles(values: list[float]) -> None:
    histogram = filled(values)
    assert abs(histogram.least_s - min(values)) <= 1 / TICKS
    assert abs(histogram.greatest_s - max(values)) <= 1 / TICKS
    assert histogram.least_s <= histogram.percentile(0) <= histogram.percentile(100) <= histogram.greatest_s


def test_nothing_falls_out_at_the_ends() -> None:
    histogram = filled([-1.0, 1e9])
    assert histogram.count == 2
    assert histogram.least_s == 0.0
    assert 6800 < histogram.greatest_s < 6900
    assert histogram.pack()[-2] == BUCKETS - 1


def test_an_empty_one_has_zeros() -> None:
    histogram = Histogram()
    assert (histogram.percentile(50), histogram.mean_s, histogram.least_s, histogram.greatest_s) == (0.0, 0.0, 0.0, 0.0)
    other = filled([1.0])
    other.merge(histogram.pack())
    assert other.least_s == 1.0


def test_buckets_touch_each_other() -> None:
    assert all(middle(bucket) < middle(bucket + 1) for bucket in range(BUCKETS - 1))
