"""What the queue commands ask of a shard: bounded pages of mail, one mail, totals; and shards of a stopped server.

The functions that take a connection are short reads: the shard thread runs them between commits (Spool.query), the command
line runs them itself on a shard that nobody owns. Raises sqlite3.Error, and SpoolError when a stopped shard can't be opened.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec

from smtpd.mail.envelope import Envelope, decode_envelope
from smtpd.mail.outcome import Outcome, decode_outcomes
from smtpd.spool import lock
from smtpd.spool.database import ShardDatabase, failure_of
from smtpd.spool.shard import FAILURES

ACTIVE, DEFERRED, HELD = "active", "deferred", "held"
STATES = (ACTIVE, DEFERRED, HELD)

_COLUMNS = "SELECT id, due, held, attempts, size, spilled, queue_id, envelope, outcomes FROM mail"


class QueuedMail(msgspec.Struct, frozen=True):
    """One line of a listing. `due_s` is the Unix time of the next attempt, None while leased, fresh or held.

    `spill_name` is the file of a large body in the directory `spill` of its shard, "" when the body lies in the
    database. `outcomes` as in SpoolItem.
    """

    row: int
    queue_id: str
    state: str
    size_bytes: int
    attempts: int
    due_s: float | None
    envelope: Envelope
    outcomes: list[Outcome] | None
    spill_name: str


@dataclass(slots=True)
class Totals:
    """Of one page of rows in one state. `oldest_row` is the smallest row number, hence the oldest mail."""

    messages: int = 0
    size_bytes: int = 0
    oldest_row: int = 0


def list_page(connection: sqlite3.Connection, after_row: int, limit: int) -> list[QueuedMail]:
    """Return up to `limit` mails with row numbers above `after_row`, oldest first; fewer than `limit`: that was all."""
    rows = connection.execute(_COLUMNS + " WHERE id > ? ORDER BY id LIMIT ?", (after_row, limit)).fetchall()
    return [_mail_of(row) for row in rows]


def find(connection: sqlite3.Connection, queue_id: str) -> QueuedMail | None:
    """Return one mail. Reads through the table `mail` (about 0.2 s for 200,000): there is no index to pay for."""
    row = connection.execute(_COLUMNS + " WHERE queue_id = ?", (queue_id,)).fetchone()
    return None if row is None else _mail_of(row)


def read_body(connection: sqlite3.Connection, row: int) -> bytes | None:
    """Return a body that lies in the shard (`spill_name` is empty), None when the mail has gone meanwhile."""
    found = connection.execute("SELECT data FROM body WHERE id = ?", (row,)).fetchone()
    return None if found is None else found[0]


def add_totals(connection: sqlite3.Connection, after_row: int, limit: int, totals: dict[str, Totals]) -> int | None:
    """Add the next `limit` rows to `totals` by state; returns the row to go on after, or None at the end."""
    rows = connection.execute(
        "SELECT CASE WHEN held THEN 'held' WHEN due IS NULL OR attempts = 0 THEN 'active' ELSE 'deferred' END,"
        " count(*), sum(size), min(id), max(id)"
        " FROM (SELECT id, due, held, attempts, size FROM mail WHERE id > ? ORDER BY id LIMIT ?) GROUP BY 1",
        (after_row, limit),
    ).fetchall()
    for state, messages, size_bytes, first, _ in rows:
        known = totals.setdefault(state, Totals())
        known.messages += messages
        known.size_bytes += size_bytes
        known.oldest_row = known.oldest_row or first
    seen = sum(row[1] for row in rows)
    return max(row[4] for row in rows) if seen == limit else None


def _mail_of(row: tuple[int, float | None, int, int, int, int, str, bytes, bytes | None]) -> QueuedMail:
    number, due_s, held, attempts, size, spilled, queue_id, envelope, outcomes = row
    if held:
        state = HELD
    else:
        state = ACTIVE if due_s is None or attempts == 0 else DEFERRED
    known = None if outcomes is None else decode_outcomes(outcomes)
    spill_name = queue_id if spilled else ""
    return QueuedMail(number, queue_id, state, size, attempts, due_s, decode_envelope(envelope), known, spill_name)


# --- a stopped server ------------------------------------------------------------------------------------------------


def shard_dirs(spool_path: str) -> list[str]:
    """Return the directories of all shards that have a database, by number."""
    directories = lock.shard_directories(spool_path)
    return [path for path in directories if os.path.lexists(os.path.join(path, lock.DATABASE))]


@contextmanager
def open_stopped_shard(directory: str) -> Iterator[sqlite3.Connection]:
    """Take the lock of a shard that nobody owns and give its connection; raises ShardBusyError (with the owner's pid),
    ShardFormatError or another SpoolError."""
    try:
        held_lock = lock.ShardLock(directory)
    except FAILURES as error:
        raise failure_of(error, directory) from error
    try:
        database = ShardDatabase(directory)
        try:
            yield database.connection
        finally:
            database.abandon()
    except (sqlite3.Error, OSError) as error:
        raise failure_of(error, directory) from error
    finally:
        held_lock.release()
