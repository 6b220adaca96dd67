"""One forked worker as the master sees it, and the fork itself.

The child leaves the master behind at once: signals, descriptors and garbage of the parent must not act in
it. It never returns to the master's code; whatever happens ends in `os._exit`.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from setproctitle import setproctitle

from smtpd.errors import StartupError
from smtpd.master import packets
from smtpd.master.privileges import drop_capabilities
from smtpd.net.listeners import ListenerSockets
from smtpd.settings import Settings
from smtpd.worker.boot import WorkerBoot

RunWorker = Callable[[WorkerBoot], int]

BOOTING, READY, DRAINING = "booting", "ready", "draining"

_SWITCH_INTERVAL_S = 0.0005  # how long a busy helper thread may keep the loop waiting for the GIL
_MOST_DESCRIPTORS = 1 << 20
# What the child must not be ended by before the worker has its own handlers; TERM, INT and QUIT may end it.
_IGNORED = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU, signal.SIGPIPE)
_DEFAULT = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGCHLD)


@dataclass(eq=False, slots=True)
class Generation:
    """The workers that run with one reading of the configuration."""

    number: int
    settings: Settings
    listeners: list[ListenerSockets]
    spare: list[ListenerSockets] = field(default_factory=list)  # of a service manager, for which there is no listener now


@dataclass(eq=False, slots=True)
class Child:
    """A living worker process. Times are monotonic seconds."""

    pid: int
    slot: int
    bank: int
    generation: Generation
    channel: socket.socket
    started_s: float
    serves: tuple[int, ...]
    state: str = BOOTING
    was_ready: bool = False
    failure: str = ""  # what it said of why it can't boot
    kill_at_s: float = 0.0  # when patience with its draining ends; 0 = not draining
    has_left_listeners: bool = False  # it has said itself that it drains and accepts no more
    has_paused: bool = False  # it has said that it accepts no more until it is told to
    is_condemned: bool = False  # SIGKILL is on its way

    def send_signal(self, number: int) -> None:
        """The pid is ours until it is reaped, so it can't be another process's."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def say(self, message: dict[str, Any], fds: Iterable[int] = ()) -> bool:
        """One packet to the worker; False when it doesn't take any (it is stuck or gone)."""
        return packets.say(self.channel, message, fds)

    def hear(self) -> dict[str, Any] | None:
        """The next packet, {} for one that makes no sense, None when the worker's end is closed.

        Raises BlockingIOError when there is none.
        """
        return packets.hear(self.channel)


def fork_worker(boot: WorkerBoot, run_worker: RunWorker, inherited: object) -> int:
    """Fork; the child runs `run_worker(boot)` and ends with what that returns. Gives the child's pid.

    `inherited` is kept alive in the child: the parent's sockets must not be closed by a destructor there
    once their numbers belong to others. Raises OSError when the system has no process to give.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with _signals_held():
        pid = os.fork()
        if pid == 0:
            _run_child(boot, run_worker, inherited)
    return pid


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """No signal is handled in between: the child's first ones would go to the master's wake-up socket."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run_child(boot: WorkerBoot, run_worker: RunWorker, inherited: object) -> None:
    exit_code = os.EX_SOFTWARE
    try:
        gc.freeze()  # garbage of the parent that waits for collection holds descriptors too
        signal.set_wakeup_fd(-1)
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        for number in _DEFAULT:
            signal.signal(number, signal.SIG_DFL)
        _close_others(boot)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        setproctitle(f"smtpd: worker {boot.slot}")
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        drop_capabilities()
        exit_code = run_worker(boot)
    except StartupError as error:
        exit_code = error.exit_code
        _say_failed(boot, str(error), exit_code)
    except BaseException as error:  # noqa: BLE001 - the child must not return into the master's code
        traceback.print_exc()
        _say_failed(boot, f"{type(error).__name__}: {error}", exit_code)
    finally:
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        os._exit(exit_code)


def _close_others(boot: WorkerBoot) -> None:
    """Close what is the master's: its loop, exporter, pid file, and its ends of the channels of all workers.

    A worker that kept the master's end of a neighbour's channel would hide the master's death from it. What it needs by its
    number must be kept: the number would soon be another file's.
    """
    kept = {0, 1, 2, boot.channel.fileno(), boot.hops.fileno()}
    kept.update(sock.fileno() for listener in boot.listeners for sock in listener.sockets)
    first = 0
    for fd in sorted(kept):
        if first < fd:  # an empty range is taken for one without an end
            os.closerange(first, fd)
        first = fd + 1
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    os.closerange(first, limit if limit != resource.RLIM_INFINITY else _MOST_DESCRIPTORS)


def _say_failed(boot: WorkerBoot, text: str, exit_code: int) -> None:
    packets.say(boot.channel, {"is": "failed", "text": text[:1000], "exit_code": exit_code})
