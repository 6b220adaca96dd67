"""Puts mail that was exported into a spool, each durable with its outcomes before it is acknowledged. Loop thread only.

The mail gets a new queue id: the old one may be in use where it came from, or here, if an import was cut short and is repeated.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

import msgspec

from smtpd.control.stored import StoredMail
from smtpd.control.wire import Line, decode_line, encode_line
from smtpd.delivery.wishes import Leases
from smtpd.errors import SpoolError
from smtpd.mail.outcome import Outcome
from smtpd.spool.base import BodyWriter, Kept, Spool
from smtpd.spool.item import SpoolItem
from smtpd.spool.query import ACTIVE, DEFERRED, HELD, QueuedMail

Done = Callable[[str, str], None]  # new queue id or "", error text or ""


class MailImport:
    """One mail on its way in: `write` its octets, then `finish`, or `abort`. Raises msgspec.MsgspecError if it makes no sense."""

    def __init__(self, spool: Spool, leases: Leases, stored: StoredMail) -> None:
        stored.check()
        self._spool = spool
        self._leases = leases
        self._stored = stored
        envelope = stored.read_envelope()
        self._outcomes: list[Outcome] = stored.read_outcomes(envelope)
        self._writer: BodyWriter = spool.begin(spool.next_queue_id(), envelope)

    def write(self, piece: bytes, go_on: Callable[[], None]) -> None:
        """Add some octets; `go_on` is called when there is room for more."""
        if self._writer.write(piece):
            go_on()
        else:
            self._writer.on_drain = go_on

    def abort(self) -> None:
        """Keep nothing of it. Harmless after `finish`."""
        self._writer.abort()

    def finish(self, done: Done) -> None:
        """Make it durable; `done(new queue id, error text)`."""
        writer = self._writer
        if writer.size_bytes != self._stored.size_bytes:
            writer.abort()
            done("", f"{self._stored.queue_id}: {writer.size_bytes} octets instead of {self._stored.size_bytes}")
            return
        if self._spool.is_full:
            writer.abort()
            done("", f"{self._stored.queue_id}: no room in the spool")
            return
        stored = self._stored
        kept = Kept(stored.due_s or time.time(), stored.is_held, stored.attempts, self._outcomes)
        self._spool.commit(writer, partial(self._on_committed, done, kept), kept)

    def _on_committed(self, done: Done, kept: Kept, item: SpoolItem | None, error: SpoolError | None) -> None:
        if item is None:
            done("", str(error or "this spool keeps nothing"))
            return
        state = HELD if kept.is_held else DEFERRED if kept.attempts else ACTIVE
        due_s = None if kept.is_held else kept.due_s
        mail = QueuedMail(
            item.row, item.queue_id, state, item.size_bytes, kept.attempts, due_s, item.envelope, kept.outcomes, ""
        )  # fmt: skip
        self._leases.added(item.shard, mail)
        done(item.queue_id, "")


class ImportClient(Protocol):
    """The connection that sends mail in, as this needs it."""

    @property
    def is_open(self) -> bool: ...
    def read_line(self, on_line: Callable[[bytes], None]) -> None: ...
    def write(self, data: bytes) -> None: ...
    def finish(self, error: str = "") -> None: ...


class ImportAnswer:
    """Takes mail after mail from `client`: {"stored"}, {"content"}..., {"end"}. Each is acknowledged as {"imported": [old id, new
    id]} when it is durable; an {"end"} with no mail before it ends it all, as does a failure."""

    def __init__(self, client: ImportClient, spool: Spool, leases: Leases, note: Callable[[str], object]) -> None:
        self._note = note
        self._client = client
        self._spool = spool
        self._leases = leases
        self._mail: MailImport | None = None
        self._old_id = ""
        self._open = 0  # not acknowledged yet
        self._is_ending = False

    def start(self) -> None:
        self._client.read_line(self._on_line)

    def abort(self) -> None:
        """The client is gone: what was not sent whole is not kept."""
        if self._mail is not None:
            self._mail.abort()
            self._mail = None

    def _on_line(self, text: bytes) -> None:
        try:
            line = decode_line(text)
            if line.stored is not None and self._mail is None:
                self._mail = MailImport(self._spool, self._leases, line.stored)
                self._old_id = line.stored.queue_id
                self._read_on()
            elif line.content is not None and self._mail is not None:
                self._mail.write(line.content, self._read_on)
            elif line.end and self._mail is not None:
                self._open += 1
                mail, self._mail = self._mail, None
                mail.finish(partial(self._on_done, self._old_id))
                self._read_on()
            elif line.end:
                self._is_ending = True
                self._maybe_end()
            else:
                raise msgspec.ValidationError("not what comes next in an import")
        except msgspec.MsgspecError as error:
            self._fail(str(error))

    def _read_on(self) -> None:
        if self._client.is_open:
            self._client.read_line(self._on_line)

    def _on_done(self, old_id: str, new_id: str, error: str) -> None:
        self._open -= 1
        if not error:
            self._note(f"{new_id}: imported by command, was {old_id}")
        if not self._client.is_open:
            return
        if error:
            self._fail(error)
        else:
            self._client.write(encode_line(Line(imported=[old_id, new_id])))
            self._maybe_end()

    def _maybe_end(self) -> None:
        if self._is_ending and not self._open:
            self._client.finish()

    def _fail(self, error: str) -> None:
        self.abort()
        self._client.finish(error)
