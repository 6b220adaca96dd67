"""A mail in custody and its body, as engines, scheduler and transports pass them around."""

from __future__ import annotations

from typing import Any

from smtpd.mail.envelope import Envelope
from smtpd.mail.outcome import Outcome


class Body:
    """A stored body: wire form (CRLF lines, not dot-stuffed), trace header included.

    Either `data` holds it, or it is the whole file `path` (read it on the files thread, in pieces). `size_bytes` counts octets.
    """

    __slots__ = ("data", "path", "size_bytes")

    def __init__(self, data: bytes | None, path: str, size_bytes: int) -> None:
        self.data = data
        self.path = path
        self.size_bytes = size_bytes


class SpoolItem:
    """One mail in custody, leased to this process until `settle`.

    `row`, `shard` and `is_spilled` belong to the engine. `attempts` is stored by `settle` as it is then. `outcomes`
    is None until an attempt left something undone, else one for each
    recipient of the envelope. `body` is set while the mail is still in memory; else `open_body` fetches it.
    """

    __slots__ = (
        "attempts",
        "body",
        "envelope",
        "is_spilled",
        "outcomes",
        "queue_id",
        "row",
        "shard",
        "size_bytes",
    )

    def __init__(self, queue_id: str, envelope: Envelope, size_bytes: int, row: int, shard: Any) -> None:
        self.queue_id = queue_id
        self.envelope = envelope
        self.size_bytes = size_bytes
        self.row = row
        self.shard = shard
        self.attempts = 0
        self.is_spilled = False
        self.outcomes: list[Outcome] | None = None
        self.body: Body | None = None
