"""What a figure depends on besides the programs: the machine, its kernel, and the disk under the durable servers."""

from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path
from statistics import median


def describe_machine() -> dict[str, str | int]:
    """Return processor, cores, memory, kernel and Python; nothing that names the host."""
    return {
        "processor": _first_field("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "memory": _first_field("/proc/meminfo", "MemTotal"),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def filesystem_of(folder: Path) -> str:
    """Return the type of the file system that holds `folder` ("ext4"), "" when the kernel doesn't say."""
    device = os.stat(folder).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[2] == wanted:
            return fields[fields.index("-") + 1]
    return ""


def durable_filesystem(folder: Path) -> str:
    """Return the same, and warn where nothing is durable."""
    filesystem = filesystem_of(folder)
    if filesystem == "tmpfs":
        print(f"{folder} is on a tmpfs: durable figures mean nothing there (--dir)", file=sys.stderr)
    return filesystem


def fdatasync_us(folder: Path, count: int = 64, size_bytes: int = 4096) -> float:
    """Return the median time in microseconds of an append of `size_bytes` made durable by fdatasync."""
    path = folder / "fdatasync"
    data = os.urandom(size_bytes)
    times = []
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        for _ in range(count):
            started = time.perf_counter()
            os.write(fd, data)
            os.fdatasync(fd)
            times.append(time.perf_counter() - started)
    finally:
        os.close(fd)
        path.unlink()
    return median(times) * 1e6


def _first_field(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""
