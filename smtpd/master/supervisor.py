"""The master process: holds the sockets, keeps the workers alive, answers signals and scrapes, on one loop.

Knows processes, not mail. Starts no thread (it forks) and never waits for a worker, a scraper or a log. A
fault of its own in one call is logged and the loop goes on: supervision must outlive its bugs.
"""

from __future__ import annotations

import contextlib
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
from smtpd.master.control import MasterControl, Standing, Verb
from smtpd.master.exporter import Exporter
from smtpd.master.inheritance import Inheritance
from smtpd.master.pause import Pause
from smtpd.master.pid_file import PidFile
from smtpd.master.reload import Reload
from smtpd.master.report import Report
from smtpd.master.service_manager import ServiceManager
from smtpd.master.signals import install_signals
from smtpd.master.sockets import Opened, close_all
from smtpd.master.succession import Succession
from smtpd.metrics.collector import MasterGauges, SlabCollector
from smtpd.metrics.slab import CellIndex, Slabs
from smtpd.net import shutter
from smtpd.net.listeners import ListenerSockets, add_slot, close_listener
from smtpd.net.loop import Loop
from smtpd.net.tls.server import find_expiries
from smtpd.settings import Settings

_FAST_STOP_S = 5.0
_CONTROL_S = 1.0  # after a handover: by then the control socket is the new program's, and whoever still asks here asks there
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
        opened: Opened,
        inheritance: Inheritance,
        pid_file: PidFile,
        log: MasterLog,
        owner_uid: int = -1,
        command: list[str] | None = None,
    ) -> None:
        self.loop = Loop()
        self.log = log
        self._file = file
        self._title = f"smtpd: master [{file or 'embedded default'}]"
        self._load = load
        self._owner_uid = owner_uid
        self.cells = CellIndex()
        self._prepare_cells(settings, opened.listeners)
        self.slabs = Slabs(self.cells)
        self._gauges = MasterGauges()
        self._gauges.certificates(find_expiries(opened.listeners))
        generation = Generation(1, settings, opened.listeners, opened.spare)
        self.children = Children(self.loop, self.slabs, self.cells, log, run_worker, generation, self._on_change)
        self.children.on_finished = self._on_finished
        self.report = Report(self.children, self.slabs, file)
        self._collector = SlabCollector(self.slabs, self.cells, self._gauges)
        self._exporter: Exporter | None = None
        self._metrics_socket = inheritance.metrics
        self._metrics_address = "given" if inheritance.is_metrics_given else inheritance.metrics_address
        self._is_ready_told = False
        self._reload: Reload | None = None
        self._later: list[Callable[[], None]] = []  # verbs that wait for the end of a reload or an upgrade
        self._stop_level = 0  # 0 serving, 1 graceful, 2 fast
        self.pause = Pause(self.loop, self.children, log)
        if inheritance.is_paused:
            self.pause.inherit()
        self.pause.on_settled = self._on_change
        self.control = MasterControl(self.loop, settings.run_dir, self._control_verbs(), self._standing, log)
        self.manager = ServiceManager(self.loop, log, self.children)
        self.succession = Succession(self.loop, self.children, log, self, pid_file, inheritance, opened.dropped, command)
        self.children.on_failed_boot = self.succession.on_failed_boot

    def run(self) -> int:
        """Start the workers, supervise until the last one has ended after a stop."""
        setproctitle(self._title)
        install_signals(self.loop, self)
        self._gauges.reload(True)
        count = count_workers(self.children.generation.settings)
        versions = f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
        self.log.info("master", f"smtpd {smtpd.__version__} starts {count} workers ({versions})")
        self.succession.begin()
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
        return os.EX_UNAVAILABLE if self.succession.has_failed else os.EX_OK

    # --- verbs (signals)
    # ---------------------------------------------------------------------------------------------

    def reload(self) -> None:
        """HUP. While a reload runs, any number of further ones is one more after it."""
        if self._stop_level:
            return
        if self._is_busy or self._draining_generations() >= _MOST_DRAINING:
            self._postpone(self.reload)
            return
        self.log.info("master", "reload: reading the configuration")
        self.manager.say_reloading()
        self._reload = Reload(self.loop, self.children, self.cells, self.log, self._owner_uid, self._metrics_address)
        self._reload.begin(self._load, self)

    def reload_done(self, generation: Generation | None, metrics: socket.socket | None) -> None:
        """The outcome of a reload: the generation that serves from now on, or None."""
        self._reload = None
        self._gauges.reload(generation is not None)
        self.report.last_reload = {"success": generation is not None, "time_s": round(time.time(), 3)}
        self.manager.say_ready("reloaded" if generation is not None else "reload failed, the old configuration serves on")
        if generation is not None:
            settings = generation.settings
            self._gauges.certificates(find_expiries(generation.listeners))
            self.log.change(settings.log, settings.hostname)
            self.log.info("master", f"reload: generation {generation.number} serves")
            self._move_exporter(settings.metrics.address, metrics)
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
        self.succession.forward("reopen_logs")

    def upgrade(self) -> None:
        """USR2. One at a time: while the new program starts a further one is ignored, while the program before still drains it
        waits for that."""
        if self._stop_level or self.succession.ignores_upgrade():
            return
        if self._is_busy or not self.succession.may_upgrade():
            self._postpone(self.upgrade)
        else:
            self.succession.upgrade(self._metrics_address, self._exporter.fileno() if self._exporter is not None else -1)

    def add_worker(self) -> None:
        """TTIN"""
        self._when_settled(self.add_worker, lambda: self._resize(len(self.children.slots) + 1))

    def retire_worker(self) -> None:
        """TTOU: the highest slot's worker drains, its socket stays open and is served by the others."""
        self._when_settled(self.retire_worker, lambda: self._resize(max(1, len(self.children.slots) - 1)))

    def reap_workers(self) -> None:
        """CHLD"""
        self.children.reap()

    # --- what the succession asks for
    # ---------------------------------------------------------------------------------

    def take_charge(self, verbs: list[str]) -> None:
        """Control socket and metrics are ours from now on, and what was asked of the program before."""
        self.control.start()
        if self._metrics_socket is not None:
            self._open_exporter(self._metrics_socket)
            self._metrics_socket = None
        if self._is_ready_told and not self._stop_level:
            self.manager.say_ready("serving")
        for verb in (self.reload, self.reopen_logs):
            if verb.__name__ in verbs:
                self.loop.ready(verb)

    def leave(self, pid: int) -> list[str]:
        """Another program is in charge: drain. What was put off is for that one."""
        setproctitle(f"{self._title} draining")
        self.loop.call_later(_CONTROL_S, lambda: self.control.close(is_handed_over=True))
        if self._exporter is not None:
            self._exporter.retire()
        self.manager.say_successor(pid)
        verbs = [self.reload.__name__] if self.reload in self._later else []
        self._later.clear()
        self._stop(1, signal.SIGTERM, None)
        return verbs

    def note_upgrade(self, is_success: bool) -> None:
        """For metrics and status."""
        self.report.last_upgrade = {"success": is_success, "time_s": round(time.time(), 3)}
        if not is_success:
            self._gauges.reload(False)
            self.manager.say_status("upgrade failed, the old program serves on")

    def on_change(self) -> None:
        """Something has happened that verbs may wait for."""
        self._on_change()

    # --- steps
    # -------------------------------------------------------------------------------------------------------

    def _when_settled(self, verb: Callable[[], None], act: Callable[[], None]) -> None:
        if self._stop_level:
            return
        if self._is_busy:
            self._later.append(verb)
        else:
            act()

    @property
    def _is_busy(self) -> bool:
        """Something is under way that decides what the next verb acts on."""
        return self._reload is not None or self.succession.is_moving or self.pause.is_moving

    def _postpone(self, verb: Callable[[], None]) -> None:
        if verb not in self._later:
            self._later.append(verb)

    def _resize(self, count: int) -> None:
        """Serve with `count` workers; a slot that never was gets its sockets first."""
        if count == len(self.children.slots):
            return
        try:
            while self.children.total_slots < count:
                for listener in self.children.generation.listeners:
                    add_slot(listener, self._owner_uid, is_listening=not self.children.is_paused)
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
            if not self.children.alive and not self.succession.is_ending:
                self.loop.stop()
            return
        self.pause.on_change()
        if not self._is_ready_told and self.children.are_ready:
            self._is_ready_told = True
            self.succession.announce()
            self.manager.say_ready("serving")
        if self._later and not self._is_busy and self._draining_generations() < _MOST_DRAINING:
            later, self._later = self._later, []
            for verb in later:
                self.loop.ready(verb)

    def _stop(self, level: int, number: int, patience_s: float | None) -> None:
        """End the workers. What waits in the queues of sockets that nobody serves from now on is accepted before."""
        was_level, self._stop_level = self._stop_level, level
        if self._reload is not None:
            self._reload.cancel()
            self._reload = None
        self.succession.stop(number)
        how = "gracefully" if level == 1 else "fast"
        self.log.info("master", f"stopping {how}: {len(self.children.alive)} workers")
        self.manager.say_stopping()
        self.pause.cancel()
        going = self.succession.deserted_listeners()
        self.children.is_stopping = True
        if level == 1 and going and not self.children.is_paused:
            for listener in going:
                with contextlib.suppress(OSError):
                    shutter.lower(listener)
            self.loop.call_later(shutter.SETTLE_S, lambda: self._stop_workers(going, number, patience_s, level))
        else:
            self._stop_workers(going, number, patience_s, level)
        if was_level:
            self._on_change()

    def _stop_workers(self, going: list[ListenerSockets], number: int, patience_s: float | None, level: int) -> None:
        if level < self._stop_level:
            return  # somebody has lost patience meanwhile
        self.children.stop(number, patience_s)
        for listener in going:
            shutter.shut(listener)
        if self.succession.is_handed_over:
            for listener in self.succession.listeners:
                close_listener(listener, is_handed_over=listener not in going)
        self._on_change()

    def _close(self) -> None:
        is_handed_over = self.succession.is_handed_over
        if not is_handed_over:
            close_all(self.succession.listeners, is_handed_over=not self.succession.is_in_charge)
            if self._exporter is not None:
                self._exporter.close()
        self.control.close(is_handed_over=is_handed_over)
        self.succession.close()
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

    def _move_exporter(self, address: str, sock: socket.socket | None) -> None:
        """The address of the metrics has changed with a reload: leave the old one for the new one, which is bound."""
        if self._metrics_address in (address, "given"):
            return
        if self._exporter is not None:
            self._exporter.close()
            self._exporter = None
        self._metrics_address = address
        if sock is not None:
            self._open_exporter(sock)

    # --- the control socket ------------------------------------------------------------------------------------------

    def _control_verbs(self) -> dict[str, Verb]:
        """What can be asked on the control socket: each calls back when it is done."""
        return {
            "pause": lambda done: self._when_settled_call(lambda: self.pause.begin(done)),
            "resume": lambda done: self._when_settled_call(lambda: self.pause.end(done)),
        }

    def _standing(self) -> Standing:
        state = "stopping" if self._stop_level else "paused" if self.children.is_paused else "serving"
        return Standing(state, self.children.session_count)

    def _when_settled_call(self, act: Callable[[], None]) -> None:
        self._when_settled(lambda: self._when_settled_call(act), act)


def count_workers(settings: Settings) -> int:
    """As configured; 0 = one for each core that this process may use."""
    return settings.workers or len(os.sched_getaffinity(0)) or 1
