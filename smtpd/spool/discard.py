"""The engine "discard": says done at once and keeps nothing. For `smtpd sink` and for measuring all that isn't the disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from smtpd.errors import SpoolError
from smtpd.mail.envelope import Envelope
from smtpd.mail.outcome import Outcome
from smtpd.mail.queue_id import QueueIdMaker
from smtpd.spool.base import Arrived, BodyWriter, CommitDone, Kept, NewMail
from smtpd.spool.change import Change
from smtpd.spool.item import Body, SpoolItem


class DiscardWriter:
    """Counts octets, if it is told of any."""

    __slots__ = ("on_drain", "queue_id", "size_bytes")
    wants_body = False
    envelope = None

    def __init__(self, queue_id: str) -> None:
        self.queue_id = queue_id
        self.size_bytes = 0
        self.on_drain: Callable[[], None] | None = None

    def write(self, chunk: bytes) -> bool:
        self.size_bytes += len(chunk)
        return True

    def settle(self, done: Callable[[Arrived | None, SpoolError | None], object]) -> None:
        done(None, SpoolError("this spool gives nothing back"))

    def rewrite(
        self,
        head: bytes,
        kept_from: int,
        pieces: Iterator[bytes] | None,
        done: Callable[[SpoolError | None], object],
        *,
        is_slow: bool = False,
    ) -> None:
        done(SpoolError("this spool gives nothing back"))

    def abort(self) -> None:
        pass


class DiscardSpool:
    """See base.Spool. `commit` gives no item: `done(None, None)`, there is nothing to deliver."""

    is_full = False
    keeps_mail = False

    def __init__(self, node: int, slot: int) -> None:
        self._ids = QueueIdMaker(node, slot)

    def next_queue_id(self) -> str:
        return self._ids.next_id()

    def begin(self, queue_id: str, envelope: Envelope) -> DiscardWriter:
        return DiscardWriter(queue_id)

    def commit(self, writer: BodyWriter, done: CommitDone, kept: Kept | None = None) -> None:
        done(None, None)

    def claim(
        self,
        limit: int,
        now_s: float,
        done: Callable[[list[SpoolItem], SpoolError | None], None],
        not_before_s: float = 0.0,
    ) -> None:
        done([], None)

    def next_due_s(self) -> float | None:
        return None

    def open_body(self, item: SpoolItem, done: Callable[[Body | None, SpoolError | None], None]) -> None:
        done(item.body, None)

    def settle(
        self,
        item: SpoolItem,
        outcomes: list[Outcome] | None,
        due_s: float,
        is_held: bool,
        done: Callable[[SpoolError | None], None],
        new: Sequence[NewMail] = (),
        on_new: Callable[[SpoolItem], object] = lambda item: None,
    ) -> None:
        done(None)

    @property
    def shards(self) -> list[Any]:
        return []

    def query(self, shard: Any, job: Callable[[Any], Any], done: Callable[[Any, SpoolError | None], object]) -> None:
        done(None, SpoolError("this spool keeps nothing"))

    def change(self, shard: Any, change: Change) -> None:
        change.error = SpoolError("this spool keeps nothing")
        change.done(change)

    def end_turn(self) -> None:
        pass

    def close(self, done: Callable[[], None]) -> None:
        done()
