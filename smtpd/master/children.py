"""The worker processes: spawned, heard, watched by their heartbeat, reaped, and followed by the next.

Owns every Child and which slot it serves. A worker that can't boot is tried again later and later; a slot
without a ready worker is served by the ready ones meanwhile. Knows nothing of mail, configuration files or
who wants what: the master gives it a generation to keep alive, a reload gives it candidates to look after.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from smtpd.errors import SmtpdError
from smtpd.limits.board import PressureBoard
from smtpd.limits.clients import make_client_table
from smtpd.master.child import BOOTING, DRAINING, READY, Child, Generation, RunWorker, fork_worker
from smtpd.master.comeback import Comeback
from smtpd.metrics.slab import CellIndex, Slabs
from smtpd.net.hop_table import HopTable
from smtpd.net.loop import Loop, Timer
from smtpd.worker.boot import WorkerBoot

_BOOT_S = 60.0  # a worker that isn't ready by then hangs; recovery of a big spool takes seconds
_DRAIN_GRACE_S = 5.0  # a worker ends its drain by itself; how much longer the master waits
_CHECK_S = 1.0
_KILLED = (-signal.SIGTERM, -signal.SIGINT, -signal.SIGKILL)  # by somebody, which says nothing of the worker


class Log(Protocol):
    """What the master's log offers."""

    def info(self, component: str, text: str, **fields: object) -> None: ...
    def warning(self, component: str, text: str, **fields: object) -> None: ...
    def error(self, component: str, text: str, **fields: object) -> None: ...


class Watcher(Protocol):
    """Who is told of the candidates of a generation that isn't the current one yet."""

    def candidate_ready(self, child: Child) -> None: ...
    def candidate_gone(self, child: Child, exit_code: int, what: str) -> None: ...


@dataclass(slots=True)
class Slot:
    """A worker number: its living worker of the current generation, and the memory of the ones before."""

    number: int
    child: Child | None = None
    comeback: Comeback = field(default_factory=Comeback)
    retry: Timer | None = None
    restarts: int = 0
    last_complaint: str = ""


class Children:
    """All workers of all generations. `on_change` is called when a worker came, got ready, or went."""

    def __init__(
        self,
        loop: Loop,
        slabs: Slabs,
        cells: CellIndex,
        log: Log,
        run_worker: RunWorker,
        generation: Generation,
        on_change: Callable[[], object],
    ) -> None:
        self._loop = loop
        self._slabs = slabs
        self._hops = HopTable()  # shared by all workers of all generations
        self._clients = make_client_table()  # likewise
        self._board = PressureBoard()  # likewise
        self._cells = cells
        self._log = log
        self._run_worker = run_worker
        self._on_change = on_change
        self.generation = generation
        self.slots: list[Slot] = []
        self.alive: dict[int, Child] = {}
        self.watcher: Watcher | None = None
        self.on_finished: Callable[[], object] = lambda: None  # a worker says that the server has done its work
        self.on_failed_boot: Callable[[str], object] = lambda why: None  # a worker ended by itself before it was ready
        self.strangers: dict[int, Callable[[int], object]] = {}  # pid of a child that is no worker -> who gets its exit code
        self.is_stopping = False
        self.is_paused = False  # no worker accepts
        self._last_check_s = loop.now
        loop.call_later(_CHECK_S, self._check)

    # --- slots
    # -------------------------------------------------------------------------------------------------------

    def resize(self, count: int) -> None:
        """Serve with `count` slots: more get a worker, those too many are drained."""
        while len(self.slots) > count:
            slot = self.slots.pop()
            if slot.retry is not None:
                slot.retry.cancel()
            if slot.child is not None:
                self.drain(slot.child)
        while len(self.slots) < count:
            self.slots.append(Slot(len(self.slots)))
            self._spawn_current(self.slots[-1])
        self._share_slots()

    def adopt(self, generation: Generation, candidates: Iterable[Child]) -> None:
        """Make a generation the current one: its candidates take over the slots, whoever served them is
        drained."""
        self.generation = generation
        former = [child for child in self.alive.values() if child.generation is not generation]
        for child in candidates:
            slot = self.slots[child.slot]
            if slot.retry is not None:
                slot.retry.cancel()
            slot.child = child
            slot.last_complaint = ""
            slot.comeback.note_ready()
        for child in former:
            if not child.kill_at_s:
                self.drain(child)
        self._share_slots()

    def drain(self, child: Child, number: int = signal.SIGTERM, patience_s: float | None = None) -> None:
        """Ask a worker to end; it is killed when it takes longer than its drain time and some grace."""
        if patience_s is None:
            patience_s = child.generation.settings.drain_timeout + _DRAIN_GRACE_S
        deadline_s = self._loop.now + patience_s
        child.kill_at_s = min(child.kill_at_s or deadline_s, deadline_s)
        child.state = DRAINING
        child.send_signal(number)

    def stop(self, number: int, patience_s: float | None = None) -> None:
        """Ask every worker to end, and start no more."""
        self.is_stopping = True
        for slot in self.slots:
            if slot.retry is not None:
                slot.retry.cancel()
        for child in self.alive.values():
            self.drain(child, number, patience_s)

    def pause(self) -> None:
        """Have every worker accept what is still in the queues, and nothing more; see `all_paused`."""
        self.is_paused = True
        for child in self.alive.values():
            if child.state != DRAINING:
                child.say({"do": "pause"})

    def resume(self) -> None:
        """Have every worker accept again."""
        self.is_paused = False
        for child in self.alive.values():
            child.has_paused = False
            if child.state != DRAINING:
                child.say({"do": "resume"})

    @property
    def all_paused(self) -> bool:
        """Nobody who accepted when the pause began does any more."""
        return all(child.has_paused or child.state == DRAINING for child in self.alive.values())

    @property
    def are_ready(self) -> bool:
        """Every slot has a ready worker."""
        return bool(self.slots) and all(slot.child is not None and slot.child.state == READY for slot in self.slots)

    @property
    def session_count(self) -> int:
        """Open sessions of all workers, as they told at their last heartbeat."""
        return sum(int(self._slabs.status(child.bank).sessions) for child in self.alive.values())

    def oldest_heartbeat_s(self) -> float | None:
        """For how long the quietest of the ready workers has been silent; None when none is ready."""
        now = time.monotonic()
        ready = [child for child in self.alive.values() if child.state == READY]
        return max((now - self._slabs.status(child.bank).heartbeat_s for child in ready), default=None)

    def signal_all(self, number: int) -> None:
        for child in self.alive.values():
            child.send_signal(number)

    @property
    def total_slots(self) -> int:
        """Slots that have sockets: those in use and those retired."""
        counts = [len(entry.sockets) for entry in self.generation.listeners if not entry.is_shared]
        return max([len(self.slots), *counts])

    # --- spawn
    # -------------------------------------------------------------------------------------------------------

    def spawn(self, slot: int, generation: Generation) -> Child:
        """Fork a worker; raises OSError or SmtpdError when the machine or the slabs have none to give."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            bank = self._slabs.take_bank(slot)
            self._hops.clear_column(bank)
            self._clients.open_bank(bank)
            self._board.clear(bank)
        except Exception:
            ours.close()
            theirs.close()
            raise
        now = time.monotonic()
        self._slabs.status(bank).heartbeat_s = now
        serves = self._assigned().get(slot, (slot,))
        boot = WorkerBoot(
            slot=slot,
            bank=bank,
            generation=generation.number,
            settings=generation.settings,
            listeners=generation.listeners,
            slabs=self._slabs,
            hops=self._hops,
            clients=self._clients,
            board=self._board,
            cells=self._cells,
            channel=theirs,
            serves=(slot, *(other for other in serves if other != slot)),
            is_paused=self.is_paused,
        )
        try:
            pid = fork_worker(boot, self._run_worker, self)
        except OSError:
            self._slabs.fold_bank(bank)
            self._clients.clear_bank(bank)
            ours.close()
            raise
        finally:
            theirs.close()
        child = Child(pid, slot, bank, generation, ours, now, boot.serves, has_paused=self.is_paused)
        self.alive[pid] = child
        self._loop.add_reader(ours.fileno(), lambda: self._hear(child))
        return child

    def _spawn_current(self, slot: Slot) -> None:
        slot.retry = None
        try:
            slot.child = self.spawn(slot.number, self.generation)
        except (OSError, SmtpdError) as error:
            self._come_back(slot, 0.0, was_ready=False, why=f"can't fork: {error}")

    def _come_back(self, slot: Slot, lived_s: float, *, was_ready: bool, why: str) -> None:
        """A slot has lost its worker: start the next one now or later, and say so once for each cause."""
        delay_s = slot.comeback.next_delay_s(lived_s, was_ready=was_ready)
        slot.restarts += 1
        if was_ready:
            self._log.warning("master", f"worker {slot.number} {why}; a new one starts")
        elif why != slot.last_complaint:
            slot.last_complaint = why
            self._log.error("master", f"worker {slot.number} {why}; trying again, less and less often")
        slot.retry = self._loop.call_later(delay_s, lambda: self._spawn_current(slot))

    # --- what they say
    # -----------------------------------------------------------------------------------------------

    def _hear(self, child: Child) -> None:
        try:
            message = child.hear()
        except BlockingIOError:
            return
        if message is None:  # the rest is told by SIGCHLD
            self._loop.forget(child.channel.fileno())
            return
        self._heed(child, message)

    def _heed(self, child: Child, message: dict[str, Any]) -> None:
        word = message.get("is")
        if word == "ready" and child.state == BOOTING:
            child.state = READY
            child.was_ready = True
            slot = self._slot_of(child)
            if slot is None:
                if self.watcher is not None and child.generation is not self.generation:
                    self.watcher.candidate_ready(child)
            else:
                slot.comeback.note_ready()
                if slot.last_complaint:
                    self._log.info("master", f"worker {slot.number} has started after all")
                    slot.last_complaint = ""
                self._share_slots()
            self._on_change()
        elif word == "draining":
            child.has_left_listeners = True
            if not child.kill_at_s:
                self._replace(child)
            child.state = DRAINING
            self._on_change()
        elif word == "paused":
            child.has_paused = True
            self._on_change()
        elif word == "finished":
            self.on_finished()
        elif word == "failed":
            child.failure = str(message.get("text", ""))

    def _replace(self, child: Child) -> None:
        """It drains, and nobody here has asked it to: somebody sent it a signal. Its slot gets the next worker at once."""
        patience_s = child.generation.settings.drain_timeout + _DRAIN_GRACE_S
        child.kill_at_s = self._loop.now + patience_s
        slot = self._slot_of(child)
        if slot is None or self.is_stopping:
            return
        self._log.info("master", f"worker {child.slot} (pid {child.pid}) drains; a new one starts")
        slot.child = None
        slot.restarts += 1
        self._spawn_current(slot)
        self._share_slots()

    def _slot_of(self, child: Child) -> Slot | None:
        """The slot that this very child serves for the current generation."""
        if child.slot < len(self.slots) and self.slots[child.slot].child is child:
            return self.slots[child.slot]
        return None

    # --- who serves what
    # ---------------------------------------------------------------------------------------------

    def _assigned(self) -> dict[int, tuple[int, ...]]:
        """For each slot with a ready worker, the slots it accepts for: its own, and a share of those
        without one."""
        ready = [slot.number for slot in self.slots if slot.child is not None and slot.child.state == READY]
        shares = {number: [number] for number in ready}
        if ready:
            for number in range(self.total_slots):
                if number not in shares:
                    shares[ready[number % len(ready)]].append(number)
        return {number: tuple(share) for number, share in shares.items()}

    def _share_slots(self) -> None:
        """Tell those workers whose share has changed."""
        for number, serves in self._assigned().items():
            child = self.slots[number].child
            if child is not None and serves != child.serves and child.say({"do": "serve", "slots": serves}):
                child.serves = serves

    def hand_over(self, slot: int) -> None:
        """Give all workers of the current generation the sockets of a slot that was added."""
        listeners = [entry for entry in self.generation.listeners if not entry.is_shared]
        message = {"do": "listeners", "slot": slot, "names": [entry.name for entry in listeners]}
        for child in self.alive.values():
            if child.generation is self.generation and child.state != DRAINING:  # paused ones too
                child.say(message, [entry.sockets[slot].fileno() for entry in listeners])
                child.serves = ()  # whatever it serves, its neighbours are others now: it must be told again

    # --- the end of a worker
    # -----------------------------------------------------------------------------------------

    def reap(self) -> None:
        """Collect every child that has ended; in a container that may be strangers too (we are pid 1)."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = self.alive.pop(pid, None)
            if child is not None:
                self._bury(child, status)
            elif pid in self.strangers:
                self.strangers.pop(pid)(os.waitstatus_to_exitcode(status))

    def _bury(self, child: Child, status: int) -> None:
        with contextlib.suppress(BlockingIOError):  # its last words may still lie in the channel
            while (message := child.hear()) is not None:
                self._heed(child, message)
        slot = self._slot_of(child)
        self._loop.forget(child.channel.fileno())
        child.channel.close()
        self._slabs.fold_bank(child.bank)
        self._clients.clear_bank(child.bank)
        self._board.clear(child.bank)
        with contextlib.suppress(OSError):  # a worker that was killed leaves its control socket behind
            os.unlink(f"{child.generation.settings.run_dir}/worker-{child.slot}-{child.pid}.sock")
        exit_code = os.waitstatus_to_exitcode(status)
        what = _describe(child, exit_code)
        if slot is not None and not self.is_stopping:
            slot.child = None
            self._share_slots()
            if not child.was_ready and exit_code not in _KILLED:
                self.on_failed_boot(f"worker {slot.number} {what}")
            lived_s = time.monotonic() - child.started_s
            self._come_back(slot, lived_s, was_ready=child.was_ready, why=what)
        elif self.watcher is not None and child.generation is not self.generation and not child.kill_at_s:
            self.watcher.candidate_gone(child, exit_code, what)
        self._on_change()

    def _check(self) -> None:
        """Kill who hangs: no heartbeat, a boot or a drain without an end."""
        now = time.monotonic()
        is_late = now - self._last_check_s > 3 * _CHECK_S  # we were stopped ourselves, and they maybe with us
        self._last_check_s = now
        self._loop.call_later(_CHECK_S, self._check)
        if is_late:
            return
        for child in self.alive.values():
            if child.is_condemned:
                continue
            silent_s = now - self._slabs.status(child.bank).heartbeat_s
            timeout_s = child.generation.settings.heartbeat_timeout
            if child.kill_at_s and now > child.kill_at_s:
                self._kill(child, "has not ended in its time")
            elif child.state == BOOTING and now - child.started_s > max(_BOOT_S, timeout_s):
                self._kill(child, f"is not ready after {now - child.started_s:.0f} s")
            elif child.state != BOOTING and silent_s > timeout_s:
                self._kill(child, f"has not turned its loop for {silent_s:.0f} s")

    def _kill(self, child: Child, why: str) -> None:
        self._log.error("master", f"worker {child.slot} (pid {child.pid}) {why}: killed")
        child.is_condemned = True
        child.send_signal(signal.SIGKILL)


def _describe(child: Child, exit_code: int) -> str:
    """How a worker ended, as the end of a sentence that begins with "worker 3"; a signal is a negative
    code."""
    if child.failure:
        return f"can't start: {child.failure}" if not child.was_ready else f"failed: {child.failure}"
    if exit_code < 0:
        is_known = -exit_code in signal.valid_signals()
        name = signal.Signals(-exit_code).name if is_known else f"signal {-exit_code}"
        return f"(pid {child.pid}) was ended by {name}"
    return f"(pid {child.pid}) ended with exit code {exit_code}"
