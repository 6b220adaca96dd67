"""DNS for the checks: the records of a name by kind, each answer kept for its time, equal questions asked once.

Owns the cache of a worker (bounded in number, the oldest answer goes first) and how many questions are under way at once. What
DNS answers is a value, never an exception: found, absent (NXDOMAIN), empty (no such records), failed. `known` may be called
on any thread; `ask` belongs to the side thread. An error answer reaches us without its SOA, so it is kept for `negative_ttl`
here; behind that c-ares keeps it by the minimum of the zone (RFC 2308 5).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal
from weakref import WeakKeyDictionary

from smtpd.net.dns_channel import DnsChannel, NoAnswerError, open_channel
from smtpd.net.hops import find_missing
from smtpd.net.side import SideThread
from smtpd.settings.delivery import DnsSettings

Kind = Literal["A", "AAAA", "MX", "PTR", "TXT"]

RECORDS_MAX = 100  # of one answer; more would only be a way to keep us busy
TTL_MOST_S = 3600.0
FAILURE_TTL_S = 5.0  # the name server is not asked for every mail while it fails


@dataclass(frozen=True, slots=True)
class Answer:
    """What DNS says. `records` are texts: addresses, names in lower case without the last dot, "" for the root, MX targets in
    order of preference, TXT as Latin-1. With no records one of the three flags says why; `text` is for the log."""

    records: tuple[str, ...] = ()
    is_absent: bool = False
    is_empty: bool = False
    is_failed: bool = False
    text: str = ""

    @property
    def is_found(self) -> bool:
        return bool(self.records)


ABSENT = Answer(is_absent=True, text="the name does not exist")
EMPTY = Answer(is_empty=True, text="no such records")


class DnsRecords:
    """One for each worker. `clock` is monotonic."""

    def __init__(self, channel: DnsChannel, settings: DnsSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self.channel = channel
        self._timeout_s = settings.check_timeout
        self._negative_ttl_s = settings.negative_ttl
        self._cache_max = settings.cache_answers
        self._queries = settings.check_queries
        self._clock = clock
        self._cache: dict[tuple[str, Kind], tuple[float, Answer]] = {}
        self._under_way: dict[tuple[str, Kind], asyncio.Task[Answer]] = {}
        self._places: asyncio.Semaphore | None = None  # made on the side thread
        self._missing: str | None = None

    def known(self, name: str, kind: Kind) -> Answer | None:
        """Return what is known now without asking; None = it has to be asked. `name` in lower case, without its last dot."""
        kept = self._cache.get((name, kind))
        return kept[1] if kept is not None and kept[0] > self._clock() else None

    async def ask(self, name: str, kind: Kind) -> Answer:
        """Return what DNS says within `check_timeout`. Equal questions share one; who is cancelled doesn't stop the others."""
        key = (name.removesuffix(".").lower(), kind)
        answer = self.known(*key)
        if answer is not None:
            return answer
        if not is_name(key[0]):
            return ABSENT
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._find(key))
            self._under_way[key] = task
            task.add_done_callback(lambda _: self._under_way.pop(key, None))
        return await asyncio.shield(task)

    async def _find(self, key: tuple[str, Kind]) -> Answer:
        if self._missing is None:
            self._missing = find_missing()
        if self._missing:
            return Answer(is_failed=True, text=self._missing)
        if self._places is None:
            self._places = asyncio.Semaphore(self._queries)
        try:
            async with asyncio.timeout(self._timeout_s), self._places:
                answer, ttl_s = await self._query(key)
        except TimeoutError:
            answer, ttl_s = Answer(is_failed=True, text="no answer in time"), FAILURE_TTL_S
        self._keep(key, answer, ttl_s)
        return answer

    async def _query(self, key: tuple[str, Kind]) -> tuple[Answer, float]:
        name, kind = key
        try:
            records, ttl_s = await self.channel.query(name, kind)
        except NoAnswerError as error:
            if error.is_absent:
                return ABSENT, self._negative_ttl_s
            if error.is_empty:
                return EMPTY, self._negative_ttl_s
            return Answer(is_failed=True, text=str(error)), FAILURE_TTL_S
        return Answer(tuple(_texts_of(records, kind)[:RECORDS_MAX])), min(ttl_s, TTL_MOST_S)

    def _keep(self, key: tuple[str, Kind], answer: Answer, ttl_s: float) -> None:
        cache = self._cache
        cache.pop(key, None)
        while len(cache) >= self._cache_max:
            del cache[next(iter(cache))]
        cache[key] = (self._clock() + ttl_s, answer)


_OF_WORKERS: WeakKeyDictionary[SideThread, DnsRecords] = WeakKeyDictionary()


def records_of(side: SideThread, settings: DnsSettings) -> DnsRecords:
    """The one DnsRecords of a worker, which is known by its side thread; on the loop thread."""
    records = _OF_WORKERS.get(side)
    if records is None:
        records = _OF_WORKERS[side] = DnsRecords(open_channel(settings, side), settings)
    return records


def is_name(name: str) -> bool:
    """Whether a question about `name` can be put on the wire."""
    return 0 < len(name) <= 253 and name.isascii() and all(0 < len(label) <= 63 for label in name.split("."))


def _texts_of(records: list[Any], kind: Kind) -> list[str]:
    if kind == "MX":
        return [_plain(record.exchange) for record in sorted(records, key=lambda record: int(record.priority))]
    if kind == "PTR":
        return [_plain(record.dname) for record in records]
    if kind == "TXT":
        return [record.data.decode("latin-1") for record in records]
    return [str(record.addr) for record in records]


def _plain(name: object) -> str:
    return str(name).removesuffix(".").lower()
