"""The files thread: everything that may block on a disk but isn't the shard's (spill files, Maildir, statvfs).

Owns one thread and its queue. Jobs run in order, in batches: a job is called with nothing and returns its result; a job
that raises gives the exception to `done` instead. `done` runs on the loop thread. Jobs must keep Python work short.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from smtpd.net.loop import Loop

Job = Callable[[], Any]
Done = Callable[[Any, BaseException | None], object]


class FilesThread:
    """Start it after the fork. `backlog` is the number of jobs not finished yet."""

    def __init__(self, loop: Loop, name: str = "files") -> None:
        self._loop = loop
        self._jobs: SimpleQueue[tuple[Job, Done] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.backlog = 0

    def start(self) -> None:
        self._thread.start()

    def submit(self, job: Job, done: Done) -> None:
        """Run `job()` on the thread, then `done(result, None)` or `done(None, exception)` on the loop."""
        self.backlog += 1
        self._jobs.put((job, done))

    def close(self) -> None:
        """Finish what is queued, end the thread."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (entry := self._jobs.get()) is not None:
            job, done = entry
            result: Any = None
            failure: BaseException | None = None
            try:
                result = job()
            except BaseException as error:  # noqa: BLE001 - handed to the one who asked
                failure = error
            self._loop.post(self._finish, done, result, failure)

    def _finish(self, done: Done, result: Any, failure: BaseException | None) -> None:
        self.backlog -= 1
        done(result, failure)
