"""Where the counters live: numbers for every series (CellIndex), and shared memory for every worker (Slabs).

A worker writes plain additions into its own bank of shared memory, one row for each thread that counts, so no two write one cell.
The master, who made the bank before the fork, reads it on a scrape and adds it to its own sums when the worker has ended: what
a scrape shows as a counter never goes down. Gauges end with their worker.
"""

from __future__ import annotations

import mmap
from array import array
from collections.abc import Iterable, Iterator
from itertools import product
from operator import add

from smtpd.metrics._cells import INDEX_MASK, RULER_SHIFT, Cells
from smtpd.metrics.catalogue import BY_NAME, CHECKS, COUNTER, GAUGE, HISTOGRAM, LISTENERS, METRICS, ROUTES, RULERS, Label, Metric

# Rows of a bank: one for each writing thread.
LOOP = 0
SHARD = 1
FILES = 2
LOG = 3
ROWS = 4

_CELL_BYTES = 8
_LINE_CELLS = 8  # a cache line: rows of different threads share none
_STATUS_CELLS = 8
_ROOM_CELLS = 16384  # of a row, where no index says how many are needed


class CellIndex:
    """Numbers of cells by series; append-only, so a number stays good over any number of reloads.

    Series without a name from the configuration exist from the start. Asking for one that isn't there is a KeyError.
    """

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, frozenset[tuple[str, str]]], int] = {}
        self._series: dict[str, list[tuple[tuple[str, ...], int]]] = {metric.name: [] for metric in METRICS}
        self.size = 0
        self.prepare()

    def prepare(self, *, listeners: Iterable[str] = (), routes: Iterable[str] = (), checks: Iterable[str] = ()) -> None:
        """Make the series for these names, and those that need none; call it before the fork. Known ones stay as they are."""
        names = {LISTENERS: list(listeners), ROUTES: list(routes), CHECKS: list(checks)}
        for metric in METRICS:
            if metric.is_masters:
                continue
            for values in product(*(_values(label, names) for label in metric.labels)):
                self._allocate(metric, values)

    def counter(self, name: str, /, **labels: str) -> int:
        """Return the number of a counter for `Cells.inc` and `add`."""
        return self._find(COUNTER, name, labels)

    def gauge(self, name: str, /, **labels: str) -> int:
        """Return the number of a gauge for `Cells.set`."""
        return self._find(GAUGE, name, labels)

    def histogram(self, name: str, /, **labels: str) -> int:
        """Return the number of a histogram for `Cells.observe`."""
        return self._find(HISTOGRAM, name, labels)

    def series(self, metric: Metric) -> list[tuple[tuple[str, ...], int]]:
        """Return (label values, first cell) of every series of a metric, oldest first."""
        return self._series[metric.name]

    def _allocate(self, metric: Metric, values: tuple[str, ...]) -> None:
        key = metric.name, frozenset(zip((label.name for label in metric.labels), values, strict=True))
        if key in self._numbers:
            return
        first = self.size
        if metric.kind == HISTOGRAM:
            self.size += 2 + len(RULERS[metric.ruler])
            self._numbers[key] = first | metric.ruler << RULER_SHIFT
        else:
            self.size += 2 if metric.kind == GAUGE else 1
            self._numbers[key] = first
        if self.size > INDEX_MASK:
            raise OverflowError("too many series")
        self._series[metric.name].append((values, first))

    def _find(self, kind: str, name: str, labels: dict[str, str]) -> int:
        number = self._numbers.get((name, frozenset(labels.items())))
        if number is None or BY_NAME[name].kind != kind:
            shown = ", ".join(f'{label}="{value}"' for label, value in labels.items())
            raise KeyError(f"no {kind} {name}{{{shown}}}")
        return number


def _values(label: Label, names: dict[str, list[str]]) -> Iterable[str]:
    return names[label.filled_by] if label.filled_by else label.values


class BankStatus:
    """What master and worker tell each other without a message. A view of shared memory, always as it is now."""

    __slots__ = ("_words",)

    def __init__(self, words: memoryview[float]) -> None:
        self._words = words

    @property
    def heartbeat_s(self) -> float:
        """Monotonic time of the worker's last heartbeat; the master writes the first."""
        return float(self._words[0])

    @heartbeat_s.setter
    def heartbeat_s(self, value: float) -> None:
        self._words[0] = value

    @property
    def sessions(self) -> int:
        """Sessions open now."""
        return int(self._words[1])

    @sessions.setter
    def sessions(self, value: int) -> None:
        self._words[1] = value

    @property
    def is_draining(self) -> bool:
        """The worker accepts no more."""
        return bool(self._words[2])

    @is_draining.setter
    def is_draining(self, value: bool) -> None:
        self._words[2] = value


class _Bank:
    """Shared memory of one worker: status words, then the rows. Zeroed, and gone when nobody maps it any more."""

    __slots__ = ("memory", "row_cells", "slot", "words")

    def __init__(self, slot: int, cells: int) -> None:
        self.slot = slot
        self.row_cells = -(-cells // _LINE_CELLS) * _LINE_CELLS
        self.memory = mmap.mmap(-1, (_STATUS_CELLS + ROWS * self.row_cells) * _CELL_BYTES)  # shared, anonymous
        self.words: memoryview[float] = memoryview(self.memory).cast("d")

    def first_cell(self, row: int) -> int:
        if not 0 <= row < ROWS:
            raise IndexError(f"no row {row}")
        return _STATUS_CELLS + row * self.row_cells


class Slabs:
    """The master's banks. `index` tells how many cells the next bank needs; without it there is room for 16,384.

    A bank is made before its worker is forked and inherited by it (and, unused, by those forked later).
    """

    def __init__(self, index: CellIndex | None = None) -> None:
        self._index = index
        self._banks: dict[int, _Bank] = {}
        self._retired: dict[int, array[float]] = {}  # by slot: sums of ended workers

    def take_bank(self, slot: int) -> int:
        """Return the number of a new bank for the next worker of `slot`. OSError: the system has no memory to share."""
        number = next(n for n in range(len(self._banks) + 1) if n not in self._banks)
        self._banks[number] = _Bank(slot, self._index.size if self._index is not None else _ROOM_CELLS)
        return number

    def fold_bank(self, bank: int) -> None:
        """The bank's worker has ended: keep what it counted, forget its gauges, free the number."""
        entry = self._banks.pop(bank)
        known = self._retired.setdefault(entry.slot, array("d"))
        for row in _rows(entry):
            known.extend([0.0] * (len(row) - len(known)))
            known[: len(row)] = array("d", map(add, known, row))

    def cells(self, bank: int, row: int) -> Cells:
        """Return the cells that one thread of the bank's worker writes. KeyError, IndexError: no such bank or row."""
        entry = self._banks[bank]
        return Cells(entry.memory, entry.first_cell(row) * _CELL_BYTES, entry.row_cells, RULERS)

    def status(self, bank: int) -> BankStatus:
        """Return the bank's status words; KeyError when there is no such bank."""
        return BankStatus(self._banks[bank].words[:_STATUS_CELLS])

    def live_rows(self) -> Iterator[tuple[int, list[float]]]:
        """Yield (slot, cells) of every row of the workers that live. Gauges are good in these only."""
        for entry in self._banks.values():
            for row in _rows(entry):
                yield entry.slot, row

    def retired_rows(self) -> Iterator[tuple[int, list[float]]]:
        """Yield (slot, cells): what the ended workers of a slot counted. The cells of gauges mean nothing here."""
        for slot, sums in self._retired.items():
            yield slot, sums.tolist()


def _rows(bank: _Bank) -> Iterator[list[float]]:
    for row in range(ROWS):
        first = bank.first_cell(row)
        yield list(bank.words[first : first + bank.row_cells])
