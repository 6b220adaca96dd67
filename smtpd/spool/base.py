"""The face of every spool engine (sqlite, discard, later jetstream): custody of mail from `commit` to `settle`.

All methods are called on the loop thread, and every `done` runs on the loop thread exactly once, in a later turn or at once.
Failures arrive as SpoolError subclasses in `done`, never as exceptions of the call.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from smtpd.errors import SpoolError
from smtpd.mail.envelope import Envelope
from smtpd.mail.outcome import Outcome
from smtpd.spool.item import Body, SpoolItem

if TYPE_CHECKING:
    from smtpd.spool.change import Change


class NewMail:
    """A mail that the server itself makes, to be stored with a settlement. `data` is its body in wire form; `queue_id` comes from
    `Spool.next_queue_id`."""

    __slots__ = ("data", "envelope", "queue_id")

    def __init__(self, queue_id: str, envelope: Envelope, data: bytes) -> None:
        self.queue_id = queue_id
        self.envelope = envelope
        self.data = data


class Arrived(NamedTuple):
    """A body before custody: in memory (`data`), or in the unfinished file `path`. It is there until commit, rewrite or abort."""

    data: bytes | None
    path: str
    size_bytes: int


class BodyWriter(Protocol):
    """Takes one mail's body while it arrives. Nothing of it is durable before `commit` says so.

    `wants_body` False: the engine forgets the body, so `write` need not be called for it.
    """

    queue_id: str
    size_bytes: int

    @property
    def envelope(self) -> Any:
        """What `begin` was given, or what became of it; its fields may be changed until `commit`."""
        ...

    @property
    def wants_body(self) -> bool: ...

    def write(self, chunk: bytes) -> bool:
        """Add a chunk; False asks the caller to stop reading until `on_drain` is called (set by the caller)."""
        ...

    on_drain: Callable[[], None] | None

    def settle(self, done: Callable[[Arrived | None, SpoolError | None], object]) -> None:
        """`done(arrived, None)` when all that was written can be read, perhaps before this returns; or `done(None, error)`. Not
        called after `abort`."""
        ...

    def rewrite(
        self,
        head: bytes,
        kept_from: int,
        pieces: Iterator[bytes] | None,
        done: Callable[[SpoolError | None], object],
        *,
        is_slow: bool = False,
    ) -> None:
        """Put `head` in place of the first `kept_from` octets, and with `pieces` (`is_slow`: they are read from a disk) those in
        place of the rest. `done(None)` or `done(error)`, perhaps before this returns; after `settle`, before `commit`. Not called
        after `abort`."""
        ...

    def abort(self) -> None:
        """Forget the mail and whatever was written of it. Harmless after commit was called, when it does nothing."""
        ...


def _ignore_item(item: SpoolItem) -> None:
    """Without `on_new` a new mail waits for the next start."""


class SpoolShard(Protocol):
    """`count` is the number of mails in custody, `next_due_s` the Unix time of the earliest deferred one, `next_row` the row
    number of the next mail to arrive."""

    number: int
    count: int
    next_row: int
    next_due_s: float | None


class Kept(NamedTuple):
    """How a mail lies in the spool without a lease: due at Unix time `due_s`, or held; `outcomes` has one for each recipient."""

    due_s: float
    is_held: bool
    attempts: int
    outcomes: list[Outcome]


CommitDone = Callable[[SpoolItem | None, SpoolError | None], None]


class Spool(Protocol):
    """See the module's head. `is_full` is the state of the last look at free space and inodes (452 at MAIL).

    `keeps_mail` False: there is no custody, so `begin` and `commit` need not be called, and no envelope be made.
    """

    @property
    def is_full(self) -> bool: ...

    @property
    def keeps_mail(self) -> bool: ...

    def next_queue_id(self) -> str:
        """Return a new queue id of the active shard."""
        ...

    def begin(self, queue_id: str, envelope: Envelope) -> BodyWriter: ...

    def commit(self, writer: BodyWriter, done: CommitDone, kept: Kept | None = None) -> None:
        """Make the mail durable, together with all that are ready in this turn; `done(item, None)` or `done(None, error)`. It is
        leased to this process; with `kept` it is not, but lies there as that says from the start."""
        ...

    def claim(
        self,
        limit: int,
        now_s: float,
        done: Callable[[list[SpoolItem], SpoolError | None], None],
        not_before_s: float = 0.0,
    ) -> None:
        """Lease up to `limit` mails that are due at Unix time `now_s` and no earlier than `not_before_s`, oldest first, bodies
        not loaded."""
        ...

    def next_due_s(self) -> float | None:
        """Return the Unix time of the earliest deferred mail that isn't leased (0.0: some are due now), None if there is none."""
        ...

    def open_body(self, item: SpoolItem, done: Callable[[Body | None, SpoolError | None], None]) -> None: ...

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
        """End the lease. `outcomes` None: every recipient is done, the mail is removed. Else the mail is kept with these
        outcomes, to be claimed again at Unix time `due_s`, or held. On a full or broken disk `done` comes when it is durable
        after all, and with an error only if the spool is closed before.

        The mails of `new` are stored in the same transaction, in the shard of `item`: both or neither. Once that is durable,
        and before `done`, `on_new(item)` gets each of them, leased to this process like one that `commit` stored."""
        ...

    @property
    def shards(self) -> Sequence[SpoolShard]:
        """What this process serves now, the active one first."""
        ...

    def query(
        self,
        shard: Any,
        job: Callable[[sqlite3.Connection], Any],
        done: Callable[[Any, SpoolError | None], object],
    ) -> None:
        """Run a short bounded read (query.py) on a shard's connection: `done(result, None)` or `done(None, error)`."""
        ...

    def change(self, shard: Any, change: Change) -> None:
        """Do what a queue command asks (change.py) within the group commit: `change.done(change)` when it is durable, or with
        `change.error`. Mail that is leased is only named."""
        ...

    def end_turn(self) -> None:
        """Hand what this loop turn gathered to the shard thread (one message, one group commit)."""
        ...

    def close(self, done: Callable[[], None]) -> None:
        """Finish what was handed in, checkpoint, give the locks back."""
        ...


class SpoolLog(Protocol):
    """Where the spool tells what an operator should know; loop thread only. log.MailLog has these."""

    def info(self, component: str, text: str) -> None: ...
    def warning(self, component: str, text: str) -> None: ...
    def error(self, component: str, text: str) -> None: ...
