"""Hands mail out of a worker's spool to whoever exports it: leased meanwhile, removed only when the other side says it is stored.

If that side goes away first, the mail is given back as it was; if the worker dies, its next start takes it for due. Loop
thread only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

import msgspec

from smtpd.control.changing import ChangedPage, ChangeRun
from smtpd.control.content import ContentAnswer, item_of
from smtpd.control.filter import Filter
from smtpd.control.stored import stored_of
from smtpd.control.wire import Line, Results, decode_line, encode_line
from smtpd.delivery.wishes import Leases
from smtpd.errors import SpoolError
from smtpd.mail.outcome import Outcome
from smtpd.net.files import FilesThread
from smtpd.net.loop import Loop
from smtpd.spool.base import Spool, SpoolShard
from smtpd.spool.change import LEASE, Changed
from smtpd.spool.query import HELD, QueuedMail


class ExportClient(Protocol):
    """The connection that takes the mail, as this needs it."""

    @property
    def is_open(self) -> bool: ...
    def read_line(self, on_line: Callable[[bytes], None]) -> None: ...
    def send(self, data: bytes, go_on: Callable[[], None]) -> None: ...
    def finish(self, error: str = "") -> None: ...


class ExportAnswer:
    """For each page of mails: {"stored"} and {"content"}... of each, or {"unreadable"} in place of the rest of it; {"asks"};
    then {"done": ids} is awaited, and {"results"} follow when those are removed."""

    def __init__(
        self,
        client: ExportClient,
        loop: Loop,
        spool: Spool,
        files: FilesThread | None,
        leases: Leases,
        wanted: Filter,
        note: Callable[[str], object],
    ) -> None:
        self._note = note
        self._client = client
        self._spool = spool
        self._files = files
        self._leases = leases
        self._run = ChangeRun(loop, spool, leases, LEASE, wanted, self._on_page, client.finish, lambda: client.is_open)
        self._shard: SpoolShard | None = None
        self._leased: dict[str, QueuedMail] = {}  # as they were
        self._results = Results()

    def start(self) -> None:
        self._run.start()

    def abort(self) -> None:
        """The client is gone: give back what it had not stored."""
        leased, self._leased = self._leased, {}
        for mail in leased.values():
            self._give_back(mail)

    def _on_page(self, page: ChangedPage, go_on: Callable[[], None]) -> None:
        self._shard = page.shard
        self._leased = {entry.before.queue_id: entry.before for entry in page.changed}
        self._results = page.results
        if not self._client.is_open:
            self.abort()
            return
        self._send_next([entry.before for entry in page.changed], go_on)

    def _send_next(self, mails: list[QueuedMail], go_on: Callable[[], None]) -> None:
        if not mails:
            read = partial(self._client.read_line, partial(self._on_stored, go_on))
            self._client.send(encode_line(Line(asks=True)), read)
            return
        mail, shard = mails[0], self._shard
        assert shard is not None
        send_rest = partial(self._send_next, mails[1:], go_on)

        def fail(why: str) -> None:
            self._client.send(encode_line(Line(unreadable=f"{mail.queue_id}: {why}")), send_rest)

        content = ContentAnswer(self._client, self._spool, self._files, False, send_rest, fail)
        self._client.send(encode_line(Line(stored=stored_of(mail))), partial(content.send, item_of(mail, shard)))

    def _on_stored(self, go_on: Callable[[], None], text: bytes) -> None:
        try:
            done = decode_line(text).done or []
        except msgspec.MsgspecError as error:
            self._client.finish(f"not an answer: {error}")
            return
        left, shard = self._leased, self._shard
        assert shard is not None
        stored = [left.pop(queue_id) for queue_id in done if queue_id in left]
        self.abort()
        waiting = len(stored)
        removed: list[str] = []

        def on_removed(mail: QueuedMail, error: SpoolError | None) -> None:
            nonlocal waiting
            waiting -= 1
            if error is None:
                removed.append(mail.queue_id)
                self._note(f"{mail.queue_id}: exported by command")
                self._leases.changed(shard, [Changed(mail, None)])
            if not waiting:
                self._tell(removed, go_on)

        for mail in stored:
            self._spool.settle(item_of(mail, shard), None, 0.0, False, partial(on_removed, mail))
        if not stored:
            self._tell([], go_on)

    def _tell(self, removed: list[str], go_on: Callable[[], None]) -> None:
        if self._client.is_open:
            self._client.send(encode_line(Line(results=Results(changed=removed, busy=self._results.busy))), go_on)

    def _give_back(self, mail: QueuedMail) -> None:
        shard = self._shard
        assert shard is not None
        outcomes = mail.outcomes or [Outcome()] * len(mail.envelope.recipients)
        self._spool.settle(item_of(mail, shard), outcomes, mail.due_s or time.time(), mail.state == HELD, _ignore)


def _ignore(error: SpoolError | None) -> None:
    """What could not be given back is due at the next start."""
