"""Large bodies: a file of its own for each, written through the files thread while the mail arrives.

The file is `<queue id>.part` until it is whole; then it is synced, renamed to `<queue id>`, and its directory
synced, all before the mail enters a batch. So at a start a `.part` was never acknowledged, and a whole file
without a row is kept (recovery.py). Nothing planted is followed or overwritten: O_EXCL, O_NOFOLLOW,
link(2) instead of rename(2).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from smtpd.errors import SpoolError, SpoolFullError
from smtpd.net.files import FilesThread
from smtpd.spool import lock
from smtpd.spool.database import FULL_ERRNOS
from smtpd.spool.rewriting import Rewriting

PART = ".part"
_HIGH_BYTES = 512 * 1024  # waiting for the disk: the sender is asked to stop
_LOW_BYTES = 128 * 1024


class SpillFile:
    """One body on its way into a file. `error` is why it can't become one; later chunks are then dropped.

    `on_written(octets)` is called on the loop thread when so many octets have left memory, or were dropped.
    """

    __slots__ = (
        "_fd",
        "_files",
        "_is_aborted",
        "_is_begun",
        "_is_stopped",
        "_is_whole",
        "_path",
        "_waiting_bytes",
        "directory",
        "error",
        "on_drain",
        "on_written",
    )

    def __init__(self, files: FilesThread, directory: str, queue_id: str, on_written: Callable[[int], object]) -> None:
        self._files = files
        self._path = os.path.join(directory, queue_id)
        self._fd = -1  # this and the next belong to the files thread
        self._is_whole = False
        self._waiting_bytes = 0
        self._is_stopped = False
        self._is_begun = False  # there is a file, or will be when the files thread gets to it
        self._is_aborted = False
        self.directory = directory
        self.error: SpoolError | None = None
        self.on_written = on_written
        self.on_drain: Callable[[], None] | None = None

    @property
    def path(self) -> str:
        """Where the whole file is, once `finish` succeeded."""
        return self._path

    def write(self, chunks: list[bytes]) -> bool:
        """Append `chunks`; False when the caller should stop until `on_drain`."""
        size = sum(map(len, chunks))
        if self.error is not None:
            self.on_written(size)
            return True
        self._waiting_bytes += size
        self._is_begun = True

        def on_done(_: object, failure: BaseException | None) -> None:
            self.on_written(size)
            self._waiting_bytes -= size
            if failure is not None and self.error is None:
                self.error = _error_of(failure)
            if self._is_stopped and (self._waiting_bytes <= _LOW_BYTES or self.error is not None):
                self._is_stopped = False
                if self.on_drain is not None:
                    self.on_drain()

        self._files.submit(lambda: self._append(chunks), on_done)
        if self._waiting_bytes >= _HIGH_BYTES:
            self._is_stopped = True
            return False
        return True

    def finish(self, done: Callable[[SpoolError | None], None]) -> None:
        """Make the file whole and durable; `done(None)` or `done(error)`, when nothing of it is left."""

        def on_done(_: object, failure: BaseException | None) -> None:
            if failure is not None and self.error is None:
                self.error = _error_of(failure)
            if self.error is not None:
                self.abort()
            done(self.error)

        if self.error is not None:
            self.abort()
            done(self.error)
        else:
            self._files.submit(self._complete, on_done)

    @property
    def part_path(self) -> str:
        """Where the file is until it is whole."""
        return self._path + PART

    def settle(self, done: Callable[[SpoolError | None], object]) -> None:
        """`done` when what was written so far can be read from `part_path`."""
        self._files.submit(_nothing, lambda _, __: done(self.error))

    def rewrite(
        self, head: bytes, kept_from: int, pieces: Iterator[bytes] | None, done: Callable[[int, SpoolError | None], object]
    ) -> None:
        """Replace the file by `head` and its own octets from `kept_from` on, or by `head` and `pieces`, in steps between which
        others get their turn: `done(size, None)` or `done(0, error)`. Nothing may be written meanwhile."""
        rewriting = Rewriting(self.part_path, head, kept_from, pieces, self._is_begun)

        def step() -> bool:
            if not rewriting.step():
                return False
            if self._fd >= 0:
                os.close(self._fd)
            self._fd = rewriting.take_fd()
            return True

        def on_step(is_done: object, failure: BaseException | None) -> None:
            if failure is not None and self.error is None:
                self.error = _error_of(failure)
            if self.error is not None or self._is_aborted:
                self._files.submit(rewriting.give_up, _ignore)
                done(0, self.error)
            elif is_done:
                self._is_begun = True
                done(rewriting.size_bytes, None)
            else:
                self._files.submit(step, on_step)

        self._files.submit(step, on_step)

    def abort(self) -> None:
        """Remove what was written."""
        self._is_aborted = True
        self._files.submit(self._remove, _ignore)

    # --- on the files thread -----------------------------------------------------------------------------------------

    def _append(self, chunks: list[bytes]) -> None:
        if self._fd < 0:
            self._fd = os.open(self._path + PART, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        data = memoryview(b"".join(chunks))
        while data:
            data = data[os.write(self._fd, data) :]

    def _complete(self) -> None:
        os.fdatasync(self._fd)
        os.link(self._path + PART, self._path, follow_symlinks=False)
        self._is_whole = True
        os.unlink(self._path + PART)
        lock.sync_directory(self.directory)
        os.close(self._fd)
        self._fd = -1

    def _remove(self) -> None:
        # only what is ours: a name that was there before us is left alone
        if self._is_whole:
            self._is_whole = False
            os.unlink(self._path)
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            try:
                os.unlink(self._path + PART)
            except FileNotFoundError:
                pass


def remove_spill_files(directory: str, queue_ids: list[str]) -> list[str]:
    """Unlink the files of mail that is gone and return the ids whose file is not there any more (files thread)."""
    gone = []
    for queue_id in queue_ids:
        try:
            os.unlink(os.path.join(directory, queue_id))
        except FileNotFoundError:
            pass
        except OSError:
            continue  # the next start tries again
        gone.append(queue_id)
    return gone


def _error_of(failure: BaseException) -> SpoolError:
    if isinstance(failure, OSError) and failure.errno in FULL_ERRNOS:
        return SpoolFullError(f"spill file: {failure}")
    return SpoolError(f"spill file: {failure}")


def _nothing() -> None:
    """A job that only waits for those before it."""


def _ignore(_: object, __: BaseException | None) -> None:
    """What a removal could not remove, the next start does."""
