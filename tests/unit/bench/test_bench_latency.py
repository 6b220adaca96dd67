"""bench.latency reads the report of `smtpd load` as docs/load.md has it, and tells a run that says nothing about the server."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from bench.generator import GeneratorError
from bench.half_load import render, summarize
from bench.latency import load_command, take_report, window_of

REPORT: dict[str, Any] = json.loads(Path(__file__).with_name("load_report.json").read_text(encoding="utf-8"))


def test_a_report_gives_rate_and_percentiles() -> None:
    report = take_report(REPORT)
    assert report.accepted == REPORT["mails"]["accepted"] > 0
    assert report.mails_per_s == REPORT["throughput_per_s"]
    assert 0 < report.end_of_data_ms["p50"] <= report.end_of_data_ms["p99"] <= report.end_of_data_ms["p99.9"]
    assert report.total_ms["p50"] >= report.end_of_data_ms["p50"]
    assert json.loads(json.dumps(report.as_json()))["end_of_data_ms"] == report.end_of_data_ms


def test_a_load_maker_at_its_limit_is_noted() -> None:
    for is_limit, note in ((False, ""), (True, "the load maker was at its limit")):
        changed = copy.deepcopy(REPORT)
        changed["load_maker"]["was_bottleneck"] = is_limit
        assert take_report(changed).note == note


@pytest.mark.parametrize(
    ("mails", "errors", "words"),
    [
        ({"failed": 3}, {"rcpt 550": 3}, "3 failed: rcpt 550: 3"),
        ({"partial": 1}, {}, "0 failed"),
        ({"accepted": 0}, {}, "0 mails accepted"),
    ],
)
def test_mails_that_failed_are_an_error(mails: dict[str, int], errors: dict[str, int], words: str) -> None:
    changed = copy.deepcopy(REPORT)
    changed["mails"].update(mails)
    changed["errors"] = errors
    with pytest.raises(GeneratorError, match=words):
        take_report(changed)


def test_the_rate_makes_the_loop_open() -> None:
    closed = load_command("127.0.0.1", 2525, 20, 2.0, 4096)
    opened = load_command("127.0.0.1", 2525, 100, 4.0, 4096, rate=1234.56)
    assert "--rate" not in closed
    assert " ".join(opened).endswith(
        "smtpd load -d -s 100 --duration 4 --size 4096 --rate 1234.6 -f a@example.com -t b@example.org --json - 127.0.0.1:2525"
    )


def test_the_table_sets_the_tail_beside_the_disk() -> None:
    latencies = {"p50": 1.0, "p99": 8.0, "p99.9": 9.0}
    common = {"end_of_data_ms": latencies, "total_ms": latencies, "saturation_per_s": 2000, "note": ""}
    rounds = [
        {"round": 1, "server": "smtpd serve", "fdatasync_us": 500.0, **common},
        {"round": 2, "server": "smtpd serve", "fdatasync_us": 2000.0, **common},
        {"round": 1, "server": "floor", "fdatasync_us": None, **common, "note": "the load maker was at its limit"},
    ]
    content = {"summary": summarize(rounds), "end": "complete", "failed": {}, "left_out": {"haraka": "not installed"}}
    text = render(content)
    assert "| smtpd serve | 2,000 | 1.00 | 8.00 | 9.00 | 8.00 | 1,250 | 10.0× |" in text
    assert "| floor * | 2,000 | 1.00 | 8.00 | 9.00 | 8.00 |  |  |" in text
    assert "Left out: haraka: not installed." in text


def test_a_window_lays_cpu_beside_whole_seconds() -> None:
    series = [{"t_s": float(second), "accepted": 100 * (second + 1)} for second in range(6)]
    report = {"series": series, "duration_s": 5.4, "started_monotonic_s": 1000.0}
    samples = [(999.5 + step / 2, step * 10_000_000) for step in range(16)]  # 20 ms of CPU a second
    assert window_of(report, samples, 2) == (300 + 400 + 500, pytest.approx(3.0), 60_000_000)
    with pytest.raises(GeneratorError, match="no whole second"):
        window_of(report, samples, 5)
    with pytest.raises(GeneratorError, match="not sampled"):
        window_of(report, samples[:4], 2)
