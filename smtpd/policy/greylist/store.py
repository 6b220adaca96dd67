"""What a store of a greylist answers, and the rules both stores follow.

`touch` is one step, whole or not at all: look a sender up, and note that he was here. The rules are `judge`; the script in Redis
(`fleet.py`) says the same in Lua, and tests hold both to one table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds, and the number of passes after which a client is known (0 = never)."""

    delay_s: int
    retry_window_s: int
    lifetime_s: int
    known_after: int


@dataclass(frozen=True, slots=True)
class Touch:
    """`wait_s` 0 = may pass. `is_client_known`: all of this client may, so the store need not be asked again soon."""

    wait_s: int = 0
    is_client_known: bool = False


class Store(Protocol):
    """Where a greylist remembers."""

    async def touch(self, client: bytes, triplet: bytes) -> Touch: ...


@dataclass(slots=True)
class Record:
    """A triplet: when it first came, when it last passed (0.0 = not yet)."""

    first_s: float
    passed_s: float = 0.0


def judge(
    record: Record | None, passes: int, client_seen_s: float, times: Times, now_s: float
) -> tuple[Touch, Record | None, int]:
    """Return what to say, the record to keep (None: leave it), and the client's passes from now on.

    `passes` and `client_seen_s` are the client's, 0 and 0.0 for a new one. Times are Unix time: they outlive a process."""
    if passes and now_s - client_seen_s > times.lifetime_s:
        passes = 0
    if times.known_after and passes >= times.known_after:
        return Touch(is_client_known=True), None, passes
    if record is not None and record.passed_s:
        if now_s - record.passed_s <= times.lifetime_s:
            return Touch(), Record(record.first_s, now_s), passes
        record = None
    if record is not None and not 0 <= now_s - record.first_s <= times.retry_window_s:
        record = None  # too late, or the clock was set back
    if record is None:
        return Touch(times.delay_s), Record(now_s), passes
    waited_s = now_s - record.first_s
    if waited_s < times.delay_s:
        return Touch(max(1, round(times.delay_s - waited_s))), None, passes
    return Touch(), Record(record.first_s, now_s), passes + 1
