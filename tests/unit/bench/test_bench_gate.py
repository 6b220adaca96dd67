"""The judgement of the gate on instructions: ceilings with their slack, scaled for another build of Python."""

from __future__ import annotations

from bench.instruction_gate import PATHS, judge, read_ceilings

CEILINGS = {"calibration": 1000, "slack_percent": 3, "slack_percent_elsewhere": 20, "a_mail": {"sink": 100}}


def verdicts(calibration: float, sink: float) -> list[bool]:
    return [verdict.is_kept for verdict in judge({"calibration": calibration, "sink": sink}, CEILINGS)]


def test_the_same_build_has_a_few_percent() -> None:
    assert verdicts(1000, 102.9) == [True]
    assert verdicts(1015, 103.1) == [False]
    assert verdicts(985, 50) == [True]


def test_another_build_is_scaled_and_has_more() -> None:
    assert verdicts(2000, 239) == [True]
    assert verdicts(2000, 241) == [False]
    assert verdicts(500, 119) == [True]  # a faster Python doesn't make compiled code cheaper
    assert verdicts(500, 121) == [False]


def test_a_verdict_says_how_far_off() -> None:
    (verdict,) = judge({"calibration": 1000.0, "sink": 206.0}, CEILINGS)
    assert str(verdict) == "sink: 206 instructions a mail, 103 allowed (+100.0%)"


def test_every_path_has_a_ceiling() -> None:
    ceilings = read_ceilings()
    assert set(PATHS) == set(ceilings["a_mail"])
    assert min(ceilings["a_mail"].values()) > 1000
    assert ceilings["calibration"] > 100_000
