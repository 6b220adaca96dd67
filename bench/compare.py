"""Server CPU per mail and throughput, side by side with real peers: `python -m bench.compare`.

All servers are started once; every round then drives each of them with the same load, one after the other, beginning with
another one each time, so that a slow minute of the machine hits all alike. Ratios are taken within a round and their median
is reported. Ends by itself within `--limit` seconds and ends only what it started.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.generator import GeneratorError, Load, drive
from bench.machine import fdatasync_us, filesystem_of
from bench.processes import NotReadyError
from bench.results import end_in_order, scratch_folder, write_result, write_section
from bench.servers import ALL, Server, SmtpdServe, SmtpdSink
from bench.tables import Round, render_tables, summarize

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


def start_servers(kinds: list[type[Server]], folder: Path) -> tuple[list[Server], dict[str, str]]:
    """Start what can run here; return the running servers and, by name, why the others are left out."""
    running: list[Server] = []
    left_out: dict[str, str] = {}
    for kind in kinds:
        server = kind(folder)
        reason = server.missing()
        if not reason:
            try:
                server.start()
            except NotReadyError as error:
                reason = str(error)
        if reason:
            left_out[server.name] = reason
            print(f"left out: {server.name}: {reason}", file=sys.stderr)
        else:
            running.append(server)
    return running, left_out


def run_rounds(servers: list[Server], loads: list[Load], count: int, share: float, folder: Path, deadline: float) -> list[Round]:
    """Measure `count` rounds, fewer when `deadline` (monotonic) comes first; a failed run is printed and left out."""
    rounds: list[Round] = []
    for load in loads:
        for server in servers:
            try:
                drive(load, mails_for(load, server, WARM_UP_SHARE), server.host, server.port, server.pid)
            except GeneratorError as error:
                print(f"warm-up: {server.name}: {error}; {server.last_words()}", file=sys.stderr)
    for number in range(count):
        first = number % len(servers)
        for load in loads:
            for server in servers[first:] + servers[:first]:
                left_s = deadline - time.monotonic()
                if left_s < 0:
                    print("the time is up, the rest is left out", file=sys.stderr)
                    return rounds
                disk_us = fdatasync_us(folder) if server.is_durable else None
                mails = mails_for(load, server, share)
                try:
                    limit_s = min(120.0, left_s + 5.0)
                    run = drive(load, mails, server.host, server.port, server.pid, limit_s)
                except GeneratorError as error:
                    print(f"round {number + 1}: {server.name}, {load.name}: {error}; {server.last_words()}", file=sys.stderr)
                    continue
                rounds.append(Round(number, load.name, server.name, run, disk_us))
                print(
                    f"round {number + 1}  {load.name:28} {server.name:12} {run.cpu_us_per_mail:8.1f} us CPU/mail"
                    f" {run.mails_per_s:9,.0f} mails/s" + ("" if run.is_quiet else "  (not quiet)"),
                    file=sys.stderr,
                )
    return rounds


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Run the comparison and return everything that goes into the JSON file."""
    deadline = time.monotonic() + options.limit
    chosen = options.servers.split(",") if options.servers else [kind.name for kind in ALL]
    kinds = [kind for kind in ALL if kind.name in chosen]
    loads = LOADS[:2] if options.quick else LOADS
    share = QUICK_SHARE if options.quick else options.share
    SmtpdSink.workers = options.workers
    SmtpdServe.workers = options.durable_workers or os.cpu_count() or 1
    with scratch_folder(options.dir) as folder:
        filesystem = filesystem_of(folder)
        if filesystem == "tmpfs":
            print(f"{options.dir} is a tmpfs: durable figures mean nothing there (--dir)", file=sys.stderr)
        servers: list[Server] = []
        try:
            servers, left_out = start_servers(kinds, folder)
            versions = {server.name: server.version() for server in servers}
            count = 1 if options.quick else options.rounds
            rounds = run_rounds(servers, loads, count, share, folder, deadline)
        finally:
            for server in servers:
                server.stop()
    return {
        "options": {"rounds": count, "share": share, "workers": options.workers, "sessions": loads[0].sessions},
        "filesystem": filesystem,
        "versions": versions,
        "left_out": left_out,
        "summary": summarize(rounds),
        "rounds": [one.as_json() for one in rounds],
    }


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--name", default="compare", help="results/DATE-NAME.json (default: compare)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--share", type=float, default=1.0, help="of each load's mails (default: 1)")
    parser.add_argument("--servers", default="", help=f"of {','.join(kind.name for kind in ALL)} (default: all)")
    parser.add_argument("--workers", type=int, default=1, help="of smtpd; the sinks beside it are one process")
    parser.add_argument("--durable-workers", type=int, default=0, help="of smtpd serve; 0 = one per core, its own default")
    parser.add_argument("--dir", default="/var/tmp", help="where spools and queues lie (default: /var/tmp)")
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds in all (default: 1800)")
    parser.add_argument("--quick", action="store_true", help="one short round, table only printed")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_options(arguments)
    end_in_order()
    content = compare(options)
    if not content["rounds"]:
        print("nothing was measured", file=sys.stderr)
        return 1
    tables = render_tables(content)
    print(tables)
    if not options.quick:
        path = write_result(options.name, content)
        write_section("compare", f"{tables}\nFrom `results/{path.name}`.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
