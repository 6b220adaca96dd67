"""What the loop gathers for one shard and hands to its thread, and what several hand-overs become together: one group commit.

Parameter lists are flat, as the multi-row statements take them, and are filled on the loop thread: the shard thread only
concatenates. Callbacks are run by the front on the loop thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from smtpd.errors import SpoolError
from smtpd.spool.exchange import Exchange
from smtpd.spool.schema import KEPT_WIDTH

if TYPE_CHECKING:
    from smtpd.spool.change import Change
    from smtpd.spool.writer import SqliteWriter

ClaimedRow = tuple[int, int, int, int, str, bytes, bytes | None]
SettleDone = Callable[[SpoolError | None], None]
ReadDone = Callable[[bytes | None, SpoolError | None], None]
_PIECE_EXCHANGES = 4


class Claim:
    """A request for due mail; `rows` holds the answer (columns: schema.CLAIM_COLUMNS)."""

    __slots__ = ("done", "error", "limit", "not_before_s", "now_s", "rows")

    def __init__(self, limit: int, now_s: float, done: Callable[[Claim], None], not_before_s: float = 0.0) -> None:
        self.limit = limit
        self.now_s = now_s
        self.not_before_s = not_before_s
        self.done = done
        self.rows: list[ClaimedRow] = []
        self.error: SpoolError | None = None


class Read:
    """A request for one body that is in the database."""

    __slots__ = ("data", "done", "error", "row")

    def __init__(self, row: int, done: ReadDone) -> None:
        self.row = row
        self.done = done
        self.data: bytes | None = None
        self.error: SpoolError | None = None


class Batch:
    """See the module's head. `body_bytes` counts what is to be inserted."""

    __slots__ = (
        "bodies",
        "body_bytes",
        "ceiling_us",
        "changes",
        "claims",
        "error",
        "exchanges",
        "gone_files",
        "kept",
        "mails",
        "reads",
        "removed",
        "removed_count",
        "removed_files",
        "settled",
        "spill_directory",
        "unlinks",
        "writers",
    )

    def __init__(self) -> None:
        self.mails: list[Any] = []  # id, size, spilled, queue_id, envelope of each
        self.bodies: list[Any] = []  # id, data of each that is not spilled
        self.body_bytes = 0
        self.writers: list[SqliteWriter] = []
        self.spill_directory = ""  # where the files of the spilled ones lie, if there are any
        self.removed: list[int] = []
        self.removed_count = 0  # also of rows that are committed already
        self.removed_files: list[str] = []  # queue ids of removed mails with a spill file
        self.unlinks: list[str] = []  # the same, for the files thread afterwards
        self.kept: list[Any] = []  # id, due, held, attempts, outcomes of each
        self.exchanges: list[Exchange] = []  # settlements that bring new mail
        self.settled: list[SettleDone] = []  # for removed, kept and exchanges
        self.gone_files: list[str] = []  # queue ids whose spill file is unlinked
        self.changes: list[Change] = []  # what queue commands ask for; done before the claims
        self.claims: list[Claim] = []
        self.reads: list[Read] = []
        self.ceiling_us = 0  # a new ceiling of queue ids to be stored, 0: none
        self.error: SpoolError | None = None  # why nothing of `writers` was kept

    @property
    def writes(self) -> bool:
        """Whether a transaction is needed."""
        return bool(
            self.mails
            or self.removed
            or self.kept
            or self.exchanges
            or self.changes
            or self.claims
            or self.gone_files
            or self.ceiling_us
        )

    @property
    def is_ordinary(self) -> bool:
        """Only mails that come, and mails without a file that go: what `_group` writes."""
        return bool(self.mails or self.removed) and not (
            self.kept or self.exchanges or self.changes or self.claims or self.gone_files or self.removed_files or self.ceiling_us
        )

    def merge(self, later: Batch) -> None:
        """Take in what a later hand-over brought."""
        self.mails += later.mails
        self.bodies += later.bodies
        self.body_bytes += later.body_bytes
        self.writers += later.writers
        self.spill_directory = self.spill_directory or later.spill_directory
        self.merge_settlements(later)
        self.changes += later.changes
        self.claims += later.claims
        self.reads += later.reads
        self.ceiling_us = later.ceiling_us or self.ceiling_us

    def merge_settlements(self, later: Batch) -> None:
        """Take in the settlements of `later` only."""
        self.removed += later.removed
        self.removed_count += later.removed_count
        self.removed_files += later.removed_files
        self.unlinks += later.unlinks
        self.kept += later.kept
        self.exchanges += later.exchanges
        self.settled += later.settled
        self.gone_files += later.gone_files

    def take_settlements(self) -> Batch:
        """Return a batch of this one's settlements, which leave it: they are tried again, whatever became of the rest."""
        apart = Batch()
        apart.merge_settlements(self)
        self.removed, self.removed_files, self.kept, self.settled, self.gone_files = [], [], [], [], []
        self.removed_count, self.unlinks, self.exchanges = 0, [], []
        return apart

    def first_piece(self, rows: int) -> Batch:
        """Return a batch of the first settlements, without their callbacks; last come those that need room for new mail."""
        piece = Batch()
        piece.removed = self.removed[:rows]
        piece.kept = self.kept[: rows * KEPT_WIDTH]
        piece.removed_files = self.removed_files  # first of all: a name too many does no harm
        piece.gone_files = self.gone_files
        if not (self.removed or self.kept):
            piece.exchanges = self.exchanges[:_PIECE_EXCHANGES]
        return piece

    def drop_piece(self, rows: int) -> None:
        """Forget what `first_piece` returned: it is durable."""
        if not (self.removed or self.kept):
            del self.exchanges[:_PIECE_EXCHANGES]
        del self.removed[:rows]
        del self.kept[: rows * KEPT_WIDTH]
        self.removed_files, self.gone_files = [], []
