"""The pid file: says which process is the master of a run_dir, and by its lock that there is only one.

The lock (flock) is the truth, the number in the file is for people: a file left behind by a crash is simply
taken over. Only the master holds the descriptor; a worker must close it after the fork, or the lock would
outlive the master. At an upgrade the next master gets the descriptor and with it the lock, which belongs to both until
one of them is gone; the program that drains is in `smtpd.pid.oldbin` meanwhile.
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
        self._is_borrowed = False

    def borrow(self, fd: int) -> None:
        """Hold the lock together with the program that has given us its descriptor; the file is still its own."""
        self._fd = fd
        self._is_borrowed = True

    def claim(self) -> None:
        """The file is ours alone from now on."""
        self._is_borrowed = False
        self.write()

    def fileno(self) -> int:
        return self._fd

    def give_away(self) -> None:
        """Another process has the descriptor and the file; ours is named beside it until `remove_old`."""
        os.close(self._fd)
        self._fd = -1

    @property
    def old_path(self) -> str:
        return self.path + ".oldbin"

    def write_old(self) -> None:
        """Say beside the file who drains; only a hint, so a failure is none."""
        with contextlib.suppress(OSError):
            fd = os.open(self.old_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            with open(fd, "w", encoding="ascii") as stream:
                stream.write(f"{os.getpid()}\n")

    def remove_old(self) -> None:
        """Whoever drained is gone."""
        with contextlib.suppress(OSError):
            os.unlink(self.old_path)

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
        if self._is_current(self._fd) and not self._is_borrowed:
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
