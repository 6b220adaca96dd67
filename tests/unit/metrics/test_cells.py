"""Cells: what each operation does to shared memory, and that nothing is written outside of it."""

from __future__ import annotations

import math

import pytest

from smtpd.metrics._cells import INDEX_MASK, RULER_SHIFT, Cells

RULERS = ((1.0, 2.0), (10.0,))


def make(count: int = 16) -> tuple[bytearray, Cells]:
    memory = bytearray(8 * (count + 2))
    return memory, Cells(memory, 8, count, RULERS)


def values(memory: bytearray) -> list[float]:
    return memoryview(memory).cast("d").tolist()


def test_counters_add_up() -> None:
    memory, cells = make()
    cells.inc(3)
    cells.add(3, 41)
    assert cells.get(3) == 42.0
    assert values(memory)[4] == 42.0


def test_a_gauge_remembers_that_it_was_set() -> None:
    memory, cells = make()
    cells.set(2, -7.5)
    cells.set(2, 0.0)
    assert values(memory)[3:5] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("value", "buckets"),
    [
        (0.0, [1, 0, 0]),
        (1.0, [1, 0, 0]),
        (1.5, [0, 1, 0]),
        (2.0, [0, 1, 0]),
        (2.1, [0, 0, 1]),
        (math.inf, [0, 0, 1]),
    ],
)
def test_a_value_is_counted_in_the_bucket_of_its_bound(value: float, buckets: list[int]) -> None:
    memory, cells = make()
    cells.observe(4, value)
    assert values(memory)[5:9] == [value, *buckets]


def test_the_ruler_is_part_of_a_histograms_number() -> None:
    memory, cells = make()
    number = 4 | 1 << RULER_SHIFT
    cells.observe(number, 9.0)
    cells.observe(number, 11.0)
    assert values(memory)[5:8] == [20.0, 1.0, 1.0]
    assert cells.get(number) == 20.0
    assert number & INDEX_MASK == 4


@pytest.mark.parametrize("value", [-1.0, -math.inf, math.nan])
def test_time_that_ran_backwards_counts_as_none(value: float) -> None:
    memory, cells = make()
    cells.observe(0, value)
    assert values(memory)[1:5] == [0.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("amount", [-1, math.nan])
def test_counters_refuse_to_go_down(amount: float) -> None:
    memory, cells = make()
    with pytest.raises(ValueError, match="don't go down"):
        cells.add(0, amount)
    assert not any(memory)


@pytest.mark.parametrize("index", [-1, 16, 2**40])
def test_cells_that_are_not_there_are_not_written(index: int) -> None:
    memory, cells = make()
    with pytest.raises(IndexError):
        cells.inc(index)
    with pytest.raises(IndexError):
        cells.set(index, 1.0)
    with pytest.raises(IndexError):
        cells.observe(index, 1.0)
    assert not any(memory)


def test_gauges_and_histograms_need_all_of_their_cells() -> None:
    memory, cells = make()
    with pytest.raises(IndexError):
        cells.set(15, 1.0)
    with pytest.raises(IndexError):
        cells.observe(13, 0.5)
    with pytest.raises(IndexError):
        cells.observe(0 | 2 << RULER_SHIFT, 0.5)
    assert not any(memory)
    cells.set(14, 0.0)
    cells.observe(12, 0.5)


@pytest.mark.parametrize(("offset", "count"), [(-8, 1), (4, 1), (0, -1), (0, 5), (32, 1), (8, 2**60)])
def test_cells_lie_inside_of_their_buffer(offset: int, count: int) -> None:
    with pytest.raises(ValueError, match="cells"):
        Cells(bytearray(32), offset, count, ())


def test_a_buffer_must_be_writable() -> None:
    with pytest.raises(BufferError):
        Cells(bytes(32), 0, 4, ())


def test_a_buffer_outlives_its_cells() -> None:
    memory, cells = make()
    with pytest.raises(BufferError):
        memory.append(0)
    del cells
    memory.append(0)


def test_too_many_bounds_are_refused() -> None:
    with pytest.raises(ValueError, match="too many bounds"):
        Cells(bytearray(8), 0, 1, (tuple(map(float, range(33))),))
    with pytest.raises(ValueError, match="too many rulers"):
        Cells(bytearray(8), 0, 1, ((),) * 17)
