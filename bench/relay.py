"""Mail that goes in and out again: smtp-source -> relay -> smtp-sink until the last mail is there: `python -m bench.relay`.

Ours and Postfix take turns (A B, B A, ...) with the same load and equally durable; their ratio is taken within a round and the
median reported. `--hung` instead compares ours with itself: one route's mail while another route's next hop accepts connections
and never says a word, with mail for it waiting, beside the same without such mail.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench.generator import RECIPIENT, GeneratorError, Load, source_command
from bench.machine import fdatasync_us, filesystem_of
from bench.processes import NotReadyError
from bench.relaying import CountingSink, HangingHop, PostfixRelay, Relayed, SmtpdRelay, relay_route, run_through
from bench.results import end_in_order, report, scratch_folder
from bench.servers import Server

LOAD = Load("kept connections, 4 KB", 20_000, 4096, is_kept=True)
HUNG_RECIPIENT = "b@hung.example"
WARM_UP_SHARE = 0.05


def run_rounds(servers: dict[Server, CountingSink], options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Let the servers take turns; fewer rounds when the time is up, a failed run is printed and left out."""
    deadline = time.monotonic() + options.limit
    rounds: list[dict[str, Any]] = []
    for server, sink in servers.items():
        run_through(server, sink, LOAD, max(50, int(options.mails * WARM_UP_SHARE)), RECIPIENT, options.run_limit)
    for number in range(options.rounds):
        order = list(servers)
        for server in order if number % 2 == 0 else order[::-1]:
            if time.monotonic() > deadline:
                print("the time is up, the rest is left out", file=sys.stderr)
                return rounds
            disk_us = fdatasync_us(folder)
            try:
                run: Relayed = run_through(server, servers[server], LOAD, options.mails, RECIPIENT, options.run_limit)
            except GeneratorError as error:
                print(f"round {number + 1}: {server.name}: {error}; {server.last_words()}", file=sys.stderr)
                continue
            rounds.append({"round": number, "server": server.name, "fdatasync_us": round(disk_us), **run.as_json()})
            last = rounds[-1]
            print(f"round {number + 1}  {server.name:14} {last['mails_per_s']:9,.0f} mails/s through", file=sys.stderr)
    return rounds


def ratios(rounds: list[dict[str, Any]], one: str, other: str, key: str = "mails_per_s") -> list[float]:
    """Return `one` by `other` of each round that has both."""
    found = {(run["round"], run["server"]): run[key] for run in rounds}
    numbers = sorted({run["round"] for run in rounds})
    return [found[n, one] / found[n, other] for n in numbers if (n, one) in found and (n, other) in found]


def summarize(rounds: list[dict[str, Any]], one: str, other: str) -> dict[str, Any]:
    """Return the medians of both and of their ratio within rounds; without figures of one it is left out."""
    summary: dict[str, Any] = {}
    for name in (one, other):
        runs = [run for run in rounds if run["server"] == name]
        if runs:
            summary[name] = {key: round(median(run[key] for run in runs), 1) for key in ("mails_per_s", "cpu_us_per_mail")}
    by_round = ratios(rounds, one, other)
    if by_round:
        summary["ratio"] = round(median(by_round), 3)
        summary["cpu_ratio"] = round(median(ratios(rounds, one, other, "cpu_us_per_mail")), 3)
        summary["rounds"] = len(by_round)
    return summary


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Ours beside Postfix; one without the other when that can't run here."""
    with scratch_folder(options.dir) as folder:
        servers: dict[Server, CountingSink] = {}
        left_out: dict[str, str] = {}
        sinks: list[CountingSink] = []
        try:
            for kind in (SmtpdRelay, PostfixRelay):
                sink = CountingSink(folder, len(sinks))
                sinks.append(sink)
                sink.start()
                server: Server = kind(folder, sink.port)
                reason = server.missing()
                if not reason:
                    try:
                        server.start()
                        servers[server] = sink
                    except NotReadyError as error:
                        reason = str(error)
                if reason:
                    left_out[server.name] = reason
                    print(f"left out: {server.name}: {reason}", file=sys.stderr)
            versions = {server.name: server.version() for server in servers}
            rounds = run_rounds(servers, options, folder)
            filesystem = filesystem_of(folder)
        finally:
            for server in servers:
                server.stop()
            for sink in sinks:
                sink.stop()
    return {
        "options": {"rounds": options.rounds, "mails": options.mails, "sessions": LOAD.sessions},
        "filesystem": filesystem,
        "versions": versions,
        "left_out": left_out,
        "summary": summarize(rounds, SmtpdRelay.name, PostfixRelay.name),
        "rounds": rounds,
    }


class BesideHung(SmtpdRelay):
    """Another route's next hop hangs, and mail for it waits."""

    name = "beside hung"


class BesideNothing(SmtpdRelay):
    """The same configuration without mail for that next hop."""

    name = "beside nothing"


def compare_hung(options: argparse.Namespace) -> dict[str, Any]:
    """Ours with and without mail for a next hop that hangs; `hung_connections` are those it was asked for."""
    hanging = HangingHop()
    with scratch_folder(options.dir) as folder:
        servers: dict[Server, CountingSink] = {}
        sinks: list[CountingSink] = []
        try:
            for kind in (BesideHung, BesideNothing):
                sink = CountingSink(folder, len(sinks))
                sinks.append(sink)
                sink.start()
                server = kind(folder, sink.port)
                server.first_tables = f'[[route]]\ndomains = ["hung.example"]\n{relay_route(hanging.port)}\n'
                server.start()
                servers[server] = sink
            hung = next(iter(servers))
            send_hung(hung, options.hung_mails)
            rounds = run_rounds(servers, options, folder)
        finally:
            for server in servers:
                server.stop()
            for sink in sinks:
                sink.stop()
            hanging.close()
    return {
        "options": {"rounds": options.rounds, "mails": options.mails, "hung_mails": options.hung_mails},
        "hung_connections": hanging.accepted,
        "summary": summarize(rounds, BesideHung.name, BesideNothing.name),
        "rounds": rounds,
    }


def send_hung(server: Server, mails: int) -> None:
    """Put mail for the hanging next hop into a running server."""
    subprocess.run(source_command(LOAD, mails, server.host, server.port, HUNG_RECIPIENT), check=True, timeout=300)


def describe(content: dict[str, Any], one: str, other: str) -> list[str]:
    """Return the figures as lines for people."""
    summary = content["summary"]
    lines = [
        f"{name}: {summary[name]['mails_per_s']:,.0f} mails/s through, {summary[name]['cpu_us_per_mail']:,.0f} µs CPU a mail"
        for name in (one, other)
        if name in summary
    ]
    if "ratio" in summary:
        how = f"median of {summary['rounds']} rounds in turn"
        lines.append(f"{one} by {other}: {summary['ratio']:.2f}× the mails, {summary['cpu_ratio']:.2f}× the CPU a mail ({how})")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.relay", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mails", type=int, default=20_000, help="of each run (default: 20,000)")
    parser.add_argument("--hung", action="store_true", help="beside a route whose next hop hangs")
    parser.add_argument("--hung-mails", type=int, default=5_000, help="that wait for it (default: 5,000)")
    parser.add_argument("--dir", default="/var/tmp", help="where spools and queues lie (default: /var/tmp)")
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds in all (default: 1800)")
    parser.add_argument("--run-limit", type=float, default=180.0, help="seconds of one run (default: 180)")
    parser.add_argument("--quick", action="store_true", help="one short round, nothing is written")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.mails, options.hung_mails = 1, min(options.mails, 1000), min(options.hung_mails, 500)
    if reason := CountingSink.missing():
        print(f"left out: {reason}", file=sys.stderr)
        return 1
    end_in_order()
    content = compare_hung(options) if options.hung else compare(options)
    if not content["rounds"]:
        print("nothing was measured", file=sys.stderr)
        return 1
    one, other = (BesideHung.name, BesideNothing.name) if options.hung else (SmtpdRelay.name, PostfixRelay.name)
    report("relay-hung" if options.hung else "relay", content, describe(content, one, other), options.quick)
    return 0


if __name__ == "__main__":
    sys.exit(main())
