"""Accepting: a worker's own sockets, and the neighbours' when their connections stay unaccepted.

Each TCP listener has one SO_REUSEPORT socket for each worker slot, so the kernel spreads connections by hash and also over a
worker that is stopped, stuck or busy. So a worker watches the sockets of the two slots before it too: when one has a
connection, it waits a moment, and if that is still not accepted, accepts it itself. Idle servers pay nothing for this;
under load it is one look per socket and moment. Where descriptors run out (EMFILE, or what is left is kept back, descriptors.py)
connections wait in the kernel's queue, and nothing spins.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

from smtpd import _io
from smtpd.net.listeners import ListenerSockets
from smtpd.net.loop import Loop
from smtpd.worker.descriptors import Descriptors
from smtpd.worker.parts import Gate

ACCEPTS_PER_TURN = 16  # so that a flood of connects leaves time for the sessions
NEIGHBOURS = 2
PATIENCE_S = (0.02, 0.035)  # by distance: the second neighbour gives the first its chance
GATE_RETRY_S = 0.02  # how long excess connections wait at least before one is looked at again
RETRY_S = 0.2  # after EMFILE, ENFILE, ENOMEM or ENOBUFS
_EAGAIN = -errno.EAGAIN
_EINVAL = -errno.EINVAL
_GONE = (-errno.ECONNABORTED, -errno.EPROTO, -errno.EPERM)
Accepted = Callable[[int, tuple[str, int]], None]


class Acceptor:
    """One listener in one worker. `on_accepted(descriptor, (address, port))` takes the connection over.

    While `gate` lets nobody in, connections stay in the kernel's queue."""

    def __init__(
        self,
        loop: Loop,
        listener: ListenerSockets,
        on_accepted: Accepted,
        descriptors: Descriptors,
        gate: Gate | None = None,
    ) -> None:
        self.name = listener.name
        self._loop = loop
        self._listener = listener
        self._on_accepted = on_accepted
        self._descriptors = descriptors
        self._gate = gate
        self._watched: dict[int, int] = {}  # descriptor -> distance, 0 = ours
        self._slots: tuple[int, ...] = ()
        self._is_closed = False
        self._is_paused = False

    def serve(self, slots: tuple[int, ...]) -> None:
        """Accept from these slots' sockets at once, and stand in for the neighbours before them."""
        sockets = self._listener.sockets
        wanted: dict[int, int] = {}
        self._slots = slots
        if self._is_paused:
            pass
        elif self._listener.is_shared:
            wanted = dict.fromkeys([sock.fileno() for sock in sockets], 0)
        else:
            count = len(sockets)
            for slot in slots:
                if slot < count:
                    wanted[sockets[slot].fileno()] = 0
            for distance in range(1, min(NEIGHBOURS, count - 1) + 1):
                wanted.setdefault(sockets[(slots[0] - distance) % count].fileno(), distance)
        for fd in self._watched.keys() - wanted.keys():
            self._loop.remove_reader(fd)
        self._watched = wanted
        for fd in wanted:
            self._watch(fd)

    def pause(self) -> None:
        """Accept what waits in the queues that this worker watches, then nothing until `resume`."""
        watched = list(self._watched)
        self._is_paused = True
        self.serve(self._slots)
        for fd in watched:
            while True:
                new, peer = _io.accept(fd)
                if new < 0:
                    break
                self._on_accepted(new, peer)

    def resume(self) -> None:
        """Accept again."""
        self._is_paused = False
        if self._slots:
            self.serve(self._slots)

    def add_socket(self, sock: socket.socket) -> None:
        """A slot was added; call `serve` afterwards."""
        if not self._listener.is_shared:
            self._listener.sockets.append(sock)

    def close(self) -> None:
        """Accept nothing more, at once. The sockets stay open for the other workers, who have them from the master."""
        self._is_closed = True
        for fd in self._watched:
            self._loop.remove_reader(fd)
        for sock in self._listener.sockets:
            sock.close()

    def _watch(self, fd: int) -> None:
        if self._is_closed or fd not in self._watched:
            return
        distance = self._watched[fd]
        if not distance:
            self._loop.add_reader(fd, lambda: self._accept(fd))
        else:
            self._loop.add_reader(fd, lambda: self._wait_for_neighbour(fd, distance))

    def _wait_for_neighbour(self, fd: int, distance: int) -> None:
        self._loop.remove_reader(fd)
        self._loop.call_later(PATIENCE_S[distance - 1], lambda: self._stand_in(fd))

    def _stand_in(self, fd: int) -> None:
        if not self._is_closed and fd in self._watched and self._accept(fd):
            self._watch(fd)

    def _accept(self, fd: int) -> bool:
        """Take what is waiting, up to the quantum; False when descriptors have run out and the socket is left for later."""
        gate = self._gate
        ceiling = self._descriptors.ceiling
        for _ in range(ACCEPTS_PER_TURN):
            if gate is not None and not gate.take():
                self._loop.remove_reader(fd)
                self._loop.call_later(GATE_RETRY_S, lambda: self._watch(fd))
                return False
            new, peer = _io.accept(fd)
            if new >= 0:
                self._on_accepted(new, peer)
                if new >= ceiling:  # the lowest free one: what is left is for other things
                    self._run_short(fd, "it has as many connections as descriptors allow")
                    return False
                continue
            if gate is not None:
                gate.give_back()
            if new == _EAGAIN:
                return True
            if new == _EINVAL:  # it listens no more: a reload has removed it, and we are about to be told
                self._loop.remove_reader(fd)
                return False
            if new not in _GONE:
                self._run_short(fd, errno.errorcode.get(-new, str(-new)))
                return False
        return True

    def _run_short(self, fd: int, why: str) -> None:
        self._descriptors.run_short(f"accept on {self._listener.name}: {why}", self._loop.now)
        self._loop.remove_reader(fd)
        self._loop.call_later(RETRY_S, lambda: self._try_again(fd))

    def _try_again(self, fd: int) -> None:
        if not self._is_closed and not self._descriptors.has_room():
            self._loop.call_later(RETRY_S, lambda: self._try_again(fd))
        else:
            self._watch(fd)
