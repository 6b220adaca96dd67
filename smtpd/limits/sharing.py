"""Rates of clients over a fleet: what each host counts is added up in Redis, and what others counted comes back.

No decision waits for Redis: a host decides by its own table at once and tells what it took a moment later, many clients in one
script and one round trip; the answer is how far each bucket of the fleet is from full, and the host's own is lowered to that. So
a client may have on each host what fits into one round trip more than its rate, and while Redis is away the rates hold for each
host by itself. Belongs to the loop thread. Raises nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from smtpd.limits._clients import ClientTable
from smtpd.net.fleet import Fleet
from smtpd.net.loop import Loop
from smtpd.net.side import SideThread
from smtpd.settings.rate import Rate

DELAY_S = 0.02  # how long a count waits for company
BATCH = 500  # buckets in one script
WAITING = 10_000  # more are not told: they are counted here all the same
_NAMES = ("connection", "mail", "recipient")  # by the number of a rate
_ADD = """
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local debts = {}
for i, key in ipairs(KEYS) do
  local count, interval, burst = tonumber(ARGV[3 * i - 2]), tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i])
  local full = tonumber(redis.call('GET', key) or '0') or 0
  if full < now or full - now > 2 * burst * interval then full = now end
  full = math.min(full + count * interval, now + 2 * burst * interval)
  redis.call('SET', key, string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000) + 1000)
  debts[i] = string.format('%.0f', full - now)
end
return debts
"""

Bucket = tuple[int, int, int]  # row, whose it is, rate


class FleetRates:
    """`rates` are those of the configuration, by number; `now_us` is the table's clock."""

    def __init__(
        self, loop: Loop, side: SideThread, fleet: Fleet, table: ClientTable,
        rates: Mapping[int, Rate], timeout_s: float, now_us: Callable[[], int],
    ) -> None:  # fmt: skip
        self._loop = loop
        self._side = side
        self._fleet = fleet
        self._table = table
        self._rates = rates
        self._timeout_s = timeout_s
        self._now_us = now_us
        self._counts: dict[Bucket, int] = {}
        self._is_due = False  # a timer runs, or a script

    def note(self, row: int, rate: int) -> None:
        """One was taken from a bucket of this host."""
        bucket = (row, self._table.key_at(row), rate)
        count = self._counts.get(bucket, 0)
        if count or len(self._counts) < WAITING:
            self._counts[bucket] = count + 1
        if not self._is_due:
            self._is_due = True
            self._loop.call_later(DELAY_S, self._tell)

    def _tell(self) -> None:
        buckets = list(self._counts)[:BATCH]
        keys: list[str] = []
        arguments: list[int] = []
        for bucket in buckets:
            _, client, rate = bucket
            limit = self._rates[rate]
            keys.append(self._fleet.key("{rate}", _NAMES[rate], f"{client:x}"))
            arguments += (self._counts.pop(bucket), limit.interval_us, limit.count)
        fleet = self._fleet
        self._side.ask(
            lambda: fleet.run(_ADD, keys, arguments, lambda result: _take(result, len(keys))),
            lambda debts, error: self._on_answer(buckets, debts),
            2 * self._timeout_s + 1.0,
        )

    def _on_answer(self, buckets: list[Bucket], debts: list[int] | None) -> None:
        """Without an answer what was counted is known here alone."""
        if debts is not None:
            now_us = self._now_us()
            for (row, client, rate), debt_us in zip(buckets, debts, strict=True):
                if self._table.key_at(row) == client:
                    self._table.lower(row, rate, now_us + debt_us)
        self._is_due = bool(self._counts)
        if self._is_due:
            self._loop.call_later(DELAY_S, self._tell)


def _take(result: Any, count: int) -> list[int]:
    """The script's result; raises for what is none."""
    debts = [int(debt) for debt in result]
    if len(debts) != count or any(debt < 0 for debt in debts):
        raise ValueError("not an answer of our script")
    return debts
