"""What all workers of a host know together of each next hop: who has how many connections to it, and until when it is set aside.

Lives in shared memory that the master makes before it forks. Each process counts its connections in a column of its own, so no
count outlives its process: the master clears a column when it gives it to the next one. Rows are found by a hash of the next
hop's name and entered under a file lock (which the kernel takes back from a process that dies); reading takes no lock. A full
table fails open: a next hop without a row is known to each process by itself.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os

ROWS = 16384
COLUMNS = 512
_TEXT_BYTES = 240
_PROBES = 16
# Where things begin, in cells of 8 octets: the keys of all rows, when each may be tried again and when somebody last had no
# connection to it (both doubles), the counts, the texts.
_TIMES = ROWS
_BEGS = 2 * ROWS
_COUNTS = 3 * ROWS
_CELLS = _COUNTS + ROWS * COLUMNS


class HopTable:
    """Made once by the master. `column` of a process is any number below COLUMNS that no other living process has."""

    def __init__(self) -> None:
        self._fd = os.memfd_create("smtpd-next-hops", os.MFD_CLOEXEC)
        size_bytes = _CELLS * 8 + ROWS * _TEXT_BYTES
        os.ftruncate(self._fd, size_bytes)  # pages that nobody touches take no memory
        self._memory = mmap.mmap(self._fd, size_bytes)
        view = memoryview(self._memory)
        self._cells: memoryview[int] = view[: _CELLS * 8].cast("q")
        self._times: memoryview[float] = view[: _CELLS * 8].cast("d")
        self._texts = view[_CELLS * 8 :]

    def fileno(self) -> int:
        """The descriptor that the lock is taken on: a process that uses the table keeps it open."""
        return self._fd

    def clear_column(self, column: int) -> None:
        """Forget the connections of a process that has ended, before another one gets its column."""
        cells = self._cells
        for row, key in enumerate(cells[:ROWS].tolist()):
            if key:
                cells[_COUNTS + row * COLUMNS + column % COLUMNS] = 0

    def row_of(self, name: str, column: int) -> HopRow | None:
        """Return the row of a next hop, entered if it is new; None: the table is full."""
        key = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little", signed=True) or 1
        first = key % ROWS
        row = self._find(key, first)
        if row < 0:
            fcntl.lockf(self._fd, fcntl.LOCK_EX)
            try:
                row = self._find(key, first)
                if row < 0:
                    row = self._find(0, first)
                    if row >= 0:
                        self._cells[row] = key
            finally:
                fcntl.lockf(self._fd, fcntl.LOCK_UN)
        return None if row < 0 else HopRow(self, row, column % COLUMNS)

    def _find(self, key: int, first: int) -> int:
        cells = self._cells
        for step in range(_PROBES):
            row = (first + step) % ROWS
            found = cells[row]
            if found == key:
                return row
            if not found:
                return -1
        return -1

    def close(self) -> None:
        """Unmap; nobody may use a row of it any more."""
        self._cells.release()
        self._times.release()
        self._texts.release()
        self._memory.close()
        os.close(self._fd)


class HopRow:
    """One next hop, seen by one process. `until_s` is monotonic time."""

    __slots__ = ("_mine", "_row", "_table")

    def __init__(self, table: HopTable, row: int, column: int) -> None:
        self._table = table
        self._row = row
        self._mine = _COUNTS + row * COLUMNS + column

    def take_connection(self, most: int) -> bool:
        """Count one more connection of this process, unless the host would then have more than `most`.

        Counted first and looked at afterwards: two processes at the border may both refuse, but never both go over it."""
        cells = self._table._cells
        cells[self._mine] += 1
        if self.connections > most:
            cells[self._mine] -= 1
            return False
        return True

    def give_connection(self) -> None:
        """A connection of this process is closed."""
        self._table._cells[self._mine] -= 1

    @property
    def connections(self) -> int:
        """Connections of all processes."""
        first = _COUNTS + self._row * COLUMNS
        return sum(self._table._cells[first : first + COLUMNS].tolist())

    @property
    def until_s(self) -> float:
        """When this next hop may be tried again; 0.0: it is not set aside."""
        return float(self._table._times[_TIMES + self._row])

    @property
    def text(self) -> str:
        """Why it was set aside."""
        start = self._row * _TEXT_BYTES
        return bytes(self._table._texts[start : start + _TEXT_BYTES]).rstrip(b"\0").decode("utf-8", "replace")

    def set_aside(self, until_s: float, text: str) -> None:
        """All processes keep away from it until then; the text says why."""
        octets = text.encode("utf-8", "replace")[:_TEXT_BYTES]
        start = self._row * _TEXT_BYTES
        self._table._texts[start : start + _TEXT_BYTES] = octets.ljust(_TEXT_BYTES, b"\0")
        self._table._times[_TIMES + self._row] = until_s

    def welcome(self) -> None:
        """It answers: nobody need keep away."""
        self._table._times[_TIMES + self._row] = 0.0

    def beg(self, now_s: float) -> None:
        """Somebody has mail for it and no connection, because all that the host may have are others'."""
        self._table._times[_BEGS + self._row] = now_s

    @property
    def begged_at_s(self) -> float:
        """When somebody last did; 0.0: never."""
        return float(self._table._times[_BEGS + self._row])
