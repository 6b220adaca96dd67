"""Numbers of series, and banks that come and go: a counter never goes down, a gauge ends with its worker."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from smtpd.metrics.catalogue import COUNTER, GAUGE, HISTOGRAM, METRICS, RULERS
from smtpd.metrics.collector import MasterGauges, SlabCollector
from smtpd.metrics.slab import FILES, LOG, LOOP, ROWS, SHARD, CellIndex, Slabs


def prepared() -> CellIndex:
    index = CellIndex()
    index.prepare(listeners=["mx"], routes=["store"])
    return index


# --- index ---------------------------------------------------------------------------------------------------------------


def test_every_series_has_cells_of_its_own() -> None:
    index = prepared()
    used: set[int] = set()
    for metric in METRICS:
        width = {COUNTER: 1, GAUGE: 2, HISTOGRAM: 2 + len(RULERS[metric.ruler])}[metric.kind]
        for _, first in index.series(metric):
            cells = set(range(first, first + width))
            assert not cells & used
            used |= cells
    assert used == set(range(index.size))


def test_series_without_names_of_the_configuration_are_there_from_the_start() -> None:
    index = CellIndex()
    assert index.counter("smtpd_replies_total", code="250") >= 0
    assert index.histogram("smtpd_spool_commit_seconds") >= 0
    assert index.gauge("smtpd_spool_free_bytes") >= 0


def test_numbers_stay_when_names_are_added() -> None:
    index = prepared()
    before = index.counter("smtpd_messages_total", listener="mx", result="accepted")
    size = index.size
    index.prepare(listeners=["mx"], routes=["store"])
    assert index.size == size
    index.prepare(listeners=["submission"], routes=[])
    assert index.counter("smtpd_messages_total", listener="mx", result="accepted") == before
    assert index.counter("smtpd_messages_total", listener="submission", result="accepted") >= size


def test_the_order_of_labels_does_not_matter() -> None:
    index = prepared()
    one = index.counter("smtpd_messages_total", listener="mx", result="accepted")
    assert index.counter("smtpd_messages_total", result="accepted", listener="mx") == one


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("smtpd_nothing_total", {}),
        ("smtpd_messages_total", {"listener": "mx", "result": "lost"}),
        ("smtpd_messages_total", {"listener": "other", "result": "accepted"}),
        ("smtpd_messages_total", {"listener": "mx"}),
        ("smtpd_connections_active", {"listener": "mx"}),
        ("smtpd_worker_up", {"worker": "0"}),
    ],
)
def test_what_is_not_in_the_catalogue_has_no_number(name: str, labels: dict[str, str]) -> None:
    with pytest.raises(KeyError, match=name):
        prepared().counter(name, **labels)


# --- banks ---------------------------------------------------------------------------------------------------------------


def test_rows_and_banks_do_not_touch_each_other() -> None:
    slabs = Slabs(prepared())
    banks = [slabs.take_bank(slot) for slot in (0, 1)]
    assert {LOOP, SHARD, FILES, LOG} == set(range(ROWS))
    for bank in banks:
        slabs.status(bank).sessions = 1000 + bank
        for row in range(ROWS):
            slabs.cells(bank, row).add(0, 1 + 10 * bank + row)
    assert [(slot, row[0], sum(row)) for slot, row in slabs.live_rows()] == [
        (bank, 1.0 + 10 * bank + row, 1.0 + 10 * bank + row) for bank in banks for row in range(ROWS)
    ]
    assert [slabs.status(bank).sessions for bank in banks] == [1000, 1001]


def test_status_words_are_typed() -> None:
    slabs = Slabs()
    bank = slabs.take_bank(7)
    status, same = slabs.status(bank), slabs.status(bank)
    assert (status.heartbeat_s, status.sessions, status.is_draining) == (0.0, 0, False)
    status.heartbeat_s, status.sessions, status.is_draining = 12.25, 812, True
    assert (same.heartbeat_s, same.sessions, same.is_draining) == (12.25, 812, True)
    assert isinstance(same.sessions, int)
    assert isinstance(same.is_draining, bool)


def test_numbers_of_banks_are_used_again_and_start_at_zero() -> None:
    slabs = Slabs(prepared())
    assert [slabs.take_bank(0), slabs.take_bank(1), slabs.take_bank(2)] == [0, 1, 2]
    slabs.cells(1, LOOP).inc(0)
    slabs.status(1).sessions = 5
    slabs.fold_bank(1)
    with pytest.raises(KeyError):
        slabs.status(1)
    assert slabs.take_bank(9) == 1
    assert slabs.cells(1, LOOP).get(0) == 0.0
    assert slabs.status(1).sessions == 0
    assert slabs.take_bank(3) == 3


def test_a_bank_has_room_for_all_series_that_are_known_when_it_is_made() -> None:
    index = CellIndex()
    slabs = Slabs(index)
    slabs.take_bank(0)
    index.prepare(listeners=[f"listener-{number}" for number in range(50)], routes=[f"route-{number}" for number in range(300)])
    number = index.counter("smtpd_bounces_total", route="route-299")
    assert index.size > 20_000
    with pytest.raises(IndexError):
        slabs.cells(0, LOOP).inc(number)
    slabs.cells(slabs.take_bank(1), LOG).inc(number)
    slabs.fold_bank(1)
    slabs.fold_bank(0)
    assert sum(sum(row) for _, row in slabs.retired_rows()) == 1.0


def test_a_bad_row_is_refused() -> None:
    slabs = Slabs()
    slabs.take_bank(0)
    for row in (-1, ROWS):
        with pytest.raises(IndexError):
            slabs.cells(0, row)


FORK = """
import os
from smtpd.metrics.slab import SHARD, Slabs
slabs = Slabs()
bank = slabs.take_bank(0)
pid = os.fork()
if pid == 0:
    slabs.cells(bank, SHARD).add(5, 77)
    slabs.status(bank).heartbeat_s = 3.5
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
print(slabs.cells(bank, SHARD).get(5), slabs.status(bank).heartbeat_s)
"""


def test_memory_is_shared_with_a_forked_worker() -> None:
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["77.0", "3.5"]


# --- what a scrape shows, over any life ----------------------------------------------------------------------------------

COUNTERS = [
    ("smtpd_messages_total", {"listener": "mx", "result": "accepted"}),
    ("smtpd_replies_total", {"code": "250"}),
    ("smtpd_log_lines_dropped_total", {}),
]
HISTOGRAMS = [("smtpd_session_seconds", {"listener": "mx"}), ("smtpd_worker_loop_lag_seconds", {})]


class Lives(RuleBasedStateMachine):
    """Workers start, count, end; listeners are added; the model is a plain dictionary of what was counted."""

    def __init__(self) -> None:
        super().__init__()
        self.index = prepared()
        self.slabs = Slabs(self.index)
        self.collector = SlabCollector(self.slabs, self.index, MasterGauges())
        self.banks: list[int] = []
        self.active: dict[int, float] = {}
        self.expected: dict[str, float] = {}
        self.seen: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}

    def count(self, name: str, amount: float) -> None:
        self.expected[name] = self.expected.get(name, 0.0) + amount

    @rule(slot=st.integers(0, 3))
    def start(self, slot: int) -> None:
        self.banks.append(self.slabs.take_bank(slot))

    @precondition(lambda self: self.banks)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        bank = data.draw(st.sampled_from(self.banks))
        self.banks.remove(bank)
        self.active.pop(bank, None)
        self.slabs.fold_bank(bank)

    @precondition(lambda self: self.banks)
    @rule(data=st.data(), row=st.integers(0, ROWS - 1), which=st.sampled_from(COUNTERS), amount=st.integers(0, 10**9))
    def add(self, data: st.DataObject, row: int, which: tuple[str, dict[str, str]], amount: int) -> None:
        name, labels = which
        self.slabs.cells(data.draw(st.sampled_from(self.banks)), row).add(self.index.counter(name, **labels), amount)
        self.count(name, amount)

    @precondition(lambda self: self.banks)
    @rule(data=st.data(), row=st.integers(0, ROWS - 1), which=st.sampled_from(HISTOGRAMS), value=st.integers(0, 100))
    def observe(self, data: st.DataObject, row: int, which: tuple[str, dict[str, str]], value: int) -> None:
        name, labels = which
        self.slabs.cells(data.draw(st.sampled_from(self.banks)), row).observe(self.index.histogram(name, **labels), value)
        self.count(name + "_sum", value)
        self.count(name + "_count", 1)

    @precondition(lambda self: self.banks)
    @rule(data=st.data(), value=st.integers(0, 1000))
    def set_gauge(self, data: st.DataObject, value: int) -> None:
        bank = data.draw(st.sampled_from(self.banks))
        self.slabs.cells(bank, LOOP).set(self.index.gauge("smtpd_connections_active", listener="mx"), value)
        self.active[bank] = value

    @rule(number=st.integers(0, 5))
    def reload(self, number: int) -> None:
        self.index.prepare(listeners=["mx", f"more-{number}"], routes=["store"])

    @invariant()
    def nothing_goes_down_and_all_is_there(self) -> None:
        totals: dict[str, float] = {}
        active = 0.0
        now: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        for family in self.collector.collect():
            for sample in family.samples:
                if family.type in ("counter", "histogram"):
                    now[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
                    totals[sample.name] = totals.get(sample.name, 0.0) + sample.value
                elif sample.name == "smtpd_connections_active":
                    active += sample.value
        assert all(now[series] >= value for series, value in self.seen.items())
        assert {name: totals.get(name) for name in self.expected} == self.expected
        assert active == sum(self.active.values())
        self.seen = now


TestLives = Lives.TestCase
TestLives.settings = hypothesis_settings(max_examples=15, stateful_step_count=15, deadline=None)
