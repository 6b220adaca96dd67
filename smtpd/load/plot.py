"""The report as a picture: throughput and latency over time, and latency by percentile. Needs matplotlib, the extra `plot`.

Raises MissingLibraryError, OSError and ValueError (no such format).
"""

from __future__ import annotations

import importlib.util
import os
from typing import Any

from smtpd.errors import StartupError

_PHASES = ("mail_total", "transaction", "end_of_data", "connect")


class MissingLibraryError(StartupError):
    """matplotlib isn't there."""


def require_library() -> None:
    """Raise MissingLibraryError before a run whose plot could not be made."""
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingLibraryError("--plot needs matplotlib: pip install 'smtpd[plot]'", os.EX_UNAVAILABLE)


def draw(report: dict[str, Any], path: str) -> None:
    """Write the picture to `path`."""
    require_library()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    series = report["series"]
    step_s = series[1]["t_s"] - series[0]["t_s"] if len(series) > 1 else 1.0
    series = (
        [*series, {**series[-1], "t_s": series[-1]["t_s"] + step_s}] if series else []
    )  # or the last step would have no width
    times = [row["t_s"] for row in series]
    figure = Figure(figsize=(9, 10), layout="constrained")
    FigureCanvasAgg(figure)
    rate, latency, percentiles = figure.subplots(3, 1)
    rate.set_title(f"{report['target']}, {report['mode']} loop, {report['sessions']} sessions")
    rate.step(times, [row["accepted"] / step_s for row in series], where="post", label="accepted")
    if any(row["failed"] for row in series):
        rate.step(times, [row["failed"] / step_s for row in series], where="post", label="failed", color="tab:red")
    if report["mode"] == "open":
        rate.axhline(report["rate_per_s"], color="tab:gray", linestyle=":", label="offered")
    rate.set_ylabel("mails/s")
    rate.set_ylim(bottom=0)
    for key in ("p50_ms", "p99_ms", "max_ms"):
        latency.step(times, [row[key] for row in series], where="post", label=key.removesuffix("_ms"))
    latency.set_ylabel("mail_total, ms")
    latency.set_xlabel("seconds")
    for phase in _PHASES:
        row = report["latency_ms"][phase]
        names = [name for name in row if name.startswith("p")]
        if names:
            percentiles.plot(names, [row[name] for name in names], marker="o", label=phase)
    percentiles.set_ylabel("ms")
    for axes in (latency, percentiles):
        if any(line.get_ydata().max() > 0 for line in axes.get_lines() if len(line.get_ydata())):
            axes.set_yscale("log")
    for axes in (rate, latency, percentiles):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)
