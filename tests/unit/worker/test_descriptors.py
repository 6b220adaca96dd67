"""Descriptors that connections may take, and those kept back."""

from __future__ import annotations

import errno
import os
import resource

import pytest

from smtpd.errors import StartupError
from smtpd.worker.descriptors import Descriptors, is_shortage


class Limit:
    """What the system allows."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, soft: int) -> None:
        self.soft = soft
        monkeypatch.setattr(resource, "getrlimit", lambda what: (self.soft, resource.RLIM_INFINITY))


@pytest.mark.parametrize(
    ("soft", "ceiling"), [(200, 150), (1024, 768), (100_000, 95_904), (resource.RLIM_INFINITY, (1 << 30) - 4096)]
)
def test_a_share_is_kept_back(monkeypatch: pytest.MonkeyPatch, soft: int, ceiling: int) -> None:
    Limit(monkeypatch, soft)
    assert Descriptors(print).ceiling == ceiling


def test_a_worker_without_room_for_a_few_connections_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = Limit(monkeypatch, 10_000)
    descriptors = Descriptors(print)
    base = os.dup(0)
    os.close(base)
    limit.soft = base + 15
    descriptors.look(0.0)
    with pytest.raises(StartupError, match=f"RLIMIT_NOFILE is {base + 15}: a worker needs {base + 16} descriptors"):
        descriptors.count_base()
    limit.soft = base + 16
    descriptors.look(0.0)
    descriptors.count_base()
    assert descriptors.room >= 8


def test_a_limit_that_changes_is_noticed_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    limit, told = Limit(monkeypatch, 1000), list[str]()
    descriptors = Descriptors(told.append)
    limit.soft = 2000
    descriptors.look(1.0)
    descriptors.look(2.0)
    assert (descriptors.ceiling, told) == (1500, ["RLIMIT_NOFILE was 1000 and is 2000 now"])


def test_a_shortage_is_told_once_and_is_over_after_a_while_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    Limit(monkeypatch, 1000)
    told: list[str] = []
    descriptors = Descriptors(told.append)
    for now_s in (10.0, 10.2, 12.0):
        descriptors.run_short("EMFILE", now_s)
        descriptors.look(now_s)
    descriptors.look(16.9)
    assert told == ["EMFILE: connections wait to be accepted until others end"]
    descriptors.look(17.0)
    descriptors.look(18.0)
    assert told[1:] == ["there are descriptors for connections again"]


def test_room_is_seen_by_the_number_that_is_next(monkeypatch: pytest.MonkeyPatch) -> None:
    descriptors = Descriptors(print)
    assert descriptors.has_room()
    descriptors.ceiling = 3
    assert not descriptors.has_room()

    def fail(*_: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    descriptors.ceiling = 1000
    monkeypatch.setattr(os, "eventfd", fail)
    assert not descriptors.has_room()


def test_shortages_are_told_from_faults() -> None:
    short = [OSError(errno.EMFILE, ""), OSError(errno.ENOMEM, ""), MemoryError(), RuntimeError("can't start new thread")]
    assert all(map(is_shortage, short))
    assert not any(map(is_shortage, [OSError(errno.EIO, ""), RuntimeError("a fault"), ValueError()]))
