"""Rates: what is taken, what is said of the rest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd.settings.rate import Rate, parse_rate


@pytest.mark.parametrize(
    ("text", "rate", "shown"),
    [
        ("600/min", Rate(600, 60), "600/min"),
        ("5 / s", Rate(5, 1), "5/s"),
        ("20/10 s", Rate(20, 10), "20/10 s"),
        ("1000/60min", Rate(1000, 3600), "1000/h"),
        ("7/2 d", Rate(7, 172800), "7/2 d"),
        ("0", Rate(), "0"),
    ],
)
def test_a_rate_is_a_number_in_a_time(text: str, rate: Rate, shown: str) -> None:
    assert parse_rate(text) == rate
    assert str(rate) == shown


def test_the_interval_is_what_fills_the_bucket_in_its_time() -> None:
    assert parse_rate("600/min").interval_us == 100_000
    assert parse_rate("999999999/s").interval_us == 1
    assert parse_rate("0").interval_us == 0


@pytest.mark.parametrize(
    "text", ["", "600", "600/", "/min", "600/month", "6 kB/s", "1/2/s", "0/s", "1/0 s", "-1/s", "1.5/s", "1/S", "9999999999/s"]
)
def test_anything_else_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValueError, match="rate"):
        parse_rate(text)


@given(st.integers(1, 999_999_999), st.integers(1, 9999), st.sampled_from(["s", "min", "h", "d"]))
def test_what_is_shown_is_read_as_the_same(count: int, periods: int, unit: str) -> None:
    rate = parse_rate(f"{count}/{periods} {unit}")
    assert parse_rate(str(rate)) == rate
    assert rate.interval_us * rate.count <= max(rate.period_s * 1_000_000, rate.count)
