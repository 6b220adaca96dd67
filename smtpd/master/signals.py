"""Signals to the master, as users of nginx and gunicorn know them: which verb each stands for.

Handlers only queue (Loop.watch_signals); the verbs run as ordinary calls of the loop.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Protocol

from smtpd.net.loop import Loop


class Verbs(Protocol):
    """What can be asked of the master."""

    def reload(self) -> None: ...
    def stop_gracefully(self) -> None: ...
    def stop_fast(self) -> None: ...
    def reopen_logs(self) -> None: ...
    def upgrade(self) -> None: ...
    def add_worker(self) -> None: ...
    def retire_worker(self) -> None: ...
    def reap_workers(self) -> None: ...


def install_signals(loop: Loop, master: Verbs) -> None:
    """From now on signals are the master's verbs; SIGPIPE does nothing."""
    handlers: dict[int, Callable[[], object]] = {
        signal.SIGHUP: master.reload,
        signal.SIGTERM: master.stop_gracefully,
        signal.SIGINT: master.stop_fast,
        signal.SIGQUIT: master.stop_fast,
        signal.SIGUSR1: master.reopen_logs,
        signal.SIGUSR2: master.upgrade,
        signal.SIGTTIN: master.add_worker,
        signal.SIGTTOU: master.retire_worker,
        signal.SIGCHLD: master.reap_workers,
    }
    loop.watch_signals(handlers)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
