"""From rounds to figures: medians, ratios taken within a round, and the tables of bench/README.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.generator import Measured
from bench.results import COMPLETE, markdown_table

_CPU_BASES = ["floor", "smtp-sink"]
_SPEED_BASE = "postfix"


@dataclass(frozen=True, slots=True)
class Round:
    """One run of one server in one round; `fdatasync_us` is the disk's own median just before a durable one.

    `commits` are those to the disk during the run, of a server that tells.
    """

    number: int
    load: str
    server: str
    run: Measured
    fdatasync_us: float | None
    commits: int | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "round": self.number + 1,
            "load": self.load,
            "server": self.server,
            "mails": self.run.mails,
            "elapsed_s": round(self.run.elapsed_s, 4),
            "mails_per_s": round(self.run.mails_per_s, 1),
            "cpu_us_per_mail": round(self.run.cpu_us_per_mail, 2),
            "is_quiet": self.run.is_quiet,
            "fdatasync_us": self.fdatasync_us and round(self.fdatasync_us, 1),
            "commits": self.commits,
        }


def median_ratio(rounds: list[Round], load: str, server: str, base: str, value: Callable[[Measured], float]) -> float | None:
    """Return the median over the rounds of `server`'s value by `base`'s in the same round; None when none has both."""
    by_round = {(one.number, one.server): value(one.run) for one in rounds if one.load == load}
    numbers = {one.number for one in rounds}
    ratios = [
        by_round[number, server] / by_round[number, base]
        for number in numbers
        if (number, server) in by_round and by_round.get((number, base))
    ]
    return round(median(ratios), 3) if ratios else None


def summarize(rounds: list[Round]) -> list[dict[str, Any]]:
    """Return one row for each load and server: medians, and ratios against the floor, smtp-sink and Postfix."""
    rows = []
    for load in dict.fromkeys(one.load for one in rounds):
        for server in dict.fromkeys(one.server for one in sorted(rounds, key=lambda one: one.number)):
            own = [one for one in rounds if one.load == load and one.server == server]
            if not own:
                continue
            row: dict[str, Any] = {
                "load": load,
                "server": server,
                "rounds": len(own),
                "cpu_us_per_mail": round(median(one.run.cpu_us_per_mail for one in own), 1),
                "mails_per_s": round(median(one.run.mails_per_s for one in own)),
            }
            for base in _CPU_BASES:
                ratio = median_ratio(rounds, load, server, base, lambda run: run.cpu_us_per_mail)
                row[f"cpu_by_{base}"] = ratio
            disks = [one.fdatasync_us for one in own if one.fdatasync_us is not None]
            if disks:
                ratio = median_ratio(rounds, load, server, _SPEED_BASE, lambda run: run.mails_per_s)
                row[f"speed_by_{_SPEED_BASE}"] = ratio
                row["fdatasync_us"] = round(median(disks))
                if told := [one for one in own if one.commits]:
                    row["commits_per_s"] = round(median(one.commits / one.run.elapsed_s for one in told if one.commits))
                    row["mails_per_commit"] = round(median(one.run.mails / one.commits for one in told if one.commits), 1)
            rows.append(row)
    return rows


def render_tables(content: Mapping[str, Any]) -> str:
    """Return the Markdown of a comparison's JSON: a table for each load, and what was left out."""
    summary = content["summary"]
    parts = []
    for load in dict.fromkeys(row["load"] for row in summary):
        rows = [
            [
                row["server"],
                f"{row['cpu_us_per_mail']:,.1f}",
                _times(row["cpu_by_floor"]),
                _times(row["cpu_by_smtp-sink"]),
                f"{row['mails_per_s']:,}",
                _times(row.get("speed_by_postfix")),
                f"{row['commits_per_s']:,}" if "commits_per_s" in row else "",
                f"{row['mails_per_commit']:,}" if "mails_per_commit" in row else "",
                f"{row['fdatasync_us']:,}" if "fdatasync_us" in row else "",
            ]
            for row in summary
            if row["load"] == load
        ]
        head = [
            "server",
            "CPU µs/mail",
            "by floor",
            "by smtp-sink",
            "mails/s",
            "by Postfix",
            "commits/s",
            "mails a commit",
            "fdatasync µs",
        ]
        parts.append(f"**{load[0].upper()}{load[1:]}**\n\n{markdown_table(head, rows)}")
    options = content["options"]
    parts.append(
        f"Medians of {options['rounds']} round(s), {options['sessions']} sessions, {options['workers']} worker(s) of smtpd sink, "
        f"spool on {content['filesystem']}. Versions: "
        + "; ".join(f"{name}: {version}" for name, version in content["versions"].items())
        + "."
    )
    parts += [f"Not all was measured: {content['end']}."] if content.get("end", COMPLETE) != COMPLETE else []
    parts += [f"Failed: {place}: {reason}." for place, reason in content.get("failed", {}).items()]
    parts += [f"Left out: {name}: {reason}." for name, reason in content["left_out"].items()]
    return "\n".join(parts) + "\n"


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}×"
