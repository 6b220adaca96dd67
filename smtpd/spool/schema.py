"""The tables of one shard and the statements on them; no connection, no thread.

Two tables: `mail` is what lists and schedules, `body` what is sent on, so that a listing never walks over bodies. Deleting a
mail deletes its body by a trigger: one statement, one step without the GIL. `due` is NULL while a process holds the lease
(fresh mail never enters the index); a start takes every NULL for due. Figures: docs/decisions/spool-layout.md.

Every statement here takes many rows at once: each step of Python's sqlite3 gives the GIL up. An ordinary group of mails that come
and go is written by `_group` instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

APPLICATION_ID = 0x736D7470  # "smtp": what `file` shows, and what tells our databases from others
FORMAT = 1
MAX_ROWS = 64  # of one statement; a larger group takes several. One is kept prepared for each number: 4 MB in all
MAIL_WIDTH = 5  # parameters of one mail in an insert
BODY_WIDTH = 2
KEPT_WIDTH = 5

CLAIM_COLUMNS = "SELECT id, size, spilled, attempts, queue_id, envelope, outcomes FROM mail"


@dataclass(frozen=True, slots=True)
class Pragmas:
    """What the study varies; the defaults are what was decided."""

    page_bytes: int = 4096
    cache_kib: int = 8192
    is_incremental: bool = True  # auto_vacuum: freed pages can be given back step by step
    wal_bytes: int = 16 << 20  # checkpoint when about this much was written to the WAL


DEFAULT_PRAGMAS = Pragmas()

TABLES = (
    """CREATE TABLE mail (
        id INTEGER PRIMARY KEY,            -- ascending in order of arrival, given by the owner of the shard
        due REAL,                          -- Unix time of the next attempt; NULL: leased, fresh or held
        held INTEGER NOT NULL DEFAULT 0,
        attempts INTEGER NOT NULL DEFAULT 0,
        size INTEGER NOT NULL,             -- octets of the body
        spilled INTEGER NOT NULL,          -- 1: the body is the file spill/<queue_id>
        queue_id TEXT NOT NULL,
        envelope BLOB NOT NULL,            -- smtpd.mail.envelope
        outcomes BLOB                      -- smtpd.mail.outcome; NULL: no attempt left anything to say
    )""",
    "CREATE TABLE body (id INTEGER PRIMARY KEY, data BLOB NOT NULL)",
    "CREATE INDEX mail_due ON mail (due) WHERE due IS NOT NULL",
    "CREATE INDEX mail_spilled ON mail (queue_id) WHERE spilled = 1",
    "CREATE TRIGGER mail_gone AFTER DELETE ON mail BEGIN DELETE FROM body WHERE id = OLD.id; END",
    # names of spill files whose mail is gone; the name goes when the file has gone
    "CREATE TABLE unlinked (queue_id TEXT PRIMARY KEY) WITHOUT ROWID",
    # ceiling_us: queue ids up to this clock value may have been used
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
)


def _rows(width: int, rows: int) -> str:
    return ",".join(["(" + ",".join("?" * width) + ")"] * rows)


@cache
def insert_mail(rows: int) -> str:
    """Parameters of each row: id, size, spilled, queue_id, envelope."""
    return "INSERT INTO mail (id, size, spilled, queue_id, envelope) VALUES " + _rows(MAIL_WIDTH, rows)


@cache
def insert_body(rows: int) -> str:
    """Parameters of each row: id, data."""
    return "INSERT INTO body (id, data) VALUES " + _rows(BODY_WIDTH, rows)


@cache
def delete_mail(rows: int) -> str:
    """Parameters: ids."""
    return f"DELETE FROM mail WHERE id IN ({','.join('?' * rows)})"


@cache
def update_mail(rows: int) -> str:
    """Parameters of each row: id, due, held, attempts, outcomes."""
    return (
        "UPDATE mail SET due = new.column2, held = new.column3, attempts = new.column4, outcomes = new.column5"
        f" FROM (VALUES {_rows(KEPT_WIDTH, rows)}) AS new WHERE mail.id = new.column1"
    )


@cache
def lease_mail(rows: int) -> str:
    """Parameters: ids."""
    return f"UPDATE mail SET due = NULL WHERE id IN ({','.join('?' * rows)})"


@cache
def insert_unlinked(rows: int) -> str:
    """Parameters: queue ids."""
    return "INSERT OR IGNORE INTO unlinked VALUES " + _rows(1, rows)


@cache
def delete_unlinked(rows: int) -> str:
    """Parameters: queue ids."""
    return f"DELETE FROM unlinked WHERE queue_id IN ({','.join('?' * rows)})"


COPY_MAIL = (
    "INSERT INTO mail (id, due, held, attempts, size, spilled, queue_id, envelope, outcomes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
SET_META = "INSERT INTO meta VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
GET_META = "SELECT value FROM meta WHERE name = ?"
