"""What the gateways of a fleet share: one Redis or Valkey, asked by Lua scripts in one round trip each.

Owns the worker's connections (redis-py's asyncio client, imported and made at the first question, on the side thread). A server
that fails, hangs or answers nonsense is left alone for `retry` seconds, so that its trouble costs one wait and not one for each
mail. Raises FleetAwayError alone; who asks goes on with what this host knows. Never writes the URL, which may hold a password.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from smtpd.log.maillog import MailLog
from smtpd.metrics._cells import Cells
from smtpd.metrics.slab import CellIndex
from smtpd.net.loop import Loop
from smtpd.net.side import SideThread
from smtpd.settings.redis import RedisSettings

if TYPE_CHECKING:
    from redis.asyncio import Redis

MISSING = "the package redis is not installed, the extra `redis`"


class FleetAwayError(Exception):
    """Redis can't be asked now."""


class Fleet:
    """`on_change(is_up, text)` is told on the side thread when the server goes away and when it is back. `clock` is monotonic."""

    def __init__(
        self, settings: RedisSettings, side: SideThread,
        on_change: Callable[[bool, str], object], clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._side = side
        self._on_change = on_change
        self._clock = clock
        self._client: Redis | None = None
        self._scripts: dict[str, Any] = {}
        self._again_at = 0.0
        self._is_up: bool | None = None

    def key(self, *parts: str) -> str:
        """A key of ours."""
        return ":".join((self._settings.prefix, *parts))

    async def run[T](
        self, script: str, keys: Sequence[str], arguments: Sequence[int | float | str], take: Callable[[Any], T]
    ) -> T:
        """Run a Lua script (EVALSHA) and return what `take` makes of its result; `take` raises for nonsense."""
        if self._clock() < self._again_at:
            raise FleetAwayError("Redis failed a moment ago")
        run_script = self._script(script)  # the first one imports a library, which is not the server's time
        try:
            async with asyncio.timeout(self._settings.timeout):
                result = take(await run_script(keys=list(keys), args=list(arguments)))
        except Exception as error:
            self._again_at = self._clock() + self._settings.retry
            words = "no answer in time" if isinstance(error, TimeoutError) else f"{type(error).__name__}: {error}"
            self._tell(False, words)
            raise FleetAwayError(words) from error
        self._tell(True, "")
        return result

    def _tell(self, is_up: bool, text: str) -> None:
        if is_up is not self._is_up:
            self._is_up = is_up
            self._on_change(is_up, text)

    def _script(self, text: str) -> Any:
        script = self._scripts.get(text)
        if script is None:
            script = self._scripts[text] = self._open().register_script(text)
        return script

    def _open(self) -> Redis:
        if self._client is None:
            from redis.asyncio import Redis
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff

            settings = self._settings
            self._client = Redis.from_url(
                settings.url, socket_timeout=settings.timeout, socket_connect_timeout=settings.timeout,
                max_connections=settings.connections, retry=Retry(NoBackoff(), 1),
            )  # fmt: skip
            self._side.at_close(self._client.aclose)
        return self._client


_OF_WORKERS: WeakKeyDictionary[SideThread, Fleet] = WeakKeyDictionary()


def fleet_of(settings: RedisSettings, side: SideThread, loop: Loop, log: MailLog, cells: Cells, index: CellIndex) -> Fleet | None:
    """The one Fleet of a worker, which is known by its side thread; None without a URL. On the loop thread. When the server goes
    away and comes back is logged and counted."""
    if not settings.url:
        return None
    fleet = _OF_WORKERS.get(side)
    if fleet is not None:
        return fleet
    away = index.gauge("smtpd_redis_away")

    def on_change(is_up: bool, text: str) -> None:
        loop.post(cells.set, away, 0 if is_up else 1)
        if is_up:
            log.info("smtpd", "Redis answers: greylists and rates are shared")
        else:
            log.warning("smtpd", f"Redis is away, this host goes on alone: {text}")

    fleet = _OF_WORKERS[side] = Fleet(settings, side, on_change)
    return fleet


def find_missing() -> str:
    """Return what hinders the use of Redis, "" if nothing does."""
    return "" if find_spec("redis") is not None else MISSING
