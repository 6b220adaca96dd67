"""The lock of what a sink's workers count together, when whoever held it died: it costs one of them a wait, and that once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from smtpd.sink import shared
from smtpd.sink.shared import SharedCounts, SharedGreylist


@pytest.mark.parametrize(
    ("make", "use"),
    [
        (lambda: SharedCounts(1, max_mails=5), lambda counts: counts.take_mail()),
        (SharedGreylist, lambda greylist: greylist.first_seen("192.0.2.1", b"a", b"b", 1.0)),
    ],
)
def test_lock_of_a_dead_worker_is_taken_for_free(
    make: Callable[[], SharedCounts], use: Callable[[SharedCounts], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "_PATIENCE_S", 0.01)
    table = make()
    assert table._lock.acquire(block=False)  # and it dies
    assert use(table)
    assert table._lock.acquire(block=False)
    table._lock.release()


def test_who_was_only_slow_gives_it_back_without_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "_PATIENCE_S", 0.01)
    counts = SharedCounts(1)
    with counts._locked():
        assert counts.next_connection() == 1
    assert counts.next_connection() == 2
