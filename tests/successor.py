"""A master that another one has started (USR2): no child of the tests, so it is watched by its pidfd.

Has the part of subprocess.Popen's face that Gateway uses. Its exit code can't be known: 0 stands for "ended".
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
from typing import TYPE_CHECKING

from gateway import wait_until

from bench.processes import child_pids

if TYPE_CHECKING:
    from gateway import Gateway


class Successor:
    """Follows `pid`, which must be alive now."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._fd = os.pidfd_open(pid)
        self._is_over = False

    def poll(self) -> int | None:
        if not self._is_over and select.select([self._fd], [], [], 0)[0]:
            self._note_end()
        return 0 if self._is_over else None

    def wait(self, timeout: float | None = None) -> int:
        if not self._is_over:
            if not select.select([self._fd], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(f"pid {self.pid}", timeout or 0.0)
            self._note_end()
        return 0

    def _note_end(self) -> None:
        self._is_over = True
        os.close(self._fd)

    def send_signal(self, number: int) -> None:
        if not self._is_over:
            signal.pidfd_send_signal(self._fd, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def upgrade(gateway: Gateway, timeout_s: float = 40.0) -> subprocess.Popen[bytes] | Successor:
    """Send USR2, return the old master when the new one is in charge and ready and the old workers accept nothing more; `gateway`
    follows the new one then."""
    gateway.signal(signal.SIGUSR2)
    return follow(gateway, timeout_s)


def follow(gateway: Gateway, timeout_s: float = 40.0) -> subprocess.Popen[bytes] | Successor:
    """The same for an upgrade that was asked for."""
    old = gateway.running
    workers = child_pids(old.pid)  # and the new program, maybe
    pid_file = gateway.run_dir / "smtpd.pid"

    def new_pid() -> int:
        text = pid_file.read_text()
        return int(text) if text.endswith("\n") and int(text) != old.pid else 0

    try:
        pid = wait_until("the new program is in charge", new_pid, timeout_s)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{gateway.log_text()}") from None
    replace(gateway, pid)
    gateway.wait_ready()
    gateway.await_left(worker for worker in [*workers, *child_pids(old.pid)] if worker != pid)
    return old


def replace(gateway: Gateway, pid: int) -> None:
    """`gateway` follows this master from now on."""
    gateway.former.append(gateway.running)
    gateway.process = Successor(pid)
