"""Draws what was measured as a small PNG; without matplotlib (the extra `bench`) there is none, and nothing else changes."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

_OURS = "smtpd"  # how the names of this project's servers begin
_STYLES = ["-", "--", "-.", ":"]


@dataclass(frozen=True, slots=True)
class Plot:
    """Lines by server over a logarithmic x, or with `bars` groups of bars; y is logarithmic when `is_log`."""

    title: str
    x_label: str
    y_label: str
    series: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    bars: dict[str, dict[str, float]] = field(default_factory=dict)
    is_log: bool = True


def draw(plot: Plot, path: Path) -> str:
    """Draw into `path` and return its name, "" when matplotlib is missing."""
    try:
        import matplotlib
    except ImportError:
        print("matplotlib is not installed, so there is no plot (pip install -e '.[bench]')", file=sys.stderr)
        return ""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5), dpi=80, layout="constrained")
    if plot.bars:
        groups = list(dict.fromkeys(group for values in plot.bars.values() for group in values))
        width = 0.8 / len(groups)
        for number, group in enumerate(groups):
            heights = [values.get(group, 0.0) for values in plot.bars.values()]
            axes.bar([place + number * width for place in range(len(heights))], heights, width, label=group)
        ticks = [place + 0.4 - width / 2 for place in range(len(plot.bars))]
        axes.set_xticks(ticks, list(plot.bars), rotation=30, ha="right")
    else:
        for number, (name, points) in enumerate(plot.series.items()):
            xs, ys = zip(*sorted(points), strict=True)
            is_ours = name.startswith(_OURS)
            axes.plot(xs, ys, _STYLES[number // 10 % 4], marker="o", ms=4, lw=2.5 if is_ours else 1.2, label=name)
        axes.set_xscale("log")
        axes.grid(True, which="major", alpha=0.3)
    if plot.is_log:
        axes.set_yscale("log")
    axes.set(title=plot.title, xlabel=plot.x_label, ylabel=plot.y_label)
    axes.legend(fontsize="small")
    figure.savefig(path, metadata={"Software": None})
    pyplot.close(figure)
    return path.name
