"""Memory: of this process, and the limit of its control group as the kernel's files tell it."""

from __future__ import annotations

import mmap
import resource
from pathlib import Path

import pytest

from smtpd.limits import memory
from smtpd.limits.memory import OwnMemory, address_space_limit, control_group_limit, trim_heap


def test_private_memory_grows_with_what_is_touched_and_shared_memory_is_left_out() -> None:
    own = OwnMemory()
    before, size_before = own.look()
    shared = mmap.mmap(-1, 64 << 20)
    shared.write(b"x" * len(shared))
    private = mmap.mmap(-1, 32 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    private.write(b"x" * len(private))
    after, size_after = own.look()
    shared.close()
    private.close()
    trim_heap()
    own.close()
    assert 32 << 20 <= after - before < 64 << 20
    assert size_after - size_before >= 96 << 20
    assert own.look() == (0, 0)


def test_where_the_file_cannot_be_opened_there_is_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(memory.os, "open", fail)
    assert OwnMemory().look() == (0, 0)


def group(root: Path, path: str, file: str, text: str) -> None:
    folder = root / path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(text)


def test_the_least_limit_of_the_group_and_those_above_it_counts(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("0::/system.slice/smtpd.service\n")
    root = tmp_path / "cgroup"
    assert control_group_limit(root, own) == 0
    group(root, "system.slice/smtpd.service", "memory.max", "max\n")
    assert control_group_limit(root, own) == 0
    group(root, "system.slice", "memory.max", f"{1 << 30}\n")
    assert control_group_limit(root, own) == 1 << 30
    group(root, "system.slice/smtpd.service", "memory.max", f"{1 << 29}\n")
    assert control_group_limit(root, own) == 1 << 29


def test_a_container_that_does_not_see_its_own_path_goes_by_its_root(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("0::/kubepods/pod1/abc\n")
    group(tmp_path / "cgroup", "", "memory.max", f"{1 << 28}\n")
    assert control_group_limit(tmp_path / "cgroup", own) == 1 << 28


def test_the_older_control_groups_say_no_limit_by_a_huge_one(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("5:cpu,cpuacct:/a\n4:memory:/a\nnonsense\n")
    root = tmp_path / "cgroup"
    group(root, "memory/a", "memory.limit_in_bytes", "9223372036854771712\n")
    assert control_group_limit(root, own) == 0
    group(root, "memory/a", "memory.limit_in_bytes", f"{1 << 27}\n")
    assert control_group_limit(root, own) == 1 << 27


def test_no_limit_of_the_address_space_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda what: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert address_space_limit() == 0
    monkeypatch.setattr(resource, "getrlimit", lambda what: (1 << 30, 1 << 31))
    assert address_space_limit() == 1 << 30
