"""The pid file: says which process is the master of a run_dir, and by its lock that there is only one.

The lock (flock) is the truth, the number in the file is for people: a file left behind by a crash is simply
taken over. Only the master holds the descriptor; a worker must close it after the fork, or the lock would
outlive the master.
"""

from __future__ import annotations

import contextlib
import fcntl
import os

from smtpd.errors import StartupError


class PidFile:
    """Hold one from `take` to `release`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = -1

    def take(self) -> None:
        """Lock the file and write our pid; StartupError when another process holds it or it can't be
        written."""
        while self._fd < 0:
            try:
                fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            except OSError as error:
                raise StartupError(f"can't write {self.path}: {error.strerror}", os.EX_CANTCREAT) from None
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                holder = os.pread(fd, 20, 0).decode("ascii", "replace").strip() or "unknown"
                os.close(fd)
                text = f"smtpd already runs with this run_dir (pid {holder}, {self.path})"
                raise StartupError(text, os.EX_UNAVAILABLE) from None
            if self._is_current(fd):
                self._fd = fd
            else:  # the last holder removed it between our open and our lock
                os.close(fd)
        self.write()

    def write(self) -> None:
        """Write the calling process's pid."""
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Remove the file and give up the lock."""
        if self._fd < 0:
            return
        if self._is_current(self._fd):
            with contextlib.suppress(OSError):
                os.unlink(self.path)
        os.close(self._fd)
        self._fd = -1

    def _is_current(self, fd: int) -> bool:
        try:
            named = os.stat(self.path)
        except OSError:
            return False
        opened = os.fstat(fd)
        return (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)
