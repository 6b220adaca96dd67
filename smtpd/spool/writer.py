"""The writer of one mail's body: in memory while it is small, in a spill file from the threshold on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from smtpd.errors import SpoolError
from smtpd.mail.envelope import Envelope
from smtpd.spool.base import Arrived, CommitDone
from smtpd.spool.spill import SpillFile

if TYPE_CHECKING:
    from smtpd.spool.sqlite import SqliteSpool

_PIECE_BYTES = 64 * 1024  # a job for the files thread costs more than small chunks are worth
ARRIVING, COMMITTING, ENDED = range(3)
_ARRIVING = ARRIVING  # in a C variable of the module


class SqliteWriter:
    """See base.BodyWriter. `row` and `data` are set on the way into a batch."""

    __slots__ = (
        "_held_bytes",
        "_on_drain",
        "_spool",
        "chunks",
        "data",
        "done",
        "envelope",
        "queue_id",
        "row",
        "size_bytes",
        "spill",
        "state",
    )
    wants_body = True

    def __init__(self, spool: SqliteSpool, queue_id: str, envelope: Envelope) -> None:
        self._spool = spool
        self.queue_id = queue_id
        self.envelope = envelope
        self.size_bytes = 0
        self.chunks: list[bytes] = []
        self._held_bytes = 0  # of `chunks`, once there is a spill file
        self.spill: SpillFile | None = None
        self.state = _ARRIVING
        self.data: bytes | None = None
        self.row = 0
        self.done: CommitDone | None = None
        self._on_drain: Callable[[], None] | None = None

    @property
    def on_drain(self) -> Callable[[], None] | None:
        return self._on_drain

    @on_drain.setter
    def on_drain(self, call: Callable[[], None] | None) -> None:
        self._on_drain = call
        if self.spill is not None:
            self.spill.on_drain = call

    def write(self, chunk: bytes) -> bool:
        """See base.BodyWriter."""
        spool = self._spool
        octets = len(chunk)
        self.size_bytes = size = self.size_bytes + octets
        spool.memory_bytes += octets
        self.chunks.append(chunk)
        if size < spool.spill_at_bytes and self.spill is None:
            return True
        self._held_bytes += octets
        return self._write_spill()

    def _write_spill(self) -> bool:
        spill = self.spill
        if spill is None:
            spill = self.spill = self._spool.new_spill(self.queue_id)
            spill.on_drain = self._on_drain
            self._held_bytes = self.size_bytes
        elif self._held_bytes < _PIECE_BYTES:
            return True
        return self._flush(spill)

    def _flush(self, spill: SpillFile) -> bool:
        chunks, self.chunks = self.chunks, []
        self._held_bytes = 0
        return spill.write(chunks)

    def finish_spill(self, spill: SpillFile, done: Callable[[SpoolError | None], None]) -> None:
        """Write the rest, then make the file whole; see SpillFile.finish."""
        spill.on_drain = None
        if self.chunks:
            self._flush(spill)
        spill.finish(done)

    def settle(self, done: Callable[[Arrived | None, SpoolError | None], object]) -> None:
        """See base.BodyWriter."""
        spill = self.spill
        if spill is None:
            data = b"".join(self.chunks)
            self.chunks = [data]
            done(Arrived(data, "", len(data)), None)
            return

        def on_settled(error: SpoolError | None) -> None:
            if self.state == _ARRIVING:
                done(None if error is not None else Arrived(None, spill.part_path, self.size_bytes), error)

        if self.chunks:
            self._flush(spill)
        spill.settle(on_settled)

    def rewrite(
        self,
        head: bytes,
        kept_from: int,
        pieces: Iterator[bytes] | None,
        done: Callable[[SpoolError | None], object],
        *,
        is_slow: bool = False,
    ) -> None:
        """See base.BodyWriter."""
        if self.spill is None and not is_slow:
            data = b"".join(self.chunks)
            self._forget_chunks()
            self.write(head)
            for piece in pieces if pieces is not None else (data[kept_from:],):
                self.write(piece)
            done(None)
            return
        if self.spill is None:
            self._forget_chunks()
            self.spill = self._spool.new_spill(self.queue_id)

        def on_rewritten(size_bytes: int, error: SpoolError | None) -> None:
            if self.state == _ARRIVING:
                self.size_bytes = size_bytes
                done(error)

        self.spill.rewrite(head, kept_from, pieces, on_rewritten)

    def _forget_chunks(self) -> None:
        self._spool.memory_bytes -= self.size_bytes
        self.size_bytes = 0
        self.chunks = []

    def abort(self) -> None:
        """See base.BodyWriter."""
        if self.state != _ARRIVING:
            return
        self.state = ENDED
        if self.spill is not None:
            self.spill.on_drain = None
            self._spool.memory_bytes -= self._held_bytes
            self.spill.abort()
        else:
            self._spool.memory_bytes -= self.size_bytes
        self.chunks = []
