"""Cost against active sessions, 10 to 10,000, each with a mail under way at any time: `python -m bench.sessions`.

Driven by `smtpd load`, or by smtp-source in a build without it. Only a window of each run counts, after all are connected. One
worker of ours, as the sinks beside it have one process.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from bench import latency
from bench.curves import Curve, ratio_between, run_curve
from bench.generator import Load, Measured, drive_steadily
from bench.part import part_parser
from bench.peer_servers import GoSmtp
from bench.results import raise_open_files
from bench.roster import choose, with_workers
from bench.servers import Floor, Postfix, Server, SmtpdServe, SmtpdSink, SmtpSink
from bench.tables import Round

SESSIONS = (10, 20, 100, 1000, 10_000)
QUICK = (20, 100, 1000)
_MOST_BY_SMTP_SOURCE = 1000  # it connects all at once, and then rarely looks at those that wait
_SIZE_BYTES = 4096
DEFAULT: list[type[Server]] = [Floor, SmtpSink, GoSmtp, SmtpdSink, SmtpdServe, Postfix]


def name_of(sessions: int) -> str:
    return f"{sessions:,} sessions"


def keeps(rounds: Sequence[Round], fewer: int, more: int) -> list[str]:
    """Return a sentence for each server: which share of its throughput with few sessions it keeps with many."""
    found = []
    for server in dict.fromkeys(one.server for one in rounds):
        speed = ratio_between(rounds, server, name_of(more), server, name_of(fewer), "mails_per_s")
        cost = ratio_between(rounds, server, name_of(more), server, name_of(fewer), "cpu_us_per_mail")
        if speed is not None and cost is not None:
            found.append(
                f"{server} with {more:,} active sessions: {speed:.2f}× the mails/s of {fewer}, {cost:.2f}× the CPU a mail"
            )
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = part_parser("sessions", __doc__, rounds=3, limit_s=600)
    parser.add_argument("--window", type=float, default=2.0, help="seconds of a run that count (default: 2)")
    parser.add_argument("--workers", type=int, default=1, help="of ours (default: 1)")
    parser.add_argument("--counts", default="", help=f"of {','.join(map(str, SESSIONS))}, or others")
    options = parser.parse_args(arguments)
    counts = [int(count) for count in options.counts.split(",") if count] or list(QUICK if options.quick else SESSIONS)
    if options.quick:
        options.rounds, options.window = 1, 1.0
    raise_open_files(max(counts) + 1000)
    loads = {name_of(count): Load(name_of(count), 0, _SIZE_BYTES, is_kept=True, sessions=count) for count in counts}
    kinds = [
        with_workers(kind, options.workers) if issubclass(kind, SmtpdServe | SmtpdSink) else kind
        for kind in choose(options.servers, DEFAULT)
    ]

    has_load = not latency.missing()

    def run(server: Server, load: Load, left_s: float, folder: Path) -> Measured:
        if has_load:
            return latency.run_steadily(
                server.host, server.port, server.pid, sessions=load.sessions, window_s=options.window, size_bytes=_SIZE_BYTES
            )
        limit_s = min(60.0, left_s + 5.0)
        return drive_steadily(load, server.host, server.port, server.pid, folder, options.window, limit_s)

    curve = Curve(
        "sessions",
        "Cost against active sessions, 4 KB",
        "sessions",
        loads,
        {name_of(count): float(count) for count in counts},
        lambda sessions, cost: sessions * cost,  # so many sessions with a mail each
    )
    few, many = (20, max(counts)) if 20 in counts else (min(counts), max(counts))
    return run_curve(
        curve,
        kinds,
        options,
        run,
        is_fit=lambda server, load: load.sessions <= min(server.most_sessions, 10_000 if has_load else _MOST_BY_SMTP_SOURCE),
        find=lambda rounds: keeps(rounds, few, many),
    )


if __name__ == "__main__":
    sys.exit(main())
