"""The database of one shard: the only connection to it, its group commit, its checkpoints. Used on one thread only.

Never decides what a failure means for the shard: sqlite3.Error goes up, `failure_of` gives it its name. A transaction that
failed is rolled back. Closing never checkpoints by itself, so that a broken shard can be closed without being written.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from smtpd.errors import ShardBrokenError, ShardFormatError, SpoolError, SpoolFullError
from smtpd.spool import lock, schema
from smtpd.spool._group import connect
from smtpd.spool.batch import Batch, Claim, ClaimedRow
from smtpd.spool.change import Change
from smtpd.spool.exchange import Exchange, join
from smtpd.spool.queued import HELD, QueuedMail

FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FIXED_WAL_BYTES = 4 * 4096  # of one commit: inner pages, index, freelist, pointer map
_ROW_WAL_BYTES = 1000  # of one mail beside its body, inserted or deleted


def failure_of(error: Exception, directory: str) -> SpoolError:
    """Return the SpoolError that stands for `error`; ShardBrokenError means that the shard must not be written again."""
    if isinstance(error, SpoolError):
        return error
    if isinstance(error, OSError):
        kind = SpoolFullError if error.errno in FULL_ERRNOS else SpoolError
        return kind(f"{directory}: {error}")
    code = getattr(error, "sqlite_errorcode", 0)
    text = f"{directory}: {error} ({getattr(error, 'sqlite_errorname', type(error).__name__)})"
    if code & 0xFF == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR_WRITE and _is_out_of_space(directory)):
        return SpoolFullError(text)
    if code & 0xFF in (sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_INTERRUPT):
        return SpoolError(text)
    return ShardBrokenError(text)


def _is_out_of_space(directory: str) -> bool:
    """Whether a write fails for a quota or a file size limit, which SQLite reports like a broken disk.

    A failed write, unlike a failed fsync, leaves nothing in doubt: what it wrote lies behind the end of the log.
    """
    path = os.path.join(directory, "probe")
    at = 0
    for name in (lock.DATABASE, lock.DATABASE + "-wal"):
        try:
            at = max(at, os.stat(os.path.join(directory, name)).st_size)
        except OSError:
            pass
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(fd, bytes(1 << 16), at)
            os.fsync(fd)
        finally:
            os.close(fd)
            os.unlink(path)
    except OSError as error:
        return error.errno in FULL_ERRNOS
    return False


class ShardDatabase:
    """`mail.db` in the directory of a shard whose lock the caller holds.

    `count` is the state at opening; `next_row`, `next_due_s`, `has_recovered` and `free_pages` are kept up to date.
    """

    def __init__(self, directory: str, pragmas: schema.Pragmas = schema.DEFAULT_PRAGMAS) -> None:
        """Open or make the database; raises ShardFormatError, OSError or sqlite3.Error."""
        self.directory = directory
        self.spill_directory = os.path.join(directory, lock.SPILL)
        self.pragmas = pragmas
        lock.make_directory(self.spill_directory)
        path = os.path.join(directory, lock.DATABASE)
        is_new = not lock.check_file(path)
        lock.check_file(path + "-wal")
        if is_new:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        self.connection, self._writer = connect(path)
        try:
            # before anything is read, so that the WAL's index lies in memory and nobody else gets in
            self.connection.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()
            is_new = self._check_format()
            self._configure(is_new)
            if is_new:
                self._make_tables()
            self._load_state()
        except BaseException:
            self.abandon()
            raise
        lock.sync_directory(directory)
        self._estimated_wal_bytes = float(pragmas.wal_bytes)  # what a crash left is checkpointed soon
        self._is_wal_known = False
        self._wal_factor = 1.2

    def _configure(self, is_new: bool) -> None:
        connection = self.connection
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, True)
        pragmas = self.pragmas
        if is_new:  # to say it again would write, even where it is so
            connection.execute(f"PRAGMA page_size = {pragmas.page_bytes}")
            connection.execute(f"PRAGMA auto_vacuum = {'INCREMENTAL' if pragmas.is_incremental else 'NONE'}")
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",
            "wal_autocheckpoint = 0",
            "secure_delete = 0",  # Debian's default writes each freed page once more
            f"cache_size = -{pragmas.cache_kib}",
            "temp_store = MEMORY",
            "trusted_schema = OFF",
            "cell_size_check = ON",
        ):
            connection.execute("PRAGMA " + pragma).fetchall()

    def _check_format(self) -> bool:
        """Whether there are no tables yet; a strange database is refused before anything of it could change."""
        if self._number("PRAGMA user_version") == 0 and self._number("SELECT count(*) FROM sqlite_schema") == 0:
            return True
        if self._number("PRAGMA application_id") != schema.APPLICATION_ID:
            raise ShardFormatError(f"{self.directory}: {lock.DATABASE} is not a mail shard; it is left alone")
        version = self._number("PRAGMA user_version")
        if version != schema.FORMAT:
            raise ShardFormatError(
                f"{self.directory}: format {version} is newer than this program's {schema.FORMAT}; it is left alone"
            )
        return False

    def _make_tables(self) -> None:
        execute = self.connection.execute
        execute("BEGIN IMMEDIATE")
        for statement in schema.TABLES:
            execute(statement)
        execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        execute(f"PRAGMA user_version = {schema.FORMAT}")
        execute("COMMIT")

    def _load_state(self) -> None:
        self.page_bytes = self._number("PRAGMA page_size")
        self.free_pages = self._number("PRAGMA freelist_count")
        self.is_damaged = False
        self.count = 0
        self.next_due_s: float | None = None
        last_row = self._number("SELECT max(id) FROM mail")
        self.next_row = last_row + 1
        self.ceiling_us = self._number(schema.GET_META, ["ceiling_us"])
        try:
            self.count = self._number("SELECT count(*) FROM mail")
            self._load_next_due()
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_CORRUPT:
                raise
            self.is_damaged = True  # what can still be read is worth a new shard
        self._recovered_upto = last_row if self.count or self.is_damaged else 0  # NULL in `due` up to here: nobody's lease
        self._recovered_from = 0
        self._leased_early: set[int] = set()
        self._leased_held: frozenset[int] = frozenset()  # held mail that is handed out: its row doesn't tell

    @property
    def has_recovered(self) -> bool:
        """Whether there may be mail without a due time that a process before us had leased."""
        return self._recovered_upto > 0

    def _number(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        row = self.connection.execute(sql, parameters).fetchone()
        return int(row[0]) if row and row[0] is not None else 0

    def _load_next_due(self) -> None:
        row = self.connection.execute("SELECT min(due) FROM mail WHERE due IS NOT NULL").fetchone()
        self.next_due_s = row[0]

    # --- the group commit --------------------------------------------------------------------------------------------

    def commit(self, batch: Batch) -> None:
        """Make the whole batch durable, or nothing of it; raises sqlite3.Error."""
        if self._writer is not None and batch.is_ordinary:
            try:
                self._writer.write(batch.mails, batch.bodies, batch.removed)
            except BaseException:
                self.roll_back()
                raise
            self.end_leases(batch)
            self._note_commit(batch)
        else:
            self._commit_by_parts(batch)

    def _commit_by_parts(self, batch: Batch) -> None:
        connection = self.connection
        execute = connection.execute
        before = (self._recovered_from, self._recovered_upto, self._leased_held)
        try:
            execute("BEGIN IMMEDIATE")
            if batch.mails:
                self._insert(batch)
            if batch.removed:
                self._run(schema.delete_mail, batch.removed, 1)
            if batch.removed_files:
                self._run(schema.insert_unlinked, batch.removed_files, 1)
            if batch.gone_files:
                self._run(schema.delete_unlinked, batch.gone_files, 1)
            if batch.kept:
                self._run(schema.update_mail, batch.kept, schema.KEPT_WIDTH)
            if batch.exchanges:
                self._exchange(join(batch.exchanges))
            self.end_leases(batch)
            for change in batch.changes:
                self._change(change)
            for claim in batch.claims:
                self._claim(claim)
            if batch.ceiling_us:
                execute(schema.SET_META, ("ceiling_us", batch.ceiling_us))
            execute("COMMIT")
        except BaseException:
            self._recovered_from, self._recovered_upto, self._leased_held = before
            for change in batch.changes:
                self._leased_early.difference_update(change.leased_rows)
                change.forget()
            self.roll_back()
            raise
        self._note_commit(batch)

    def _note_commit(self, batch: Batch) -> None:
        rows = len(batch.mails) // schema.MAIL_WIDTH + len(batch.removed) + len(batch.kept) // schema.KEPT_WIDTH
        rows += sum(len(change.changed) for change in batch.changes)
        self.add_to_wal(
            batch.body_bytes + sum(exchange.body_bytes for exchange in batch.exchanges),
            rows + sum(exchange.rows for exchange in batch.exchanges),
        )
        for mails in (batch.mails, *(exchange.mails for exchange in batch.exchanges)):
            if mails:
                self.next_row = max(self.next_row, mails[-schema.MAIL_WIDTH] + 1)
        if batch.kept or batch.exchanges or batch.changes or batch.claims:
            self._load_next_due()

    def _insert(self, batch: Batch | Exchange) -> None:
        self._run(schema.insert_mail, batch.mails, schema.MAIL_WIDTH)
        self._run(schema.insert_body, batch.bodies, schema.BODY_WIDTH)

    def _exchange(self, exchange: Exchange) -> None:
        self._run(schema.delete_mail, exchange.removed, 1)
        self._run(schema.insert_unlinked, exchange.removed_files, 1)
        self._run(schema.update_mail, exchange.kept, schema.KEPT_WIDTH)
        self._insert(exchange)

    def take_over_recovery(self, older: ShardDatabase) -> None:
        """Go on with what `older`, whose rows are all here now, had still to hand out; counts anew."""
        self.count = self._number("SELECT count(*) FROM mail")
        self._recovered_from, self._recovered_upto = older._recovered_from, older._recovered_upto
        self._leased_early |= older._leased_early
        self._leased_held |= older._leased_held
        self._load_next_due()

    def roll_back(self) -> None:
        """End a transaction that failed; harmless when SQLite has done it already, or the connection is closed."""
        try:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
        except sqlite3.Error:
            pass  # the failure that led here is the one to be told

    def _run(self, statement: Callable[[int], str], parameters: list[Any], width: int) -> None:
        rows = len(parameters) // width
        if rows <= schema.MAX_ROWS:
            if rows:
                self.connection.execute(statement(rows), parameters)
            return
        step = schema.MAX_ROWS * width
        for start in range(0, len(parameters), step):
            piece = parameters[start : start + step]
            self.connection.execute(statement(len(piece) // width), piece)

    def _claim(self, claim: Claim) -> None:
        execute = self.connection.execute
        columns = schema.CLAIM_COLUMNS
        limit = claim.limit
        due_limit = max(1, limit // 2) if self._recovered_upto else limit
        rows: list[ClaimedRow] = execute(
            columns + " WHERE due <= ? AND due >= ? ORDER BY due LIMIT ?", (claim.now_s, claim.not_before_s, due_limit)
        ).fetchall()
        if rows:
            ids = [row[0] for row in rows]
            self._run(schema.lease_mail, ids, 1)
            if self._recovered_upto:
                self._leased_early.update(ids)
        if self._recovered_upto and len(rows) < limit:
            found = execute(
                columns + " WHERE id > ? AND id <= ? AND due IS NULL AND held = 0 ORDER BY id LIMIT ?",
                (self._recovered_from, self._recovered_upto, limit - len(rows)),
            ).fetchall()
            rows += [row for row in found if row[0] not in self._leased_early]
            if found:
                self._recovered_from = found[-1][0]
            else:
                self._recovered_upto = 0
                self._leased_early.clear()
        claim.rows = rows

    def _change(self, change: Change) -> None:
        """Find the mails that a queue command speaks of and change those that nobody has leased."""
        change.find(self.connection, self._is_leased)
        self._run(schema.delete_mail, change.deleted_rows, 1)
        self._run(schema.insert_unlinked, change.unlinks, 1)
        self._run(schema.update_mail, change.kept, schema.KEPT_WIDTH)
        if self._recovered_upto:
            self._leased_early.update(change.leased_rows)
        if change.leased_held_rows:
            self._leased_held = self._leased_held.union(change.leased_held_rows)

    def end_leases(self, settlements: Batch) -> None:
        """Held mail that was handed out is settled."""
        if self._leased_held:
            parts: list[Batch | Exchange] = [settlements, *settlements.exchanges]
            for settled in parts:
                self._leased_held = self._leased_held.difference(settled.removed, settled.kept[:: schema.KEPT_WIDTH])

    def _is_leased(self, mail: QueuedMail) -> bool:
        """Whether the process has handed this mail out: it has no due time, and that not from a process before."""
        row = mail.row
        if mail.state == HELD:
            return row in self._leased_held
        if mail.due_s is not None:
            return False
        return not (self._recovered_from < row <= self._recovered_upto) or row in self._leased_early

    def add_to_wal(self, body_bytes: int, rows: int) -> None:
        """Estimate what a commit of so many rows wrote to the WAL; SQLite tells the truth only at a checkpoint."""
        self._estimated_wal_bytes += body_bytes + rows * _ROW_WAL_BYTES + _FIXED_WAL_BYTES

    # --- between commits ---------------------------------------------------------------------------------------------

    @property
    def is_checkpoint_due(self) -> bool:
        return self._estimated_wal_bytes * self._wal_factor >= self.pragmas.wal_bytes

    def checkpoint(self) -> None:
        """Copy the WAL into the database (PASSIVE; the next commit then starts the WAL anew); raises sqlite3.Error."""
        _, log_frames, _ = self.connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        estimated = self._estimated_wal_bytes
        if self._is_wal_known and estimated > 1 << 20:
            seen = log_frames * (self.page_bytes + 24) / estimated
            self._wal_factor = min(8.0, max(0.8, seen))  # what was removed at once costs less than was guessed
        self._estimated_wal_bytes = 0.0
        self._is_wal_known = True
        self.count_free_pages()

    def count_free_pages(self) -> None:
        """Bring `free_pages` up to date: a number in the file's header."""
        self.free_pages = self._number("PRAGMA freelist_count")

    def give_back(self, pages: int) -> None:
        """Move up to `pages` pages from the end of the file into free ones and cut it, in one commit; raises sqlite3.Error.

        The file itself gets shorter at the next checkpoint.
        """
        self.connection.executescript(f"PRAGMA incremental_vacuum({pages})")
        self._estimated_wal_bytes += pages * self.page_bytes / 4  # most are only cut off
        self.count_free_pages()

    def read_body(self, row: int) -> bytes | None:
        """Return a body that lies in the database, None if the mail isn't there; raises sqlite3.Error."""
        found = self.connection.execute("SELECT data FROM body WHERE id = ?", (row,)).fetchone()
        return None if found is None else found[0]

    def close(self, ceiling_us: int = 0) -> None:
        """Store the ceiling of queue ids (0: as it is), checkpoint and close; raises sqlite3.Error, closed all the same."""
        try:
            if ceiling_us:
                self.connection.execute(schema.SET_META, ("ceiling_us", ceiling_us))
            self.connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close without writing anything: for a broken shard."""
        if self._writer is not None:
            self._writer.close()
        self.connection.close()
