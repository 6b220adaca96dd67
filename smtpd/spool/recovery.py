"""What the start of a shard does about spill files, on the shard thread: the rest of recovery is SQLite's own.

`.part` files were never acknowledged and go; files whose mail is known to be gone (table `unlinked`) go; a whole file that no row
names is moved to `lost/`, since it might be mail; a row without its file is held, with the reason as outcome.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time

from smtpd.errors import SpoolError
from smtpd.mail.envelope import decode_envelope
from smtpd.mail.outcome import DEFERRED, Outcome, encode_outcomes
from smtpd.spool import lock
from smtpd.spool.database import ShardDatabase
from smtpd.spool.spill import PART

_MISSING = "the file with the message was missing in the spool"


def recover_spill_files(database: ShardDatabase) -> list[str]:
    """Bring rows and files together; returns lines for the log. A disk that can't be written leaves it to the next start."""
    try:
        return _recover(database)
    except (OSError, sqlite3.Error, SpoolError) as error:
        database.roll_back()
        return [f"{database.directory}: spill files not looked through: {error}"]


def _recover(database: ShardDatabase) -> list[str]:
    texts: list[str] = []
    connection = database.connection
    directory = database.spill_directory
    wanted = {queue_id: row for row, queue_id in connection.execute("SELECT id, queue_id FROM mail WHERE spilled = 1").fetchall()}
    unlinked = {name for (name,) in connection.execute("SELECT queue_id FROM unlinked").fetchall()}
    for name in sorted(os.listdir(directory)):
        path = os.path.join(directory, name)
        found = os.lstat(path)
        if not stat.S_ISREG(found.st_mode):
            texts.append(f"{path} is not a plain file; it is left alone")
        elif name in wanted:
            del wanted[name]
        elif name in unlinked or name.endswith(PART):
            os.unlink(path)
        else:
            lost = os.path.join(database.directory, lock.LOST)
            lock.make_directory(lost)
            os.rename(path, os.path.join(lost, name))
            texts.append(f"{path} belongs to no mail; it is kept in {lost}")
    if unlinked or wanted:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM unlinked")
        for queue_id, row in wanted.items():
            if _hold(database, row):
                texts.append(f"{database.directory}: {queue_id} is held: {_MISSING}")
        connection.execute("COMMIT")
    return texts


def _hold(database: ShardDatabase, row: int) -> bool:
    connection = database.connection
    held, blob = connection.execute("SELECT held, envelope FROM mail WHERE id = ?", (row,)).fetchone()
    if held:
        return False
    outcome = Outcome(status=DEFERRED, dsn="4.3.0", text=_MISSING, at_s=time.time())
    outcomes = [outcome] * len(decode_envelope(blob).recipients)
    connection.execute("UPDATE mail SET held = 1, due = NULL, outcomes = ? WHERE id = ?", (encode_outcomes(outcomes), row))
    return True
