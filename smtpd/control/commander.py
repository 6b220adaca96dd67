"""Changes the queue for the command line: asks the workers, and changes the shards that nobody owns by itself, under their locks.

Blocking, as its base. A shard of a stopped server is changed by the same pages as a worker's, each a transaction of its own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from smtpd.control.client import QueueReader
from smtpd.control.filter import Filter
from smtpd.control.wire import Request, Results
from smtpd.delivery.attempt import suspended_text
from smtpd.delivery.suspension import read_suspended, set_suspended
from smtpd.spool.batch import Batch
from smtpd.spool.change import FLUSH, Change
from smtpd.spool.database import ShardDatabase
from smtpd.spool.query import shard_dirs
from smtpd.spool.spill import remove_spill_files

_IDS_AT_ONCE = 1000  # a request has 64 KiB


@dataclass(slots=True)
class Outcome:
    """What a command did: `results` of all who were asked, and which of the ids asked for nobody knew."""

    results: Results = field(default_factory=Results)
    not_found: list[str] = field(default_factory=list)


class QueueCommander(QueueReader):
    """See QueueReader for `problems`."""

    def change(self, action: str, wanted: Filter) -> Outcome:
        """Do `action` (spool.change) with all mails that the filter wants, on workers and stopped shards."""
        outcome = Outcome()
        ids = list(dict.fromkeys(wanted.ids))
        for start in range(0, max(1, len(ids)), _IDS_AT_ONCE):
            part = msgspec.structs.replace(wanted, ids=ids[start : start + _IDS_AT_ONCE])
            for results in self._changes(action, part):
                outcome.results.add(results)
        found = outcome.results
        known = {*found.changed, *found.unchanged, *found.under_way, *found.busy}
        outcome.not_found = [queue_id for queue_id in ids if queue_id not in known]
        return outcome

    def _changes(self, action: str, wanted: Filter) -> Iterator[Results]:
        for path, pid in self._sockets():
            for line in self._ask(path, pid, Request(action, wanted, everything=wanted.is_all)):
                if line.results is not None:
                    yield line.results
        now_s = time.time()
        for directory in shard_dirs(self._spool_path):
            with self._stopped_shard(directory) as database:
                if database is not None:
                    yield from _change_stopped(database, action, wanted, now_s)

    # --- routes ------------------------------------------------------------------------------------------------------

    def suspended(self) -> list[str]:
        """Return the names of the suspended routes."""
        try:
            return read_suspended(self._spool_path)
        except (OSError, ValueError) as error:
            self.problems.append(str(error))
            return []

    def set_suspended(self, route: str, is_suspended: bool) -> Outcome:
        """Suspend a route or let it go on, whoever serves it; what waited for it is due then."""
        request = Request("suspend" if is_suspended else "resume", route=route)
        outcome = Outcome()
        asked: set[str] = set()
        while sockets := [(path, pid) for path, pid in self._sockets() if path not in asked]:  # one may start meanwhile
            for path, pid in sockets:
                asked.add(path)
                for line in self._ask(path, pid, request):
                    if line.results is not None:
                        outcome.results.add(line.results)
        if not self._asked_pids:
            try:
                set_suspended(self._spool_path, route, is_suspended)
            except (OSError, ValueError) as error:
                self.problems.append(str(error))
        if not is_suspended:
            wanted = Filter(reason=suspended_text(route))
            for directory in shard_dirs(self._spool_path):
                with self._stopped_shard(directory) as database:
                    if database is not None:
                        for results in _change_stopped(database, FLUSH, wanted, time.time()):
                            outcome.results.add(results)
        return outcome


def _change_stopped(database: ShardDatabase, action: str, wanted: Filter, now_s: float) -> Iterator[Results]:
    """Change a shard whose lock the caller holds."""
    after_row = 0
    while True:
        change = Change(action, after_row, wanted.narrowing(), lambda mail: wanted.matches(mail, now_s), lambda change: None)
        batch = Batch()
        batch.changes.append(change)
        database.commit(batch)
        if change.unlinks:
            gone = Batch()
            gone.gone_files += remove_spill_files(database.spill_directory, change.unlinks)
            database.commit(gone)
        yield Results([entry.before.queue_id for entry in change.changed], change.unchanged, [], change.leased)
        if change.is_last:
            return
        after_row = change.last_row
