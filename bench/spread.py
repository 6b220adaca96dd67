"""How connections spread over workers, and what new clients notice of workers that can't serve.

First: kept connections over 4 workers, the most loaded one by the mean. Then 8 workers, one of them stopped (SIGSTOP) and one
kept busy by a sender of 40 MB mails on one connection: the time from connect to greeting for new clients.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

from bench.generator import Load, source_command
from bench.idle import open_session
from bench.processes import await_quiet, child_pids, end, greeting_s, tree_cpu_ns
from bench.results import end_in_order, p99, raise_open_files, report, scratch_folder
from bench.servers import SmtpdServe

_FAT = Load("fat", 100_000, 40_000_000, is_kept=True, sessions=1)


def open_sockets(pid: int) -> int:
    """Return how many of a process's descriptors are sockets."""
    count = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            count += os.readlink(link).startswith("socket:")
        except FileNotFoundError:  # closed meanwhile
            pass
    return count


def measure_spread(workers: int, connections: int, folder: Path) -> dict[str, Any]:
    """Keep `connections` open; return how many each worker has and max/mean."""
    raise_open_files(connections + 500)
    server = SmtpdServe(folder)
    server.workers = workers
    server.start()
    clients: list[socket.socket] = []
    try:
        pids = child_pids(server.pid)
        clients = [open_session(server.host, server.port) for _ in range(connections)]
        with_clients = [open_sockets(pid) for pid in pids]
        while clients:
            clients.pop().close()
        await_quiet(server.pid)  # until the workers have seen that all are gone
        counts = [count - open_sockets(pid) for count, pid in zip(with_clients, pids, strict=True)]
    finally:
        for client in clients:
            client.close()
        server.stop()
    if sum(counts) != connections:
        raise RuntimeError(f"{sum(counts)} connections were found at the workers, {connections} were made")
    return {"workers": workers, "connections": counts, "max_by_mean": round(max(counts) / mean(counts), 3)}


def measure_impaired(workers: int, greetings: int, folder: Path) -> dict[str, Any]:
    """Stop one worker, keep another busy, time `greetings` new clients; milliseconds."""
    server = SmtpdServe(folder)
    server.workers = workers
    server.start()
    sender: subprocess.Popen[bytes] | None = None
    stopped = 0
    try:
        pids = child_pids(server.pid)
        healthy = [greeting_s(server.host, server.port) * 1000 for _ in range(greetings)]
        cpu_before = {pid: tree_cpu_ns(pid) for pid in pids}
        sender = subprocess.Popen(
            source_command(_FAT, _FAT.mails, server.host, server.port),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(50):  # let the sender get its worker: the one whose CPU grows
            greeting_s(server.host, server.port)
        busy = max(pids, key=lambda pid: tree_cpu_ns(pid) - cpu_before[pid])
        stopped = next(pid for pid in pids if pid != busy)
        os.kill(stopped, signal.SIGSTOP)
        impaired = [greeting_s(server.host, server.port) * 1000 for _ in range(greetings)]
        is_still_sending = sender.poll() is None
    finally:
        if stopped:
            os.kill(stopped, signal.SIGCONT)
        if sender is not None:
            end(sender)
        server.stop()
    if not is_still_sending:
        raise RuntimeError("the busy sender ended before the measurement did")
    return {
        "workers": workers,
        "greetings": greetings,
        "greeting_ms_healthy": {"median": round(median(healthy), 3), "p99": round(p99(healthy), 3)},
        "greeting_ms_impaired": {
            "median": round(median(impaired), 3),
            "p99": round(p99(impaired), 3),
            "max": round(max(impaired), 3),
        },
    }


def describe(content: dict[str, Any]) -> list[str]:
    """Return the figures as lines for people."""
    spread, impaired = content["spread"], content["impaired"]
    healthy_ms, impaired_ms = impaired["greeting_ms_healthy"], impaired["greeting_ms_impaired"]
    counts = ", ".join(map(str, spread["connections"]))
    return [
        (
            f"{sum(spread['connections']):,} kept connections over {spread['workers']} workers ({counts}):"
            f" max/mean {spread['max_by_mean']:.2f}"
        ),
        (
            f"{impaired['workers']} workers, one stopped, one busy: greeting of a new client median"
            f" {impaired_ms['median']:.1f} ms, p99 {impaired_ms['p99']:.1f} ms, max {impaired_ms['max']:.1f} ms"
            f" (all healthy: {healthy_ms['median']:.1f} and {healthy_ms['p99']:.1f} ms)"
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.spread", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--greetings", type=int, default=1000)
    parser.add_argument("--dir", default="/var/tmp", help="where the spools lie (default: /var/tmp)")
    parser.add_argument("--quick", action="store_true", help="200 greetings, nothing is written")
    options = parser.parse_args(arguments)
    greetings = 200 if options.quick else options.greetings
    end_in_order()
    with scratch_folder(options.dir) as folder:
        spread = measure_spread(4, options.connections, folder)
    with scratch_folder(options.dir) as folder:
        impaired = measure_impaired(8, greetings, folder)
    content = {"spread": spread, "impaired": impaired}
    report("spread", content, describe(content), options.quick)
    return 0


if __name__ == "__main__":
    sys.exit(main())
