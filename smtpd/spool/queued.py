"""Mail of a shard as it is listed, and the reads that find it: bounded pages on a connection, by whoever may use that.

The shard thread runs them between commits, the command line on a shard that nobody owns. Raises sqlite3.Error and
msgspec.MsgspecError.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

import msgspec

from smtpd.mail.envelope import Envelope, decode_envelope
from smtpd.mail.outcome import Outcome, decode_outcomes

ACTIVE, DEFERRED, HELD = "active", "deferred", "held"
STATES = (ACTIVE, DEFERRED, HELD)

SPAN_MAILS = 2000  # looked through in one read: about 1 ms without the GIL
_LAST_ROW = (1 << 63) - 1
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


@dataclass(frozen=True, slots=True)
class Narrowing:
    """A condition in SQL that costs less than decoding a mail. Every mail that is wanted meets it; others may meet it too."""

    where: str = ""
    parameters: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """One page of a search: go on after `last_row`, unless `is_last`."""

    mails: list[QueuedMail]
    last_row: int
    is_last: bool


def find_page(connection: sqlite3.Connection, after_row: int, narrowing: Narrowing, limit: int, span: int = SPAN_MAILS) -> Found:
    """Return up to `limit` mails that meet `narrowing` among the next `span` ones behind `after_row`, oldest first."""
    end = connection.execute("SELECT id FROM mail WHERE id > ? ORDER BY id LIMIT 1 OFFSET ?", (after_row, span - 1)).fetchone()
    last_row = _LAST_ROW if end is None else end[0]
    condition = f" AND ({narrowing.where})" if narrowing.where else ""
    rows = connection.execute(
        _COLUMNS + f" WHERE id > ? AND id <= ?{condition} ORDER BY id LIMIT ?",
        (after_row, last_row, *narrowing.parameters, limit),
    ).fetchall()
    mails = [_mail_of(row) for row in rows]
    if len(rows) == limit:
        return Found(mails, rows[-1][0], False)
    return Found(mails, last_row, end is None)


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
