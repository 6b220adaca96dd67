"""Latencies: what is written is what is drawn, and by one seed always the same."""

from __future__ import annotations

import random
import statistics

import pytest

from smtpd.config.latency import LONGEST_S, Latency, parse_latency

DRAWS = 4000


@pytest.mark.parametrize(
    ("text", "latency"),
    [
        ("2", Latency("fixed", 2.0)),
        ("1 min 30 s", Latency("fixed", 90.0)),
        ("0.25", Latency("fixed", 0.25)),
        ("uniform 1 s to 5 s", Latency("uniform", 1.0, 5.0)),
        ("normal 2 s +- 500 ms", Latency("normal", 2.0, 0.5)),
        ("lognormal 200 ms sigma 0.8", Latency("lognormal", 0.2, 0.8)),
        ("exponential 2 s", Latency("exponential", 2.0)),
        ("dice 1 s 30", Latency("dice", 1.0, 30.0)),
    ],
)
def test_what_is_written_is_read_and_written_again(text: str, latency: Latency) -> None:
    assert parse_latency(text) == latency
    assert parse_latency(str(latency)) == latency


@pytest.mark.parametrize(
    "text",
    ["", "soon", "unifrom 1 to 2", "uniform 1 s", "uniform 5 s to 1 s", "normal 1 s", "lognormal 0 sigma 1",
     "lognormal 1 s sigma x", "lognormal 1 s sigma -1", "exponential 0", "exponential", "2 d", "dice 1 s 0", "-1"],
)  # fmt: skip
def test_what_is_no_latency_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_latency(text)


def test_a_misspelt_distribution_is_guessed() -> None:
    with pytest.raises(ValueError, match='did you mean "uniform"'):
        parse_latency("unifrom 1 s to 2 s")


def test_a_fixed_time_takes_nothing_from_chance() -> None:
    chance = random.Random(1)
    before = chance.getstate()
    assert parse_latency("2 s").draw(chance) == 2.0
    assert chance.getstate() == before


# With a fixed seed each of these is one number; the bounds say that it is the distribution that was asked for.
@pytest.mark.parametrize(
    ("text", "median", "mean"),
    [
        ("uniform 1 s to 5 s", 3.0, 3.0),
        ("normal 10 s +- 1 s", 10.0, 10.0),
        ("lognormal 200 ms sigma 0.8", 0.2, 0.2755),
        ("exponential 2 s", 1.386, 2.0),
        ("dice 1 s 50", 1.5, 2.0),
    ],
)
def test_each_distribution_has_its_middle(text: str, median: float, mean: float) -> None:
    chance = random.Random(20)
    drawn = [parse_latency(text).draw(chance) for _ in range(DRAWS)]
    assert statistics.mean(drawn) == pytest.approx(mean, rel=0.05)
    assert statistics.median(drawn) == pytest.approx(median, rel=0.4 if text.startswith("dice") else 0.06)


@pytest.mark.parametrize("text", ["normal 1 s +- 10 s", "lognormal 1 h sigma 10"])
def test_nothing_drawn_is_negative_or_without_end(text: str) -> None:
    chance = random.Random(2)
    drawn = [parse_latency(text).draw(chance) for _ in range(DRAWS)]
    assert min(drawn) >= 0.0
    assert max(drawn) <= LONGEST_S
