"""Overload as one worker sees it, with figures of the test's own: what it says, to whom, and how often it is told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from smtpd.limits.board import PressureBoard
from smtpd.limits.clients import make_client_table
from smtpd.metrics.slab import LOOP, CellIndex, Slabs
from smtpd.net.loop import Loop
from smtpd.settings import LimitsSettings, OverloadSettings, RouteSettings, Settings
from smtpd.worker import overload as module
from smtpd.worker.descriptors import Descriptors
from smtpd.worker.overload import Overload

MIB = 1 << 20


class Memory:
    """What the machine says of this process."""

    used = space = 0

    def look(self) -> tuple[int, int]:
        return self.used, self.space


class Governed:
    """A service or a rulebook."""

    def __init__(self) -> None:
        self.stress: list[bool] = []

    def set_stress(self, is_stressed: bool) -> None:
        self.stress.append(is_stressed)


class Idler:
    """An open session."""

    def __init__(self) -> None:
        self.hurried = 0

    def hurry(self) -> None:
        self.hurried += 1


class Machine:
    """Some workers of one host."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        monkeypatch.setattr(module, "OwnMemory", Memory)
        self.board = PressureBoard()
        self.clients = make_client_table()
        self.index = CellIndex()
        self.routes = settings.pop("route", [])
        self.index.prepare(listeners=["mx"], routes=[route.name for route in self.routes])
        self.slabs = Slabs(self.index)
        self.settings = Settings(route=self.routes, **settings)
        self.told: list[str] = []
        self.loop = Loop()

    def worker(self, generation: int = 1) -> Worker:
        return Worker(self, self.slabs.take_bank(0), generation)


class Worker(Overload):
    def __init__(self, machine: Machine, bank: int, generation: int) -> None:
        machine.board.clear(bank)
        machine.clients.open_bank(bank)
        self.bank = bank
        self.idlers = {Idler() for _ in range(450)}
        self.spool = SimpleNamespace(is_full=False)
        empty = SimpleNamespace(count=0)
        self.lanes = [
            SimpleNamespace(name=route.name, number=number, active={}, untried=empty, deferred=SimpleNamespace(count=0))
            for number, route in enumerate(machine.routes)
        ]
        self.cells = machine.slabs.cells(bank, LOOP)
        super().__init__(
            machine.loop, machine.settings, bank, generation, machine.board, machine.clients, self.idlers,  # type: ignore[arg-type]
            self.spool, self.lanes, Descriptors(machine.told.append), self.cells, machine.index, machine.told.append,  # type: ignore[arg-type]
        )  # fmt: skip
        self.service, self.rulebook = Governed(), Governed()
        self.govern(self.service, self.rulebook)  # type: ignore[arg-type]

    @property
    def memory(self) -> Memory:
        assert isinstance(self._own_memory, Memory)
        return self._own_memory


def test_memory_of_all_workers_counts_and_all_put_mail_off_by_one_state(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, overload=OverloadSettings(memory_limit=1000 * MIB))
    first, second = machine.worker(), machine.worker()
    first.memory.used, second.memory.used = 500 * MIB, 250 * MIB
    for worker in (first, second):
        worker.beat(0.0)
        assert (worker.denial, worker.refuses_mail()) == ("", False)
    second.memory.used = 300 * MIB
    second.beat(0.0)
    first.beat(0.0)
    assert [(worker.denial, worker.refuses_mail()) for worker in (first, second)] == [("shed_memory", True)] * 2
    assert machine.told == ["overload: memory: 800 of 1,000 MiB: new mail is put off"]
    second.memory.used = 201 * MIB  # between the marks
    second.beat(0.0)
    assert second.refuses_mail()
    second.memory.used = 199 * MIB
    second.beat(0.0)
    first.beat(0.0)
    assert [worker.denial for worker in (first, second)] == ["", ""]
    assert machine.told[1:] == ["overload: memory: 699 of 1,000 MiB: over, new mail is put off no more"]
    assert not first.is_stressed


def test_without_a_limit_memory_is_never_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "control_group_limit", lambda: 0)
    worker = Machine(monkeypatch).worker()
    worker.memory.used = 1 << 50
    worker.beat(0.0)
    assert not worker.refuses_mail()


def test_the_control_groups_limit_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "control_group_limit", lambda: 100 * MIB)
    worker = Machine(monkeypatch).worker()
    worker.memory.used = 80 * MIB
    worker.beat(0.0)
    assert worker.denial == "shed_memory"


def test_what_a_worker_may_still_map_counts_from_what_it_had_at_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "address_space_limit", lambda: 1000 * MIB)
    monkeypatch.setattr(module, "control_group_limit", lambda: 0)
    machine = Machine(monkeypatch)
    worker, other = machine.worker(), machine.worker()
    for each in (worker, other):
        each.memory.space = 900 * MIB
        each.beat(0.0)
    assert not worker.refuses_mail()
    worker.memory.space = 980 * MIB
    worker.beat(0.0)
    other.beat(0.0)
    assert (worker.denial, other.denial) == ("shed_memory", "")  # its own affair
    machine.board.clear(worker.bank)  # it was killed
    other.beat(0.0)
    assert [text.rpartition(": ")[2] for text in machine.told] == ["new mail is put off", "over, new mail is put off no more"]


def test_a_full_spool_puts_mail_off_at_once_and_is_told_with_the_next_look(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    worker = machine.worker()
    worker.beat(0.0)
    worker.spool.is_full = True
    assert (worker.denial, worker.refuses_mail(), machine.told) == ("shed_disk", True, [])
    worker.beat(0.0)
    worker.beat(0.0)
    assert machine.told == ["overload: space of the spool: new mail is put off"]
    assert not worker.is_stressed


def test_connections_of_all_workers_are_stress_for_all_and_hurry_every_open_session(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, limits=LimitsSettings(connections=10))
    first, second = machine.worker(), machine.worker()
    for number in range(9):
        machine.clients.enter(-1, (first, second)[number % 2].bank)
    for worker in (first, second):
        worker.beat(0.0)
        assert worker.is_stressed
        assert (worker.service.stress, worker.rulebook.stress) == ([True], [True])
        assert not worker.refuses_mail()
        assert worker.denial == ""
    while any(not idler.hurried for worker in (first, second) for idler in worker.idlers):
        machine.loop.turn(0)
    assert {idler.hurried for idler in first.idlers} == {1}
    for _ in range(2):
        machine.clients.leave(-1, first.bank)
    first.beat(0.0)
    assert first.is_stressed  # 70 percent
    machine.clients.leave(-1, first.bank)
    first.beat(0.0)
    second.beat(0.0)
    assert (first.service.stress, second.rulebook.stress) == ([True, False], [True, False])
    assert machine.told == [
        "overload: connections: 9 of 10: stress mode",
        "overload: connections: 6 of 10: over, stress mode no more",
    ]


def test_lag_is_stress_for_the_worker_that_is_late_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    late, quick = machine.worker(), machine.worker()
    for _ in range(3):
        late.beat(1.5)
        quick.beat(0.0)
    assert (late.is_stressed, quick.is_stressed) == (True, False)
    for _ in range(8):
        late.beat(0.0)
    assert not late.is_stressed
    assert machine.told == [
        "overload: loop of a worker: 1.5 s late: stress mode",
        "overload: loop of a worker: 0.0 s late: over, stress mode no more",
    ]


def test_queues_of_all_workers_add_up_and_one_full_route_is_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    routes = [
        RouteSettings(domains=["a.example"], transport="discard", name="free"),
        RouteSettings(domains=["b.example"], transport="discard", name="dead", queue_limit=10),
        RouteSettings(domains=["c.example"], transport="discard", name="live", queue_limit=10),
    ]
    machine = Machine(monkeypatch, route=routes)
    first, second = machine.worker(), machine.worker()
    first.lanes[0].deferred.count = 1000
    first.lanes[1].deferred.count = 6
    second.lanes[1].active[object()] = None
    second.lanes[1].deferred.count = 3
    for worker in (first, second, first):
        worker.beat(0.0)
    assert first.full_routes == second.full_routes == {1}
    assert not first.is_stressed
    assert first.denial == ""
    second.lanes[1].deferred.count = 2  # nine are left
    second.beat(0.0)
    assert second.full_routes == {1}
    first.lanes[1].deferred.count = 5
    for worker in (first, second):
        worker.beat(0.0)
    assert first.full_routes == second.full_routes == set()
    assert machine.told == [
        "overload: queue of route dead: 10 of 10 mails: its recipients are put off",
        "overload: queue of route dead: 8 of 10 mails: over, its recipients are put off no more",
    ]


def test_a_worker_that_drains_or_is_of_an_older_reading_leaves_the_states_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, limits=LimitsSettings(connections=2))
    old = machine.worker(1)
    machine.clients.enter(-1, old.bank)
    machine.clients.enter(-1, old.bank)
    old.beat(0.0)
    assert old.is_stressed
    machine.settings = Settings(limits=LimitsSettings(connections=200))
    new = machine.worker(2)
    new.beat(0.0)
    old.beat(0.0)
    old.beat(0.0, is_draining=True)
    assert (old.is_stressed, new.is_stressed) == (False, False)
    assert len(machine.told) == 2
