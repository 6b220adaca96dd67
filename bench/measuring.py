"""One run of one server as a `Round`: how many mails are worth it, the disk's own time before it, commits during it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from bench.generator import Load, Measured, drive
from bench.machine import fdatasync_us
from bench.servers import Server
from bench.tables import Round

_FIRST_MAILS = 5
_LEAST_S = 0.15  # of a run that tells how fast a server is
_RUN_LIMIT_S = 120.0


def measure_round(number: int, server: Server, name: str, folder: Path, run: Callable[[], Measured]) -> Round:
    """Do `run` and return it with what belongs to a durable server, one line about it on stderr."""
    disk_us = fdatasync_us(folder) if server.is_durable else None
    before = server.commits()
    measured = run()
    after = server.commits()
    commits: int | None = None
    if before is not None and after is not None:
        commits = after - before
    elif server.mails_per_commit:
        commits = round(measured.mails / server.mails_per_commit)
    print(
        f"round {number + 1}  {name:28} {server.name:15} {measured.cpu_us_per_mail:10,.1f} us CPU/mail"
        f" {measured.mails_per_s:9,.0f} mails/s" + ("" if measured.is_quiet else "  (not quiet)"),
        file=sys.stderr,
    )
    return Round(number, name, server.name, measured, disk_us, commits)


def drive_server(server: Server, load: Load, mails: int, left_s: float) -> Measured:
    """Send so many mails; GeneratorError when that fails or takes longer than is left."""
    return drive(load, mails, server.host, server.port, server.pid, min(_RUN_LIMIT_S, left_s + 5.0))


class Pilot:
    """Finds by short runs how many mails of a load keep a server busy for about `target_s`, once for each of them."""

    def __init__(self, target_s: float) -> None:
        self._target_s = target_s
        self._known: dict[tuple[str, Load], int] = {}

    def mails(self, server: Server, load: Load, left_s: float) -> int:
        """Return how many mails a run sends, at most `load.mails`."""
        key = server.name, load
        if key not in self._known:
            mails = max(_FIRST_MAILS, len(load.mix_bytes))
            while True:
                run = drive_server(server, load, mails, left_s)
                if run.elapsed_s >= _LEAST_S or mails >= load.mails:
                    break
                mails = min(load.mails, round(mails * min(20.0, 2 * _LEAST_S / run.elapsed_s)))
            self._known[key] = max(_FIRST_MAILS, min(load.mails, round(run.mails_per_s * self._target_s)))
        return self._known[key]
