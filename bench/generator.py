"""Drives a server with Postfix's smtp-source and measures what that cost the server.

`drive` sends a fixed number of mails; its CPU is the growth over the run of the server's whole process tree, up to the moment
when it is quiet again. `drive_steadily` looks at a window of a run after all sessions are connected. smtp-source gives up at the
first unexpected reply, so a run that succeeds had every mail accepted. Ends what it started, whatever happens.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path

from bench.processes import await_quiet, end, open_files, tree_cpu_ns

SENDER = "a@example.com"
RECIPIENT = "b@example.org"


class GeneratorError(Exception):
    """smtp-source failed; its own words."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent: `mails` is for a fast server, slower ones get a share of it.

    With `mix_bytes` as many generators send side by side, each a size of its own and an equal share of mails and sessions.
    """

    name: str
    mails: int
    size_bytes: int
    is_kept: bool  # many mails over each connection, or a connection a mail
    sessions: int = 20
    mix_bytes: tuple[int, ...] = ()

    def parts(self, mails: int) -> list[tuple[Load, int]]:
        """Return the load of each generator and how many mails it sends."""
        if not self.mix_bytes:
            return [(self, mails)]
        count = len(self.mix_bytes)
        sessions = max(1, self.sessions // count)
        return [
            (replace(self, size_bytes=size, sessions=sessions, mix_bytes=()), max(1, mails // count)) for size in self.mix_bytes
        ]


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
    parts = load.parts(mails)
    sent = sum(share for _, share in parts)
    commands = [source_command(part, share, host, port) for part, share in parts]
    cpu_before = tree_cpu_ns(pid)
    started = time.perf_counter()
    _run_together(commands, timeout_s)
    elapsed_s = time.perf_counter() - started
    is_quiet = await_quiet(pid, timeout_s=quiet_s)
    return Measured(sent, elapsed_s, tree_cpu_ns(pid) - cpu_before, is_quiet)


def _run_together(commands: list[list[str]], timeout_s: float) -> None:
    """Run the generators side by side until the last has ended; GeneratorError when one fails or is late."""
    deadline = time.monotonic() + timeout_s
    sources: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            sources.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
        for command, source in zip(commands, sources, strict=True):
            try:
                words, _ = source.communicate(timeout=max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise GeneratorError(f"not ready after {timeout_s:.0f} s: {' '.join(command)}") from None
            if source.returncode:
                text = words.decode("utf-8", "replace").strip()[-500:]
                raise GeneratorError(text or f"smtp-source ended with {source.returncode}")
    finally:
        for source in sources:
            end(source)
            if source.stdout is not None:
                source.stdout.close()


def drive_steadily(
    load: Load, host: str, port: int, pid: int, folder: Path, window_s: float, timeout_s: float = 60.0
) -> Measured:
    """Keep `load.sessions` sessions busy and return what `window_s` cost once all are connected; `folder` takes a file.

    Nothing of connecting is in it: smtp-source connects all at once, and some wait for a second or more until they may.
    """
    output = folder / "smtp-source.count"
    command = source_command(load, 100_000_000, host, port)
    command.insert(1, "-c")  # shows how many it has sent
    files_before = open_files(pid)
    wanted = load.sessions - max(2, load.sessions // 100)  # a connection from before may have been counted, and closed since
    deadline = time.monotonic() + timeout_s
    with output.open("wb") as stream:
        source = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT)
    try:
        while (connected := open_files(pid) - files_before) < wanted or _last_count(output) < load.sessions:
            if source.poll() is not None:
                raise GeneratorError(_last_words(output))
            if time.monotonic() > deadline:
                raise GeneratorError(f"{connected} of {load.sessions} sessions after {timeout_s:.0f} s")
            time.sleep(0.05)
        count_before, cpu_before, started = _last_count(output), tree_cpu_ns(pid), time.perf_counter()
        time.sleep(window_s)
        mails, cpu_ns = _last_count(output) - count_before, tree_cpu_ns(pid) - cpu_before
        elapsed_s = time.perf_counter() - started
        if source.poll() is not None:
            raise GeneratorError(_last_words(output))
        if mails <= 0:
            raise GeneratorError(f"no mail within {elapsed_s:.1f} s")
    finally:
        source.kill()
        source.wait()
        output.unlink()
    return Measured(mails, elapsed_s, cpu_ns, await_quiet(pid))


def _last_words(output: Path) -> str:
    with output.open("rb") as stream:
        stream.seek(max(0, output.stat().st_size - 300))
        return stream.read().decode("utf-8", "replace").replace("\r", " ").strip()


def _last_count(output: Path) -> int:
    """Return the newest whole number that smtp-source wrote, 0 at first."""
    words = _last_words(output).split()
    return next((int(word) for word in words[-2::-1] if word.isdigit()), 0)
