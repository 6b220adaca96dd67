"""A server with a large queue: 200,000 deferred mails are put into a spool directly, then a server is started on it.

Shows how long until it is ready, how much memory its workers take, how fast it accepts beside them (against the same server with
an empty queue, in turn), and how long `smtpd queue list --domain` takes. The mails are due long after the run.
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

from bench.generator import Load, drive
from bench.processes import NotReadyError, await_quiet, child_pids, memory_bytes
from bench.relaying import CountingSink, SmtpdRelay, is_ready
from bench.results import end_in_order, report, scratch_folder
from smtpd.mail.envelope import Envelope, Recipient, encode_envelope
from smtpd.mail.outcome import DEFERRED, Outcome, encode_outcomes
from smtpd.mail.queue_id import QueueIdMaker
from smtpd.spool import lock
from smtpd.spool.batch import Batch
from smtpd.spool.database import ShardDatabase
from smtpd.spool.open import make_spool_directory

LOAD = Load("kept connections, 4 KB", 10_000, 4096, is_kept=True)
DOMAINS = 1000  # the mails are spread over so many
BATCH = 1000
READY_LIMIT_S = 600.0
_BODY = (b"Subject: waiting\r\n\r\n" + (b"x" * 76 + b"\r\n") * 200)[:4096]


def fill_shard(spool: Path, count: int, first: int, now_s: float) -> None:
    """Put `count` deferred mails into a new shard; they were tried once, an hour ago, and are due in a day."""
    directory = lock.new_shard_directory(str(spool))
    held_lock = lock.ShardLock(directory)
    database = ShardDatabase(directory)
    try:
        ids = QueueIdMaker(1, lock.shard_number(directory), database.ceiling_us)
        for start in range(0, count, BATCH):
            batch = Batch()
            for place in range(start, min(start + BATCH, count)):
                row = place + 1
                received_at_s = now_s - 7200 + place * 3600 / count
                batch.mails += (row, len(_BODY), 0, ids.next_id(), _envelope(first + place, received_at_s))
                batch.bodies += (row, _BODY)
                batch.body_bytes += len(_BODY)
                batch.kept += (row, now_s + 86_400 + place / count, 0, 1, _outcomes(now_s - 3600))
            batch.ceiling_us = ids.last_us + 1_000_000
            database.commit(batch)
            if database.is_checkpoint_due:
                database.checkpoint()
    finally:
        database.close()
        held_lock.release()


def _envelope(number: int, received_at_s: float) -> bytes:
    domain = f"d{number % DOMAINS}.example.org"
    recipient = Recipient(f"user{number}@{domain}".encode(), domain)
    return encode_envelope(
        Envelope(b"a@example.com", [recipient], "192.0.2.1", "client.example", b"client.example", "ESMTP", received_at_s)
    )


def _outcomes(at_s: float) -> bytes:
    text = "connect to 192.0.2.25[192.0.2.25]:25: Connection refused"
    return encode_outcomes([Outcome(DEFERRED, 0, "4.4.1", text, "none", 1, at_s)])


def start(server: SmtpdRelay) -> float:
    """Start it and return the seconds until /readyz says 200; NotReadyError when that takes too long."""
    started = time.perf_counter()
    server.start()
    while not is_ready(server):
        if time.perf_counter() - started > READY_LIMIT_S:
            raise NotReadyError(f"not ready within {READY_LIMIT_S:.0f} s: {server.last_words()}")
        time.sleep(0.01)
    return time.perf_counter() - started


def workers_rss(server: SmtpdRelay) -> list[int]:
    """Return the resident sets of the workers in octets."""
    return [memory_bytes(pid, "VmRSS") for pid in child_pids(server.pid)]


def list_seconds(server: SmtpdRelay, domain: str, expected: int) -> float:
    """Return how long `smtpd queue list --json --domain` takes; ValueError when it doesn't show what was put there."""
    command = [str(server.program), "queue", "list", "-c", str(server.config), "--json", "--domain", domain]
    started = time.perf_counter()
    result = subprocess.run(command, capture_output=True, check=False, timeout=READY_LIMIT_S)
    elapsed_s = time.perf_counter() - started
    shown = result.stdout.count(b"\n")
    if result.returncode or shown != expected:
        raise ValueError(
            f"queue list: {shown} mails, {expected} expected, exit code {result.returncode}: {result.stderr[-300:]!r}"
        )
    return elapsed_s


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run it; seconds and octets."""
    with scratch_folder(options.dir) as folder:
        sink = CountingSink(folder)
        servers = {name: SmtpdRelay(folder, sink.port, f"{name}-queue") for name in ("full", "empty")}
        full, empty = servers["full"], servers["empty"]
        for server in servers.values():
            server.first_tables = '[delivery]\nretry = ["2 d"]\n'  # a due time further ahead than that counts as a clock set back
        spool = full.folder / "spool"
        make_spool_directory(str(spool))
        shards = full.workers
        began = time.perf_counter()
        for number in range(shards):
            share = options.mails // shards + (number < options.mails % shards)
            fill_shard(spool, share, number * (options.mails // shards) + min(number, options.mails % shards), time.time())
        fill_s = time.perf_counter() - began
        figures: dict[str, Any] = {"mails": options.mails, "shards": shards, "fill_s": round(fill_s, 2)}
        try:
            sink.start()
            for name, server in servers.items():
                figures[f"{name}_ready_s"] = round(start(server), 3)
                await_quiet(server.pid)
                figures[f"{name}_rss_bytes"] = workers_rss(server)
            expected = len(range(7, options.mails, DOMAINS))
            figures["list_domain_s"] = [round(list_seconds(full, "d7.example.org", expected), 3) for _ in range(options.rounds)]
            rates: dict[str, list[float]] = {"full": [], "empty": []}
            for server in servers.values():
                drive(LOAD, max(50, options.accept // 20), server.host, server.port, server.pid)
            for number in range(options.rounds):
                for name in list(servers) if number % 2 == 0 else list(servers)[::-1]:
                    server = servers[name]
                    rates[name].append(drive(LOAD, options.accept, server.host, server.port, server.pid).mails_per_s)
            figures["accept_per_s"] = {name: [round(rate, 1) for rate in found] for name, found in rates.items()}
            figures["accept_ratio"] = round(median(a / b for a, b in zip(rates["full"], rates["empty"], strict=True)), 3)
            figures["full_rss_after_bytes"] = workers_rss(full)
        finally:
            for server in (full, empty):
                server.stop()
            sink.stop()
    return figures


def describe(figures: dict[str, Any]) -> list[str]:
    """Return the figures as lines for people."""
    rss = max(figures["full_rss_bytes"]) / 1e6
    ready = f"ready after {figures['full_ready_s']:.2f} s (empty queue: {figures['empty_ready_s']:.2f} s)"
    rate = f"{median(figures['accept_per_s']['full']):,.0f} mails/s, {figures['accept_ratio']:.2f}× that of an empty queue"
    return [
        f"{figures['mails']:,} deferred mails in {figures['shards']} shards: {ready}",
        f"the largest worker takes {rss:.0f} MB (empty queue: {max(figures['empty_rss_bytes']) / 1e6:.0f} MB)",
        f"accepting beside them, with relaying: {rate}",
        f"`queue list --domain` of one of {DOMAINS:,} domains: {median(figures['list_domain_s']):.2f} s",
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.backlog", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mails", type=int, default=200_000, help="that wait (default: 200,000)")
    parser.add_argument("--accept", type=int, default=10_000, help="mails of each accepting run (default: 10,000)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", default="/var/tmp", help="where the spools lie (default: /var/tmp)")
    parser.add_argument("--quick", action="store_true", help="a small queue, nothing is written")
    options = parser.parse_args(arguments)
    if options.quick:
        options.mails, options.accept, options.rounds = min(options.mails, 5000), min(options.accept, 500), 1
    if reason := CountingSink.missing():
        print(f"left out: {reason}", file=sys.stderr)
        return 1
    end_in_order()
    figures = measure(options)
    report("backlog", figures, describe(figures), options.quick)
    return 0


if __name__ == "__main__":
    sys.exit(main())
