"""The engine "sqlite" on the loop thread: turns calls into batches and gives the results out (`gathering` hands over).

Owns the shards as the loop sees them (row numbers, counts, due times), queue ids, the memory budget of bodies
that arrive, and the looking for orphans. Never touches a database or waits for a disk. See base.Spool for the calls.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import msgspec

from smtpd.errors import ShardClosedError, SpoolError, SpoolFullError
from smtpd.mail.envelope import Envelope, decode_envelope, encode_envelope
from smtpd.mail.outcome import Outcome, decode_outcomes, encode_outcomes
from smtpd.mail.queue_id import QueueIdMaker
from smtpd.net.files import FilesThread
from smtpd.net.loop import Loop, Timer
from smtpd.settings.gateway import SpoolSettings
from smtpd.spool.adoption import Adopter
from smtpd.spool.base import BodyWriter, CommitDone, Kept, NewMail, SpoolLog
from smtpd.spool.batch import Batch, Claim, ClaimedRow, Read
from smtpd.spool.change import Change
from smtpd.spool.database import failure_of
from smtpd.spool.exchange import Exchange
from smtpd.spool.gathering import Gathering
from smtpd.spool.item import Body, SpoolItem
from smtpd.spool.shard import FAILURES, Shard, ShardThread
from smtpd.spool.space import SpaceWatch
from smtpd.spool.spill import SpillFile, remove_spill_files
from smtpd.spool.writer import COMMITTING, ENDED, SqliteWriter

_COMMITTING, _ENDED = COMMITTING, ENDED
_LEAST_SPILL_BYTES = 16 * 1024  # the threshold while memory is short
_CEILING_AHEAD_US = 10_000_000
_ADOPTION_PERIOD_S = 3.0


def _ignore_item(item: SpoolItem) -> None:
    """Without `on_new` a new mail waits for the next start."""


class SqliteSpool:
    """See base.Spool. `memory_bytes` is what arriving bodies take; `end_turn` belongs at the end of every loop turn."""

    keeps_mail = True

    def __init__(
        self,
        loop: Loop,
        files: FilesThread,
        settings: SpoolSettings,
        node: int,
        log: SpoolLog,
        memory_budget_bytes: int,
    ) -> None:
        self._loop = loop
        self._files = files
        self._settings = settings
        self._node = node
        self._log = log
        self._memory_budget_bytes = memory_budget_bytes
        self.memory_bytes = 0
        self._spill_threshold = self.spill_at_bytes = settings.spill_threshold
        self._gathering = Gathering(loop, self._commit)
        self._shards: list[Shard] = []
        self._far_turn = -1
        self._is_closed = False
        self._has_new_ids = False  # queue ids of new mails: their ceiling belongs to the active shard, whichever they are in
        self._adoption_timer: Timer | None = None
        self._thread: ShardThread
        self._adopter: Adopter
        self._active: Shard
        self._ids: QueueIdMaker
        self._space: SpaceWatch

    def start(self, thread: ShardThread, adopter: Adopter, active: Shard, space: SpaceWatch) -> None:
        """Begin to serve with `active`, which `thread` has; called once, by open_spool."""
        self._thread = thread
        self._adopter = adopter
        self._active = active
        self._shards.append(active)
        self._ids = QueueIdMaker(self._node, active.number, active.ceiling_us)
        self._space = space
        space.start()
        self._look_for_orphans()

    @property
    def is_full(self) -> bool:
        return self._space.is_full

    @property
    def shards(self) -> list[Shard]:
        return self._shards  # the active one first

    @property
    def reusable_bytes(self) -> int:
        return sum(shard.free_bytes for shard in self._shards)

    # --- taking mail -------------------------------------------------------------------------------------------------

    def next_queue_id(self) -> str:
        return self._ids.next_id()

    def begin(self, queue_id: str, envelope: Envelope) -> SqliteWriter:
        return SqliteWriter(self, queue_id, envelope)

    def new_spill(self, queue_id: str) -> SpillFile:
        """Return a spill file of the active shard (for the writers)."""
        return SpillFile(self._files, self._active.spill_directory, queue_id, self._free_memory)

    def _free_memory(self, octets: int) -> None:
        self.memory_bytes -= octets

    def commit(self, writer: BodyWriter, done: CommitDone, kept: Kept | None = None) -> None:
        assert isinstance(writer, SqliteWriter)
        writer.state = _COMMITTING
        writer.done = done
        if writer.spill is not None:
            self._commit_spilled(writer, writer.spill, done, kept)
        elif self._is_closed:
            done(None, SpoolError("the spool is closed"))
        else:
            chunks = writer.chunks
            writer.data = data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            writer.chunks = []
            batch = self._insert(writer, 0, kept)
            batch.bodies += (writer.row, data)
            batch.body_bytes += writer.size_bytes

    def _commit_spilled(self, writer: SqliteWriter, spill: SpillFile, done: CommitDone, kept: Kept | None) -> None:
        if self._is_closed:
            spill.abort()
            done(None, SpoolError("the spool is closed"))
            return

        def on_file(error: SpoolError | None) -> None:
            if error is None and spill.directory != self._active.spill_directory:
                error = SpoolError("the shard of this mail's spill file is gone")
                spill.abort()
            if error is None and self._is_closed:
                error = SpoolError("the spool is closed")
                spill.abort()
            if error is None:
                self._insert(writer, 1, kept).spill_directory = spill.directory
            else:
                self._fail(done, error)

        writer.finish_spill(spill, on_file)

    def _insert(self, writer: SqliteWriter, is_spilled: int, kept: Kept | None) -> Batch:
        shard = self._active
        batch = self._gathering.awaited_batch_of(shard)
        writer.row = row = shard.next_row
        shard.next_row = row + 1
        batch.mails += (row, writer.size_bytes, is_spilled, writer.queue_id, encode_envelope(writer.envelope))
        batch.writers.append(writer)
        if kept is not None:
            due_s = None if kept.is_held else kept.due_s
            batch.kept += (row, due_s, int(kept.is_held), kept.attempts, encode_outcomes(kept.outcomes))
        return batch

    def _fail(self, done: CommitDone, error: SpoolError) -> None:
        if isinstance(error, SpoolFullError):
            self._space.note_full()
        done(None, error)

    # --- giving mail out ---------------------------------------------------------------------------------------------

    def claim(
        self,
        limit: int,
        now_s: float,
        done: Callable[[list[SpoolItem], SpoolError | None], None],
        not_before_s: float = 0.0,
    ) -> None:
        """See base.Spool; one call asks the shard whose mail has been due longest."""
        shard = min(self._shards, key=_due_s, default=None)
        if shard is not None and not_before_s:  # in turn: what is due too late hides behind what is due earlier
            self._far_turn += 1
            shard = self._shards[self._far_turn % len(self._shards)]
        if shard is None or _due_s(shard) > now_s or self._is_closed:
            done([], None)
            return

        def on_rows(claim: Claim) -> None:
            items = []
            for row in claim.rows:
                item = self._item_of(row, shard)
                if item is not None:
                    items.append(item)
            done(items, claim.error)

        self._gathering.awaited_batch_of(shard).claims.append(Claim(limit, now_s, on_rows, not_before_s))

    def _item_of(self, row: ClaimedRow, shard: Shard) -> SpoolItem | None:
        number, size, is_spilled, attempts, queue_id, envelope, outcomes = row
        try:
            item = SpoolItem(queue_id, decode_envelope(envelope), size, number, shard)
            item.outcomes = decode_outcomes(outcomes) if outcomes is not None else None
        except msgspec.MsgspecError as error:
            self._log.error("spool", f"{queue_id}: not readable, left where it is: {error}")
            return None
        item.attempts = attempts
        item.is_spilled = bool(is_spilled)
        return item

    def next_due_s(self) -> float | None:
        due_s = min(map(_due_s, self._shards), default=_NEVER)
        return None if due_s == _NEVER else due_s

    def open_body(self, item: SpoolItem, done: Callable[[Body | None, SpoolError | None], None]) -> None:
        if item.body is not None:
            done(item.body, None)
            return
        shard: Shard = item.shard
        if self._is_closed:
            done(None, SpoolError("the spool is closed"))
            return
        if item.is_spilled:
            path = os.path.join(shard.spill_directory, item.queue_id)

            def on_stat(found: os.stat_result | None, failure: BaseException | None) -> None:
                if found is None or found.st_size != item.size_bytes:
                    done(None, SpoolError(f"{path} is missing or cut: {failure or 'wrong size'}"))
                else:
                    done(Body(None, path, item.size_bytes), None)

            self._files.submit(lambda: os.lstat(path), on_stat)
            return

        def on_read(data: bytes | None, error: SpoolError | None) -> None:
            done(None if data is None else Body(data, "", len(data)), error)

        self._gathering.awaited_batch_of(shard).reads.append(Read(item.row, on_read))

    def settle(
        self,
        item: SpoolItem,
        outcomes: list[Outcome] | None,
        due_s: float,
        is_held: bool,
        done: Callable[[SpoolError | None], None],
        new: Sequence[NewMail] = (),
        on_new: Callable[[SpoolItem], object] = _ignore_item,
    ) -> None:
        shard: Shard = item.shard
        if self._is_closed:
            done(SpoolError("the spool is closed"))
            return
        batch = self._gathering.batch_of(shard)
        settlements: Batch | Exchange = batch
        if new:
            settlements, done = self._exchange(shard, new, on_new, done)
            batch.exchanges.append(settlements)
        if outcomes is None:
            settlements.removed.append(item.row)
            batch.removed_count += 1
            if item.is_spilled:
                settlements.removed_files.append(item.queue_id)
                batch.unlinks.append(item.queue_id)
        else:
            due = None if is_held else due_s
            settlements.kept += (item.row, due, int(is_held), item.attempts, encode_outcomes(outcomes))
        batch.settled.append(done)

    def _exchange(
        self,
        shard: Shard,
        new: Sequence[NewMail],
        on_new: Callable[[SpoolItem], object],
        done: Callable[[SpoolError | None], None],
    ) -> tuple[Exchange, Callable[[SpoolError | None], None]]:
        """Return what inserts the new mails, and the call for when they are durable."""
        exchange = Exchange()
        items = []
        for mail in new:
            row = shard.next_row
            shard.next_row = row + 1
            size = len(mail.data)
            exchange.mails += (row, size, 0, mail.queue_id, encode_envelope(mail.envelope))
            exchange.bodies += (row, mail.data)
            exchange.body_bytes += size
            item = SpoolItem(mail.queue_id, mail.envelope, size, row, shard)
            item.body = Body(mail.data, "", size)
            items.append(item)
        self._has_new_ids = True

        def on_settled(error: SpoolError | None) -> None:
            if error is None:
                shard.count += len(items)
                for item in items:
                    on_new(item)
            done(error)

        return exchange, on_settled

    def query(
        self,
        shard: Shard,
        job: Callable[[sqlite3.Connection], Any],
        done: Callable[[Any, SpoolError | None], object],
    ) -> None:
        """Run `job(connection)`, a short bounded read (query.py), on the shard thread between commits; `done(result, None)`
        or `done(None, error)`."""

        def run() -> None:
            database = shard.database
            try:
                if database is None or shard.is_closed:
                    raise SpoolError("the shard is not open")
                result = job(database.connection)
            except FAILURES as error:
                self._loop.post(done, None, failure_of(error, shard.lock.directory))
            else:
                self._loop.post(done, result, None)

        if self._is_closed:
            done(None, SpoolError("the spool is closed"))
        else:
            self._thread.call(run)

    def change(self, shard: Shard, change: Change) -> None:
        if self._is_closed:
            change.error = SpoolError("the spool is closed")
            change.done(change)
        else:
            self._gathering.awaited_batch_of(shard).changes.append(change)

    # --- turns -------------------------------------------------------------------------------------------------------

    def end_turn(self) -> None:
        has_room = self.memory_bytes < self._memory_budget_bytes
        self.spill_at_bytes = self._spill_threshold if has_room else _LEAST_SPILL_BYTES
        self._gathering.end_turn()

    def hand_over(self) -> None:
        """Let go of all that was gathered, now."""
        self._gathering.hand_over()

    def _commit(self, batches: list[tuple[Shard, Batch]]) -> None:
        """Give the shard thread what was gathered, with a ceiling for the queue ids in it."""
        active = self._active
        if self._has_new_ids and self._ids.last_us > active.ceiling_us and not any(shard is active for shard, _ in batches):
            batches.insert(0, (active, Batch()))
        for shard, batch in batches:
            has_ids = batch.writers or (self._has_new_ids and shard is active)
            if has_ids and self._ids.last_us > shard.ceiling_us:
                shard.ceiling_us = batch.ceiling_us = self._ids.last_us + _CEILING_AHEAD_US
        self._has_new_ids = False
        if batches:
            self._thread.commit(batches)

    # --- what the shard thread reports (shard.ShardOwner) ------------------------------------------------------------

    def on_group(self, shard: Shard, batch: Batch, next_due_s: float | None, has_recovered: bool) -> None:
        shard.next_due_s = next_due_s
        shard.has_recovered = has_recovered
        if batch.error is not None:
            shard.ceiling_us = 0  # whether the new one was stored isn't known
        if batch.writers:
            if batch.error is None:
                self._accept(shard, batch.writers)
            else:
                self._refuse(batch.writers, batch.error)
        if batch.settled:
            shard.count -= batch.removed_count
            refusal = batch.error if isinstance(batch.error, ShardClosedError) else None
            for settled in batch.settled:
                settled(refusal)
            if batch.unlinks:
                self._unlink(shard, batch.unlinks)
        for change in batch.changes:
            shard.count -= len(change.deleted_rows)
            if change.unlinks:
                self._unlink(shard, change.unlinks)
            change.done(change)
        for claim in batch.claims:
            claim.done(claim)
        for read in batch.reads:
            read.done(read.data, read.error)
        if shard.count <= 0 and shard is not self._active:
            self._release(shard)

    def _accept(self, shard: Shard, writers: list[SqliteWriter]) -> None:
        shard.count += len(writers)
        for writer in writers:
            size = writer.size_bytes
            item = SpoolItem(writer.queue_id, writer.envelope, size, writer.row, shard)
            spill = writer.spill
            if spill is None:
                self.memory_bytes -= size
                item.body = Body(writer.data, "", size)
            else:
                item.is_spilled = True
                item.body = Body(None, spill.path, size)
            writer.state = _ENDED
            done = writer.done
            writer.done = None
            assert done is not None
            done(item, None)

    def _refuse(self, writers: list[SqliteWriter], error: SpoolError) -> None:
        for writer in writers:
            if writer.spill is None:
                self.memory_bytes -= writer.size_bytes
            else:
                writer.spill.abort()
            writer.state = _ENDED
            done = writer.done
            writer.done = None
            assert done is not None
            self._fail(done, error)

    def _unlink(self, shard: Shard, queue_ids: list[str]) -> None:
        directory = shard.spill_directory

        def on_unlinked(gone: list[str] | None, _: BaseException | None) -> None:
            if gone and not self._is_closed and shard in self._shards:
                self._gathering.batch_of(shard).gone_files += gone

        self._files.submit(lambda: remove_spill_files(directory, queue_ids), on_unlinked)

    def on_renewed(self, shard: Shard, number: int, spill_directory: str) -> None:
        shard.number = number
        shard.spill_directory = spill_directory
        shard.ceiling_us = 0
        if shard is self._active:
            self._ids = QueueIdMaker(self._node, number, self._ids.last_us)
        self._log.warning("spool", f"mail goes to shard {number:04d} now")

    def on_salvaged(self, shard: Shard, count: int, next_due_s: float | None, has_recovered: bool) -> None:
        shard.count = count
        shard.next_due_s = next_due_s
        shard.has_recovered = has_recovered
        self._log.warning("spool", f"shard {shard.number:04d} holds all mail of the broken one that could be read")

    def on_report(self, level: str, text: str) -> None:
        log = self._log
        report = log.info if level == "info" else log.warning if level == "warning" else log.error
        report("spool", text)

    def on_thread_end(self, error: BaseException) -> NoReturn:
        raise error

    # --- orphans, end ------------------------------------------------------------------------------------------------

    def _look_for_orphans(self) -> None:
        thread, adopter, post = self._thread, self._adopter, self._loop.post

        def look() -> None:
            shard = adopter.find_orphan()
            if shard is not None:
                thread.add(shard)
            post(self._on_orphan, shard)

        thread.call(look)

    def _on_orphan(self, shard: Shard | None) -> None:
        if self._is_closed:
            return  # the thread closes it with the others
        if shard is not None:
            self._shards.append(shard)
            self._log.info("spool", f"shard {shard.number:04d} had no owner; its {shard.count} mails are taken over")
            self._look_for_orphans()
        else:
            self._adoption_timer = self._loop.call_later(_ADOPTION_PERIOD_S, self._look_for_orphans)

    def _release(self, shard: Shard) -> None:
        if shard in self._shards and shard.batch is None:
            self._shards.remove(shard)
            self._thread.call(lambda: self._thread.remove(shard))

    def close(self, done: Callable[[], None]) -> None:
        self._gathering.close()
        self._is_closed = True
        self._space.stop()
        if self._adoption_timer is not None:
            self._adoption_timer.cancel()
        active, last_us, thread, post = self._active, self._ids.last_us, self._thread, self._loop.post

        def finish() -> None:
            thread.remove(active, last_us)
            thread.remove_all()
            thread.stop()
            post(done)

        thread.call(finish)


_NEVER = float("inf")


def _due_s(shard: Shard) -> float:
    if shard.has_recovered:
        return 0.0
    return _NEVER if shard.next_due_s is None else shard.next_due_s
