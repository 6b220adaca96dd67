"""The adapter to `smtpd load`: runs it in closed or open loop and takes from its JSON report what the benchmarks use.

Owns the command line and the names of the report (docs/load.md); raises GeneratorError when a run failed. A load maker that was
itself at its limit says less about the server: `note` tells.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from bench.generator import RECIPIENT, SENDER, GeneratorError, Measured
from bench.processes import await_quiet, end, tree_cpu_ns

PERCENTILES = ("p50", "p99", "p99.9")


@dataclass(frozen=True, slots=True)
class LoadReport:
    """One run. Latencies in ms by percentile; `total_ms` is from the intended time on. `note` says what makes it doubtful."""

    mails_per_s: float
    accepted: int
    unsent: int
    end_of_data_ms: dict[str, float]
    total_ms: dict[str, float]
    note: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def missing() -> str:
    """Return why `smtpd load` can't run here, "" when it can."""
    answer = subprocess.run(
        [sys.executable, "-m", "smtpd", "load", "--help"], capture_output=True, text=True, timeout=30, check=False
    )
    return "" if answer.returncode == 0 else "there is no `smtpd load` in this build"


def load_command(host: str, port: int, sessions: int, seconds: float, size_bytes: int, rate: float = 0.0) -> list[str]:
    """Return the command line of a run over kept connections; `rate` in mails/s makes it an open loop."""
    loop = ["--rate", f"{rate:.1f}"] if rate else []
    numbers = ["-s", str(sessions), "--duration", f"{seconds:g}", "--size", str(size_bytes)]
    return [
        *(sys.executable, "-m", "smtpd", "load", "-d", *numbers, *loop),
        *("-f", SENDER, "-t", RECIPIENT, "--json", "-", f"{host}:{port}"),
    ]


def run_load(
    host: str, port: int, *, sessions: int = 20, seconds: float = 2.0, size_bytes: int = 4096, rate: float = 0.0
) -> LoadReport:
    """Run it and return its report; GeneratorError when it fails or takes far longer than it was told to."""
    command = load_command(host, port, sessions, seconds, size_bytes, rate)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    limit_s = 2 * seconds + 60
    try:
        output, words = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        raise GeneratorError(f"smtpd load took over {limit_s:.0f} s") from None
    finally:
        end(process)
    try:
        report = json.loads(output)
    except ValueError:
        text = words.decode("utf-8", "replace").strip()[-500:]
        raise GeneratorError(text or f"smtpd load ended with {process.returncode}") from None
    return take_report(report)


def run_steadily(host: str, port: int, pid: int, *, sessions: int, window_s: float, size_bytes: int = 4096) -> Measured:
    """Keep so many sessions busy and return what at least `window_s` cost the tree of `pid` once all were connected.

    Sessions begin one after the other, 2,000 a second. The CPU is sampled meanwhile and laid beside the report's seconds.
    """
    ramp_s = max(0.5, sessions / 2000)
    command = load_command(host, port, sessions, math.ceil(ramp_s + 1) + math.ceil(window_s), size_bytes)
    command[-1:-1] = ["--ramp-up", f"{ramp_s:g}"]
    samples: list[tuple[float, int]] = []
    deadline = time.monotonic() + 2 * (ramp_s + window_s) + 60
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as words:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=words)
        try:
            while process.poll() is None:
                if time.monotonic() > deadline:
                    raise GeneratorError(f"smtpd load with {sessions} sessions took too long")
                samples.append((time.monotonic(), tree_cpu_ns(pid)))
                time.sleep(0.05)
            samples.append((time.monotonic(), tree_cpu_ns(pid)))  # its last second may end just before it does
        finally:
            end(process)
        output.seek(0)
        words.seek(0)
        try:
            report = json.loads(output.read())
        except ValueError:
            raise GeneratorError(words.read().decode("utf-8", "replace").strip()[-500:] or "no report") from None
    take_report(report)
    if report["connections"]["opened"] < sessions:
        raise GeneratorError(f"{report['connections']['opened']} of {sessions} sessions")
    mails, elapsed_s, cpu_ns = window_of(report, samples, math.ceil(ramp_s + 0.5))
    return Measured(mails, elapsed_s, cpu_ns, await_quiet(pid))


def window_of(report: Mapping[str, Any], samples: Sequence[tuple[float, int]], first_s: float) -> tuple[int, float, int]:
    """Return mails, seconds and CPU ns of the whole steps of the report's series from `first_s` on; GeneratorError without one.

    `samples` are pairs of a monotonic time and the CPU so far.
    """
    rows = report["series"]
    steps = [
        (row["t_s"], after["t_s"], row["accepted"])
        for row, after in pairwise(rows)
        if row["t_s"] >= first_s and after["t_s"] <= report["duration_s"]
    ]
    mails = sum(accepted for _, _, accepted in steps)
    if not mails:
        raise GeneratorError("no whole second after all sessions were connected")
    begin, finish = (report["started_monotonic_s"] + moment for moment in (steps[0][0], steps[-1][1]))
    return mails, finish - begin, round(_cpu_at(samples, finish) - _cpu_at(samples, begin))


def _cpu_at(samples: Sequence[tuple[float, int]], moment: float) -> float:
    for (one, before), (other, after) in pairwise(samples):
        if one <= moment <= other:
            return before + (after - before) * (moment - one) / (other - one)
    raise GeneratorError("the CPU was not sampled at that moment")


def take_report(report: Mapping[str, Any]) -> LoadReport:
    """Return what is used of a JSON report; GeneratorError when mails failed or nothing was accepted."""
    mails, latency = report["mails"], report["latency_ms"]
    if report["interrupted"] or report["gave_up"] or mails["failed"] or mails["partial"] or not mails["accepted"]:
        reason = report["gave_up"] or ", ".join(f"{what}: {count}" for what, count in report["errors"].items())
        raise GeneratorError(f"{mails['accepted']} mails accepted, {mails['failed']} failed: {reason or 'interrupted'}")
    return LoadReport(
        mails_per_s=float(report["throughput_per_s"]),
        accepted=int(mails["accepted"]),
        unsent=int(mails["unsent"]),
        end_of_data_ms=_percentiles(latency["end_of_data"]),
        total_ms=_percentiles(latency["mail_total"]),
        note="the load maker was at its limit" if report["load_maker"]["was_bottleneck"] else "",
    )


def _percentiles(phase: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(phase[name]) for name in PERCENTILES}
