"""Drives a server with Postfix's smtp-source and measures what that cost the server.

One run is a fixed number of mails; its CPU is the growth over the run of the server's whole process tree, up to the moment
when it is quiet again. smtp-source gives up at the first unexpected reply, so a run that succeeds had every mail accepted.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from dataclasses import dataclass

from bench.processes import await_quiet, tree_cpu_ns

SENDER = "a@example.com"
RECIPIENT = "b@example.org"


class GeneratorError(Exception):
    """smtp-source failed; its own words."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent: `mails` is for a fast server, slower ones get a share of it."""

    name: str
    mails: int
    size_bytes: int
    is_kept: bool  # many mails over each connection, or a connection a mail
    sessions: int = 20


@dataclass(frozen=True, slots=True)
class Measured:
    """One run."""

    mails: int
    elapsed_s: float
    cpu_ns: int
    is_quiet: bool  # False: the server was still at work when the wait for it ended

    @property
    def mails_per_s(self) -> float:
        return self.mails / self.elapsed_s

    @property
    def cpu_us_per_mail(self) -> float:
        return self.cpu_ns / 1000 / self.mails


def source_command(load: Load, mails: int, host: str, port: int, recipient: str = RECIPIENT) -> list[str]:
    """Return the smtp-source command line of a run."""
    program = shutil.which("smtp-source", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin:/sbin")
    if program is None:
        raise GeneratorError("smtp-source is not installed (it is part of Postfix)")
    kept = ["-d"] if load.is_kept else []
    numbers = ["-s", str(min(load.sessions, mails)), "-l", str(load.size_bytes), "-m", str(mails)]
    return [program, *kept, *numbers, "-f", SENDER, "-t", recipient, f"{host}:{port}"]


def drive(load: Load, mails: int, host: str, port: int, pid: int, timeout_s: float = 120.0, quiet_s: float = 60.0) -> Measured:
    """Send `mails` mails and return what they cost the process tree of `pid`; GeneratorError when one is refused.

    Up to `quiet_s` the end of what the server does behind the last reply is waited for (0 for one that never rests).
    """
    command = source_command(load, mails, host, port)
    cpu_before = tree_cpu_ns(pid)
    started = time.perf_counter()
    try:
        result = subprocess.run(command, capture_output=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        raise GeneratorError(f"{mails} mails took over {timeout_s:.0f} s") from None
    elapsed_s = time.perf_counter() - started
    if result.returncode:
        words = (result.stderr + result.stdout).decode("utf-8", "replace").strip()
        raise GeneratorError(words[-500:] or f"smtp-source ended with {result.returncode}")
    is_quiet = await_quiet(pid, timeout_s=quiet_s)
    return Measured(mails, elapsed_s, tree_cpu_ns(pid) - cpu_before, is_quiet)
