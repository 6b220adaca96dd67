"""One change of the mails that a filter wants, in all shards of a process: page by page, each a part of a group commit.

Mail that is leased is settled by whoever delivers it (`Leases`); what nobody answers for is between two states, and is asked
for again. Loop thread only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from smtpd.control.filter import Filter
from smtpd.control.wire import Results
from smtpd.delivery.wishes import Leases
from smtpd.net.loop import Loop
from smtpd.spool.base import Spool, SpoolShard
from smtpd.spool.change import LEASE, Change, Changed

_PAUSE_S = 0.02  # before asking again
_TRIES_MAX = 50  # for mail that is just being settled


class ChangedPage:
    """What became of one page; the next one begins behind `next_row`, None: none."""

    __slots__ = ("changed", "next_row", "results", "shard", "tries")

    def __init__(self, shard: SpoolShard) -> None:
        self.shard = shard
        self.results = Results()
        self.changed: list[Changed] = []
        self.tries = 0
        self.next_row: int | None = None


class ChangeRun:
    """`on_page(page, go_on)` is called after each page, `done(error text or "")` at the end. `is_wanted` is asked
    before each page. `older_s` and the like count from the start."""

    def __init__(
        self,
        loop: Loop,
        spool: Spool,
        leases: Leases,
        action: str,
        wanted: Filter,
        on_page: Callable[[ChangedPage, Callable[[], None]], None],
        done: Callable[[str], None],
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        self._loop = loop
        self._spool = spool
        self._leases = leases
        self._action = action
        self._wanted = wanted
        self._on_page = on_page
        self._done = done
        self._is_wanted = is_wanted
        self._now_s = time.time()
        self._shards = list(spool.shards)
        self._left = len(wanted.ids)  # of a wanted number; without ids there is no end before the last row

    def start(self) -> None:
        """Begin with the first shard."""
        if not self._shards or (self._wanted.ids and self._left <= 0):
            self._done("")
            return
        self._ask(self._shards.pop(0), 0)

    def _ask(self, shard: SpoolShard, after_row: int) -> None:
        if not self._is_wanted():
            return
        wanted, now_s = self._wanted, self._now_s
        done = partial(self._on_change, ChangedPage(shard))
        self._spool.change(
            shard, Change(self._action, after_row, wanted.narrowing(), lambda mail: wanted.matches(mail, now_s), done)
        )

    def _on_change(self, page: ChangedPage, change: Change) -> None:
        if change.error is not None:
            if page.shard in self._spool.shards:
                self._done(str(change.error))
            else:  # emptied and released meanwhile
                page.next_row = None
                self._finish(page)
            return
        if not page.tries:
            page.next_row = None if change.is_last else change.last_row
        self._leases.changed(page.shard, change.changed)
        page.changed += change.changed
        results = page.results
        results.changed += [entry.before.queue_id for entry in change.changed]
        results.unchanged += change.unchanged
        stubborn = change.leased
        if self._action != LEASE and stubborn:
            active = self._leases.wish(stubborn, self._action)
            results.under_way += [queue_id for queue_id in stubborn if queue_id in active]
            stubborn = [queue_id for queue_id in stubborn if queue_id not in active]
            if stubborn and page.tries < _TRIES_MAX:
                page.tries += 1
                self._loop.call_later(_PAUSE_S, partial(self._ask_again, page, change, stubborn))
                return
        results.busy += stubborn
        self._finish(page)

    def _ask_again(self, page: ChangedPage, change: Change, queue_ids: list[str]) -> None:
        """A settlement was on its way to the spool: now it is there, maybe in another state than the one it was wanted in."""
        wanted = Filter(ids=queue_ids)
        matches = partial(wanted.matches, now_s=self._now_s)
        again = Change(self._action, change.after_row, wanted.narrowing(), matches, partial(self._on_change, page))
        self._spool.change(page.shard, again)

    def _finish(self, page: ChangedPage) -> None:
        self._left -= page.results.known
        go_on = self.start if page.next_row is None else partial(self._ask, page.shard, page.next_row)
        if page.results.known:
            self._on_page(page, go_on)
        else:
            self._loop.ready(go_on)
