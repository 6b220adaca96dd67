"""Processes under measurement: starting and ending them, their CPU time, their memory, when they answer.

CPU is user + system time of a whole process tree in nanoseconds: the kernel's CPU clock of each living process (all its
threads, ended ones too) plus the reaped children that a parent's stat line adds up (those in clock ticks of 10 ms).
Ends only what was started here, by its pid.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_PAUSE_S = 0.01


class NotReadyError(Exception):
    """A server ended or stayed silent instead of greeting; the text is for a person."""


def free_port(host: str) -> int:
    """Return a TCP port of `host` that nobody is bound to at the moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


# --- trees -------------------------------------------------------------------------------------------------


def child_pids(pid: int) -> list[int]:
    """Return the children of all threads of `pid`; empty when it is gone."""
    found: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found


def tree_pids(pid: int) -> list[int]:
    """Return `pid` and all its living descendants."""
    found = [pid]
    for parent in found:  # grows while it is walked
        found += child_pids(parent)
    return found


def tree_cpu_ns(pid: int) -> int:
    """Return the CPU time that `pid`, its living descendants and their reaped children have used so far."""
    total = 0
    for member in tree_pids(pid):
        try:
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        own_ticks, reaped_ticks = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
        total += reaped_ticks * _TICK_NS
        try:
            total += time.clock_gettime_ns(_process_clock(member))
        except OSError:  # a zombie has no clock any more, its stat line still counts
            total += own_ticks * _TICK_NS
    return total


def _process_clock(pid: int) -> int:
    """Return the clock id of another process's CPU time (the kernel's MAKE_PROCESS_CPUCLOCK, CPUCLOCK_SCHED)."""
    return (~pid << 3) | 2


def open_files(pid: int) -> int:
    """Return how many file descriptors the tree has open."""
    total = 0
    for member in tree_pids(pid):
        try:
            total += len(os.listdir(f"/proc/{member}/fd"))
        except FileNotFoundError:
            continue
    return total


def await_quiet(pid: int, window_s: float = 0.3, busy_share: float = 0.02, timeout_s: float = 60.0) -> bool:
    """Wait until the tree uses less than `busy_share` of one core over a window; False when it never does.

    Work that goes on after the last reply (deliveries, checkpoints) belongs to the mails that caused it.
    """
    deadline = time.monotonic() + timeout_s
    before = tree_cpu_ns(pid)
    while time.monotonic() < deadline:
        time.sleep(window_s)
        now = tree_cpu_ns(pid)
        if now - before < busy_share * window_s * 1e9:
            return True
        before = now
    return False


# --- memory ------------------------------------------------------------------------------------------------


def memory_bytes(pid: int, field: str) -> int:
    """Return a field of /proc/PID/status in bytes: VmRSS, VmHWM, RssAnon, ..."""
    return _kilobytes(Path(f"/proc/{pid}/status"), field)


def proportional_bytes(pid: int, field: str = "Pss") -> int:
    """Return a field of /proc/PID/smaps_rollup in bytes: Pss counts shared pages by their sharers."""
    return _kilobytes(Path(f"/proc/{pid}/smaps_rollup"), field)


def reset_peak(pid: int) -> None:
    """Make VmHWM, the peak of the resident set, start anew from the present value."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _kilobytes(path: Path, field: str) -> int:
    for line in path.read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


# --- life --------------------------------------------------------------------------------------------------


def is_alive(pid: int) -> bool:
    """Say whether `pid` runs (a zombie doesn't)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def greeting_s(host: str, port: int, timeout_s: float = 10.0) -> float:
    """Connect, read a greeting, say QUIT; return the seconds from connect to the whole greeting. OSError on failure."""
    started = time.perf_counter()
    with socket.create_connection((host, port), timeout=timeout_s) as client:
        greeting = b""
        while not greeting.endswith(b"\n"):
            if not (piece := client.recv(4096)):
                raise ConnectionResetError("closed before the greeting")
            greeting += piece
        elapsed_s = time.perf_counter() - started
        if not greeting.startswith(b"220"):
            raise ConnectionRefusedError(greeting.decode("ascii", "replace"))
        client.sendall(b"QUIT\r\n")
        while client.recv(4096):
            pass
    return elapsed_s


def await_greeting(host: str, port: int, is_running: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Return when a server greets; NotReadyError when it ends or stays silent."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            greeting_s(host, port, timeout_s=2.0)
            return
        except OSError as error:
            if not is_running():
                raise NotReadyError("ended before it greeted") from error
            if time.monotonic() > deadline:
                raise NotReadyError(f"no greeting within {timeout_s:.0f} s: {error}") from error
        time.sleep(_PAUSE_S)


def end(process: subprocess.Popen[bytes], timeout_s: float = 15.0) -> None:
    """End a process that was started here by TERM, its whole tree by KILL when that takes too long."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        for pid in reversed(tree_pids(process.pid)):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        process.wait()
