"""A cost over something that grows (size of a mail, sessions, workers): rounds into curves, their tables, plots and findings."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench.generator import Load, Measured
from bench.growth import find_growth
from bench.machine import durable_filesystem
from bench.measuring import measure_round
from bench.part import finish, remarks
from bench.plots import Plot
from bench.results import end_in_order, markdown_table, scratch_folder
from bench.roster import running_servers
from bench.servers import Server
from bench.tables import Round, median_ratio, summarize
from bench.turns import take_turns


@dataclass(frozen=True, slots=True)
class Curve:
    """What is varied. `sizes` has x by the name of a load (those without stand in the tables only).

    `total` turns x and the cost of a mail into what should grow no faster than x does.
    """

    name: str
    title: str
    x_label: str
    loads: Mapping[str, Load]
    sizes: Mapping[str, float]
    total: Callable[[float, float], float]


def run_curve(
    curve: Curve,
    kinds: Sequence[type[Server]],
    options: argparse.Namespace,
    run: Callable[[Server, Load, float, Path], Measured],
    is_fit: Callable[[Server, Load], bool] = lambda server, load: True,
    find: Callable[[Sequence[Round]], list[str]] = lambda rounds: [],
) -> int:
    """Measure the curve of each server, print and keep it; `find` returns findings besides growth. Returns the exit code."""
    end_in_order()
    with scratch_folder(options.dir) as folder, running_servers(kinds, folder) as (servers, left_out):

        def measure(number: int, server: Server, name: str, load: Load, left_s: float) -> Round:
            return measure_round(number, server, name, folder, lambda: run(server, load, left_s, folder))

        versions = {server.name: server.version() for server in servers}
        turns = take_turns(servers, curve.loads, options.rounds, options.limit, measure, is_fit)
        filesystem = durable_filesystem(folder)
    summary = summarize(turns.records)
    findings = find_growth(_totals(curve, summary), curve.x_label) + find(turns.records)
    for finding in findings:
        print(f"finding: {finding}", file=sys.stderr)
    content: dict[str, Any] = {
        "options": {"rounds": options.rounds},
        "filesystem": filesystem,
        "versions": versions,
        "left_out": left_out,
        "failed": turns.failed,
        "end": turns.end,
        "findings": findings,
        "summary": summary,
        "rounds": [one.as_json() for one in turns.records],
    }
    return finish(curve.name, content, render(curve, content), plot(curve, summary), options.quick)


def _costs(curve: Curve, summary: Sequence[dict[str, Any]], server: str) -> list[tuple[float, float]]:
    own = [row for row in summary if row["server"] == server and row["load"] in curve.sizes]
    return [(curve.sizes[row["load"]], row["cpu_us_per_mail"]) for row in own if row["cpu_us_per_mail"] > 0]


def _totals(curve: Curve, summary: Sequence[dict[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    names = dict.fromkeys(row["server"] for row in summary)
    return {name: [(x, curve.total(x, cost)) for x, cost in _costs(curve, summary, name)] for name in names}


def render(curve: Curve, content: dict[str, Any]) -> str:
    """Return two tables, of CPU and of throughput, a column for each point; then the findings."""
    summary = content["summary"]
    points = [name for name in curve.loads if any(row["load"] == name for row in summary)]
    parts = []
    for title, key, form in (("CPU µs a mail", "cpu_us_per_mail", ",.1f"), ("mails/s", "mails_per_s", ",.0f")):
        rows = []
        for server in dict.fromkeys(row["server"] for row in summary):
            found = {row["load"]: row[key] for row in summary if row["server"] == server}
            rows.append([server, *(format(found[point], form) if point in found else "" for point in points)])
        parts.append(f"**{curve.title}: {title}**\n\n{markdown_table(['server', *points], rows)}")
    disks = [one["fdatasync_us"] for one in content["rounds"] if one["fdatasync_us"]]
    if disks:
        parts.append(f"The disk's own fdatasync before the durable runs: median {median(disks):,.0f} µs.\n")
    parts.append("\n".join(f"- {finding}" for finding in content["findings"]) or "Nothing grows faster than linearly.")
    return "\n".join(parts) + f"\n\n{remarks(content)}"


def plot(curve: Curve, summary: Sequence[dict[str, Any]]) -> Plot:
    names = dict.fromkeys(row["server"] for row in summary)
    series = {name: points for name in names if (points := _costs(curve, summary, name))}
    return Plot(curve.title, curve.x_label, "CPU µs a mail", series)


def ratio_between(rounds: Sequence[Round], server: str, load: str, base_server: str, base_load: str, key: str) -> float | None:
    """Return the median over rounds of one place's value by another's, None when no round has both; `key` is of Measured."""
    renamed = [
        Round(one.number, "", "one" if place == 0 else "base", one.run, None)
        for one in rounds
        for place, wanted in enumerate([(server, load), (base_server, base_load)])
        if (one.server, one.load) == wanted
    ]
    return median_ratio(renamed, "", "one", "base", lambda run: getattr(run, key))
