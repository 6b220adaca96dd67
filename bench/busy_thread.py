"""What the loop keeps of its throughput beside a helper thread that is busy in pure Python.

The system calls of `_io` keep the GIL, so the busy thread gets it once in a switch interval and not at every recv and send.
The worker runs by itself and beside the thread, both driven alike in turn; the ratio is taken within a round.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench.generator import Load, drive
from bench.results import end_in_order, report, scratch_folder
from bench.servers import ROOT, SmtpdServer

_LOAD = Load("kept connections, 4 KB", 5000, 4096, is_kept=True)


class WorkerAlone(SmtpdServer):
    """A sink's worker without a master."""

    name = "worker"
    extra: tuple[str, ...] = ()

    def command(self) -> list[str]:
        return [sys.executable, str(ROOT / "bench" / "busy_worker.py"), self.host, str(self.port), *self.extra]


class WorkerBesideBusyThread(WorkerAlone):
    """The same beside a busy thread."""

    name = "worker beside a busy thread"
    extra = ("busy",)


def measure(rounds: int, mails: int, folder: Path) -> dict[str, Any]:
    """Return mails/s of each round, alone and beside the busy thread, and the median of their ratios."""
    alone, beside = WorkerAlone(folder), WorkerBesideBusyThread(folder)
    rows = []
    try:
        alone.start()
        beside.start()
        for server in (alone, beside):
            drive(_LOAD, mails // 10, server.host, server.port, server.pid, quiet_s=0)
        for number in range(rounds):
            order = (alone, beside) if number % 2 else (beside, alone)
            runs = {one.name: drive(_LOAD, mails, one.host, one.port, one.pid, quiet_s=0) for one in order}
            speeds = round(runs[alone.name].mails_per_s), round(runs[beside.name].mails_per_s)
            rows.append({"alone_per_s": speeds[0], "beside_per_s": speeds[1]})
    finally:
        alone.stop()
        beside.stop()
    ratio = median(row["beside_per_s"] / row["alone_per_s"] for row in rows)
    return {"mails": mails, "rounds": rows, "kept_share": round(ratio, 3)}


def describe(content: dict[str, Any]) -> list[str]:
    """Return the figures as lines for people."""
    alone = median(row["alone_per_s"] for row in content["rounds"])
    beside = median(row["beside_per_s"] for row in content["rounds"])
    return [
        (
            f"a sink's worker alone: {alone:,.0f} mails/s; beside a thread busy in pure Python: {beside:,.0f} mails/s,"
            f" {content['kept_share']:.2f}× (median of {len(content['rounds'])} rounds)"
        )
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.busy_thread", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--mails", type=int, default=_LOAD.mails)
    parser.add_argument("--dir", default="/var/tmp", help="for the workers' folders (default: /var/tmp)")
    parser.add_argument("--quick", action="store_true", help="three rounds of 1,000 mails, nothing is written")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.mails = 3, 1000
    end_in_order()
    with scratch_folder(options.dir) as folder:
        content = measure(options.rounds, options.mails, folder)
    report("busy-thread", content, describe(content), options.quick)
    return 0


if __name__ == "__main__":
    sys.exit(main())
