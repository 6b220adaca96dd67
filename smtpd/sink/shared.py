"""What all workers of a sink count together, in shared memory made before the fork: connections, sessions, mails, a greylist.

A lock (a semaphore that all processes share) is held for some additions; a process that dies within them leaves it taken, so it
is waited for by a second at most and then taken for free. Nothing here is touched by a sink that has no such option.
"""

from __future__ import annotations

import mmap
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from multiprocessing.synchronize import Lock

_PATIENCE_S = 1.0
_CONNECTIONS, _MAILS, _ENDED = 0, 1, 2
_FIRST_WORKER = 8
_GREY_PLACES = 1 << 16
_GREY_TRIES = 32


@contextmanager
def _holding(lock: Lock) -> Iterator[None]:
    """Hold the lock; one that whoever held it never gave back costs the next one a second, and those behind it nothing."""
    lock.acquire(timeout=_PATIENCE_S)
    try:
        yield
    finally:
        with suppress(ValueError):  # somebody who waited for us too long has given it back
            lock.release()


class SharedCounts:
    """`workers`: the most there will be at a time. A worker's open sessions are its own word, which a successor starts anew."""

    def __init__(self, workers: int, max_sessions: int = 0, max_mails: int = 0, max_ended: int = 0) -> None:
        self.max_sessions = max_sessions
        self._max_mails = max_mails
        self._max_ended = max_ended
        self._lock = multiprocessing.get_context("fork").Lock()
        self._words: memoryview[int] = memoryview(mmap.mmap(-1, (_FIRST_WORKER + workers) * 8)).cast("q")

    @contextmanager
    def _locked(self) -> Iterator[memoryview[int]]:
        with _holding(self._lock):
            yield self._words

    def next_connection(self) -> int:
        """The number of a connection, from 1 in the order in which they were accepted, over all workers."""
        with self._locked() as words:
            words[_CONNECTIONS] += 1
            return words[_CONNECTIONS]

    def begin_worker(self, worker: int) -> None:
        """A worker starts: it has no session."""
        with self._locked() as words:
            words[_FIRST_WORKER + worker] = 0

    def take_session(self, worker: int) -> bool:
        """One session more, if there is room."""
        with self._locked() as words:
            if sum(words[_FIRST_WORKER:]) >= self.max_sessions:
                return False
            words[_FIRST_WORKER + worker] += 1
            return True

    def give_session_back(self, worker: int) -> None:
        with self._locked() as words:
            words[_FIRST_WORKER + worker] -= 1

    def take_mail(self) -> tuple[bool, bool]:
        """Whether one mail more may be taken, and whether it is the last one."""
        if not self._max_mails:
            return True, False
        with self._locked() as words:
            if words[_MAILS] >= self._max_mails:
                return False, False
            words[_MAILS] += 1
            return True, words[_MAILS] == self._max_mails

    def end_session(self) -> bool:
        """A session has ended; whether it was the last one wanted."""
        if not self._max_ended:
            return False
        with self._locked() as words:
            words[_ENDED] += 1
            return words[_ENDED] == self._max_ended


class SharedGreylist:
    """When each triple of client, sender and recipient came first, by a hash of it.

    Of `places`; when the one of a triple and those behind it are taken by others, the oldest of them is forgotten.
    """

    def __init__(self, places: int = _GREY_PLACES) -> None:
        self._places = places
        self._lock = multiprocessing.get_context("fork").Lock()
        memory = mmap.mmap(-1, places * 16)
        self._keys: memoryview[int] = memoryview(memory)[: places * 8].cast("Q")
        self._times: memoryview[float] = memoryview(memory)[places * 8 :].cast("d")

    def first_seen(self, client: str, sender: bytes, recipient: bytes, now: float) -> float:
        """Return when the triple came first, which is `now` for one that is new. Times are monotonic seconds."""
        digest = blake2b(b"\0".join((client.encode(), sender.lower(), recipient.lower())), digest_size=8)
        key = int.from_bytes(digest.digest(), "big") or 1
        with _holding(self._lock):
            places = [(key + n) % self._places for n in range(_GREY_TRIES)]
            for place in places:
                if self._keys[place] == key:
                    return self._times[place]
                if not self._keys[place]:
                    break
            else:
                place = min(places, key=self._times.__getitem__)
            self._keys[place] = key
            self._times[place] = now
            return now
