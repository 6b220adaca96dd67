"""Opens the spool of a worker (after the fork: threads and connections don't survive one)."""

from __future__ import annotations

import os
import sqlite3
from queue import SimpleQueue

from smtpd.errors import SpoolError, SpoolFullError, StartupError
from smtpd.net.files import FilesThread
from smtpd.net.loop import Loop
from smtpd.settings.gateway import SpoolSettings
from smtpd.spool import lock, schema
from smtpd.spool.adoption import Adopter
from smtpd.spool.base import Spool, SpoolLog
from smtpd.spool.database import failure_of
from smtpd.spool.discard import DiscardSpool
from smtpd.spool.observers import SpoolObservers
from smtpd.spool.shard import Shard, ShardThread
from smtpd.spool.space import SpaceWatch
from smtpd.spool.sqlite import SqliteSpool

_NOBODY = SpoolObservers()


def open_spool(
    loop: Loop,
    files: FilesThread,
    settings: SpoolSettings,
    node: int,
    log: SpoolLog,
    *,
    observers: SpoolObservers = _NOBODY,
    slot: int = 0,
    memory_budget_bytes: int = 32 << 20,
    pragmas: schema.Pragmas = schema.DEFAULT_PRAGMAS,
) -> Spool:
    """Return the spool that `settings` describe; the caller calls `end_turn` at the end of every loop turn.

    Blocks while the shard is opened. Raises StartupError (EX_NOPERM, EX_CANTCREAT, EX_TEMPFAIL) with one clear line.
    `slot` tells workers of the discard engine apart in queue ids; `memory_budget_bytes` is for arriving bodies.
    """
    if settings.engine == "discard":
        return DiscardSpool(node, slot)
    make_spool_directory(settings.path)
    spool = SqliteSpool(loop, files, settings, node, log, memory_budget_bytes)
    thread = ShardThread(settings.path, loop.post, spool, observers.commit, pragmas)
    adopter = Adopter(settings.path, pragmas, lambda level, text: loop.post(spool.on_report, level, text))
    answer: SimpleQueue[Shard | BaseException] = SimpleQueue()

    def take_own() -> None:
        try:
            shard = adopter.take_own()
            thread.add(shard)
            answer.put(shard)
        except BaseException as error:  # noqa: BLE001 - handed to the one who waits
            thread.stop()
            answer.put(error)

    thread.call(take_own)
    thread.start()
    active = answer.get()
    if isinstance(active, BaseException):
        thread.join()
        if isinstance(active, SpoolError):
            code = os.EX_TEMPFAIL if isinstance(active, SpoolFullError) else os.EX_CANTCREAT
            raise StartupError(f"spool: {active}", code) from active
        raise active
    space = SpaceWatch(loop, files, settings, lambda: spool.reusable_bytes, observers.space)
    spool.start(thread, adopter, active, space)
    log.info("spool", f"shard {active.number:04d}, {active.count} mails, SQLite {sqlite3.sqlite_version}")
    return spool


def make_spool_directory(path: str) -> None:
    """Make the spool's directories (0700) if they are missing; raises StartupError. The path itself may be a symlink."""
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        found = os.stat(path)
        if os.geteuid() not in (found.st_uid, 0) or found.st_mode & 0o022:
            raise StartupError(f"spool: {path} belongs to another user or can be written by others", os.EX_NOPERM)
        lock.make_directory(os.path.join(path, lock.SHARDS))
        lock.sync_directory(os.path.realpath(path))
    except PermissionError as error:
        raise StartupError(f"spool: {error}", os.EX_NOPERM) from None
    except (OSError, SpoolError) as error:
        raise StartupError(f"spool: {failure_of(error, path)}", os.EX_CANTCREAT) from None
