"""Queue ids: time, node and shard in a vowel-free base-52 alphabet: sortable, unique over restarts and hosts.

An id is 15 characters: 10 for a hybrid clock in microseconds (never goes back, never repeats), 5 for node and shard.
The owner of a shard persists `reserve()` before ids up to it are used, so a clock that was set back can't repeat one.
"""

from __future__ import annotations

from collections.abc import Callable

from smtpd import _io
from smtpd._text import join_number

ALPHABET = "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"  # ASCII order, so text order is time order
CLOCK_DIGITS = 10
ORIGIN_DIGITS = 5
MAX_NODE = 4095
MAX_SHARD = 4095
LENGTH = CLOCK_DIGITS + ORIGIN_DIGITS

_CLOCK_DIGITS = CLOCK_DIGITS  # in a C variable of the module
_VALUES = {letter: value for value, letter in enumerate(ALPHABET)}


def encode_number(value: int, digits: int) -> str:
    """Return `value` >= 0 in base 52, `digits` characters wide; raises OverflowError if it does not fit."""
    return join_number(value, digits, "")


def parse_queue_id(text: str) -> tuple[int, int, int]:
    """Return (microseconds since 1970, node, shard) of a queue id; raises ValueError if it isn't one."""
    if len(text) != LENGTH or not all(letter in _VALUES for letter in text):
        raise ValueError(f"not a queue id: {text!r}")
    number = 0
    for letter in text[:CLOCK_DIGITS]:
        number = number * 52 + _VALUES[letter]
    origin = 0
    for letter in text[CLOCK_DIGITS:]:
        origin = origin * 52 + _VALUES[letter]
    return number, origin >> 12, origin & 0xFFF


class QueueIdMaker:
    """Makes the ids of one shard. `floor_us` is the highest clock value that may have been used before.

    `clock` returns ns since 1970, None: the system's.
    """

    __slots__ = ("_clock", "_last_us", "_origin")

    def __init__(self, node: int, shard: int, floor_us: int = 0, clock: Callable[[], int] | None = None) -> None:
        if not (0 <= node <= MAX_NODE and 0 <= shard <= MAX_SHARD):
            raise ValueError(f"node {node} or shard {shard} outside 0..4095")
        self._origin = encode_number(node << 12 | shard, ORIGIN_DIGITS)
        self._last_us = floor_us
        self._clock = clock

    @property
    def last_us(self) -> int:
        """The clock value of the newest id."""
        return self._last_us

    def next_id(self) -> str:
        """Return a new id, greater than all before it."""
        now_us = _io.unix_us() if self._clock is None else self._clock() // 1000
        if now_us <= self._last_us:
            now_us = self._last_us + 1
        self._last_us = now_us
        return join_number(now_us, _CLOCK_DIGITS, self._origin)
