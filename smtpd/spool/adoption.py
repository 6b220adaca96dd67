"""Which shards this process serves: takes one as its own at the start, and looks for orphans from then on. Shard thread only.

An orphan is a shard that nobody has locked and that holds mail: left by a crash, by fewer workers, by an
upgrade. Shards that were found empty are not opened again until their lock file changes; shards that can't be
opened are reported once and left alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from smtpd.errors import ShardBusyError, SpoolError
from smtpd.spool import lock, schema
from smtpd.spool.database import ShardDatabase, failure_of
from smtpd.spool.recovery import recover_spill_files
from smtpd.spool.shard import FAILURES, Shard

Report = Callable[[str, str], object]  # level, text


class Adopter:
    """`report` may be called on the shard thread."""

    def __init__(self, spool_path: str, pragmas: schema.Pragmas, report: Report) -> None:
        self._path = spool_path
        self._pragmas = pragmas
        self._report = report
        self._known: dict[str, tuple[int, int]] = {}  # shards not to be opened again: state of their lock files

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
        for directory in lock.shard_directories(self._path):
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
            self._report("error", f"shard not opened: {failure_of(error, directory)}")
            self._known[directory] = self._state(directory)
            return None

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
