"""Descriptors that were told goodbye and are closed a little later, so that what was said is not lost to a reset.

A close with unread input makes the kernel send a reset, and that may overtake the last reply (RFC 1122 4.2.2.13). Where a client
is turned away at accept, waiting costs no event, no buffer and no timer of its own: one sweep closes what is old enough. Their
number is bounded, by a share of the descriptors there are: the oldest make room, or who is turned away would shut others out.
"""

from __future__ import annotations

from collections import deque

from smtpd import _io
from smtpd.net.loop import Loop
from smtpd.worker.descriptors import Descriptors

LINGER_S = 2.0
MOST = 1000
SHARE = 8  # of all descriptors of the process, one in so many at most


class Lingering:
    """Owns the descriptors it is given."""

    def __init__(self, loop: Loop, descriptors: Descriptors) -> None:
        self._loop = loop
        self._waiting: deque[tuple[float, int]] = deque()
        self._is_sweeping = False
        self._descriptors = descriptors

    def __len__(self) -> int:
        return len(self._waiting)

    def dismiss(self, fd: int, last_words: bytes) -> None:
        """Send what fits of `last_words`, end our side, close later."""
        if last_words:
            _io.send(fd, last_words, 0)
        _io.shutdown_write(fd)
        while len(self._waiting) >= max(1, min(MOST, self._descriptors.limit // SHARE)):
            _io.close(self._waiting.popleft()[1])
        self._waiting.append((self._loop.now + LINGER_S, fd))
        if not self._is_sweeping:
            self._is_sweeping = True
            self._loop.call_later(LINGER_S, self._sweep)

    def _sweep(self) -> None:
        waiting = self._waiting
        now = self._loop.now
        while waiting and waiting[0][0] <= now:
            _io.close(waiting.popleft()[1])
        self._is_sweeping = bool(waiting)
        if waiting:
            self._loop.call_at(waiting[0][0], self._sweep)

    def close(self) -> None:
        """Close all at once: the process ends."""
        while self._waiting:
            _io.close(self._waiting.popleft()[1])
