"""Moves the mail of a broken database into its successor, a piece at a time, between commits. Shard thread only.

Reads go through the connection that is still open: after the rollback it sees every commit that was acknowledged, from its own
cache and from the WAL's synced part, and nothing of the batch that failed. A fresh connection would run recovery over the WAL
and might take the failed batch for committed; an `immutable` view would leave the WAL out. The connection is never written.

What is settled meanwhile is noted here, so that it isn't copied; new mail that came with it is written before all else. A crash
before the end copies all of it again: mail may come twice then, never too little. At the end the directory is set aside as
NNNN.broken, never deleted.
"""

from __future__ import annotations

import os
import sqlite3
from typing import Any

from smtpd.spool import lock, schema
from smtpd.spool.batch import Batch
from smtpd.spool.database import ShardDatabase
from smtpd.spool.exchange import Exchange, StoredRow

_ROWS = 64  # of one piece
_PIECE_BYTES = 4 << 20
_COLUMNS = "SELECT id, due, held, attempts, size, spilled, queue_id, envelope, outcomes FROM mail"
_ID, _SIZE, _SPILLED, _QUEUE_ID = 0, 4, 5, 6


class Salvage:
    """`lost` counts rows that could not be read."""

    def __init__(self, database: ShardDatabase, held_lock: lock.ShardLock) -> None:
        self.database = database
        self.lost = 0
        self._lock = held_lock
        self._removed: set[int] = set()
        self._kept: dict[int, tuple[Any, ...]] = {}
        self._new: list[StoredRow] = []
        database.roll_back()
        try:
            database.connection.execute("PRAGMA query_only = 1").fetchall()
        except sqlite3.Error:
            pass  # nothing here writes anyway
        self._ranges = [(1, self._find_last_row())]  # of row numbers still to be copied, the next one last

    def _find_last_row(self) -> int:
        try:
            row = self.database.connection.execute("SELECT max(id) FROM mail").fetchone()
        except sqlite3.Error:
            return max(self.database.next_row - 1, 0)
        return int(row[0] or 0)

    def note(self, batch: Batch) -> None:
        """Remember the settlements of `batch`: they hold for what is still to be copied."""
        self.database.end_leases(batch)
        self._note(batch)
        for exchange in batch.exchanges:
            self._note(exchange)

    def _note(self, settlements: Batch | Exchange) -> None:
        self._removed.update(settlements.removed)
        for at in range(0, len(settlements.kept), schema.KEPT_WIDTH):
            row, due, held, attempts, outcomes = settlements.kept[at : at + schema.KEPT_WIDTH]
            self._kept[row] = (due, held, attempts, outcomes)

    def take_new(self, batch: Batch) -> None:
        """Take over the new mails of settlements that were noted: they must be in the successor before this one is set aside."""
        for exchange in batch.exchanges:
            self._new += exchange.take_mails()

    def copy_some(self, target: ShardDatabase) -> bool:
        """Copy the next piece in one commit; True when all is copied. Raises sqlite3.Error or OSError of the target only."""
        if self._new:
            piece = self._new[:_ROWS]
            self._write(target, [stored for stored in piece if stored[0][_ID] not in self._removed])
            del self._new[: len(piece)]
            return False
        if not self._ranges:
            target.take_over_recovery(self.database)
            return True
        first, last = self._ranges.pop()
        try:
            rows, reached = self._read(first, last)
        except sqlite3.Error:
            if first < last:
                middle = (first + last) // 2
                self._ranges += [(middle + 1, last), (first, middle)]
            else:
                self.lost += 1
            return False
        try:
            self._write(target, rows)
        except BaseException:
            self._ranges.append((first, last))
            raise
        if reached < last:
            self._ranges.append((reached + 1, last))
        return False

    def _read(self, first: int, last: int) -> tuple[list[StoredRow], int]:
        """Return the rows of a piece with their bodies, and the row number up to which that is all."""
        execute = self.database.connection.execute
        found = execute(_COLUMNS + " WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?", (first, last, _ROWS)).fetchall()
        reached = found[-1][_ID] if len(found) == _ROWS else last
        rows: list[StoredRow] = []
        size = 0
        for row in found:
            body = None
            if row[_ID] not in self._removed:
                if not row[_SPILLED]:
                    body = self.database.read_body(row[_ID])
                    if body is None or len(body) != row[_SIZE]:
                        raise sqlite3.DatabaseError("a body is missing or cut")
                    size += len(body)
                rows.append((row, body))
            if size > _PIECE_BYTES:
                reached = row[_ID]
                break
        return rows, reached

    def _write(self, target: ShardDatabase, rows: list[StoredRow]) -> None:
        if not rows:
            return
        for row, _ in rows:
            if row[_SPILLED]:
                self._link_spill_file(target, row[_QUEUE_ID])
        if any(row[_SPILLED] for row, _ in rows):
            lock.sync_directory(target.spill_directory)
        execute = target.connection.execute
        try:
            execute("BEGIN IMMEDIATE")
            for row, body in rows:
                kept = self._kept.get(row[_ID])
                if kept is not None:
                    due, held, attempts, outcomes = kept
                    row = (row[_ID], due, held, attempts, *row[_SIZE:-1], outcomes)
                execute(schema.COPY_MAIL, row)
                if body is not None:
                    execute(schema.insert_body(1), (row[_ID], body))
            execute("COMMIT")
        except BaseException:
            target.roll_back()
            raise
        target.add_to_wal(sum(len(body) if body is not None else 0 for _, body in rows), len(rows))

    def _link_spill_file(self, target: ShardDatabase, queue_id: str) -> None:
        try:
            os.link(
                os.path.join(self.database.spill_directory, queue_id),
                os.path.join(target.spill_directory, queue_id),
                follow_symlinks=False,
            )
        except FileExistsError:
            pass  # an attempt before this one
        except FileNotFoundError:
            pass  # the mail is shown without its body, and held when it is tried

    def finish(self) -> list[str]:
        """Close the broken database and set its directory aside; returns what went wrong or was lost, for the log."""
        texts = []
        directory = self.database.directory
        if self.lost:
            texts.append(f"{directory}: {self.lost} mails could not be read; they are left in {directory}.broken")
        self.database.abandon()
        try:
            os.rename(directory, directory + ".broken")
            lock.sync_directory(os.path.dirname(directory))
        except OSError as error:
            texts.append(f"{directory} could not be renamed ({error}); remove it, or its mail is delivered again")
        self._lock.release()
        return texts

    def leave(self) -> None:
        """Give up before the end: the broken shard stays as it is and is found again by the next start."""
        self.database.abandon()
        self._lock.release()
