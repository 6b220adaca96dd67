"""Which shards this process serves: takes one as its own at the start, and looks for orphans from then on. Shard thread only.

An orphan is a shard that nobody has locked and that holds mail: left by a crash, by fewer workers, by an
upgrade. Shards that were found empty are not opened again until their lock file changes; shards that can't be
opened are reported once and left alone, unless only descriptors, memory or space were short: then they are tried again.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable

from smtpd.errors import ShardBusyError, SpoolError
from smtpd.spool import lock, schema
from smtpd.spool.database import FULL_ERRNOS, ShardDatabase, failure_of
from smtpd.spool.recovery import recover_spill_files
from smtpd.spool.shard import FAILURES, Shard

Report = Callable[[str, str], object]  # level, text
_SHORT_ERRNOS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, *FULL_ERRNOS)
_SHORT_CODES = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL)


class Adopter:
    """`report` may be called on the shard thread."""

    def __init__(self, spool_path: str, pragmas: schema.Pragmas, report: Report) -> None:
        self._path = spool_path
        self._pragmas = pragmas
        self._report = report
        self._known: dict[str, tuple[int, int]] = {}  # shards not to be opened again: state of their lock files
        self._reported: dict[str, str] = {}  # last report on each path

    def take_own(self) -> Shard:
        """Return the first shard that is free, or a new one; raises SpoolError."""
        for directory in lock.shard_directories(self._path):
            shard = self._try(directory)
            if shard is not None:
                shard.lock.sign()
                return shard
        for _ in range(100):
            try:
                shard = self._open(lock.new_shard_directory(self._path))
                shard.lock.sign()
                return shard
            except ShardBusyError:
                continue  # another worker took it between its making and its locking
            except FAILURES as error:
                raise failure_of(error, self._path) from error
        raise SpoolError(f"{self._path}: no shard to be had")

    def find_orphan(self) -> Shard | None:
        """Return an orphan that holds mail, now owned by this process, or None."""
        try:
            directories = lock.shard_directories(self._path)
        except OSError as error:  # above all no descriptor left; the next look may find one
            self._report_once(self._path, f"orphans not looked for: {error}")
            return None
        self._reported.pop(self._path, None)
        for directory in directories:
            if self._known.get(directory) == self._state(directory):
                continue
            shard = self._try(directory)
            if shard is None:
                continue
            if shard.count or (shard.database is not None and shard.database.is_damaged):
                shard.lock.sign()
                return shard
            self._close_empty(shard)
            self._known[directory] = self._state(directory)
        return None

    def _try(self, directory: str) -> Shard | None:
        try:
            return self._open(directory)
        except ShardBusyError:
            return None
        except FAILURES as error:
            self._report_once(directory, f"shard not opened: {failure_of(error, directory)}")
            if not _is_shortage(error):
                self._known[directory] = self._state(directory)
            return None

    def _report_once(self, path: str, text: str) -> None:
        if self._reported.get(path) != text:
            self._reported[path] = text
            self._report("error", text)

    def _open(self, directory: str) -> Shard:
        held_lock = lock.ShardLock(directory)
        try:
            database = ShardDatabase(directory, self._pragmas)
        except BaseException:
            held_lock.release()
            raise
        if not database.is_damaged:
            for text in recover_spill_files(database):
                self._report("warning", text)
        return Shard(database, held_lock)

    def _close_empty(self, shard: Shard) -> None:
        try:
            if shard.database is not None:
                shard.database.close()
        except FAILURES as error:
            self._report("error", f"closing: {failure_of(error, shard.lock.directory)}")
        shard.lock.release()

    def _state(self, directory: str) -> tuple[int, int]:
        try:
            found = os.lstat(os.path.join(directory, lock.LOCK))
        except OSError:
            return (0, 0)
        return (found.st_ino, found.st_mtime_ns)


def _is_shortage(error: Exception) -> bool:
    """Whether the machine was short of something, which says nothing about the shard."""
    if isinstance(error, OSError):
        return error.errno in _SHORT_ERRNOS
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _SHORT_CODES
