"""One reload: read and check the file, start a new generation of workers beside the old one, then drain the
old.

Nothing changes until every new worker serves. A file with faults, an address that can't be had, a worker
that can't boot: the old configuration serves on, and log and metric say so. Kept listeners keep their
sockets, so no connection is refused; removed ones stop listening once the old workers drain.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Protocol

import msgspec

from smtpd.errors import SmtpdError
from smtpd.master.child import READY, Child, Generation
from smtpd.master.children import Children, Log
from smtpd.metrics.slab import CellIndex
from smtpd.net.listeners import ListenerSockets, bind_listener, close_listener, shut_listener
from smtpd.net.loop import Loop, Timer
from smtpd.settings import Settings

_READY_S = 60.0
_RETRIES = 3  # candidates that somebody killed; one that fails by itself ends the reload at once
_DRAIN_NOTICE_S = 1.0  # by then the old workers have stopped watching a removed listener

# What a running process can't take back: privileges are gone, and the lock and the sockets lie in run_dir.
_FIXED = ("user", "run_dir")


class Outcome(Protocol):
    """Who is told how a reload ended: with the generation that serves now, or None."""

    def reload_done(self, generation: Generation | None) -> None: ...


class Reload:
    """From HUP to the new generation, or back. One at a time."""

    def __init__(self, loop: Loop, children: Children, cells: CellIndex, log: Log, owner_uid: int) -> None:
        self._loop = loop
        self._children = children
        self._cells = cells
        self._log = log
        self._owner_uid = owner_uid
        self._old = children.generation
        self._new: Generation | None = None
        self._bound: list[ListenerSockets] = []
        self._candidates: dict[int, Child] = {}
        self._deadline: Timer | None = None
        self._retries_left = _RETRIES
        self._outcome: Outcome | None = None

    def begin(self, load: Callable[[], Settings], outcome: Outcome) -> None:
        """Check and start; `outcome.reload_done` is called when it is over, maybe before this returns."""
        self._outcome = outcome
        try:
            settings = self._with_fixed(load())
            listeners = self._listen(settings)
            self._cells.prepare(
                listeners=[listener.name for listener in listeners],
                routes=[*(route.name for route in settings.route), "bounce"],
                checks=[check.instance for check in settings.policy.check],
            )
            self._new = Generation(self._old.number + 1, settings, listeners)
            self._children.watcher = self
            self._deadline = self._loop.call_later(_READY_S, lambda: self._fail("new workers not ready"))
            for slot in self._children.slots:
                self._candidates[slot.number] = self._children.spawn(slot.number, self._new)
        except (SmtpdError, OSError) as error:
            self._fail(str(error))

    def cancel(self) -> None:
        """The server stops: forget the attempt without a word; its workers are stopped with all others."""
        self._end()
        for listener in self._bound:
            shut_listener(listener)
            close_listener(listener)

    # --- what the children tell
    # --------------------------------------------------------------------------------------

    def candidate_ready(self, child: Child) -> None:
        if self._new is None or not all(entry.state == READY for entry in self._candidates.values()):
            return
        self._end()
        new = self._new
        removed = [entry for entry in self._old.listeners if not _is_among(entry, new.listeners)]
        for listener in new.listeners:
            for sock in listener.sockets:
                sock.listen(listener.settings.backlog)  # the backlog of a kept socket may have changed
        self._children.adopt(new, self._candidates.values())
        self._loop.call_later(_DRAIN_NOTICE_S, lambda: _retire_listeners(removed))
        if self._outcome is not None:
            self._outcome.reload_done(new)

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

    def _listen(self, settings: Settings) -> list[ListenerSockets]:
        """The listeners of the new settings: kept sockets where the address is the same, new ones for the
        rest."""
        kept = {entry.settings.address: entry for entry in self._old.listeners}
        listeners = []
        for entry in settings.listener:
            known = kept.get(entry.address)
            if known is None:
                listener = bind_listener(entry, self._children.total_slots, self._owner_uid)
                self._bound.append(listener)
            else:
                listener = ListenerSockets(entry, entry.name or entry.address, known.sockets)
            listeners.append(listener)
        return listeners

    def _fail(self, text: str) -> None:
        """Back to the old generation; the candidates may hold sessions already, so they are drained."""
        self._end()
        for child in self._candidates.values():
            if child.pid in self._children.alive:
                self._children.drain(child, signal.SIGTERM)
        _retire_listeners(self._bound)
        for line in text.splitlines():
            self._log.error("master", f"reload: {line}")
        self._log.error("master", "reload failed: the old configuration serves on")
        if self._outcome is not None:
            self._outcome.reload_done(None)

    def _end(self) -> None:
        self._children.watcher = None
        if self._deadline is not None:
            self._deadline.cancel()


def _is_among(listener: ListenerSockets, listeners: list[ListenerSockets]) -> bool:
    return any(other.sockets is listener.sockets for other in listeners)


def _retire_listeners(listeners: list[ListenerSockets]) -> None:
    for listener in listeners:
        shut_listener(listener)
        close_listener(listener)
