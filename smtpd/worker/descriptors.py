"""How many descriptors connections of clients may take, so that some are left for spill files, deliveries and commands.

The kernel gives the lowest free number, so a descriptor at `ceiling` or above says that all below it are taken: no counting, one
comparison at accept. The limit may be changed from outside (prlimit(1)) and is read anew by `look`. A shortage is told once, and
over when there was none for a while. Raises StartupError where a worker could serve nobody.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable

from smtpd.errors import StartupError

_RESERVE_SHARE = 4  # one in so many is kept back
_RESERVE_MOST = 4096
_NO_LIMIT = 1 << 30
_SHORT_ERRNOS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOBUFS)
_LEAST_ROOM = 8  # connections, however few descriptors there are
_OVER_S = 5.0


class Descriptors:
    """`tell(text)` gets the log lines; times are those of the loop."""

    def __init__(self, tell: Callable[[str], object]) -> None:
        self._tell = tell
        self._short_at_s = 0.0
        self._base = 0
        self.is_short = False
        self.limit = self.ceiling = 0
        self.look(0.0)

    def count_base(self) -> None:
        """What is open now is no client's: call it when the worker is put together. StartupError: there is no room for any."""
        self._base = max(0, self._next())  # as for the ceiling; /proc may not be there in a root of its own
        if self.limit < self._base + 2 * _LEAST_ROOM:
            needed = self._base + 2 * _LEAST_ROOM
            raise StartupError(f"RLIMIT_NOFILE is {self.limit}: a worker needs {needed} descriptors at least", os.EX_OSERR)
        self._set_ceiling()

    @property
    def room(self) -> int:
        """How many connections of clients there can be."""
        return max(1, self.ceiling - self._base)

    def look(self, now_s: float) -> None:
        """Read the limit anew, and see whether a shortage is over."""
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if limit == resource.RLIM_INFINITY:
            limit = _NO_LIMIT
        if limit != self.limit:
            if self.limit:
                self._tell(f"RLIMIT_NOFILE was {self.limit} and is {limit} now")
            self.limit = limit
            self._set_ceiling()
        if self.is_short and now_s - self._short_at_s >= _OVER_S:
            self.is_short = False
            self._tell("there are descriptors for connections again")

    def _set_ceiling(self) -> None:
        ceiling = self.limit - min(self.limit // _RESERVE_SHARE, _RESERVE_MOST)
        self.ceiling = min(max(ceiling, self._base + _LEAST_ROOM), self.limit)

    def has_room(self) -> bool:
        """Whether one more connection may be accepted."""
        return 0 <= self._next() < self.ceiling

    def _next(self) -> int:
        """The number that the next descriptor gets, -1 = none is left."""
        try:
            fd = os.eventfd(0, os.EFD_CLOEXEC)
        except OSError:
            return -1
        os.close(fd)
        return fd

    def run_short(self, why: str, now_s: float) -> None:
        """A connection could not be accepted, or was the last one for now."""
        self._short_at_s = now_s
        if not self.is_short:
            self.is_short = True
            self._tell(f"{why}: connections wait to be accepted until others end")


def is_shortage(error: BaseException) -> bool:
    """Whether a failure says that the system has no descriptor, process, thread or memory to give."""
    if isinstance(error, OSError):
        return error.errno in _SHORT_ERRNOS
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "start new thread" in str(error))
