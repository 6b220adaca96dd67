"""One reload: read and check the file, start a new generation of workers beside the old one, then drain the
old.

Nothing changes until every new worker serves. A file with faults, an address that can't be had (that of the metrics too), a
worker that can't boot: the old configuration serves on, and log and metric say so. Kept listeners keep their sockets, so no
connection is refused; the old workers still accept what waits on the removed ones, then they drain.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from typing import Protocol

import msgspec

from smtpd.errors import SmtpdError
from smtpd.master.child import READY, Child, Generation
from smtpd.master.children import Children, Log
from smtpd.master.sockets import Opened, close_all, equip_listeners, open_listeners
from smtpd.metrics.slab import CellIndex
from smtpd.net import shutter
from smtpd.net.listeners import bind_socket
from smtpd.net.loop import Loop, Timer
from smtpd.settings import Settings

EXPORTER_BACKLOG = 128
_RETRIES = 3  # candidates that somebody killed; one that fails by itself ends the reload at once
_DRAIN_NOTICE_S = 1.0  # by then the old workers have stopped watching a removed listener

# What a running process can't take back: privileges are gone, and the lock and the sockets lie in run_dir.
_FIXED = ("user", "run_dir")


class Outcome(Protocol):
    """Who is told how a reload ended: with the generation that serves now, or None; and with the socket for its metrics when
    their address has changed."""

    def reload_done(self, generation: Generation | None, metrics: socket.socket | None) -> None: ...


class Reload:
    """From HUP to the new generation, or back. One at a time. `metrics_address` is where the metrics are now, "given" when that
    isn't ours to choose."""

    def __init__(self, loop: Loop, children: Children, cells: CellIndex, log: Log, owner_uid: int, metrics_address: str) -> None:
        self._loop = loop
        self._children = children
        self._cells = cells
        self._log = log
        self._owner_uid = owner_uid
        self._metrics_address = metrics_address
        self._metrics: socket.socket | None = None
        self._old = children.generation
        self._new: Generation | None = None
        self._opened = Opened()
        self._settling: Timer | None = None
        self._is_settled = False
        self._candidates: dict[int, Child] = {}
        self._deadline: Timer | None = None
        self._retries_left = _RETRIES
        self._outcome: Outcome | None = None

    def begin(self, load: Callable[[], Settings], outcome: Outcome) -> None:
        """Check and start; `outcome.reload_done` is called when it is over, maybe before this returns."""
        self._outcome = outcome
        try:
            settings = self._with_fixed(load())
            self._open(settings)
            listeners = self._opened.listeners
            self._cells.prepare(
                listeners=[listener.name for listener in listeners],
                routes=[*(route.name for route in settings.route), "bounce"],
                checks=[check.instance for check in settings.policy.check],
            )
            self._new = Generation(self._old.number + 1, settings, listeners, self._opened.spare)
            self._children.watcher = self
            ready_s = settings.start_timeout
            self._deadline = self._loop.call_later(ready_s, lambda: self._fail(f"new workers not ready after {ready_s:.0f} s"))
            for slot in self._children.slots:
                self._candidates[slot.number] = self._children.spawn(slot.number, self._new)
        except (SmtpdError, OSError) as error:
            self._fail(str(error))

    def cancel(self) -> None:
        """The server stops: forget the attempt without a word; its workers are stopped with all others."""
        self._end()
        self._close_new()

    # --- what the children tell
    # --------------------------------------------------------------------------------------

    def candidate_ready(self, child: Child) -> None:
        if self._new is None or not all(entry.state == READY for entry in self._candidates.values()):
            return
        if self._deadline is not None:
            self._deadline.cancel()
        removed = self._opened.dropped
        if not removed or self._is_settled:
            self._adopt(self._new)
        elif self._settling is None:
            for listener in removed:  # the old workers still accept what is in their queues
                shutter.lower(listener)
            self._settling = self._loop.call_later(shutter.SETTLE_S, lambda: self._settle(child))

    def _settle(self, child: Child) -> None:
        self._is_settled = True
        self.candidate_ready(child)  # unless one of them was killed meanwhile

    def _adopt(self, new: Generation) -> None:
        self._end()
        if not self._children.is_paused:
            for listener in new.listeners:
                for sock in listener.sockets:
                    sock.listen(listener.settings.backlog)  # the backlog of a kept socket may have changed
        self._children.adopt(new, self._candidates.values())
        close_all(self._opened.dropped)
        if self._outcome is not None:
            self._outcome.reload_done(new, self._metrics)

    def candidate_gone(self, child: Child, exit_code: int, what: str) -> None:
        if self._new is None:
            return
        if exit_code < 0 and self._retries_left > 0:
            self._retries_left -= 1
            try:
                self._candidates[child.slot] = self._children.spawn(child.slot, self._new)
                return
            except (SmtpdError, OSError) as error:
                what = f"can't be forked: {error}"
        self._fail(f"new worker {child.slot} {what}")

    # --- steps
    # -------------------------------------------------------------------------------------------------------

    def _with_fixed(self, settings: Settings) -> Settings:
        """The new settings with what only a restart can change taken from the old ones."""
        for name in _FIXED:
            if getattr(settings, name) != getattr(self._old.settings, name):
                self._log.warning("master", f"reload: a change of {name} needs a restart, it stays as it was")
        fixed = {name: getattr(self._old.settings, name) for name in _FIXED}
        return msgspec.structs.replace(settings, **fixed)

    def _open(self, settings: Settings) -> None:
        """The listeners of the new settings, and the socket of their metrics if that moves."""
        self._opened = open_listeners(
            settings.listener,
            [*self._old.listeners, *self._old.spare],
            self._children.total_slots,
            self._owner_uid,
            is_paused=self._children.is_paused,
        )
        equip_listeners(self._opened.listeners, settings.tls)
        for listener in self._opened.spare:
            self._log.warning("master", f'no listener is called "{listener.name}": nobody accepts on {listener.label}')
        address = settings.metrics.address
        if address and self._metrics_address not in (address, "given"):
            self._metrics = bind_socket(address, EXPORTER_BACKLOG, self._owner_uid)

    def _close_new(self) -> None:
        self._opened.close_bound()
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None

    def _fail(self, text: str) -> None:
        """Back to the old generation; the candidates may hold sessions already, so they are drained."""
        self._end()
        for child in self._candidates.values():
            if child.pid in self._children.alive:
                self._children.drain(child, signal.SIGTERM)
        self._close_new()
        if self._settling is not None and not self._children.is_paused:
            for listener in self._opened.dropped:
                shutter.raise_again(listener)
        for line in text.splitlines():
            self._log.error("master", f"reload: {line}")
        self._log.error("master", "reload failed: the old configuration serves on")
        if self._outcome is not None:
            self._outcome.reload_done(None, None)

    def _end(self) -> None:
        self._children.watcher = None
        for timer in (self._deadline, self._settling):
            if timer is not None:
                timer.cancel()
