"""Bounces with a real spool: what is on disk at the moment a bounce is first tried, and after a restart."""

from __future__ import annotations

import email
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from delivery_rig import FakeLog, FakeTransport, defer
from spool_rig import Rig, make_envelope

from smtpd.delivery import scheduler as scheduler_module
from smtpd.delivery.router import Router
from smtpd.delivery.scheduler import Scheduler
from smtpd.mail.envelope import decode_envelope
from smtpd.mail.outcome import DELIVERED, UNDELIVERABLE, Outcome
from smtpd.metrics.slab import CellIndex, Slabs
from smtpd.settings import BounceSettings, DeliverySettings, LogSettings, RouteSettings, Settings
from smtpd.spool.database import ShardDatabase
from smtpd.spool.item import Body, SpoolItem
from smtpd.transports.base import Done


def refuse(path: bytes) -> Outcome:
    return Outcome(UNDELIVERABLE, 550, "5.1.1", "no such user", "mx.example.org[192.0.2.1]:25")


class Watching(FakeTransport):
    """Calls `on_bounce` when it is given a bounce, whatever the route."""

    def __init__(self) -> None:
        super().__init__()
        self.on_bounce: Callable[[SpoolItem], object] = lambda item: None
        self.bounces: list[SpoolItem] = []

    def deliver(self, item: SpoolItem, body: Body, recipients: list[int], done: Done, key: str = "") -> None:
        if item.envelope.reverse_path:
            super().deliver(item, body, recipients, done, key)
            return
        self.bounces.append(item)
        self.on_bounce(item)
        done([Outcome(DELIVERED, 250, "2.0.0", "ok", "fake")], 0.0)


class Post:
    """A scheduler on the spool of `rig`."""

    def __init__(self, rig: Rig, monkeypatch: pytest.MonkeyPatch, transport: Watching, **bounce: Any) -> None:
        monkeypatch.setattr(scheduler_module, "make_transport", lambda *_: transport)
        settings = Settings(
            hostname="mx.example.net",
            route=[RouteSettings(domains=["*"], transport="discard", name="all")],
            bounce=BounceSettings(enabled=True, next_hop=["mx:"], **bounce),
            delivery=DeliverySettings(),
            log=LogSettings(),
        )
        index = CellIndex()
        index.prepare(routes=["all", "bounce"])
        slabs = Slabs(index)
        log: Any = FakeLog()
        router = Router(settings.route, settings.bounce)
        self.scheduler = Scheduler(
            rig.loop, rig.files, rig.spool, router, settings, slabs.cells(slabs.take_bank(0), 0), index, log
        )  # fmt: skip


def on_disk(spool: Path, copy: Path) -> list[tuple[str, bytes]]:
    """What a start after a crash at this moment would find: (queue id, reverse-path) of each mail."""
    shutil.copytree(spool / "shards" / "0000", copy, ignore=shutil.ignore_patterns("spill"))  # whose files go meanwhile
    (copy / "spill").mkdir(mode=0o700)
    database = ShardDatabase(str(copy))
    try:
        rows = database.connection.execute("SELECT queue_id, envelope FROM mail ORDER BY id").fetchall()
        return [(queue_id, decode_envelope(blob).reverse_path) for queue_id, blob in rows]
    finally:
        database.abandon()


@pytest.mark.parametrize("size", [3000, 300_000])
def test_a_crash_finds_the_bounce_or_the_mail_never_both_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    spool = tmp_path / "spool"
    found: list[list[tuple[str, bytes]]] = []
    transport = Watching()
    transport.answer = refuse
    transport.on_bounce = lambda item: found.append(on_disk(spool, tmp_path / "copy"))
    with Rig(spool) as rig:
        post = Post(rig, monkeypatch, transport)
        body = b"Subject: to be returned\r\n\r\n" + b"line\r\n" * (size // 6)
        item = rig.accept(body)
        assert item.is_spilled == (size > 100_000)
        post.scheduler.accepted(item)
        rig.run_until(lambda: bool(transport.bounces))
        (bounce,) = transport.bounces
        assert found == [[(bounce.queue_id, b"")]]
        rig.run_until(lambda: rig.spool.shards[0].count == 0)


def test_a_bounce_outlives_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transport = Watching()
    transport.answer = refuse
    with Rig(tmp_path) as rig:
        post = Post(rig, monkeypatch, transport)
        item = rig.accept(b"Subject: x\r\n\r\nhello\r\n")
        post.scheduler._reports._accept = lambda item: None  # the process ends before the bounce is tried
        post.scheduler.accepted(item)
        rig.run_until(lambda: bool(rig.spool.shards[0].count == 1 and rig.spool.shards[0].next_row == 3))
    with Rig(tmp_path) as rig:
        post = Post(rig, monkeypatch, transport)
        post.scheduler.start()
        rig.run_until(lambda: bool(transport.bounces))
        (bounce,) = transport.bounces
        assert bounce.envelope.via == "bounce"
        assert bounce.envelope.recipients[0].path == b"a@example.com"
        drained: list[bool] = []
        post.scheduler.drain(lambda: drained.append(True))
        assert drained


def test_the_stored_outcomes_prevent_a_second_report_after_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transport = Watching()
    transport.answer = lambda path: refuse(path) if path.startswith(b"b0") else defer()(path)
    with Rig(tmp_path) as rig:
        post = Post(rig, monkeypatch, transport, delay_warning=0.001)
        items: list[SpoolItem | None] = []
        writer = rig.spool.begin(rig.spool.next_queue_id(), make_envelope(recipients=2))
        writer.write(b"Subject: x\r\n\r\nhello\r\n")
        rig.spool.commit(writer, lambda item, error: items.append(item))
        rig.run_until(lambda: bool(items))
        assert items[0] is not None
        items[0].envelope.received_at_s -= 60
        post.scheduler.accepted(items[0])
        rig.run_until(lambda: len(transport.bounces) == 2)  # the failure, and the warning
        rig.run_until(lambda: rig.spool.shards[0].count == 1)
        post.scheduler.drain(lambda: None)
    with Rig(tmp_path) as rig:
        post = Post(rig, monkeypatch, transport, delay_warning=0.001)
        (again,) = rig.claim(now_s=4e9)
        post.scheduler._take_claimed(again, again.envelope.received_at_s + 600)
        post.scheduler._start_waiting()
        rig.run_until(lambda: again.attempts == 2)
        assert transport.tried[-1][1] == [1]
        assert len(transport.bounces) == 2
        assert again.outcomes is not None
        assert [(outcome.is_reported, outcome.is_warned) for outcome in again.outcomes] == [(True, False), (False, True)]
        post.scheduler.drain(lambda: None)


def test_a_large_mail_is_returned_by_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transport = Watching()
    transport.answer = refuse
    contents: list[bytes] = []
    transport.on_bounce = lambda item: contents.append(item.body.data if item.body and item.body.data else b"")
    with Rig(tmp_path) as rig:
        post = Post(rig, monkeypatch, transport, content_size=1 << 30)
        post.scheduler.accepted(rig.accept(b"Subject: large\r\n\r\n" + b"line\r\n" * 100_000))
        rig.run_until(lambda: bool(contents))
        part = email.message_from_bytes(contents[0]).get_payload()[2]  # type: ignore[index]
        assert part.get_content_type() == "text/rfc822-headers"  # type: ignore[union-attr]
        assert part.get_payload() == "Subject: large\r\n"  # type: ignore[union-attr]
