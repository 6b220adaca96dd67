"""The greylist of one host: a SQLite file that all its workers share, used on a thread of its own.

Owns that thread and the worker's connection (WAL; opened at the first question, after the fork). It survives restarts; not synced
for each answer, since what a power cut takes is asked for again by the sender. A file that isn't a database any more is set aside
and begun anew. Raises sqlite3.Error where the disk fails.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from smtpd.policy.greylist.store import Record, Times, Touch, judge

BUSY_S = 5.0  # how long another worker's transaction is waited for
SWEEP_S = 600.0
SWEEP_ROWS = 5000
_SCHEMA = """
create table if not exists triplet (key blob primary key, first_s real not null, passed_s real not null) without rowid;
create table if not exists client (key blob primary key, passes integer not null, seen_s real not null) without rowid;
"""
_DAMAGES = ("malformed", "not a database")


class LocalStore:
    """`clock` is Unix time; `warn` takes a line for the log, from the store's thread."""

    def __init__(self, path: str, times: Times, warn: Callable[[str], object], clock: Callable[[], float] = time.time) -> None:
        self._path = Path(path)
        self._times = times
        self._warn = warn
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, "greylist")
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._sweep_at = 0.0

    async def touch(self, client: bytes, triplet: bytes) -> Touch:
        """Look up and note; from the side thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._touch, client, triplet)

    def close(self) -> None:
        """Close the file and end the thread."""
        self._thread.submit(self._close)
        self._thread.shutdown(wait=True)

    # --- on the store's thread ---------------------------------------------------------------------------------------

    def _touch(self, client: bytes, triplet: bytes) -> Touch:
        try:
            return self._touch_once(client, triplet)
        except sqlite3.DatabaseError as error:
            if not any(word in str(error) for word in _DAMAGES):
                raise
            self._set_aside(error)
        return self._touch_once(client, triplet)

    def _touch_once(self, client: bytes, triplet: bytes) -> Touch:
        connection = self._connection or self._open()
        now_s = self._clock()
        connection.execute("begin immediate")
        try:
            passes, seen_s = connection.execute("select passes, seen_s from client where key = ?", (client,)).fetchone() or (
                0,
                0.0,
            )
            row = connection.execute("select first_s, passed_s from triplet where key = ?", (triplet,)).fetchone()
            touch, record, now_passes = judge(Record(*row) if row else None, passes, seen_s, self._times, now_s)
            if record is not None:
                connection.execute("replace into triplet values (?, ?, ?)", (triplet, record.first_s, record.passed_s))
            if not touch.wait_s and now_passes:
                connection.execute("replace into client values (?, ?, ?)", (client, now_passes, now_s))
            if now_s >= self._sweep_at:
                self._sweep(connection, now_s)
            connection.execute("commit")
        except BaseException:
            if connection.in_transaction:
                connection.execute("rollback")
            raise
        return touch

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("pragma journal_mode = wal")
            connection.execute("pragma synchronous = normal")
            connection.executescript(_SCHEMA)
            status = os.stat(self._path)
            self._inode = status.st_ino
            if os.geteuid() == 0 and status.st_uid == 0:  # a command of the administrator: the workers run as somebody else
                owner = os.stat(self._path.parent)
                os.chown(self._path, owner.st_uid, owner.st_gid)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _sweep(self, connection: sqlite3.Connection, now_s: float) -> None:
        """Drop what is over, a bounded number at a time."""
        times = self._times
        self._sweep_at = now_s + SWEEP_S
        connection.execute(
            "delete from triplet where key in (select key from triplet where case when passed_s > 0 then passed_s < ? "
            "else first_s < ? end limit ?)",
            (now_s - times.lifetime_s, now_s - times.retry_window_s, SWEEP_ROWS),
        )
        connection.execute(
            "delete from client where key in (select key from client where seen_s < ? limit ?)",
            (now_s - times.lifetime_s, SWEEP_ROWS),
        )

    def _set_aside(self, error: sqlite3.DatabaseError) -> None:
        """Begin anew beside a damaged file, unless another worker did so already."""
        is_opened = self._connection is not None
        self._close()
        if not is_opened or os.stat(self._path).st_ino == self._inode:
            aside = self._path.with_name(self._path.name + ".broken")
            os.replace(self._path, aside)
            for tail in ("-wal", "-shm"):
                self._path.with_name(self._path.name + tail).unlink(missing_ok=True)
            self._warn(f"greylist: {self._path} is damaged ({error}), begun anew; the old one is {aside.name}")

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
