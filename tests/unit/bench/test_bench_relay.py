"""The summary of the relaying benchmark: ratios within rounds, and what is left when runs failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench import relay
from bench.relaying import CountingSink


def run(number: int, server: str, rate: float, cpu: float = 100.0) -> dict[str, Any]:
    return {"round": number, "server": server, "mails_per_s": rate, "cpu_us_per_mail": cpu}


def test_ratios_are_taken_within_a_round() -> None:
    rounds = [run(0, "a", 100), run(0, "b", 50), run(1, "b", 10), run(1, "a", 40), run(2, "a", 90), run(2, "b", 30)]
    assert relay.ratios(rounds, "a", "b") == [2.0, 4.0, 3.0]
    summary = relay.summarize(rounds, "a", "b")
    assert summary["ratio"] == 3.0
    assert summary["a"]["mails_per_s"] == 90
    assert summary["rounds"] == 3


def test_a_round_without_one_of_them_has_no_ratio() -> None:
    rounds = [run(0, "a", 100), run(1, "a", 40), run(1, "b", 10)]
    assert relay.ratios(rounds, "a", "b") == [4.0]
    assert "ratio" not in relay.summarize(rounds[:1], "a", "b")
    assert "b" not in relay.summarize(rounds[:1], "a", "b")


def test_the_sink_s_newest_count_is_read(tmp_path: Path) -> None:
    sink = CountingSink(tmp_path)
    (tmp_path / "sink-0.log").write_bytes(b"")
    assert sink.count() == 0
    (tmp_path / "sink-0.log").write_bytes(b"".join(b"sess=1 quit=0 mesg=%d\r" % n for n in range(1, 1235)))
    assert sink.count() == 1234
