"""Server CPU per mail and throughput, side by side with real peers: `python -m bench.compare`.

All servers are started once; every round then drives each of them with the same load, one after the other, beginning with
another one each time, so that a slow minute of the machine hits all alike. Ratios are taken within a round and their median
is reported. Ends by itself within `--limit` seconds; an interrupt ends it too, and what was done is kept.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from bench.generator import GeneratorError, Load
from bench.machine import durable_filesystem
from bench.measuring import drive_server, measure_round
from bench.part import finish, part_parser
from bench.plots import Plot
from bench.results import end_in_order, scratch_folder
from bench.roster import choose, running_servers
from bench.servers import Server, SmtpdServe, SmtpdSink
from bench.tables import Round, render_tables, summarize
from bench.turns import take_turns

LOADS = [
    Load("kept connections, 4 KB", 20_000, 4096, is_kept=True),
    Load("a connection a mail, 4 KB", 6_000, 4096, is_kept=False),
    Load("kept connections, 64 KB", 6_000, 65536, is_kept=True),
    Load("a connection a mail, 64 KB", 4_000, 65536, is_kept=False),
]
WARM_UP_SHARE = 0.05
QUICK_SHARE = 0.1


def mails_for(load: Load, server: Server, share: float) -> int:
    """Return how many mails a run sends: enough for the CPU clock, few enough for a slow server."""
    return max(50, int(load.mails * server.weight * share))


def warm_up(servers: list[Server], loads: list[Load]) -> None:
    """Let each server see each load once; what fails is printed, and fails again in the first round."""
    for load in loads:
        for server in servers:
            try:
                drive_server(server, load, mails_for(load, server, WARM_UP_SHARE), 60.0)
            except GeneratorError as error:
                print(f"warm-up: {server.name}: {error}; {server.last_words()}", file=sys.stderr)


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Run the comparison and return everything that goes into the JSON file."""
    began = time.monotonic()
    loads = LOADS[:2] if options.quick else LOADS
    share = QUICK_SHARE if options.quick else options.share
    count = 1 if options.quick else options.rounds
    SmtpdSink.workers = options.workers
    SmtpdServe.workers = options.durable_workers or os.cpu_count() or 1
    with scratch_folder(options.dir) as folder, running_servers(choose(options.servers), folder) as (servers, left_out):
        versions = {server.name: server.version() for server in servers}

        def measure(number: int, server: Server, name: str, load: Load, left_s: float) -> Round:
            mails = mails_for(load, server, share)
            return measure_round(number, server, name, folder, lambda: drive_server(server, load, mails, left_s))

        warm_up(servers, loads)
        limit_s = options.limit - (time.monotonic() - began)
        turns = take_turns(servers, {load.name: load for load in loads}, count, limit_s, measure)
        filesystem = durable_filesystem(folder)
    return {
        "options": {"rounds": count, "share": share, "workers": options.workers, "sessions": loads[0].sessions},
        "filesystem": filesystem,
        "versions": versions,
        "left_out": left_out,
        "failed": turns.failed,
        "end": turns.end,
        "summary": summarize(turns.records),
        "rounds": [one.as_json() for one in turns.records],
    }


def plot(content: dict[str, Any]) -> Plot:
    bars: dict[str, dict[str, float]] = {}
    for row in content["summary"]:
        bars.setdefault(row["server"], {})[row["load"]] = row["cpu_us_per_mail"]
    return Plot("What a mail costs the server", "", "CPU µs a mail", bars=bars)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = part_parser("compare", __doc__, rounds=5, limit_s=900)
    parser.add_argument("--name", default="compare", help="results/DATE-NAME.json; a page has a place for `compare` only")
    parser.add_argument("--share", type=float, default=1.0, help="of each load's mails (default: 1)")
    parser.add_argument("--workers", type=int, default=1, help="of smtpd sink; the sinks beside it are one process")
    parser.add_argument("--durable-workers", type=int, default=0, help="of smtpd serve; 0 = one per core, its own default")
    options = parser.parse_args(arguments)
    end_in_order()
    content = compare(options)
    return finish(options.name, content, render_tables(content), plot(content), options.quick)


if __name__ == "__main__":
    sys.exit(main())
