"""The master process: holds the sockets, keeps the workers alive, answers signals and scrapes, on one loop.

Knows processes, not mail. Starts no thread (it forks) and never waits for a worker, a scraper or a log. A
fault of its own in one call is logged and the loop goes on: supervision must outlive its bugs.
"""

from __future__ import annotations

import os
import platform
import signal
import socket
import sqlite3
import time
import traceback
from collections.abc import Callable

from setproctitle import setproctitle

import smtpd
from smtpd.errors import StartupError
from smtpd.log.master import MasterLog
from smtpd.master.child import READY, Generation, RunWorker
from smtpd.master.children import Children
from smtpd.master.exporter import Exporter
from smtpd.master.reload import Reload
from smtpd.master.report import Report
from smtpd.master.signals import install_signals
from smtpd.metrics.collector import MasterGauges, SlabCollector
from smtpd.metrics.slab import CellIndex, Slabs
from smtpd.net.listeners import ListenerSockets, add_slot, bind_socket, close_listener, shut_listener
from smtpd.net.loop import Loop
from smtpd.settings import Settings

_FAST_STOP_S = 5.0
_UNACCEPTED_S = 0.5  # at a stop: connections not accepted by then are reset, later ones are refused
_MOST_DRAINING = 2  # generations that may drain at once before a further reload waits
_FAULTS_PER_MINUTE = 100


class Master:
    """Made with everything bound and privileges dropped; `run` returns the exit code."""

    def __init__(
        self,
        settings: Settings,
        file: str,
        load: Callable[[], Settings],
        run_worker: RunWorker,
        listeners: list[ListenerSockets],
        metrics_socket: socket.socket | None,
        log: MasterLog,
        owner_uid: int = -1,
    ) -> None:
        self.loop = Loop()
        self.log = log
        self._file = file
        self._load = load
        self._owner_uid = owner_uid
        self.cells = CellIndex()
        self._prepare_cells(settings, listeners)
        self.slabs = Slabs(self.cells)
        self._gauges = MasterGauges()
        generation = Generation(1, settings, listeners)
        self.children = Children(self.loop, self.slabs, self.cells, log, run_worker, generation, self._on_change)
        self.children.on_finished = self._on_finished
        self.report = Report(self.children, self.slabs, file)
        self._collector = SlabCollector(self.slabs, self.cells, self._gauges)
        self._exporter: Exporter | None = None
        self._metrics_address = settings.metrics.address
        if metrics_socket is not None:
            self._open_exporter(metrics_socket)
        self._reload: Reload | None = None
        self._later: list[Callable[[], None]] = []  # verbs that wait for the end of a reload
        self._stop_level = 0  # 0 serving, 1 graceful, 2 fast
        self._listeners_shut = False

    def run(self) -> int:
        """Start the workers, supervise until the last one has ended after a stop."""
        setproctitle(f"smtpd: master [{self._file or 'embedded default'}]")
        install_signals(self.loop, self)
        self._gauges.reload(True)
        count = count_workers(self.children.generation.settings)
        versions = f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
        self.log.info("master", f"smtpd {smtpd.__version__} starts {count} workers ({versions})")
        self.children.resize(count)
        self._on_change()
        faults: list[float] = []
        while True:
            try:
                self.loop.run()
                break
            except Exception as error:
                faults = [when for when in faults if when > time.monotonic() - 60.0] + [time.monotonic()]
                if len(faults) > _FAULTS_PER_MINUTE:
                    raise
                place = traceback.extract_tb(error.__traceback__)[-1]
                where = f"{os.path.basename(place.filename)}:{place.lineno}"
                self.log.error("master", f"internal fault at {where}: {type(error).__name__}: {error}")
        self._close()
        return os.EX_OK

    # --- verbs (signals)
    # ---------------------------------------------------------------------------------------------

    def reload(self) -> None:
        """HUP. While a reload runs, any number of further ones is one more after it."""
        if self._stop_level:
            return
        if self._reload is not None or self._draining_generations() >= _MOST_DRAINING:
            if self.reload not in self._later:
                self._later.append(self.reload)
            return
        self.log.info("master", "reload: reading the configuration")
        self._reload = Reload(self.loop, self.children, self.cells, self.log, self._owner_uid)
        self._reload.begin(self._load, self)

    def reload_done(self, generation: Generation | None) -> None:
        """The outcome of a reload: the generation that serves from now on, or None."""
        self._reload = None
        self._gauges.reload(generation is not None)
        self.report.last_reload = {"success": generation is not None, "time_s": round(time.time(), 3)}
        if generation is not None:
            settings = generation.settings
            self.log.change(settings.log, settings.hostname)
            self.log.info("master", f"reload: generation {generation.number} serves")
            self._move_exporter(settings.metrics.address)
            self._resize(count_workers(settings))
        self._on_change()

    def stop_gracefully(self) -> None:
        """TERM: sessions finish their transaction; a second one is impatient."""
        if self._stop_level:
            self.stop_fast()
        else:
            self._stop(1, signal.SIGTERM, None)

    def _on_finished(self) -> None:
        if not self._stop_level:
            self.stop_gracefully()

    def stop_fast(self) -> None:
        """INT, QUIT, or a second TERM: sessions are told and closed."""
        if self._stop_level < 2:
            self._stop(2, signal.SIGINT, _FAST_STOP_S)

    def reopen_logs(self) -> None:
        """USR1: the log was rotated; every process opens its own anew."""
        self.log.reopen()
        self.children.signal_all(signal.SIGUSR1)

    def add_worker(self) -> None:
        """TTIN"""
        self._when_settled(self.add_worker, lambda: self._resize(len(self.children.slots) + 1))

    def retire_worker(self) -> None:
        """TTOU: the highest slot's worker drains, its socket stays open and is served by the others."""
        self._when_settled(self.retire_worker, lambda: self._resize(max(1, len(self.children.slots) - 1)))

    def reap_workers(self) -> None:
        """CHLD"""
        self.children.reap()

    # --- steps
    # -------------------------------------------------------------------------------------------------------

    def _when_settled(self, verb: Callable[[], None], act: Callable[[], None]) -> None:
        if self._stop_level:
            return
        if self._reload is not None:
            self._later.append(verb)
        else:
            act()

    def _resize(self, count: int) -> None:
        """Serve with `count` workers; a slot that never was gets its sockets first."""
        if count == len(self.children.slots):
            return
        try:
            while self.children.total_slots < count:
                for listener in self.children.generation.listeners:
                    add_slot(listener, self._owner_uid)
                self.children.hand_over(self.children.total_slots - 1)
                if self.children.total_slots < count and self._all_shared():
                    break
        except StartupError as error:
            self.log.error("master", f"no worker more: {error}")
            count = len(self.children.slots)
        self.children.resize(count)
        self.log.info("master", f"{count} worker{'s' if count != 1 else ''} from now on")
        self._on_change()

    def _all_shared(self) -> bool:
        return all(listener.is_shared for listener in self.children.generation.listeners)

    def _draining_generations(self) -> int:
        current = self.children.generation
        alive = self.children.alive.values()
        return len({child.generation.number for child in alive if child.generation is not current})

    def _on_change(self) -> None:
        """A worker came, got ready or went."""
        for slot in self.children.slots:
            is_up = slot.child is not None and slot.child.state == READY
            self._gauges.worker(slot.number, is_up, slot.restarts)
        self._gauges.retire_workers(len(self.children.slots))
        if self._stop_level:
            if not self.children.alive:
                self.loop.stop()
            elif all(child.has_left_listeners for child in self.children.alive.values()):
                self._shut_listeners()
        elif self._later and self._reload is None and self._draining_generations() < _MOST_DRAINING:
            later, self._later = self._later, []
            for verb in later:
                self.loop.ready(verb)

    def _stop(self, level: int, number: int, patience_s: float | None) -> None:
        self._stop_level = level
        if self._reload is not None:
            self._reload.cancel()
            self._reload = None
        how = "gracefully" if level == 1 else "fast"
        self.log.info("master", f"stopping {how}: {len(self.children.alive)} workers")
        self.children.stop(number, patience_s)
        self.loop.call_later(_UNACCEPTED_S, self._shut_listeners)
        self._on_change()

    def _shut_listeners(self) -> None:
        if not self._listeners_shut:
            self._listeners_shut = True
            for listener in self.children.generation.listeners:
                shut_listener(listener)

    def _close(self) -> None:
        for listener in self.children.generation.listeners:
            close_listener(listener)
        if self._exporter is not None:
            self._exporter.close()
        self.log.info("master", "stopped")

    # --- metrics
    # -----------------------------------------------------------------------------------------------------

    def _prepare_cells(self, settings: Settings, listeners: list[ListenerSockets]) -> None:
        self.cells.prepare(
            listeners=[listener.name for listener in listeners],
            routes=[*(route.name for route in settings.route), "bounce"],
            checks=[check.instance for check in settings.policy.check],
        )

    def _open_exporter(self, sock: socket.socket) -> None:
        self._exporter = Exporter(
            self.loop,
            sock,
            self._collector.registry,
            health=self.report.health,
            readiness=self.report.readiness,
            status=self.report.status,
        )

    def _move_exporter(self, address: str) -> None:
        """The address of the metrics has changed with a reload: bind the new one, then leave the old."""
        if address == self._metrics_address:
            return
        try:
            sock = bind_socket(address, 128, self._owner_uid) if address else None
        except StartupError as error:
            self.log.error("master", f"metrics stay on {self._metrics_address or 'no address'}: {error}")
            return
        if self._exporter is not None:
            self._exporter.close()
            self._exporter = None
        self._metrics_address = address
        if sock is not None:
            self._open_exporter(sock)


def count_workers(settings: Settings) -> int:
    """As configured; 0 = one for each core that this process may use."""
    return settings.workers or len(os.sched_getaffinity(0)) or 1
