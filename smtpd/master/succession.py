"""Which program is in charge: the one before us, we, or the one after us. Both sides of an upgrade, as the master sees them.

Owns the pid file, the program that has started this one while it lives, and the one that this one has started. Knows what of the
sockets is whose; closes none. Docs: decisions/upgrade.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Protocol

import smtpd
from smtpd.errors import SmtpdError, StartupError
from smtpd.master.children import Children, Log
from smtpd.master.handover import Handover, hand_listener
from smtpd.master.inheritance import Inheritance
from smtpd.master.pid_file import PidFile
from smtpd.master.upgrade import Upgrade
from smtpd.net.listeners import ListenerSockets
from smtpd.net.loop import Loop


class Incumbent(Protocol):
    """The master of this program."""

    def take_charge(self, verbs: list[str]) -> None:
        """Control socket and metrics are ours from now on, and these verbs, which were asked of the program before."""

    def leave(self, pid: int) -> list[str]:
        """The process `pid` is in charge: give all that up, drain. Return the verbs that are still to be done, for it."""

    def note_upgrade(self, is_success: bool) -> None:
        """For metrics and status."""

    def on_change(self) -> None:
        """Something has happened that verbs may have waited for."""

    def stop_fast(self) -> None: ...


class Succession:
    """`dropped` are the listeners of `inheritance` that this program doesn't go on with; `command` is what an upgrade runs, None
    where there is none."""

    def __init__(
        self,
        loop: Loop,
        children: Children,
        log: Log,
        incumbent: Incumbent,
        pid_file: PidFile,
        inheritance: Inheritance,
        dropped: list[ListenerSockets],
        command: list[str] | None,
    ) -> None:
        self.is_handed_over = False  # the sockets are another program's
        self.has_failed = False  # we have, before we were in charge
        self._loop = loop
        self._children = children
        self._log = log
        self._incumbent = incumbent
        self._pid_file = pid_file
        self._command = command
        self._predecessor = inheritance.predecessor
        self._kept = [number for number, entry in enumerate(inheritance.listeners) if entry not in dropped]
        self._upgrade: Upgrade | None = None
        self._removed: list[ListenerSockets] = []  # handed over, and not wanted
        self._forwarded: list[str] = []  # verbs that came during an upgrade and concern the new program too

    # --- who is in charge --------------------------------------------------------------------------------------------

    @property
    def is_in_charge(self) -> bool:
        return not self.is_handed_over and not self._is_waiting

    @property
    def _is_waiting(self) -> bool:
        return self._predecessor is not None and self._predecessor.is_in_charge

    @property
    def is_moving(self) -> bool:
        """It is about to be decided who is."""
        return self._is_waiting or self._upgrade is not None

    @property
    def is_ending(self) -> bool:
        """A program that we have started, and that isn't in charge, lives."""
        return self._upgrade is not None and not self.is_handed_over

    @property
    def listeners(self) -> list[ListenerSockets]:
        """All that have sockets."""
        return [*self._children.generation.listeners, *self._children.generation.spare]

    def deserted_listeners(self) -> list[ListenerSockets]:
        """Those that nobody accepts from once we don't."""
        going = self._removed if self.is_handed_over else self.listeners if self.is_in_charge else []
        return [listener for listener in going if not listener.is_given]

    # --- after the program before ------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Take charge, or wait for the program before to say so."""
        if self._predecessor is None:
            self._take_charge([])
        else:
            self._log.info("master", f"upgrade: follows the program with pid {self._predecessor.pid}")
            self._predecessor.watch(self._loop, self._on_take, self._on_predecessor_gone)

    def announce(self) -> None:
        """Every slot has a ready worker."""
        if self._predecessor is not None:
            self._predecessor.say_ready(self._kept)

    def on_failed_boot(self, why: str) -> None:
        """A worker of ours can't start. The program before serves well: leave it to that."""
        if self._predecessor is not None and self._is_waiting and not self._children.is_stopping:
            self._predecessor.say_failed(why)
            self.has_failed = True
            self._incumbent.stop_fast()

    def _on_take(self, verbs: list[str]) -> None:
        """The program before has put us in charge, or has died."""
        if not self._children.is_stopping:
            self._log.info("master", "upgrade: in charge")
        self._take_charge(verbs)
        self._incumbent.on_change()

    def _take_charge(self, verbs: list[str]) -> None:
        self._pid_file.claim()
        self._incumbent.take_charge(verbs)

    def _on_predecessor_gone(self) -> None:
        self._predecessor = None
        self._pid_file.remove_old()
        self._incumbent.on_change()

    # --- before the program after ------------------------------------------------------------------------------------

    def may_upgrade(self) -> bool:
        """Whether an upgrade can begin now. A second one beside the first is ignored, not put off."""
        return self._predecessor is None

    def ignores_upgrade(self) -> bool:
        """Say so, if one is under way."""
        if self._upgrade is not None:
            self._log.warning("master", "upgrade: one is under way already, this one is ignored")
        return self._upgrade is not None

    def upgrade(self, metrics_address: str, metrics_fd: int) -> None:
        """Start the new program; `metrics_fd` is -1 where there are no metrics, their address "given" where it is not ours."""
        self._log.info("master", "upgrade: starting the new program")
        self._forwarded.clear()
        try:
            if self._command is None:
                raise StartupError("this server can't be upgraded in flight: stop and start it")
            if os.getpid() == 1:
                raise StartupError("this is process 1, whose end would end the container: start a new one")
            told = Handover(
                pid=os.getpid(),
                version=smtpd.__version__,
                run_dir=os.path.abspath(self._children.generation.settings.run_dir),
                listeners=[hand_listener(entry) for entry in self.listeners],
                metrics=metrics_address if metrics_fd >= 0 else "",
                is_metrics_given=metrics_address == "given",
                is_paused=self._children.is_paused,
            )
            descriptors = [sock.fileno() for entry in self.listeners for sock in entry.sockets]
            if metrics_fd >= 0:
                descriptors.append(metrics_fd)
            self._upgrade = Upgrade(self._loop, self._children, self._log, self._command, self)
            ready_s = self._children.generation.settings.start_timeout
            self._upgrade.begin(told, [*descriptors, self._pid_file.fileno()], ready_s)
        except (SmtpdError, OSError) as error:
            self._upgrade = None
            self.upgrade_failed(f"it can't be started: {error}")

    def forward(self, verb: str) -> None:
        """If a program is being started, it is to do that too."""
        if self.is_ending:
            self._forwarded.append(verb)

    def upgrade_ready(self, pid: int, kept: Iterable[int]) -> None:
        """The new program serves: it gets the rest, and this one drains."""
        assert self._upgrade is not None
        self.is_handed_over = True
        kept = set(kept)
        self._removed = [entry for number, entry in enumerate(self.listeners) if number not in kept]
        self._log.info("master", f"upgrade: the program with pid {pid} serves; this one drains")
        self._incumbent.note_upgrade(True)
        self._pid_file.write_old()
        self._pid_file.give_away()
        verbs = self._incumbent.leave(pid)
        self._upgrade.take([*verbs, *self._forwarded])

    def upgrade_failed(self, text: str) -> None:
        """The new program will not serve."""
        self._log.error("master", f"upgrade: {text}")
        self._log.error("master", "upgrade failed: the old program serves on")
        self._incumbent.note_upgrade(False)

    def upgrade_over(self) -> None:
        """The new program has ended. If it was in charge, we only end what was begun."""
        self._upgrade = None
        if self.is_handed_over:
            self._log.error("master", "upgrade: the new program has ended, and this one drains: nobody serves")
        self._incumbent.on_change()

    # --- the end -----------------------------------------------------------------------------------------------------

    def stop(self, number: int) -> None:
        """The whole server stops, by this signal: so does a program that isn't in charge yet."""
        if self._upgrade is not None and not self.is_handed_over:
            self._upgrade.end(number)

    def close(self) -> None:
        """This process ends."""
        if self._predecessor is not None:
            self._predecessor.close()
        self._pid_file.release()
        if self.is_handed_over:
            self._pid_file.remove_old()
