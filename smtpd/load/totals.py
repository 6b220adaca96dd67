"""The figures of all processes of a run together: what came so far, and at the end the whole report as one object (docs/load.md).

Pure: knows no process and no terminal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from smtpd.load.histogram import Histogram
from smtpd.load.plan import Plan
from smtpd.load.recorder import CONNECT, COUNTERS, MAIL_TOTAL, PHASE_NAMES, SCHEDULE_LAG

FORMAT = 1
BUSY_SHARE = 0.9  # of a CPU: more, and the figures are ours
LATE_S = 0.01  # began so late although a session was free, at the 99th percentile
PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)


@dataclass
class Interval:
    """One step of the series, of those processes that have told theirs."""

    accepted: int = 0
    failed: int = 0
    told: int = 0
    latency: Histogram = field(default_factory=Histogram)


class Totals:
    """`accepted` and `failed` are those of the intervals told so far; `under_way` is of the last."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._open: dict[int, Interval] = {}
        self._rows: dict[int, dict[str, Any]] = {}
        self._phases = [Histogram() for _ in PHASE_NAMES]
        self._counters = dict.fromkeys(COUNTERS, 0)
        self._errors: dict[str, int] = {}
        self._examples: dict[str, str] = {}
        self._notes: list[str] = []
        self._shares: list[float] = []
        self._under_way: dict[int, int] = {}
        self._cpu_s = 0.0
        self._last_done_at = 0.0
        self._results = 0
        self.gave_up = ""
        self.accepted = 0
        self.failed = 0
        self.is_interrupted = False

    @property
    def under_way(self) -> int:
        return sum(self._under_way.values())

    @property
    def last_row(self) -> dict[str, Any] | None:
        """The newest step of the series that all processes have told."""
        return self._rows[max(self._rows)] if self._rows else None

    # --- what processes tell -----------------------------------------------------------------------------------------

    def take_interval(self, share: int, message: dict[str, Any]) -> None:
        number = message["interval"]
        interval = self._open.setdefault(number, Interval())
        interval.accepted += message["accepted"]
        interval.failed += message["failed"]
        interval.latency.merge(message["latency"])
        interval.told += 1
        self.accepted += message["accepted"]
        self.failed += message["failed"]
        self._under_way[share] = message["under_way"]
        if interval.told == self._plan.workers:
            self._close(number)

    def take_result(self, message: dict[str, Any]) -> None:
        self._results += 1
        for histogram, packed in zip(self._phases, message["phases"], strict=True):
            histogram.merge(packed)
        for name, count in message["counters"].items():
            self._counters[name] += count
        for key, count in message["errors"].items():
            self._errors[key] = self._errors.get(key, 0) + count
        for key, text in message["examples"].items():
            self._examples.setdefault(key, text)
        for text in message["notes"]:
            self.note(text)
        self._cpu_s += message["cpu_s"]
        self._shares.append(message["cpu_s"] / max(message["elapsed_s"], 0.001))
        self._last_done_at = max(self._last_done_at, message["last_done_at"])
        self.gave_up = self.gave_up or message["gave_up"]

    def note(self, text: str) -> None:
        if text not in self._notes:
            self._notes.append(text)

    def _close(self, number: int) -> None:
        interval = self._open.pop(number)
        self._rows[number] = {
            "t_s": number * self._plan.interval_s,
            "accepted": interval.accepted,
            "failed": interval.failed,
            "p50_ms": _ms(interval.latency.percentile(50)),
            "p99_ms": _ms(interval.latency.percentile(99)),
            "max_ms": _ms(interval.latency.greatest_s),
        }

    # --- the report --------------------------------------------------------------------------------------------------

    def report(self, started_at_s: float, starts_at: float, over_at: float, own_cpu_s: float) -> dict[str, Any]:
        """The object of docs/load.md. `starts_at` and `over_at` are monotonic, `started_at_s` is Unix time, `own_cpu_s` that of
        the parent."""
        plan, counters = self._plan, self._counters
        for number in sorted(self._open):
            self._close(number)
        mails = {name: counters[name] for name in ("accepted", "partial", "failed", "unsent", "resent")}
        sent = mails["accepted"] + mails["partial"] + mails["failed"]
        duration_s = (self._last_done_at or over_at) - starts_at
        cpu_s = self._cpu_s + own_cpu_s
        was_bottleneck = self._judge(sent)
        return {
            "format": FORMAT,
            "target": plan.target.text,
            "mode": "open" if plan.rate else "closed",
            "rate_per_s": plan.rate,
            "sessions": plan.sessions,
            "workers": plan.workers,
            "seed": plan.seed,
            "started_at_s": round(started_at_s, 3),
            "started_monotonic_s": round(starts_at, 6),
            "duration_s": round(duration_s, 6),
            "interrupted": self.is_interrupted,
            "gave_up": self.gave_up,
            "mails": {"sent": sent, **mails},
            "recipients": {"accepted": counters["recipients_accepted"], "failed": counters["recipients_failed"]},
            "connections": {name: counters[f"connections_{name}"] for name in ("opened", "ready", "failed")},
            "octets": counters["octets"],
            "throughput_per_s": round(mails["accepted"] / duration_s, 3) if duration_s > 0 else 0.0,
            "cpu_us_per_mail": round(cpu_s * 1e6 / sent, 3) if sent else 0.0,
            "latency_ms": {PHASE_NAMES[phase]: describe(self._phases[phase]) for phase in range(CONNECT, MAIL_TOTAL + 1)},
            "errors": dict(sorted(self._errors.items())),
            "error_examples": dict(sorted(self._examples.items())),
            "series": [self._rows[number] for number in sorted(self._rows)],
            "load_maker": {
                "cpu_s": round(cpu_s, 6),
                "cpu_shares": [round(share, 3) for share in self._shares],
                "schedule_lag_ms": describe(self._phases[SCHEDULE_LAG]),
                "starved": counters["starved"],
                "was_bottleneck": was_bottleneck,
                "lost_processes": plan.workers - self._results,
            },
            "notes": self._notes,
        }

    def _judge(self, sent: int) -> bool:
        """Say what hinders the figures from being the target's alone; True when it was us."""
        plan, counters = self._plan, self._counters
        was_bottleneck = False
        busiest = max(self._shares, default=0.0)
        if busiest > BUSY_SHARE:
            was_bottleneck = True
            self.note(f"the load maker was the bottleneck: a process used {busiest:.0%} of a CPU (more --workers may help)")
        lag_s = self._phases[SCHEDULE_LAG].percentile(99)
        if plan.rate and lag_s > LATE_S:
            was_bottleneck = True
            self.note(f"the load maker was the bottleneck: mails began {lag_s * 1000:.0f} ms late (p99) with sessions free")
        if counters["starved"]:
            self.note(f"{counters['starved']} mails began late because all {plan.sessions} sessions were waiting for the target")
        if counters["unsent"]:
            self.note(f"{counters['unsent']} mails were due and could not be begun in time")
        untried = plan.count - sent - counters["unsent"] if plan.count else 0
        if untried > 0:
            self.note(f"{untried} of {plan.count} mails were not tried")
        if self._results < plan.workers:
            self.note(f"{plan.workers - self._results} of {plan.workers} processes ended without their figures")
        return was_bottleneck


def describe(histogram: Histogram) -> dict[str, float]:
    """A phase as the report has it, in milliseconds."""
    if not histogram.count:
        return {"count": 0}
    row: dict[str, float] = {"count": histogram.count, "min": _ms(histogram.least_s), "mean": _ms(histogram.mean_s)}
    for percent in PERCENTILES:
        row[f"p{percent:g}"] = _ms(histogram.percentile(percent))
    row["max"] = _ms(histogram.greatest_s)
    return row


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 4)
