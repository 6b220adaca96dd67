"""`smtpd pause` and `resume`: this node takes no new connections, goes on with those it has, and delivers.

Lowers the shutters first, so that nobody who got a connection loses it; when every worker has accepted what was left the sockets
are shut, and who connects is refused at once. The sockets stay bound. Survives a reload and an upgrade, not a restart.
"""

from __future__ import annotations

from collections.abc import Callable

from smtpd.master.children import Children, Log
from smtpd.net import shutter
from smtpd.net.loop import Loop, Timer

_PATIENCE_S = 5.0  # with a worker that doesn't answer; its heartbeat is watched elsewhere


class Pause:
    """`on_settled` is called when a pause that was being made is complete."""

    def __init__(self, loop: Loop, children: Children, log: Log) -> None:
        self.on_settled: Callable[[], object] = lambda: None
        self._loop = loop
        self._children = children
        self._log = log
        self._waiting: list[Callable[[], object]] = []  # for the end of the move
        self._timer: Timer | None = None
        self._is_shut = False

    @property
    def is_moving(self) -> bool:
        """Sockets are lowered and not yet shut."""
        return self._timer is not None

    def inherit(self) -> None:
        """The program before was paused: its sockets don't listen, and no worker is to accept."""
        self._is_shut = True
        self._children.is_paused = True

    def begin(self, done: Callable[[], object]) -> None:
        """Take nobody new; `done` when that is so."""
        if self._is_shut:
            done()
            return
        self._waiting.append(done)
        if self.is_moving:
            return
        for listener in self._children.generation.listeners:
            try:
                shutter.lower(listener)
            except OSError as error:
                self._log.error("master", f"pause: {listener.label}: {error.strerror}")
        self._timer = self._loop.call_later(shutter.SETTLE_S, self._pause_workers)

    def end(self, done: Callable[[], object]) -> None:
        """Take connections again."""
        if self._is_shut:
            self._is_shut = False
            for listener in self._children.generation.listeners:
                try:
                    shutter.raise_again(listener)
                except OSError as error:
                    self._log.error("master", f"resume: can't listen on {listener.label}: {error.strerror}")
            self._children.resume()
            self._log.info("master", "resumed: connections are accepted")
        done()

    def on_change(self) -> None:
        """A worker came, went or answered."""
        if self.is_moving and self._children.is_paused and self._children.all_paused:
            self._shut()

    def cancel(self) -> None:
        """The server stops."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _pause_workers(self) -> None:
        self._timer = self._loop.call_later(_PATIENCE_S, self._shut)
        self._children.pause()
        self.on_change()

    def _shut(self) -> None:
        self.cancel()
        self._is_shut = True
        for listener in self._children.generation.listeners:
            shutter.shut(listener)
        self._log.info("master", f"paused: no connection is accepted, {self._children.session_count} sessions are left")
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done()
        self.on_settled()
