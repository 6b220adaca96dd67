"""Scheduler, Maildir and the real spool together: what a crash between delivery and settlement leaves."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from delivery_rig import FakeLog
from spool_rig import Rig

from smtpd.delivery.router import Router
from smtpd.delivery.scheduler import Scheduler
from smtpd.mail.outcome import Outcome
from smtpd.metrics.slab import CellIndex, Slabs
from smtpd.settings import DeliverySettings, RouteSettings, Settings
from smtpd.spool.item import SpoolItem


def make_scheduler(rig: Rig, root: Path) -> Scheduler:
    settings = Settings(
        hostname="mx.example.net",
        route=[RouteSettings(domains=["*"], transport="maildir", path=str(root), name="store")],
        delivery=DeliverySettings(retry=[0.05]),
    )
    index = CellIndex()
    index.prepare(routes=["store"])
    slabs = Slabs(index)
    cells = slabs.cells(slabs.take_bank(0), 0)
    return Scheduler(rig.loop, rig.files, rig.spool, Router(settings.route), settings, cells, index, FakeLog())  # type: ignore[arg-type]


class LosingSpool:
    """The spool, but settlements go nowhere."""

    def __init__(self, spool: Any, lost: list[Any]) -> None:
        self._spool = spool
        self._lost = lost

    def __getattr__(self, name: str) -> Any:
        return getattr(self._spool, name)

    def settle(self, *arguments: Any) -> None:
        self._lost.append(arguments)


def lose_settlements(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """From now on settlements go nowhere, as when the process dies just before."""
    lost: list[Any] = []
    monkeypatch.setattr(rig, "spool", LosingSpool(rig.spool, lost))
    return lost


def stored(rig: Rig) -> int:
    return sum(shard.count for shard in rig.spool.shards)


def files_in(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


@pytest.mark.parametrize("size", [1000, 300_000])
@pytest.mark.parametrize("is_read", [False, True])
def test_a_crash_between_delivery_and_settlement_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, is_read: bool
) -> None:
    body = b"Subject: x\r\n\r\n" + b"0123456789\r\n" * (size // 12)
    root = tmp_path / "mail"
    with Rig(tmp_path / "spool") as rig, monkeypatch.context() as patched:
        lost = lose_settlements(rig, patched)
        scheduler = make_scheduler(rig, root)
        scheduler.start()
        item = rig.accept(body)
        scheduler.accepted(item)
        rig.run_until(lambda: bool(lost))
    [first] = files_in(root)
    before = first.read_bytes()
    assert before.endswith(body.replace(b"\r\n", b"\n"))
    if is_read:  # a reader is quick and moves the mail
        first = first.rename(first.parent.parent / "cur" / (first.name + ":2,S"))
    with Rig(tmp_path / "spool") as rig:
        assert stored(rig) == 1
        make_scheduler(rig, root).start()
        rig.run_until(lambda: stored(rig) == 0)
    assert files_in(root) == [first]
    assert first.read_bytes() == before


def test_what_waits_when_the_process_ends_is_delivered_by_the_next(tmp_path: Path) -> None:
    root = tmp_path / "mail"
    with Rig(tmp_path / "spool") as rig:
        scheduler = make_scheduler(rig, root)
        drained: list[bool] = []
        scheduler.drain(lambda: drained.append(True))
        assert drained == [True]
        for answer in rig.accept_all([b"x\r\n"] * 100):
            assert isinstance(answer, SpoolItem)
            scheduler.accepted(answer)
    assert files_in(tmp_path / "mail") == []
    with Rig(tmp_path / "spool") as rig:
        make_scheduler(rig, root).start()
        rig.run_until(lambda: stored(rig) == 0)
    assert len(files_in(root)) == 100


def test_a_mailbox_that_is_mended_gets_its_mail_at_the_next_attempt(tmp_path: Path) -> None:
    root = tmp_path / "mail"
    root.mkdir()
    obstacle = root / "example.org"
    obstacle.write_bytes(b"")
    with Rig(tmp_path / "spool") as rig:
        scheduler = make_scheduler(rig, root)
        scheduler.start()
        scheduler.accepted(rig.accept(b"x\r\n"))
        rig.run_until(lambda: rig.spool.next_due_s() is not None or stored(rig) == 0)
        assert stored(rig) == 1
        obstacle.unlink()
        rig.run_until(lambda: stored(rig) == 0)
    assert len(files_in(root)) == 1


def run_for(rig: Rig, is_done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_done() and time.monotonic() < deadline:
        rig.loop.turn(0.1)


def test_the_census_of_a_real_shard_counts_what_waits(tmp_path: Path) -> None:
    with Rig(tmp_path / "spool") as rig:
        for answer in rig.accept_all([b"x\r\n"] * 450):
            assert isinstance(answer, SpoolItem)
            rig.spool.settle(answer, None if answer.row % 2 else [Outcome()], 0.0, True, lambda error: None)
        rig.wait_for_thread()
    with Rig(tmp_path / "spool") as rig:
        scheduler = make_scheduler(rig, tmp_path / "mail")
        scheduler.start()
        run_for(rig, lambda: scheduler.lanes[0].held.count == 225)
        assert scheduler.lanes[0].held.count == 225
