"""The shard thread: group commits, reads, checkpoints, and what becomes of a shard that broke.

One thread serves all shards of the process, the active one and adopted ones; each has exactly one connection, which only
this thread touches. Work comes as messages of batches; what gathered while a commit ran goes into the next one. The
results of a group go back with one post. Python here is short: it takes the GIL from the loop.

An I/O error in commit or checkpoint ends the shard's database for ever (after a failed fsync the page cache no longer tells
the truth): a successor with the same row numbers takes its place under the same `Shard`, and salvage.py fills it.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Protocol

from smtpd.errors import ShardBrokenError, ShardClosedError, SpoolError, SpoolFullError
from smtpd.spool import lock, schema
from smtpd.spool.batch import Batch, Claim, Read
from smtpd.spool.change import Change
from smtpd.spool.database import ShardDatabase, failure_of
from smtpd.spool.salvage import Salvage
from smtpd.spool.shrink import Shrinker

FAILURES = (sqlite3.Error, OSError, SpoolError)
_MAX_GROUP_MAILS = 1024
_MAX_GROUP_BYTES = 16 << 20
_RETRY_S = 1.0  # between attempts to get on after a full or broken disk
_PIECE_ROWS = 32  # of settlements on a full disk
_FINISH_S = 15.0  # for a copy in progress when the process ends; what is left is copied anew by the next start
_FREE_LOOK_S = 0.5  # how soon after a removal free pages are counted


class Shard:
    """One shard of this process. The first group of attributes belongs to the loop thread, the second to the shard thread."""

    def __init__(self, database: ShardDatabase, held_lock: lock.ShardLock) -> None:
        self.number = lock.shard_number(database.directory)
        self.spill_directory = database.spill_directory
        self.count = database.count
        self.next_row = database.next_row
        self.next_due_s = database.next_due_s
        self.has_recovered = database.has_recovered
        self.ceiling_us = database.ceiling_us  # queue ids up to here may be in use
        self.batch: Batch | None = None

        self.database: ShardDatabase | None = database
        self.lock = held_lock
        self.is_closed = False
        self.salvages: list[Salvage] = []
        self.retained: Batch | None = None  # settlements that found no room on the disk
        self.shrinker = Shrinker()
        self.look_at_s = 0.0  # when free pages are to be counted again, 0: not needed
        self.free_bytes = database.free_pages * database.page_bytes  # read by the loop thread

    @property
    def brings_new(self) -> bool:
        """Whether retained settlements have new mail: it must be stored before a broken database is set aside."""
        return self.retained is not None and any(exchange.mails for exchange in self.retained.exchanges)


class ShardOwner(Protocol):
    """What the thread reports; every method runs on the loop thread."""

    def on_group(self, shard: Shard, batch: Batch, next_due_s: float | None, has_recovered: bool) -> None:
        """The batch is done: durable unless `batch.error` (which speaks of its inserts only) is set."""

    def on_renewed(self, shard: Shard, number: int, spill_directory: str) -> None:
        """The shard goes on in another directory."""

    def on_salvaged(self, shard: Shard, count: int, next_due_s: float | None, has_recovered: bool) -> None:
        """All mail of a broken database that can be read is in the present one, which holds `count` mails."""

    def on_report(self, level: str, text: str) -> None:
        """Something for the log; level is "info", "warning" or "error"."""

    def on_thread_end(self, error: BaseException) -> None:
        """The thread ended by a fault of the program."""


class ShardThread:
    """`post` is Loop.post. `observe_commit(seconds, inserted, settled)` is called on the shard thread after each commit."""

    def __init__(
        self,
        spool_path: str,
        post: Callable[..., object],
        owner: ShardOwner,
        observe_commit: Callable[[float, int, int], object] | None = None,
        pragmas: schema.Pragmas = schema.DEFAULT_PRAGMAS,
    ) -> None:
        self._path = spool_path
        self._post = post
        self._owner = owner
        self._observe_commit = observe_commit
        self._pragmas = pragmas
        self._turns: SimpleQueue[list[tuple[Shard, Batch]] | Callable[[], object]] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="shard", daemon=True)
        self._is_running = True
        self._retry_at_s = 0.0
        self._short: set[Shard] = set()  # whose last commit failed, for want of room as a rule
        self._shards: list[Shard] = []

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def commit(self, work: list[tuple[Shard, Batch]]) -> None:
        """Take over what has gathered (from the loop thread)."""
        self._turns.put(work)

    def call(self, job: Callable[[], object]) -> None:
        """Run `job()` on the shard thread, in order with the commits; it must not raise (from any thread)."""
        self._turns.put(job)

    # --- on the shard thread -----------------------------------------------------------------------------------------

    def add(self, shard: Shard) -> None:
        """Serve this shard from now on; one that is damaged is salvaged at once."""
        self._shards.append(shard)
        if shard.database is not None and shard.database.is_damaged:
            self._break(shard, ShardBrokenError(f"{shard.database.directory} is corrupted"))

    def remove(self, shard: Shard, ceiling_us: int = 0) -> None:
        """Close a shard and give its lock back; a copy from a broken one is finished first, unless that takes too long."""
        until_s = time.monotonic() + _FINISH_S
        if shard.brings_new:
            self._retry_retained(shard)
        while shard.salvages and shard.database is not None and not shard.brings_new and time.monotonic() < until_s:
            self._retry_at_s = 0.0
            self._copy(shard, shard.salvages[0], shard.database)
            if self._retry_at_s > 0.0:
                break  # no room, and nobody waits for it now
        self._shards.remove(shard)
        shard.is_closed = True
        try:
            if shard.database is not None:
                try:
                    if shard.retained is not None:
                        shard.database.commit(shard.retained)
                finally:
                    shard.database.close(ceiling_us)
        except FAILURES as error:
            self._report("error", f"closing: {failure_of(error, shard.lock.directory)}")
        for salvage in shard.salvages:
            salvage.leave()
        shard.lock.release()
        self._short.discard(shard)

    def remove_all(self) -> None:
        for shard in list(self._shards):
            self.remove(shard)

    def stop(self) -> None:
        """End the thread after this job."""
        self._is_running = False

    def _run(self) -> None:
        try:
            while self._is_running:
                self._serve()
        except BaseException as error:  # noqa: BLE001 - a thread that ends silently would hang every session
            self._post(self._owner.on_thread_end, error)

    def _serve(self) -> None:
        turns = self._turns
        try:
            turn: list[tuple[Shard, Batch]] | Callable[[], object] | None = turns.get(timeout=self._patience_s())
        except Empty:
            self._do_chores()
            return
        groups: dict[Shard, Batch] = {}
        mails = size = 0
        while isinstance(turn, list):
            for shard, batch in turn:
                known = groups.get(shard)
                if known is None:
                    groups[shard] = batch
                else:
                    known.merge(batch)
                mails += len(batch.writers)
                size += batch.body_bytes
            if mails >= _MAX_GROUP_MAILS or size >= _MAX_GROUP_BYTES or turns.empty():
                turn = None
            else:
                turn = turns.get()
        for shard, batch in groups.items():
            self._commit_group(shard, batch)
        if turn is not None:
            turn()
        if time.monotonic() >= self._retry_at_s:
            self._do_chores()

    def _patience_s(self) -> float | None:
        patience_s = None
        for shard in self._shards:
            if shard.salvages and shard.database is not None and self._retry_at_s <= 0.0:
                return 0.0
            if shard.salvages or shard.retained is not None or shard.database is None:
                patience_s = max(0.01, self._retry_at_s - time.monotonic())
            elif shard.shrinker.is_wanted or shard.look_at_s:
                pause_s = shard.shrinker.wait_s(time.monotonic()) if shard.shrinker.is_wanted else _FREE_LOOK_S
                patience_s = pause_s if patience_s is None else min(pause_s, patience_s)
        return patience_s

    def _commit_group(self, shard: Shard, batch: Batch) -> None:
        if shard.is_closed:
            self._refuse_closed(shard, batch)
            return
        database = shard.database
        for salvage in shard.salvages:
            salvage.note(batch)
        if database is None:
            batch.error = ShardBrokenError("the shard is broken and no new one could be made yet")
            shard.salvages[0].take_new(batch)
            for change in batch.changes:
                change.error = batch.error
        elif batch.writes:
            started_s = time.monotonic()
            try:
                settled = len(batch.removed) + len(batch.kept) // schema.KEPT_WIDTH + len(batch.exchanges)
                is_large = settled > _PIECE_ROWS
                if is_large and shard in self._short and not self._checkpoint(shard, database):
                    for salvage in shard.salvages:  # one may have come by it
                        salvage.note(batch)
                    raise SpoolFullError(f"{database.directory}: no room for a checkpoint yet")
                if batch.spill_directory not in ("", database.spill_directory):
                    raise SpoolError("the shard broke after a large mail was written to its spill directory")
                database.commit(batch)
                self._short.discard(shard)
            except FAILURES as error:
                self._short.add(shard)
                self._on_commit_failure(shard, batch, failure_of(error, database.directory))
            if batch.removed and not shard.look_at_s:
                shard.look_at_s = started_s + _FREE_LOOK_S
            if self._observe_commit is not None and batch.error is None:
                settled = len(batch.settled)
                self._observe_commit(time.monotonic() - started_s, len(batch.writers), settled)
        if batch.error is not None:
            for claim in batch.claims:
                claim.error = batch.error
        if batch.reads:
            self._read(shard, batch)
        database = shard.database
        self._post(
            self._owner.on_group,
            shard,
            batch,
            database.next_due_s if database is not None else None,
            database is not None and database.has_recovered,
        )
        if database is not None and database.is_checkpoint_due:
            self._checkpoint(shard, database)

    def _refuse_closed(self, shard: Shard, batch: Batch) -> None:
        """A queue command may still hold a shard that was emptied and released: nothing of it is touched any more."""
        batch.error = ShardClosedError(f"{shard.lock.directory}: the shard was given back")
        asked: list[Change | Claim | Read] = [*batch.changes, *batch.claims, *batch.reads]
        for question in asked:
            question.error = batch.error
        self._post(self._owner.on_group, shard, batch, None, False)

    def _on_commit_failure(self, shard: Shard, batch: Batch, failure: SpoolError) -> None:
        """Settlements never fail: they are noted for the salvage, or kept until the disk has room again."""
        batch.error = failure
        if not isinstance(failure, SpoolFullError) or not self._change_apart(shard, batch.changes):
            for change in batch.changes:
                change.error = failure
        settlements = batch.take_settlements()
        if isinstance(failure, ShardBrokenError):
            self._break(shard, failure, settlements)
            batch.merge_settlements(settlements)
        elif settlements.writes and not self._settle_in_pieces(shard, settlements):
            if shard.retained is None:
                shard.retained = settlements
                self._retry_at_s = time.monotonic() + _RETRY_S
            else:
                shard.retained.merge_settlements(settlements)
        else:
            batch.merge_settlements(settlements)

    def _change_apart(self, shard: Shard, changes: list[Change]) -> bool:
        """Whether what queue commands ask for, which is how room is made by hand, could be done without the rest."""
        apart = Batch()
        apart.changes = changes
        database = shard.database
        if database is None or not changes or not self._checkpoint(shard, database):
            return False
        try:
            database.commit(apart)
        except FAILURES:
            return False
        return True

    def _settle_in_pieces(self, shard: Shard, settlements: Batch) -> bool:
        """Commit a little at a time, within the WAL, which is kept at its size; False: no room even for that.

        A checkpoint comes before each piece: what lies in the WAL may make the database longer, and pieces that were written
        behind it would take the very room for that. Without one a single piece is tried: the WAL may have room for it.
        """
        is_first = True
        while (database := shard.database) is not None and (piece := settlements.first_piece(_PIECE_ROWS)).writes:
            if not self._checkpoint(shard, database):
                if shard.database is not database:
                    break  # it broke: what is left concerns the salvage
                if not is_first:
                    return False
            is_first = False
            for is_last in (False, True):
                try:
                    database.commit(piece)
                except FAILURES as error:
                    failure = failure_of(error, database.directory)
                    if isinstance(failure, ShardBrokenError):
                        self._break(shard, failure, settlements)
                        return True
                    if is_last:
                        return False
                    self._checkpoint(shard, database)  # the WAL is then written from its start again
                    if shard.database is not database:
                        break
                else:
                    settlements.drop_piece(_PIECE_ROWS)
                    break
        for salvage in shard.salvages:
            salvage.note(settlements)
        if shard.salvages:
            shard.salvages[0].take_new(settlements)
        return True

    def _read(self, shard: Shard, batch: Batch) -> None:
        databases = [salvage.database for salvage in shard.salvages]
        if shard.database is not None:
            databases.insert(0, shard.database)
        for read in batch.reads:
            for database in databases:
                try:
                    read.data = database.read_body(read.row)
                except FAILURES as error:
                    read.error = failure_of(error, database.directory)
                if read.data is not None:
                    read.error = None
                    break
            else:
                read.error = read.error or SpoolError(f"{shard.lock.directory}: the body is missing")

    def _checkpoint(self, shard: Shard, database: ShardDatabase) -> bool:
        """False: no room for it; or it broke the shard, which then has another database."""
        try:
            database.checkpoint()
        except FAILURES as error:
            failure = failure_of(error, database.directory)
            if isinstance(failure, ShardBrokenError):
                self._break(shard, failure)
            return False  # a full disk: the WAL goes on, and the next commit tells
        self._note_free(shard, database)
        return True

    def _note_free(self, shard: Shard, database: ShardDatabase) -> None:
        shard.look_at_s = 0.0
        shard.free_bytes = database.free_pages * database.page_bytes
        if self._pragmas.is_incremental:
            shard.shrinker.note_free(shard.free_bytes, time.monotonic())

    # --- what is done between commits --------------------------------------------------------------------------------

    def _do_chores(self) -> None:
        now_s = time.monotonic()
        is_late = now_s >= self._retry_at_s
        self._retry_at_s = 0.0 if is_late else self._retry_at_s
        for shard in list(self._shards):
            if is_late and shard.database is None:
                self._renew(shard)
            if is_late and shard.retained is not None and shard.database is not None:
                self._checkpoint(shard, shard.database)
                self._retry_retained(shard)
            if is_late and shard.salvages and shard.database is not None and not shard.brings_new:
                self._copy(shard, shard.salvages[0], shard.database)
            if shard.look_at_s and now_s >= shard.look_at_s and shard.database is not None:
                shard.database.count_free_pages()
                self._note_free(shard, shard.database)
            if shard.shrinker.is_due(now_s, self._turns.empty()) and shard.database is not None:
                self._give_back(shard, shard.database)

    def _retry_retained(self, shard: Shard) -> None:
        settlements = shard.retained
        if settlements is None or shard.database is None:
            return
        if self._settle_in_pieces(shard, settlements):
            shard.retained = None
            self._commit_group(shard, settlements)
        else:
            self._retry_at_s = time.monotonic() + _RETRY_S

    def _give_back(self, shard: Shard, database: ShardDatabase) -> None:
        started_s = time.monotonic()
        try:
            database.give_back(shard.shrinker.pages)
        except FAILURES as error:
            shard.shrinker.is_wanted = False
            failure = failure_of(error, database.directory)
            if isinstance(failure, ShardBrokenError):
                self._break(shard, failure)
            return
        now_s = time.monotonic()
        shard.shrinker.note_step(now_s - started_s, now_s)
        self._note_free(shard, database)
        if not shard.shrinker.is_wanted:
            self._checkpoint(shard, database)  # only now does the file get shorter
        elif database.is_checkpoint_due:
            self._checkpoint(shard, database)

    def _break(self, shard: Shard, failure: SpoolError, settlements: Batch | None = None) -> None:
        """Never write this database again; go on with a successor, which `settlements` hold for."""
        database = shard.database
        if database is None:
            return
        self._report("error", f"{failure}; this shard is not written any more, its mail is copied to a new one")
        shard.database = None
        shard.shrinker = Shrinker()
        shard.free_bytes = 0
        shard.salvages.append(Salvage(database, shard.lock))
        for noted in (settlements, shard.retained):
            if noted is not None:
                for salvage in shard.salvages:
                    salvage.note(noted)
                shard.salvages[0].take_new(noted)  # the first to be finished
        self._renew(shard)

    def _renew(self, shard: Shard) -> None:
        try:
            directory = lock.new_shard_directory(self._path)
            held_lock = lock.ShardLock(directory)
            try:
                database = ShardDatabase(directory, self._pragmas)
            except BaseException:
                held_lock.release()
                raise
        except FAILURES as error:
            self._report("error", f"no new shard: {failure_of(error, self._path)}")
            self._retry_at_s = time.monotonic() + _RETRY_S
            return
        shard.database = database
        shard.lock = held_lock
        held_lock.sign()
        self._post(self._owner.on_renewed, shard, lock.shard_number(directory), database.spill_directory)

    def _copy(self, shard: Shard, salvage: Salvage, database: ShardDatabase) -> None:
        try:
            is_finished = salvage.copy_some(database)
        except FAILURES as error:
            failure = failure_of(error, database.directory)
            if isinstance(failure, ShardBrokenError):
                self._break(shard, failure)
                return
            if isinstance(failure, SpoolFullError):
                self._checkpoint(shard, database)
            self._report("warning", f"copying a broken shard: {failure}")
            self._retry_at_s = time.monotonic() + _RETRY_S
            return
        if database.is_checkpoint_due:
            self._checkpoint(shard, database)
        if is_finished and shard.database is database:
            shard.salvages.remove(salvage)
            for text in salvage.finish():
                self._report("error", text)
            self._post(self._owner.on_salvaged, shard, database.count, database.next_due_s, database.has_recovered)

    def _report(self, level: str, text: str) -> None:
        self._post(self._owner.on_report, level, text)
