"""Throughput and CPU per mail over 1, 2 and 4 workers of ours: `python -m bench.scaling`.

The generator shares the machine with the server: with as many workers as cores throughput can't grow further, CPU per mail tells.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from bench.curves import Curve, ratio_between, run_curve
from bench.generator import Load, Measured
from bench.measuring import Pilot, drive_server
from bench.part import part_parser
from bench.roster import with_workers
from bench.servers import Server, SmtpdServe, SmtpdServer, SmtpdSink
from bench.tables import Round

WORKERS = (1, 2, 4)
LOADS = {
    "kept connections": Load("kept connections", 20_000, 4096, is_kept=True),
    "a connection a mail": Load("a connection a mail", 6_000, 4096, is_kept=False),
}
KINDS: list[type[SmtpdServer]] = [SmtpdSink, SmtpdServe]


def scales(rounds: Sequence[Round]) -> list[str]:
    """Return a sentence for each mode, load and number of workers: its cost and throughput by those of one worker."""
    found = []
    for kind in KINDS:
        one = with_workers(kind, 1).name
        for load in LOADS:
            for workers in WORKERS[1:]:
                many = with_workers(kind, workers).name
                cost = ratio_between(rounds, many, load, one, load, "cpu_us_per_mail")
                speed = ratio_between(rounds, many, load, one, load, "mails_per_s")
                if cost is not None and speed is not None:
                    found.append(f"{many} by one worker, {load}: {cost:.2f}× the CPU a mail, {speed:.2f}× the mails/s")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = part_parser("scaling", __doc__, rounds=5, limit_s=300)
    parser.add_argument("--target", type=float, default=1.0, help="seconds of a run (default: 1)")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.target = 1, 0.2
    pilot = Pilot(options.target)

    def run(server: Server, load: Load, left_s: float, folder: Path) -> Measured:
        return drive_server(server, load, pilot.mails(server, load, left_s), left_s)

    curve = Curve("scaling", "Scaling over workers, 4 KB", "workers", LOADS, {}, lambda size, cost: cost)
    kinds = [with_workers(kind, workers) for kind in KINDS for workers in WORKERS]
    return run_curve(curve, kinds, options, run, find=scales)


if __name__ == "__main__":
    sys.exit(main())
