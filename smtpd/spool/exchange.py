"""A settlement together with the mails that take the place of what it ends (bounces): always in one transaction.

Filled on the loop thread with flat parameter lists as in batch.py; the shard thread runs it, or hands the new mails to the
salvage of a broken shard, so that they are durable in its successor before the broken one is set aside.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from smtpd.spool import schema

StoredRow = tuple[tuple[Any, ...], bytes | None]  # the columns of schema.COPY_MAIL, the body


class Exchange:
    """Lists as in Batch: `mails` and `bodies` are inserted, `removed` or `kept` say what becomes of the original."""

    __slots__ = ("bodies", "body_bytes", "kept", "mails", "removed", "removed_files")

    def __init__(self) -> None:
        self.mails: list[Any] = []
        self.bodies: list[Any] = []
        self.body_bytes = 0
        self.removed: list[int] = []
        self.removed_files: list[str] = []
        self.kept: list[Any] = []

    @property
    def rows(self) -> int:
        """How many rows of `mail` it touches."""
        return len(self.mails) // schema.MAIL_WIDTH + len(self.removed) + len(self.kept) // schema.KEPT_WIDTH

    def take_mails(self) -> list[StoredRow]:
        """Return the new mails as stored rows; what is left of the exchange inserts none."""
        rows: list[StoredRow] = []
        for number in range(len(self.mails) // schema.MAIL_WIDTH):
            row, size, spilled, queue_id, envelope = self.mails[number * schema.MAIL_WIDTH : (number + 1) * schema.MAIL_WIDTH]
            body = self.bodies[number * schema.BODY_WIDTH + 1]
            rows.append(((row, None, 0, 0, size, spilled, queue_id, envelope, None), body))
        self.mails, self.bodies, self.body_bytes = [], [], 0
        return rows


def join(exchanges: Iterable[Exchange]) -> Exchange:
    """Return one exchange that does what all of them do: fewer statements."""
    whole = Exchange()
    for one in exchanges:
        whole.mails += one.mails
        whole.bodies += one.bodies
        whole.body_bytes += one.body_bytes
        whole.removed += one.removed
        whole.removed_files += one.removed_files
        whole.kept += one.kept
    return whole
