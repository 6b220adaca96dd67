"""What the queue commands ask of a shard, and how they get at the shards of a stopped server.

Raises SpoolError when a stopped shard can't be opened.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from smtpd.spool import lock
from smtpd.spool.database import ShardDatabase, failure_of
from smtpd.spool.queued import (
    ACTIVE,
    DEFERRED,
    HELD,
    STATES,
    Found,
    Narrowing,
    QueuedMail,
    Totals,
    add_totals,
    find,
    find_page,
    list_page,
    read_body,
)
from smtpd.spool.shard import FAILURES

__all__ = [
    "ACTIVE", "DEFERRED", "HELD", "STATES", "Found", "Narrowing", "QueuedMail", "Totals", "add_totals", "find", "find_page",
    "list_page", "open_stopped_shard", "read_body", "shard_dirs",
]  # fmt: skip


def shard_dirs(spool_path: str) -> list[str]:
    """Return the directories of all shards that have a database, by number."""
    directories = lock.shard_directories(spool_path)
    return [path for path in directories if os.path.lexists(os.path.join(path, lock.DATABASE))]


@contextmanager
def open_stopped_shard(directory: str) -> Iterator[ShardDatabase]:
    """Take the lock of a shard that nobody owns and give its database; raises ShardBusyError (with the owner's pid),
    ShardFormatError or another SpoolError."""
    try:
        held_lock = lock.ShardLock(directory)
    except FAILURES as error:
        raise failure_of(error, directory) from error
    try:
        database = ShardDatabase(directory)
        try:
            yield database
        finally:
            database.abandon()
    except (sqlite3.Error, OSError) as error:
        raise failure_of(error, directory) from error
    finally:
        held_lock.release()
