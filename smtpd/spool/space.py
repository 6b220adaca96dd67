"""Watches free space and inodes of the spool's file system, once a second on the files thread; pages that SQLite has free in
the shards count as free space.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from smtpd.net.files import FilesThread
from smtpd.net.loop import Loop, Timer
from smtpd.settings.gateway import SpoolSettings

_PERIOD_S = 1.0
_AGAIN = 1.1  # times what the settings want to keep must be free before mail is taken again


class SpaceWatch:
    """`is_full`: less is free than the settings want to keep, or was, and a tenth more isn't yet.

    `observe(free_bytes, free_inodes)` runs on the loop."""

    def __init__(
        self,
        loop: Loop,
        files: FilesThread,
        settings: SpoolSettings,
        reusable_bytes: Callable[[], int],
        observe: Callable[[int, int], object] | None = None,
    ) -> None:
        self._loop = loop
        self._files = files
        self._settings = settings
        self._reusable_bytes = reusable_bytes
        self._observe = observe
        self._timer: Timer | None = None
        self._is_running = True
        self.is_full = False

    def start(self) -> None:
        """Look once now, on this thread, and from then on by timer."""
        try:
            self._take(os.statvfs(self._settings.path))
        except OSError:
            pass
        self._schedule()

    def stop(self) -> None:
        self._is_running = False
        if self._timer is not None:
            self._timer.cancel()

    def note_full(self) -> None:
        """A write found no room: full until the next look says otherwise."""
        self.is_full = True

    def _schedule(self) -> None:
        if self._is_running:
            self._timer = self._loop.call_later(_PERIOD_S, self._look)

    def _look(self) -> None:
        path = self._settings.path
        self._files.submit(lambda: os.statvfs(path), self._on_look)

    def _on_look(self, found: os.statvfs_result | None, _: BaseException | None) -> None:
        if found is not None:
            self._take(found)
        self._schedule()

    def _take(self, found: os.statvfs_result) -> None:
        free_bytes = found.f_bavail * found.f_frsize + self._reusable_bytes()
        more = _AGAIN if self.is_full else 1.0
        has_inodes = found.f_files == 0 or found.f_favail >= self._settings.free_inodes * more  # 0: not limited
        self.is_full = free_bytes < self._settings.free_bytes * more or not has_inodes
        if self._observe is not None:
            self._observe(free_bytes, found.f_favail)
