"""USR2: the same command line is run anew, from the disk as it is now, with all sockets; when it serves, this program drains.

The new program's workers accept beside ours as soon as they are ready; nothing of ours changes before all of them are. One that
ends, or isn't ready in time, changes nothing: this program serves on, and log and metric say so. Owns the new process until it
is in charge. Docs: decisions/upgrade.md.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterable
from typing import Protocol

from smtpd.errors import StartupError
from smtpd.master import handover, packets
from smtpd.master.children import Children, Log
from smtpd.master.handover import VARIABLE, Handover
from smtpd.master.privileges import passing_capabilities
from smtpd.net.loop import Loop, Timer

_KILL_GRACE_S = 5.0
# What the service manager told this process alone (sd_listen_fds(3), sd_watchdog_enabled(3)).
_PRIVATE = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID", "WATCHDOG_PID", VARIABLE)


class Outcome(Protocol):
    """Who is told how an upgrade goes."""

    def upgrade_ready(self, pid: int, kept: set[int]) -> None:
        """All workers of the new program serve. `kept`: which of the listeners that were told it goes on with."""

    def upgrade_failed(self, text: str) -> None:
        """It will not; it may still be ending."""

    def upgrade_over(self) -> None:
        """The new program has ended, whether it was in charge or not."""


class Upgrade:
    """From USR2 to "take", or back. `command` is the command line to run."""

    def __init__(self, loop: Loop, children: Children, log: Log, command: list[str], outcome: Outcome) -> None:
        self.pid = 0
        self.is_failed = False
        self._loop = loop
        self._children = children
        self._log = log
        self._command = command
        self._outcome = outcome
        self._channel: socket.socket | None = None
        self._deadline: Timer | None = None
        self._said = ""  # why it can't start, in its own words

    def begin(self, told: Handover, descriptors: list[int], ready_s: float) -> None:
        """Start the new program, which has `ready_s` seconds; raises OSError or StartupError when that can't be done."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel = ours
        try:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            handover.send_handover(ours, told, descriptors)
            theirs.set_inheritable(True)
            self.pid = run_anew(self._command, {VARIABLE: str(theirs.fileno())})
        except BaseException:
            self._let_go()
            raise
        finally:
            theirs.close()
        self._children.strangers[self.pid] = self._on_ended
        self._loop.add_reader(ours.fileno(), self._hear)
        self._deadline = self._loop.call_later(ready_s, lambda: self._give_up(f"is not ready after {ready_s:.0f} s"))

    def take(self, verbs: Iterable[str]) -> None:
        """Put the new program in charge. It learns of our end by the end of the channel, which stays open."""
        if self._channel is not None:
            packets.say(self._channel, {"do": "take", "verbs": list(verbs)})
            self._loop.forget(self._channel.fileno())

    def end(self, number: int) -> None:
        """The whole server stops: so does the new program, if it isn't in charge."""
        self._cancel_deadline()
        self.is_failed = True
        self._kill(number)

    def _hear(self) -> None:
        assert self._channel is not None
        try:
            message = packets.hear(self._channel)
        except BlockingIOError:
            return
        if message is None:  # its end is told by SIGCHLD
            self._loop.forget(self._channel.fileno())
        elif message.get("is") == "failed":
            self._said = str(message.get("text", ""))
        elif message.get("is") == "ready" and not self.is_failed:
            self._cancel_deadline()
            kept = message.get("kept", [])
            self._outcome.upgrade_ready(self.pid, set(kept) if isinstance(kept, list) else set())

    def _on_ended(self, exit_code: int) -> None:
        channel = self._channel
        if channel is not None and channel.fileno() >= 0 and not self.is_failed:
            try:
                while (message := packets.hear(channel)) is not None:  # its last words
                    self._said = str(message.get("text", "")) or self._said
            except BlockingIOError:
                pass
        self._cancel_deadline()
        self._let_go()
        if not self.is_failed:
            self._fail(describe_end(exit_code))
        self._outcome.upgrade_over()

    def _give_up(self, why: str) -> None:
        self._fail(why)
        self._kill(signal.SIGTERM)

    def _fail(self, why: str) -> None:
        self.is_failed = True
        for line in self._said.splitlines():
            self._log.error("master", f"upgrade: {line}")
        self._outcome.upgrade_failed(f"the new program (pid {self.pid}) {why}")

    def _kill(self, number: int) -> None:
        """It may hold sessions already: it gets the time of a drain."""
        _signal(self.pid, number)
        patience_s = self._children.generation.settings.drain_timeout + 2 * _KILL_GRACE_S
        self._deadline = self._loop.call_later(patience_s, lambda: _signal(self.pid, signal.SIGKILL))

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()

    def _let_go(self) -> None:
        if self._channel is not None and self._channel.fileno() >= 0:
            self._loop.forget(self._channel.fileno())
            self._channel.close()


def run_anew(command: list[str], extra: dict[str, str]) -> int:
    """Run the command line as a child that has nothing of this process but its environment, with `extra`, and what is marked
    inheritable. Gives the pid; raises OSError."""
    environment = {name: value for name, value in os.environ.items() if name not in _PRIVATE} | extra
    with passing_capabilities():
        return os.posix_spawn(
            command[0], command, environment, setsigmask=(), setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
        )


def own_command() -> list[str]:
    """The command line of this process, with the interpreter by its path as it was started (a virtual environment's link is
    not followed). Raises StartupError when Python doesn't know it."""
    if not sys.executable:
        raise StartupError("upgrade: the path of the interpreter is not known", os.EX_OSERR)
    return [sys.executable, *sys.orig_argv[1:]]


def describe_end(exit_code: int) -> str:
    """How it ended, as the end of a sentence; a signal is a negative code."""
    if exit_code < 0:
        is_known = -exit_code in signal.valid_signals()
        return f"was ended by {signal.Signals(-exit_code).name if is_known else f'signal {-exit_code}'}"
    return f"ended with exit code {exit_code} before it served"


def _signal(pid: int, number: int) -> None:
    """It is our child: the pid is its own until it is reaped."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
