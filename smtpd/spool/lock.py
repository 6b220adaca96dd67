"""Directories and lock files of the spool: who owns a shard, and that nothing planted in it is followed.

A shard is owned by an flock on its own file `lock` (closing another descriptor of the database itself would drop SQLite's
POSIX locks). The file holds the owner's pid, for messages only. Directories are 0700, files 0600; symlinks are refused.
Raises ShardBusyError when another process holds the lock, ShardFormatError for what isn't what it should be, OSError.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat

from smtpd.errors import ShardBusyError, ShardFormatError

SHARDS = "shards"
SPILL = "spill"
LOCK = "lock"
DATABASE = "mail.db"
LOST = "lost"  # complete spill files that no row names
_SHARD_NAME = re.compile(r"\d{4}")


def make_directory(path: str) -> None:
    """Make a private directory, or accept the one that is there; raises ShardFormatError for a symlink or a stranger's."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    check_directory(path)


def _is_trusted(found: os.stat_result) -> bool:
    euid = os.geteuid()
    return found.st_uid == euid or euid == 0  # root looks at a stopped server's spool


def check_directory(path: str) -> None:
    """Raise ShardFormatError unless `path` is a real directory of ours that nobody else can write."""
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        raise ShardFormatError(f"{path} is not a directory")
    if not _is_trusted(found) or found.st_mode & 0o022:
        raise ShardFormatError(f"{path} belongs to another user or can be written by others")
    if found.st_mode & 0o077:
        os.chmod(path, 0o700)


def check_file(path: str) -> bool:
    """Return whether `path` exists; raises ShardFormatError unless it is then a plain file of ours with one name."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(found.st_mode) or not _is_trusted(found) or found.st_nlink != 1:
        raise ShardFormatError(f"{path} is not a plain file of this user")
    return True


def sync_directory(path: str) -> None:
    """fsync(2) a directory: names made in it before are durable after."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def shard_directories(spool_path: str) -> list[str]:
    """Return the paths of all shards, by number; broken ones that were set aside (0003.broken) are not among them."""
    shards = os.path.join(spool_path, SHARDS)
    try:
        names = sorted(os.listdir(shards))
    except FileNotFoundError:
        return []
    return [os.path.join(shards, name) for name in names if _SHARD_NAME.fullmatch(name)]


def new_shard_directory(spool_path: str) -> str:
    """Make the directory of a shard number that was never used here and return its path."""
    shards = os.path.join(spool_path, SHARDS)
    for _ in range(1000):
        used = [int(name[:4]) for name in os.listdir(shards) if _SHARD_NAME.match(name)]
        number = max(used, default=-1) + 1
        if number > 4095:
            raise ShardFormatError(f"{shards}: all 4096 shard numbers are used; remove empty or broken shards")
        path = os.path.join(shards, f"{number:04d}")
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            continue  # another worker was faster
        sync_directory(shards)
        return path
    raise ShardFormatError(f"{shards}: no shard number to be had")


def shard_number(directory: str) -> int:
    return int(os.path.basename(directory))


class ShardLock:
    """Holds a shard's lock until `release`, or until the process ends."""

    __slots__ = ("_fd", "directory")

    def __init__(self, directory: str) -> None:
        """Take the lock of the shard in `directory` at once; raises as the module says."""
        check_directory(directory)
        path = os.path.join(directory, LOCK)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            fd = os.open(path, flags, 0o600)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):
                raise ShardFormatError(f"{path} is not a plain file") from None
            raise
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ShardFormatError(f"{path} is not a plain file")
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = _read_pid(fd)
                raise ShardBusyError(f"{directory} is in use by process {holder or 'unknown'}", holder) from None
            if not os.path.samestat(os.fstat(fd), os.lstat(path)):
                raise ShardBusyError(f"{path} was replaced")
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        self.directory = directory

    def sign(self) -> None:
        """Write our pid: this shard is kept, not only looked at (its mtime tells others that it has changed hands)."""
        try:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, b"%d\n" % os.getpid(), 0)
        except OSError:
            pass  # a full disk: the lock is held all the same, only the message of others is poorer

    def release(self) -> None:
        """Give the lock back. Harmless when done twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _read_pid(fd: int) -> int:
    text = os.pread(fd, 32, 0).strip()
    return int(text) if text.isdigit() else 0
