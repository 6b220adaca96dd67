"""How a run goes, on a terminal: one bar. With `is_counting`, a running count as smtp-source prints it. Nothing otherwise."""

from __future__ import annotations

import sys
from typing import TextIO

from smtpd.load.plan import Plan
from smtpd.load.totals import Totals


class Progress:
    """Draws on `out` (standard error) if that is a terminal."""

    def __init__(self, plan: Plan, out: TextIO | None = None, is_counting: bool = False) -> None:
        self._plan = plan
        self._out = out or sys.stderr
        self._is_counting = is_counting
        self._bar = None
        if self._out.isatty() and not is_counting and not plan.is_verbose:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f}%"),
                TimeElapsedColumn(),
                console=Console(file=self._out),
                auto_refresh=False,  # no thread: this process forks
                transient=True,
            )
            self._task = self._bar.add_task("", total=1.0)

    def show(self, totals: Totals, elapsed_s: float) -> None:
        done = totals.accepted + totals.failed
        if self._is_counting:
            self._out.write(f"\r{done}")
            self._out.flush()
        if self._bar is None:
            return
        plan = self._plan
        share = elapsed_s / plan.duration_s if plan.duration_s else 0.0
        if plan.count:
            share = max(share, done / plan.count)
        row = totals.last_row
        text = f"{done} mails"
        if row is not None:
            text += f", {row['accepted'] / plan.interval_s:.0f}/s, p50 {row['p50_ms']:.1f} p99 {row['p99_ms']:.1f} ms"
        if totals.failed:
            text += f", {totals.failed} failed"
        self._bar.start()  # not before the processes are forked; again it does nothing
        self._bar.update(self._task, completed=min(share, 1.0), description=text)
        self._bar.refresh()

    def close(self) -> None:
        if self._is_counting:
            self._out.write("\n")
        if self._bar is not None:
            self._bar.stop()
