"""A spill file that gets another head or body before custody: written beside the old one in steps, then put in its place.

All methods but `__init__` belong to the files thread. Until the last step the old file is as it was; what is left after a crash
is a `.part`, which the next start removes. Never holds more than one piece in memory. Raises OSError.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

STEP_BYTES = 4 * 1024 * 1024
_PIECE_BYTES = 256 * 1024


class Rewriting:
    """`path` is the unfinished file, `kept_from` where what is kept of it begins; with `pieces` nothing of it is kept."""

    def __init__(self, path: str, head: bytes, kept_from: int, pieces: Iterator[bytes] | None, has_old: bool) -> None:
        self._path = path
        self._new_path = path.removesuffix(".part") + ".new.part"
        self._head = head
        self._offset = kept_from
        self._pieces = pieces
        self._has_old = has_old
        self._old_fd = -1
        self._fd = -1
        self.size_bytes = 0

    def step(self) -> bool:
        """Write a few MiB; True when the new file has taken the old one's place."""
        if self._fd < 0:
            self._fd = os.open(self._new_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            if self._pieces is None:
                self._old_fd = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            self._write(self._head)
        end = self.size_bytes + STEP_BYTES
        while self.size_bytes < end:
            piece = self._next_piece()
            if piece is None:
                self._replace()
                return True
            self._write(piece)
        return False

    def _next_piece(self) -> bytes | None:
        if self._pieces is not None:
            return next(self._pieces, None)
        piece = os.pread(self._old_fd, _PIECE_BYTES, self._offset)
        self._offset += len(piece)
        return piece or None

    def _write(self, piece: bytes) -> None:
        self.size_bytes += len(piece)
        rest = memoryview(piece)
        while rest:
            rest = rest[os.write(self._fd, rest) :]

    def _replace(self) -> None:
        if self._has_old:
            os.rename(self._new_path, self._path)
        else:  # nothing planted is overwritten
            os.link(self._new_path, self._path, follow_symlinks=False)
            os.unlink(self._new_path)
        self._close_old()

    def take_fd(self) -> int:
        """Give the descriptor of the new file away, after the last step."""
        fd, self._fd = self._fd, -1
        return fd

    def give_up(self) -> None:
        """Remove what was written, if the last step was not done."""
        self._close_old()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            os.unlink(self._new_path)

    def _close_old(self) -> None:
        if self._old_fd >= 0:
            os.close(self._old_fd)
            self._old_fd = -1
