"""The parent of a run: forks the processes, adds up what they tell, passes an interruption on, makes the report.

Sends nothing itself. The first SIGINT or SIGTERM stops what is offered and waits for what is under way; the second ends at once.
Raises nothing but OSError for want of processes or descriptors.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from smtpd.load.pipe import Inbox, tell
from smtpd.load.plan import Plan
from smtpd.load.totals import Totals
from smtpd.load.worker import cpu_s, run_worker
from smtpd.net.loop import Loop

_FORK_S = 0.02  # for each process, before the first mail
_SHOW_S = 0.5


class Child:
    def __init__(self, share: int, pid: int, sock: socket.socket) -> None:
        self.share = share
        self.pid = pid
        self.sock = sock
        self.inbox = Inbox(sock)


class Run:
    """`show(totals, elapsed_s)` is called now and then; `say(text)` for what has to be said meanwhile."""

    def __init__(self, plan: Plan, show: Callable[[Totals, float], object], say: Callable[[str], object]) -> None:
        self._plan = plan
        self._show = show
        self._say = say
        self._loop = Loop()
        self._children: list[Child] = []
        self._interrupts = 0
        self.totals = Totals(plan)

    @property
    def was_killed(self) -> bool:
        """Ended by a second interruption: figures are missing."""
        return self._interrupts > 1

    def run(self) -> dict[str, Any]:
        """Do all of it; return the report."""
        plan, loop = self._plan, self._loop
        own_cpu_s = cpu_s()
        starts_at = time.monotonic() + _FORK_S * plan.workers
        started_at_s = time.time() + _FORK_S * plan.workers
        for share in range(plan.workers):
            self._fork(share, starts_at)
        self._starts_at = starts_at
        loop.watch_signals({signal.SIGINT: self._on_interrupt, signal.SIGTERM: self._on_interrupt})
        loop.call_at(starts_at + _SHOW_S, self._on_time)
        loop.run()
        over_at = time.monotonic()
        self._show(self.totals, over_at - starts_at)
        loop.close()
        return self.totals.report(started_at_s, starts_at, over_at, cpu_s() - own_cpu_s)

    def _fork(self, share: int, starts_at: float) -> None:
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if not pid:
            ours.close()
            for child in self._children:
                child.sock.close()
            run_worker(self._plan, share, starts_at, theirs)
        theirs.close()
        child = Child(share, pid, ours)
        self._children.append(child)
        self._loop.add_reader(ours.fileno(), lambda: self._on_child(child))

    def _on_child(self, child: Child) -> None:
        for message in child.inbox.read():
            if message["is"] == "interval":
                self.totals.take_interval(child.share, message)
            else:
                self.totals.take_result(message)
        if child.inbox.is_over:
            self._loop.forget(child.sock.fileno())
            child.sock.close()
            os.waitpid(child.pid, 0)
            self._children.remove(child)
            if not self._children:
                self._loop.stop()

    def _on_time(self) -> None:
        self._show(self.totals, self._loop.now - self._starts_at)
        self._loop.call_later(_SHOW_S, self._on_time)

    def _on_interrupt(self) -> None:
        self._interrupts += 1
        self.totals.is_interrupted = True
        if self._interrupts == 1:
            self._say("no more mails are begun; waiting for those under way (interrupt again to end at once)")
        for child in self._children:
            if self._interrupts > 1:
                os.kill(child.pid, signal.SIGKILL)
            else:
                try:
                    tell(child.sock, {"is": "stop"})
                except OSError:
                    pass  # it has ended just now
