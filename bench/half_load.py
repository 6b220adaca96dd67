"""Latency at half load: `python -m bench.half_load`.

Each server in turn is first driven by `smtpd load` in a closed loop to find its saturation, then in an open loop at half of that
rate; latencies are of the end of data, and `from due` of the whole mail from the time at which it was to leave, so that a
server that stalls can't hide it. Medians over the rounds, each beside the disk's own time for one fdatasync.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from statistics import median
from typing import Any

from bench.latency import PERCENTILES, missing, run_load
from bench.machine import durable_filesystem, fdatasync_us
from bench.part import finish, part_parser, remarks
from bench.plots import Plot
from bench.results import end_in_order, markdown_table, scratch_folder
from bench.roster import choose, running_servers
from bench.servers import Server
from bench.turns import take_turns

SESSIONS = 20
SIZE_BYTES = 4096
MOST_SESSIONS = 100  # of the open loop, so that a mail that is due doesn't wait for a session


def summarize(rounds: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each server: medians over the rounds."""
    rows = []
    for server in dict.fromkeys(one["server"] for one in rounds):
        own = [one for one in rounds if one["server"] == server]
        row: dict[str, Any] = {
            "server": server,
            "rounds": len(own),
            "saturation_per_s": round(median(one["saturation_per_s"] for one in own)),
            "at_limit": sum(bool(one["note"]) for one in own),
        }
        for phase in ("end_of_data_ms", "total_ms"):
            row[phase] = {name: round(median(one[phase][name] for one in own), 3) for name in PERCENTILES}
        if disks := [one["fdatasync_us"] for one in own if one["fdatasync_us"]]:
            row["fdatasync_us"] = round(median(disks))
            ratios = [one["end_of_data_ms"]["p99"] * 1000 / one["fdatasync_us"] for one in own]
            row["p99_by_fdatasync"] = round(median(ratios), 1)
        rows.append(row)
    return rows


def render(content: dict[str, Any]) -> str:
    head = [
        "server",
        "at saturation mails/s",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "p99 from due ms",
        "fdatasync µs",
        "p99 by fdatasync",
    ]
    rows = [
        [
            row["server"] + (" *" if row["at_limit"] else ""),
            f"{row['saturation_per_s']:,}",
            *(f"{row['end_of_data_ms'][name]:,.2f}" for name in PERCENTILES),
            f"{row['total_ms']['p99']:,.2f}",
            f"{row['fdatasync_us']:,}" if "fdatasync_us" in row else "",
            f"{row['p99_by_fdatasync']:,.1f}×" if "fdatasync_us" in row else "",
        ]
        for row in content["summary"]
    ]
    stars = (
        "\\* in some of these runs the load maker was at its limit.\n"
        if any(row["at_limit"] for row in content["summary"])
        else ""
    )
    return f"{markdown_table(head, rows)}\n{stars}{remarks(content)}"


def plot(content: dict[str, Any]) -> Plot:
    return Plot(
        "End of data at half load, 4 KB", "", "ms", bars={row["server"]: row["end_of_data_ms"] for row in content["summary"]}
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = part_parser("half_load", __doc__, rounds=5, limit_s=600)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each open loop (default: 4)")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.seconds = 1, 1.0
    if reason := missing():
        print(f"left out: {reason}", file=sys.stderr)
        return 1
    end_in_order()
    with scratch_folder(options.dir) as folder, running_servers(choose(options.servers), folder) as (servers, left_out):

        def measure(number: int, server: Server, name: str, size_bytes: int, left_s: float) -> dict[str, Any]:
            disk_us = fdatasync_us(folder) if server.is_durable else None
            saturated = run_load(
                server.host, server.port, sessions=SESSIONS, seconds=max(1.0, options.seconds / 2), size_bytes=size_bytes
            )
            half = run_load(
                server.host,
                server.port,
                sessions=min(MOST_SESSIONS, server.most_sessions),
                seconds=options.seconds,
                size_bytes=size_bytes,
                rate=saturated.mails_per_s / 2,
            )
            p99 = half.end_of_data_ms["p99"]
            print(
                f"round {number + 1}  {server.name:15} {saturated.mails_per_s:9,.0f} mails/s, p99 {p99:.2f} ms at half",
                file=sys.stderr,
            )
            return {
                "round": number + 1,
                "server": server.name,
                "fdatasync_us": disk_us and round(disk_us, 1),
                "saturation_per_s": round(saturated.mails_per_s, 1),
                **half.as_json(),
            }

        versions = {server.name: server.version() for server in servers}
        turns = take_turns(servers, {"half load": SIZE_BYTES}, options.rounds, options.limit, measure)
        filesystem = durable_filesystem(folder)
    content: dict[str, Any] = {
        "options": {"rounds": options.rounds, "seconds": options.seconds, "sessions": SESSIONS, "size_bytes": SIZE_BYTES},
        "filesystem": filesystem,
        "versions": versions,
        "left_out": left_out,
        "failed": turns.failed,
        "end": turns.end,
        "summary": summarize(turns.records),
        "rounds": turns.records,
    }
    return finish("half-load", content, render(content), plot(content), options.quick)


if __name__ == "__main__":
    sys.exit(main())
