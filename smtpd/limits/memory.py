"""How much memory this process has, how much all may have, and giving back what is free inside the allocator.

Reads /proc/self and the files of the control group (v2, else v1; cgroups(7)); a file that isn't there or can't be read is no
limit and no figure, never an error.
"""

from __future__ import annotations

import ctypes
import os
import resource
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_HUGE = 1 << 60  # what v1 writes for "no limit" is near 2^63
_ROOT = Path("/sys/fs/cgroup")
_SELF = Path("/proc/self/cgroup")


class OwnMemory:
    """Of this process; made after the fork. Its file stays open: there may be no descriptor left when it matters."""

    def __init__(self) -> None:
        try:
            self._fd = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._fd = -1

    def look(self) -> tuple[int, int]:
        """Return (private memory, size of the address space) in octets; private: without files and shared maps."""
        if self._fd < 0:
            return 0, 0
        size, resident, shared = os.pread(self._fd, 200, 0).split()[:3]
        return (int(resident) - int(shared)) * _PAGE_BYTES, int(size) * _PAGE_BYTES

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def address_space_limit() -> int:
    """Return RLIMIT_AS in octets, 0 = none."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return 0 if limit == resource.RLIM_INFINITY else limit


def control_group_limit(root: Path = _ROOT, own: Path = _SELF) -> int:
    """Return the least memory limit of this process's control group and those above it, 0 = none."""
    limits = []
    for line in _read(own).splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            folder, name = root, "memory.max"
        elif "memory" in controllers.split(","):
            folder, name = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        parts = [part for part in path.split("/") if part]
        # within a container the path may be the host's, which isn't mounted there: then the root is ours
        for depth in range(len(parts) + 1):
            limits.append(_limit_in(folder.joinpath(*parts[:depth]) / name))
    return min((limit for limit in limits if limit), default=0)


def _limit_in(file: Path) -> int:
    text = _read(file).strip()
    return int(text) if text.isdigit() and int(text) < _HUGE else 0


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""


def trim_heap() -> None:
    """Give pages that are free inside the allocator back to the system, where the C library can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
