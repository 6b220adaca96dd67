"""What the workers tell each other of their load: figures of each, and the states that hold for the whole host.

Shared memory that the master makes before it forks; a worker writes its own row (`bank`, as in the table of clients), the master
clears it when the worker has ended. A state of the host is one cell that all read and whoever looks first changes: every worker
goes by the same, and one of them tells it. No locks: two who look in the same microsecond may both tell.
"""

from __future__ import annotations

import mmap

BANKS = 512
ROUTES = 1024  # whose queues are added up; routes beyond these are each worker's own affair
STATES = MEMORY, ADDRESS_SPACE, DISK, SESSIONS, DESCRIPTORS, LAG = range(6)  # of the host, and of a worker
_ROOM = 8  # for these
_USED, _GENERATION = _ROOM, _ROOM + 1  # private memory in octets, and whose settings hold, behind a worker's states
_QUEUES = _ROOM + 8  # mails by route; in the head: whether a queue is over its mark
_ROW = _QUEUES + ROUTES
_CELL_BYTES = 8


class PressureBoard:
    """Made once by the master. OSError: no memory to share."""

    def __init__(self) -> None:
        # pages that nobody touches take no memory; the first row is the host's
        self._cells: memoryview[float] = memoryview(mmap.mmap(-1, (1 + BANKS) * _ROW * _CELL_BYTES)).cast("d")
        self._nothing = memoryview(bytes(_ROW * _CELL_BYTES)).cast("d")
        self._count = _USED  # its cell in the host's row: so many rows were ever used

    def clear(self, bank: int) -> None:
        """Before a process begins to write there, and when it has ended. IndexError: there are BANKS of them."""
        if not 0 <= bank < BANKS:
            raise IndexError(f"no bank {bank}")
        first = (1 + bank) * _ROW
        self._cells[first : first + _ROW] = self._nothing
        self._cells[self._count] = max(self._cells[self._count], bank + 1)

    # --- of one worker -----------------------------------------------------------------------------------------------

    def flag(self, bank: int, state: int, is_on: bool) -> None:
        """Say that this worker is in a state, or not."""
        self._cells[(1 + bank) * _ROW + state] = 1.0 if is_on else 0.0

    def is_anybody(self, state: int) -> bool:
        """Return whether some worker is in a state."""
        return any(self._column(state))

    def serve(self, bank: int, generation: int) -> bool:
        """Say which reading of the configuration this worker goes by, 0 when it drains; return whether it is the newest at work:
        then its marks decide."""
        self._cells[(1 + bank) * _ROW + _GENERATION] = generation
        return 0 < generation >= max(self._column(_GENERATION))

    def use_memory(self, bank: int, size_bytes: int) -> None:
        """Say how much memory this worker has."""
        self._cells[(1 + bank) * _ROW + _USED] = size_bytes

    def memory_bytes(self) -> int:
        """Return the memory of all workers."""
        return int(sum(self._column(_USED)))

    def hold_mails(self, bank: int, route: int, mails: int) -> None:
        """Say how many mails of a route are in this worker's queue."""
        if route < ROUTES:
            self._cells[(1 + bank) * _ROW + _QUEUES + route] = mails

    def mails(self, route: int, own: int) -> int:
        """Return how many mails of a route all have; `own` for a route that has no place here."""
        return int(sum(self._column(_QUEUES + route))) if route < ROUTES else own

    def _column(self, place: int) -> list[float]:
        count = int(self._cells[self._count])
        return [self._cells[_ROW * number + place] for number in range(1, 1 + count)]

    # --- of the host -------------------------------------------------------------------------------------------------

    def state(self, state: int) -> bool:
        return bool(self._cells[state])

    def change(self, state: int, is_on: bool) -> bool:
        """Set a state of the host; return whether that changed it: then it is the caller's to tell."""
        if bool(self._cells[state]) == is_on:
            return False
        self._cells[state] = 1.0 if is_on else 0.0
        return True

    def is_queue_full(self, route: int) -> bool:
        return self.state(_QUEUES + route)

    def change_queue(self, route: int, is_full: bool) -> bool:
        """The same as `change` for the queue of a route that has a place here."""
        return self.change(_QUEUES + route, is_full)
