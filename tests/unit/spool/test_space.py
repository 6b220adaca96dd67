"""Free space: what the file system says, and what the shards have free inside."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from smtpd.net.files import FilesThread
from smtpd.net.loop import Loop
from smtpd.settings.gateway import SpoolSettings
from smtpd.spool import space
from smtpd.spool.space import SpaceWatch


class Machine:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free_blocks = 1000
        self.free_inodes = 1000
        self.inodes = 5000
        self.reusable_bytes = 0
        monkeypatch.setattr(os, "statvfs", self._statvfs)
        monkeypatch.setattr(space, "_PERIOD_S", 0.05)
        self.loop = Loop()
        self.files = FilesThread(self.loop)
        self.files.start()

    def _statvfs(self, path: str) -> SimpleNamespace:
        return SimpleNamespace(f_bavail=self.free_blocks, f_frsize=4096, f_files=self.inodes, f_favail=self.free_inodes)

    def watch(self, free_bytes: int = 0, free_inodes: int = 0) -> tuple[SpaceWatch, list[tuple[int, int]]]:
        seen: list[tuple[int, int]] = []
        settings = SpoolSettings(path="/", free_bytes=free_bytes, free_inodes=free_inodes)
        watch = SpaceWatch(self.loop, self.files, settings, lambda: self.reusable_bytes, lambda *figures: seen.append(figures))
        watch.start()
        return watch, seen


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    made = Machine(monkeypatch)
    yield made
    made.files.close()
    made.loop.close()


def test_free_pages_of_the_shards_count_as_free(machine: Machine) -> None:
    machine.reusable_bytes = 1 << 30
    watch, seen = machine.watch(free_bytes=1 << 29)
    assert seen == [(1000 * 4096 + (1 << 30), 1000)]
    assert not watch.is_full
    machine.reusable_bytes = 0
    assert machine.watch(free_bytes=1 << 29)[0].is_full


def test_too_few_inodes_are_full_unless_the_file_system_has_no_limit(machine: Machine) -> None:
    assert machine.watch(free_inodes=1001)[0].is_full
    machine.inodes = machine.free_inodes = 0
    assert not machine.watch(free_inodes=1001)[0].is_full


def test_a_write_without_room_is_full_until_the_next_look(machine: Machine) -> None:
    watch, seen = machine.watch()
    watch.note_full()
    assert watch.is_full
    while len(seen) < 2:
        machine.loop.turn(5.0)
    assert not watch.is_full
    watch.stop()


def test_a_look_that_fails_changes_nothing(machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(path: str) -> None:
        raise OSError(5, "I/O error")

    monkeypatch.setattr(os, "statvfs", fail)
    watch, seen = machine.watch(free_bytes=1)
    assert not watch.is_full
    assert seen == []
