"""Too much of something: looks at all marks with each heartbeat and says what follows. Loop thread of one worker.

Memory or spool over its mark: nobody new is let in and MAIL is put off. A route's queue over its mark: its recipients are put
off, and nobody else's. Connections, descriptors or loop lag over theirs: stress mode, which tightens the times and errors of
sessions, those open already too. Disk and queues never are stress. Memory, connections and queues are the whole host's, and all
workers go by one state of each (`limits/board.py`); lag, descriptors and address space are each worker's own. Each change of a
state is told once, not by each worker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from smtpd.limits import board as states
from smtpd.limits.board import PressureBoard
from smtpd.limits.marks import LagMark, Mark
from smtpd.limits.memory import OwnMemory, address_space_limit, control_group_limit, trim_heap
from smtpd.metrics._cells import Cells
from smtpd.metrics.catalogue import BY_NAME
from smtpd.metrics.slab import CellIndex
from smtpd.net.loop import Loop
from smtpd.settings import Settings
from smtpd.spool.base import Spool
from smtpd.worker.descriptors import Descriptors

if TYPE_CHECKING:
    from smtpd.delivery.lane import Lane
    from smtpd.limits._clients import ClientTable
    from smtpd.worker.connection import Connection
    from smtpd.worker.rulebook import Rulebook
    from smtpd.worker.service import Service

SHED_MEMORY, SHED_DISK = "shed_memory", "shed_disk"  # labels of smtpd_connections_denied_total
_QUEUE_AGAIN = 0.9  # of queue_limit: below this its mail is taken again
_HURRIED_PER_TURN = 200
_TRIM_EVERY_S = 5.0
_MIB = 1 << 20
_MARKS = ("memory", "address_space", "disk", "sessions", "descriptors", "lag")  # by state, as the label is called


class Overload:
    """`is_stressed` and what follows are as of the last beat. `tell(text)` gets one line for each change of a state."""

    def __init__(
        self,
        loop: Loop,
        settings: Settings,
        bank: int,
        generation: int,
        board: PressureBoard,
        clients: ClientTable,
        connections: set[Connection],
        spool: Spool,
        lanes: Sequence[Lane],
        descriptors: Descriptors,
        cells: Cells,
        index: CellIndex,
        tell: Callable[[str], object],
    ) -> None:
        overload = settings.overload
        self._loop = loop
        self._bank = bank
        self._generation = generation
        self._board = board
        self._clients = clients
        self._connections = connections
        self._spool = spool
        self._descriptors = descriptors
        self._cells = cells
        self._tell = tell
        self._memory_limit = overload.memory_limit or control_group_limit()
        self._space_limit = address_space_limit()
        self._memory = Mark(overload.memory_high / 100 if self._memory_limit else 0, overload.memory_low / 100)
        self._space = Mark(overload.memory_high / 100 if self._space_limit else 0, overload.memory_low / 100)
        self._session_most = settings.limits.connections
        self._sessions = Mark(overload.sessions_high / 100 if self._session_most else 0, overload.sessions_low / 100)
        self._own_sessions = Mark(overload.sessions_high / 100, overload.sessions_low / 100)
        self._lag = LagMark(overload.loop_lag_high, overload.loop_lag_low)
        self._queues = [_Queue(lane, mark, place) for lane, mark, place in _limited(settings, lanes, index)]
        self._own_memory = OwnMemory()
        self._space_base = 0
        self._trimmed_at_s = 0.0
        self._has_memory = True
        self._services: list[Service] = []
        self._rulebooks: list[Rulebook] = []
        self._stress = index.gauge("smtpd_stress_mode")
        self._over = [index.gauge("smtpd_overloaded", mark=name) for name in _MARKS]
        self._queue_over = index.gauge("smtpd_overloaded", mark="queue")
        self.is_stressed = False
        self.full_routes: set[int] = set()  # numbers of routes whose queue is over its mark

    def govern(self, service: Service, rulebook: Rulebook) -> None:
        """Tighten these under stress."""
        self._services.append(service)
        self._rulebooks.append(rulebook)

    @property
    def has_queue_limits(self) -> bool:
        return bool(self._queues)

    @property
    def denial(self) -> str:
        """Why nobody new is let in now, "" = everybody may."""
        if not self._has_memory:
            return SHED_MEMORY
        return SHED_DISK if self._spool.is_full else ""

    def refuses_mail(self) -> bool:
        """Whether MAIL is put off (452)."""
        return not self._has_memory or self._spool.is_full

    # --- looking -----------------------------------------------------------------------------------------------------

    def beat(self, lag_s: float, *, is_draining: bool = False) -> None:
        """Look at everything; `lag_s` is how late this call is. Who drains, or is about to be replaced, decides nothing for the
        others any more."""
        decides = self._board.serve(self._bank, 0 if is_draining else self._generation)
        self._look_at_memory(decides)
        self._look_at_disk()
        self._look_at_sessions(decides)
        self._look_at_lag(lag_s)
        for queue in self._queues:
            self._look_at_queue(queue, decides)
        self._cells.set(self._queue_over, bool(self.full_routes))
        for state, gauge in zip(states.STATES, self._over, strict=True):
            self._cells.set(gauge, self._board.state(state))
        is_stressed = self._board.state(states.SESSIONS) or self._own_sessions.is_over or self._lag.is_over
        if is_stressed != self.is_stressed:
            self.is_stressed = is_stressed
            self._cells.set(self._stress, is_stressed)
            self._tighten()

    def _look_at_memory(self, decides: bool) -> None:
        board, now_s = self._board, self._loop.now
        used, space = self._own_memory.look()
        board.use_memory(self._bank, used)
        if decides:
            total = board.memory_bytes()
            is_over = self._memory.judge(total / max(1, self._memory_limit), board.state(states.MEMORY))
            if board.change(states.MEMORY, is_over):
                figures = f"memory: {total // _MIB:,} of {self._memory_limit // _MIB:,} MiB"
                self._tell(_describe(figures, is_over, "new mail is put off"))
        if not self._space_base:  # libraries and shared maps, of which little is ever touched
            self._space_base = space
        self._space.look((space - self._space_base) / max(1, self._space_limit - self._space_base))
        figures = f"address space of a worker: {space // _MIB:,} of {self._space_limit // _MIB:,} MiB"
        self._share(states.ADDRESS_SPACE, self._space.is_over, figures, "new mail is put off")
        self._has_memory = not (board.state(states.MEMORY) or self._space.is_over)
        if not self._has_memory and now_s - self._trimmed_at_s >= _TRIM_EVERY_S:
            self._trimmed_at_s = now_s  # or what sessions have let go of would count for ever
            trim_heap()

    def _look_at_disk(self) -> None:
        self._share(states.DISK, self._spool.is_full, "space of the spool", "new mail is put off")

    def _look_at_sessions(self, decides: bool) -> None:
        board, most = self._board, self._session_most
        if decides:
            count = self._clients.host_connections()
            is_over = self._sessions.judge(count / max(1, most), board.state(states.SESSIONS))
            if board.change(states.SESSIONS, is_over):
                self._tell(_describe(f"connections: {count:,} of {most:,}", is_over, "stress mode"))
        self._descriptors.look(self._loop.now)
        room, own = self._descriptors.room, len(self._connections)
        self._own_sessions.look(own / room)
        figures = f"connections of a worker: {own:,} of {room:,} that it has descriptors for"
        self._share(states.DESCRIPTORS, self._own_sessions.is_over, figures, "stress mode")

    def _look_at_lag(self, lag_s: float) -> None:
        self._lag.look(lag_s)
        self._share(states.LAG, self._lag.is_over, f"loop of a worker: {lag_s:.1f} s late", "stress mode")

    def _look_at_queue(self, queue: _Queue, decides: bool) -> None:
        board, lane = self._board, queue.lane
        own = len(lane.active) + lane.untried.count + lane.deferred.count
        board.hold_mails(self._bank, queue.place, own)
        is_shared = queue.place < states.ROUTES
        was_full = board.is_queue_full(queue.place) if is_shared else queue.is_full
        queue.is_full = was_full
        if decides:
            count = board.mails(queue.place, own)
            queue.is_full = queue.mark.judge(count, was_full)
            if board.change_queue(queue.place, queue.is_full) if is_shared else queue.is_full != was_full:
                figures = f"queue of route {lane.name}: {count:,} of {queue.mark.high:,.0f} mails"
                self._tell(_describe(figures, queue.is_full, "its recipients are put off"))
        if queue.is_full:
            self.full_routes.add(lane.number)
        else:
            self.full_routes.discard(lane.number)

    def _share(self, state: int, is_over: bool, figures: str, what: str) -> None:
        """A state of this worker is one of the host while any worker is in it."""
        board = self._board
        board.flag(self._bank, state, is_over)
        is_anybody = board.is_anybody(state)
        if board.change(state, is_anybody):
            self._tell(_describe(figures, is_anybody, what))

    # --- doing -------------------------------------------------------------------------------------------------------

    def _tighten(self) -> None:
        for service in self._services:
            service.set_stress(self.is_stressed)
        for rulebook in self._rulebooks:
            rulebook.set_stress(self.is_stressed)
        if self.is_stressed:  # timers of open sessions were set for longer times
            self._hurry(iter(list(self._connections)))

    def _hurry(self, left: Iterator[Connection]) -> None:
        """Look at open sessions' times, some in each turn."""
        some = list(islice(left, _HURRIED_PER_TURN))
        for connection in some:
            connection.hurry()
        if some and self.is_stressed:
            self._loop.ready(self._hurry, left)


class _Queue:
    """A route that has a limit. `place` is its number among all that ever were."""

    __slots__ = ("is_full", "lane", "mark", "place")

    def __init__(self, lane: Lane, mark: Mark, place: int) -> None:
        self.lane = lane
        self.mark = mark
        self.place = place
        self.is_full = False


def _limited(settings: Settings, lanes: Sequence[Lane], index: CellIndex) -> Iterator[tuple[Lane, Mark, int]]:
    """The lanes of the routes with a queue_limit."""
    names = dict.fromkeys(values[0] for values, _ in index.series(BY_NAME["smtpd_queue_messages"]))
    places = {name: number for number, name in enumerate(names)}  # append-only over all reloads, as the series are
    for route, lane in zip(settings.route, lanes, strict=False):
        if route.queue_limit:
            yield lane, Mark(route.queue_limit, max(1.0, route.queue_limit * _QUEUE_AGAIN)), places[lane.name]


def _describe(figures: str, is_over: bool, what: str) -> str:
    return f"overload: {figures}: {what}" if is_over else f"overload: {figures}: over, {what} no more"
