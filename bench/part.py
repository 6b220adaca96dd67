"""What the parts of the benchmark have in common: their options, and where tables, JSON and plots of a run go.

A run that was interrupted, or that has no whole round, is kept as results/DATE-NAME-partial.json and changes no page.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from bench.plots import Plot, draw
from bench.results import COMPLETE, write_result, write_section
from bench.roster import ALL

SECTIONS = ("compare", "half-load", "session-memory", "scaling", "sizes", "sessions")  # of bench/README.md
INTERRUPTED = 130  # exit code after Ctrl-C or TERM


def part_parser(name: str, doc: str | None, rounds: int, limit_s: float) -> argparse.ArgumentParser:
    """Return a parser with the options that all parts have."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.{name}", description=(doc or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=rounds, help=f"default: {rounds}")
    parser.add_argument("--servers", default="", help=f"of {','.join(kind.name for kind in ALL)}")
    parser.add_argument("--dir", default="/var/tmp", help="where spools and queues lie (default: /var/tmp)")
    parser.add_argument("--limit", type=float, default=limit_s, help=f"seconds in all (default: {limit_s:.0f})")
    parser.add_argument("--quick", action="store_true", help="one short round, nothing is written")
    return parser


def finish(name: str, content: Mapping[str, Any], markdown: str, plot: Plot | None, is_quick: bool) -> int:
    """Print the tables; unless it was a quick run keep them, the JSON and the plot. Returns the exit code."""
    end = content["end"]
    if not content["rounds"]:
        print(f"nothing was measured: {end}; {content['failed'] or ''}")
        return INTERRUPTED if end.startswith("interrupted") else 1
    print(markdown)
    is_interrupted = end.startswith("interrupted")
    if not is_quick:
        is_partial = is_interrupted or (end != COMPLETE and max(one["round"] for one in content["rounds"]) < 2)
        path = write_result(f"{name}-partial" if is_partial else name, content)
        drawn = draw(plot, path.with_suffix(".png")) if plot is not None else ""
        if not is_partial:
            image = f"\n\n![{plot.title}](results/{drawn})" if plot is not None and drawn else ""
            if name in SECTIONS:
                write_section(name, f"{markdown.strip()}{image}\n\nFrom `results/{path.name}`.")
        print(f"kept in {path}")
    return INTERRUPTED if is_interrupted else 0


def remarks(content: Mapping[str, Any]) -> str:
    """Return the lines below a table: versions, what was left out, what failed, how it ended."""
    parts = []
    if content["end"] != COMPLETE:
        parts.append(f"Not all was measured: {content['end']}.")
    parts += [f"Failed: {place}: {reason}." for place, reason in content["failed"].items()]
    parts += [f"Left out: {name}: {reason}." for name, reason in content["left_out"].items()]
    return "\n".join(parts)
