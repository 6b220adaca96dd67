"""Changes against deliveries that end at that very moment: real spool, real scheduler, a transport that the test drives."""

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from delivery_rig import FakeLog, FakeTransport, defer
from gateway import wait_until
from queue_rig import QueueRig, deferred, envelope_of, put, put_all

from smtpd.control.commander import QueueCommander
from smtpd.control.filter import Filter
from smtpd.control.wire import Request
from smtpd.delivery import scheduler as scheduler_module
from smtpd.delivery.router import Router
from smtpd.delivery.scheduler import Scheduler
from smtpd.metrics.slab import CellIndex, Slabs
from smtpd.settings import DeliverySettings, RouteSettings, Settings


class Works:
    """A worker's queue with deliveries: `transport` answers when told to, and always defers."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.transport = FakeTransport()
        self.transport.is_slow = True
        self.transport.answer = defer()
        monkeypatch.setattr(scheduler_module, "make_transport", lambda *_: self.transport)
        self.rig = QueueRig(folder)
        settings = Settings(
            hostname="mx.example.net",
            route=[RouteSettings(domains=["*"], transport="discard", name="only")],
            delivery=DeliverySettings(concurrency=8, retry=[3000.0]),
        )
        index = CellIndex()
        index.prepare(routes=["only"])
        slabs = Slabs(index)
        self.scheduler = Scheduler(
            self.rig.loop, self.rig.files, self.rig.spool, Router(settings.route), settings,
            slabs.cells(slabs.take_bank(0), 0), index, FakeLog(),  # type: ignore[arg-type]
        )  # fmt: skip
        self.rig.control.leases = self.scheduler.wishes
        self.scheduler.start()

    def accept(self, count: int) -> list[str]:
        items = put_all(self.rig, [envelope_of(b"s@example.com", b"a@example.org")] * count)
        for item in items:
            self.scheduler.accepted(item)
        return [item.queue_id for item in items]

    def commander(self) -> QueueCommander:
        return QueueCommander(str(self.rig.run_dir), self.rig.path)

    def states(self) -> dict[str, str]:
        return {entry.queue_id: entry.queue_name for entry in self.commander().entries(Request("list"))}

    def finish_some(self, count: int) -> None:
        self.transport.finish(min(count, len(self.transport.waiting)))

    def tallies(self) -> tuple[int, int, int, int]:
        lane = self.scheduler.lanes[0]
        return len(lane.active), lane.untried.count, lane.deferred.count, lane.held.count


@pytest.fixture
def works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Works]:
    made = Works(tmp_path, monkeypatch)
    yield made
    made.rig.close()


@pytest.mark.parametrize(("action", "seed"), [("hold", 1), ("hold", 2), ("delete", 3), ("delete", 4)])
def test_no_settlement_undoes_a_change(works: Works, action: str, seed: int) -> None:
    ids = works.accept(40)  # 8 of them in flight, the others wait
    chance = random.Random(seed)
    works.rig.serve()
    is_over = threading.Event()

    def deliver() -> None:
        while not is_over.wait(chance.random() / 500):
            works.rig.loop.post(works.finish_some, chance.randrange(4))

    delivering = threading.Thread(target=deliver)
    delivering.start()
    try:
        outcome = works.commander().change(action, Filter(ids=ids))
        results = outcome.results
        assert outcome.not_found == []
        assert results.busy == []
        assert sorted(results.changed + results.under_way + results.unchanged) == sorted(ids)
        assert results.unchanged == []
        wait_until("all is settled", lambda: works.rig.call(lambda: works.tallies()[0]) == 0, 30)
    finally:
        is_over.set()
        delivering.join()
    wanted = {} if action == "delete" else dict.fromkeys(ids, "hold")
    wait_until("it is stored", lambda: works.states() == wanted, 30)
    assert works.rig.call(works.tallies) == (0, 0, 0, len(wanted))
    assert works.rig.call(lambda: works.scheduler.wishes.pending) == {}


def test_mail_that_is_flushed_is_tried_at_once(works: Works) -> None:
    works.transport.is_slow = False
    ids = works.accept(5)
    works.rig.serve()
    wait_until("all are deferred", lambda: set(works.states().values()) == {"deferred"}, 30)
    tried = len(works.transport.tried)
    assert sorted(works.commander().change("flush", Filter()).results.changed) == sorted(ids)
    wait_until("they are tried", lambda: works.rig.call(lambda: len(works.transport.tried)) == tried + 5, 30)
    wait_until("the figures are right", lambda: works.rig.call(works.tallies) == (0, 0, 5, 0), 30)


@pytest.mark.parametrize("action", ["hold", "delete", "requeue"])
def test_mail_behind_a_hung_next_hop_is_changed_at_once(works: Works, action: str) -> None:
    hung = works.accept(8)  # as many as there may be
    fresh = works.accept(3)
    late = put(works.rig, envelope_of(b"s@example.com", b"a@example.org"), [deferred()], due_s=time.time())
    works.rig.run_until(lambda: works.scheduler._claimed_count == 1)
    works.rig.serve()
    results = works.commander().change(action, Filter(state="active")).results
    assert sorted(results.changed) == sorted([*fresh, late.queue_id])
    assert (sorted(results.under_way), results.busy) == (sorted(hung), [])
    states = works.states()
    if action == "hold":
        assert {states[queue_id] for queue_id in results.changed} == {"hold"}
    elif action == "delete":
        assert set(states) == set(hung)
    assert len(works.transport.tried) == 8
