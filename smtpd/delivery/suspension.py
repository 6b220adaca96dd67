"""Which routes an operator has suspended: a small file in the spool, so that a restart and a reload know it.

Written whole (tmp, fsync, rename) under a lock, since every worker and the command line may write it. Raises OSError.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable

import msgspec

_FILE = "suspended"
_LOCK = "suspended.lock"


class _Stored(msgspec.Struct):
    routes: list[str] = []


def read_suspended(spool_path: str) -> list[str]:
    """Return the names of the suspended routes, sorted; none if the file is missing. One that can't be read suspends nothing:
    raises OSError or ValueError with its path."""
    path = os.path.join(spool_path, _FILE)
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return []
    try:
        return sorted(msgspec.json.decode(data, type=_Stored).routes)
    except msgspec.MsgspecError as error:
        raise ValueError(f"{path}: {error}") from None


def set_suspended(spool_path: str, route: str, is_suspended: bool) -> list[str]:
    """Add a route or take it out, durably; returns the names of all that are suspended now."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    folder = os.stat(spool_path)
    lock_fd = os.open(os.path.join(spool_path, _LOCK), flags, 0o600)
    try:
        _give_to(lock_fd, folder)
        fcntl.flock(lock_fd, fcntl.LOCK_EX)
        known = set(read_suspended(spool_path))
        wanted = known | {route} if is_suspended else known - {route}
        if wanted != known:
            _write(spool_path, wanted, folder)
        return sorted(wanted)
    finally:
        os.close(lock_fd)


def _write(spool_path: str, routes: Iterable[str], folder: os.stat_result) -> None:
    path = os.path.join(spool_path, _FILE)
    fd = os.open(path + ".tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        _give_to(fd, folder)
        os.write(fd, msgspec.json.encode(_Stored(sorted(routes))) + b"\n")
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(path + ".tmp", path)
    folder_fd = os.open(spool_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder_fd)
    finally:
        os.close(folder_fd)


def _give_to(fd: int, folder: os.stat_result) -> None:
    """What root makes belongs to the server's user."""
    if os.geteuid() == 0:
        os.fchown(fd, folder.st_uid, folder.st_gid)
