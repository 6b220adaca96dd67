"""Counts the mail that a shard held before this process had it: once for each shard, page by page, before any of it is claimed.

From then on the scheduler keeps the figures itself. Mail that arrives meanwhile has higher row numbers and is not counted here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from smtpd.errors import SpoolError
from smtpd.net.loop import Loop
from smtpd.spool.base import Spool, SpoolShard
from smtpd.spool.item import SpoolItem
from smtpd.spool.query import HELD, QueuedMail, list_page

_PAGE_MAILS = 200
_PAUSE_S = 0.002  # between pages, for the commits of others


class Census:
    """`count(item, is_held)` is called for every mail found, `done()` after each shard; the items are for counting only."""

    def __init__(self, loop: Loop, spool: Spool, count: Callable[[SpoolItem, bool], None], done: Callable[[], None]) -> None:
        self._loop = loop
        self._spool = spool
        self._count = count
        self._done = done
        self._known: set[SpoolShard] = set()
        self._is_running = False
        self._counting: tuple[SpoolShard, int, int] | None = None  # shard, last row that was counted, end

    def is_counted(self, shard: SpoolShard, row: int) -> bool:
        """Whether the figures have a row of this shard already: it arrived here, or its page has been seen."""
        if self._counting is not None and self._counting[0] is shard:
            return row <= self._counting[1] or row >= self._counting[2]
        return shard in self._known

    def is_counting(self) -> bool:
        """Whether figures are still incomplete, so that nothing may be claimed; begins with shards that are new."""
        if not self._is_running:
            shards = self._spool.shards
            if len(self._known) > len(shards):
                self._known.intersection_update(shards)
            for shard in shards:
                if shard not in self._known:
                    self._known.add(shard)
                    self._is_running = True
                    self._ask(shard, 0, shard.next_row)
                    break
        return self._is_running

    def _ask(self, shard: SpoolShard, after_row: int, end_row: int) -> None:
        self._counting = (shard, after_row, end_row)
        self._spool.query(
            shard,
            lambda connection: list_page(connection, after_row, _PAGE_MAILS),
            partial(self._on_page, shard, end_row),
        )

    def _on_page(self, shard: SpoolShard, end_row: int, page: list[QueuedMail] | None, error: SpoolError | None) -> None:
        if page is None:  # a shard that can't be read; what it holds is counted as it is claimed
            self._finish()
            return
        for mail in page:
            if mail.row < end_row:
                item = SpoolItem(mail.queue_id, mail.envelope, mail.size_bytes, mail.row, shard)
                item.attempts = mail.attempts
                item.outcomes = mail.outcomes
                self._count(item, mail.state == HELD)
        if len(page) < _PAGE_MAILS or page[-1].row >= end_row:
            self._finish()
        else:
            self._counting = (shard, page[-1].row, end_row)
            self._loop.call_later(_PAUSE_S, partial(self._ask, shard, page[-1].row, end_row))

    def _finish(self) -> None:
        self._is_running = False
        self._counting = None
        self._done()
