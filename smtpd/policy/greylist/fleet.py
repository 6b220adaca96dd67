"""The greylist of a fleet: the rules of `store.judge` as a Lua script in Redis, by Redis' own clock.

A triplet is one key: the time of its first try while it waits, "p" when it passed; a client's key counts passes. Both expire by
themselves. They share a hash tag, so that a cluster keeps them together. Where Redis is away, the local store answers: a sender
that is known there passes, another is put off once more.
"""

from __future__ import annotations

from typing import Any

from smtpd.net.fleet import Fleet, FleetAwayError
from smtpd.policy.greylist.store import Store, Times, Touch

_TOUCH = """
local triplet, client = KEYS[1], KEYS[2]
local delay, window, lifetime, known_after = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local passes = tonumber(redis.call('GET', client) or '0') or 0
if known_after > 0 and passes >= known_after then
  redis.call('EXPIRE', client, lifetime)
  return {0, 1}
end
local state = redis.call('GET', triplet)
if state == 'p' then
  redis.call('EXPIRE', triplet, lifetime)
  if passes > 0 then redis.call('EXPIRE', client, lifetime) end
  return {0, 0}
end
local first = state and tonumber(state)
if not first or now < first or now - first > window then
  redis.call('SET', triplet, string.format('%.3f', now), 'EX', window)
  return {delay, 0}
end
if now - first < delay then
  return {math.max(1, math.floor(delay - (now - first) + 0.5)), 0}
end
redis.call('SET', triplet, 'p', 'EX', lifetime)
redis.call('INCR', client)
redis.call('EXPIRE', client, lifetime)
return {0, 0}
"""


class FleetStore:
    """Redis, and `local` while it is away."""

    def __init__(self, fleet: Fleet, times: Times, local: Store) -> None:
        self._fleet = fleet
        self._local = local
        self._arguments = (times.delay_s, times.retry_window_s, times.lifetime_s, times.known_after)

    async def touch(self, client: bytes, triplet: bytes) -> Touch:
        tag = "{" + client.hex() + "}"
        keys = [self._fleet.key("grey", tag, triplet.hex()), self._fleet.key("grey", tag)]
        try:
            return await self._fleet.run(_TOUCH, keys, self._arguments, _take)
        except FleetAwayError:
            return await self._local.touch(client, triplet)


def _take(result: Any) -> Touch:
    """The script's result; raises for what is none."""
    wait_s, is_known = result
    if type(wait_s) is not int or wait_s < 0 or is_known not in (0, 1):
        raise ValueError("not an answer of our script")
    return Touch(wait_s, bool(is_known))
