"""Looks at a running sink from the master: when it was busy, a live table on a terminal, running counters elsewhere.

Runs on the master's loop by a timer; starts no thread, since the master forks.
"""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Any, TextIO

from smtpd.master.supervisor import Master
from smtpd.sink.figures import Figures, read_figures

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

_PERIOD_S = 1.0
_LIVE_PERIOD_S = 0.5


class Board:
    """`shows`: "" nothing, "live" a table on the terminal `out`, "lines" a line of counters when they have changed."""

    def __init__(self, shows: str, out: TextIO | None = None) -> None:
        self._shows = shows
        self._out = out or sys.stderr
        self._master: Master | None = None
        self._live: Live | None = None
        self._period_s = _LIVE_PERIOD_S if shows else _PERIOD_S
        self._started_s = time.monotonic()
        self._first_s = 0.0  # of the look before the first connection
        self._last_s = 0.0
        self._looked_s = self._started_s
        self._seen = (0, 0, 0)
        self._rate = 0.0

    def watch(self, master: Master) -> None:
        """Begin, before the master runs."""
        self._master = master
        self._started_s = self._looked_s = time.monotonic()
        if self._shows == "live":
            from rich.console import Console  # here: a sink without a terminal starts without it
            from rich.live import Live

            self._live = Live(console=Console(file=self._out), auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
            self._live.start()
        master.loop.call_later(self._period_s, self._look)

    def close(self) -> tuple[Figures, dict[int, Figures], dict[str, Any]]:
        """The end: the figures, and `duration_s` since the start, `busy_s` from the first connection to the last mail."""
        assert self._master is not None
        figures = self._note()
        if self._live is not None:
            with contextlib.suppress(OSError):
                self._live.update(self._table(*figures), refresh=True)
                self._live.stop()
        duration_s = time.monotonic() - self._started_s
        times = {"duration_s": round(duration_s, 3), "busy_s": round(self._last_s - self._first_s, 3)}
        return *figures, times

    def _look(self) -> None:
        assert self._master is not None
        self._master.loop.call_later(self._period_s, self._look)
        before = self._seen
        figures = self._note()
        with contextlib.suppress(OSError):  # nobody looks any more: no reason not to serve
            if self._live is not None:
                self._live.update(self._table(*figures), refresh=True)
            elif self._shows == "lines" and self._seen != before:
                total = figures[0]
                quits = total.commands.get("quit", 0)
                self._out.write(f"sess={total.connections} quit={quits} mesg={total.mails} open={total.active}\n")
                self._out.flush()

    def _note(self) -> tuple[Figures, dict[int, Figures]]:
        """Read the figures, and remember when they moved."""
        assert self._master is not None
        now = time.monotonic()
        figures = read_figures(self._master.slabs, self._master.cells)
        seen = (figures[0].connections, figures[0].mails, sum(figures[0].commands.values()))
        if seen != self._seen:
            if not self._first_s:
                self._first_s = self._looked_s
            self._last_s = now
        self._rate = (seen[1] - self._seen[1]) / max(now - self._looked_s, 0.001)
        self._seen = seen
        self._looked_s = now
        return figures

    def _table(self, total: Figures, workers: dict[int, Figures]) -> Table:
        from rich.table import Table

        table = Table(title=f"smtpd sink: {self._rate:,.0f} mails/s", caption="Ctrl-C ends")
        for name in ("worker", "open", "connections", "mails", "MB", "rejects"):
            table.add_column(name, justify="right")
        rows = [(str(slot), figures) for slot, figures in sorted(workers.items())] if len(workers) > 1 else []
        for name, figures in [*rows, ("all", total)]:
            table.add_row(
                name, f"{figures.active:,}", f"{figures.connections:,}", f"{figures.mails:,}", f"{figures.size_bytes / 1e6:,.1f}",
                f"{sum(figures.rejects.values()):,}",
            )  # fmt: skip
        return table
