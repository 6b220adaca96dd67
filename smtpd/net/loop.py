"""The event loop: one readiness loop (epoll) with timers, a run queue, and a wake-up for other threads.

Owns the epoll set and the order within a turn: posted calls, ready calls, events, due timers, then the end-of-turn hooks.
Never blocks but in epoll, knows nothing of mail. A callback that raises ends the loop: `run` passes it on.

Waiting is done in two steps: first without giving the GIL up (`_io.Poller.wait_now`), and only when nothing is ready with a
blocking call that does. Under load a busy helper thread can then take the GIL only by the interpreter's switch interval.
"""

from __future__ import annotations

import heapq
import os
import select
import signal
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from smtpd import _io

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
_READ, _WRITE = READ, WRITE  # in C variables of the module (loop.pxd), as the masks are
_READ_MASK = ~WRITE  # errors and hang-ups wake the reader, and the writer as well
_WRITE_MASK = ~READ
HEAVY_PER_TURN = 4  # a handshake takes about a millisecond of computing
_LEAST_CANCELLED = 1000
_READY_S = 0.0005  # of a turn for ready calls: who always has more to do (pipelined commands) waits for who has one event


class Timer:
    """A call at a time; `cancel` is free, the entry leaves the heap when its time comes, or with many others before.

    Made by `Loop.call_at`.
    """

    __slots__ = ("_loop", "fn", "when")
    _loop: Loop
    when: float
    fn: Callable[[], object] | None

    def cancel(self) -> None:
        if self.fn is not None:
            self.fn = None
            self._loop.cancelled_count += 1


class Handler:
    """Who watches a descriptor. Replaced, never changed."""

    __slots__ = ("on_readable", "on_writable")
    on_readable: Callable[[], object] | None
    on_writable: Callable[[], object] | None


class Loop:
    """One per process. `now` is the monotonic time in seconds of the current turn."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._poller = _io.Poller(self._epoll.fileno())
        self._handlers: list[Handler | None] = []  # by descriptor
        self._timers: list[tuple[float, int, Timer]] = []
        self._timer_count = 0
        self.cancelled_count = 0  # of entries in `_timers`, about
        self._ready: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._heavy: deque[Callable[[], object]] = deque()
        self._posted: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._is_waking = False
        self._is_running = False
        self._signal_pair: tuple[socket.socket, ...] = ()
        self._turn_hooks: list[Callable[[], object]] = []
        self._idle_hooks: list[Callable[[], object]] = []
        self.now = _io.monotonic_s()
        self.turn_started_at = self.now
        self.add_reader(self._wake_fd, self._on_wake)

    # --- descriptors -------------------------------------------------------------------------------------------------

    def add_reader(self, fd: int, on_readable: Callable[[], object]) -> None:
        """Call `on_readable` in each turn in which `fd` is readable, at its end, or broken."""
        known = self._find(fd)
        self._register(fd, on_readable, known.on_writable if known is not None else None)

    def add_writer(self, fd: int, on_writable: Callable[[], object]) -> None:
        """Call `on_writable` in each turn in which `fd` takes bytes or is broken."""
        known = self._find(fd)
        self._register(fd, known.on_readable if known is not None else None, on_writable)

    def remove_reader(self, fd: int) -> None:
        known = self._find(fd)
        if known is not None:
            self._register(fd, None, known.on_writable)

    def remove_writer(self, fd: int) -> None:
        known = self._find(fd)
        if known is not None:
            self._register(fd, known.on_readable, None)

    def forget(self, fd: int) -> None:
        """Stop watching `fd`."""
        if self._find(fd) is not None:
            self._handlers[fd] = None
            self._poller.remove(fd)

    def forget_closed(self, fd: int) -> None:
        """`fd` is being closed and nobody else has it: it leaves the epoll set by itself."""
        if self._find(fd) is not None:
            self._handlers[fd] = None

    def _find(self, fd: int) -> Handler | None:
        return self._handlers[fd] if 0 <= fd < len(self._handlers) else None

    def _register(self, fd: int, on_readable: Callable[[], object] | None, on_writable: Callable[[], object] | None) -> None:
        events = (_READ if on_readable is not None else 0) | (_WRITE if on_writable is not None else 0)
        known = self._find(fd)
        if not events:
            if known is not None:
                self.forget(fd)
            return
        if fd >= len(self._handlers):
            self._handlers.extend([None] * (fd + 64 - len(self._handlers)))
        handler = Handler.__new__(Handler)
        handler.on_readable = on_readable
        handler.on_writable = on_writable
        self._handlers[fd] = handler
        if known is None:
            self._poller.add(fd, events)
            return
        before = (_READ if known.on_readable is not None else 0) | (_WRITE if known.on_writable is not None else 0)
        if events != before:
            self._poller.modify(fd, events)

    # --- calls -------------------------------------------------------------------------------------------------------

    def call_at(self, when: float, fn: Callable[[], object]) -> Timer:
        """Call `fn` in the first turn at or after monotonic time `when`, in seconds."""
        timer = Timer.__new__(Timer)
        timer._loop = self
        timer.when = when
        timer.fn = fn
        self._timer_count += 1
        heapq.heappush(self._timers, (when, self._timer_count, timer))
        if self.cancelled_count > _LEAST_CANCELLED and 2 * self.cancelled_count > len(self._timers):
            self._drop_cancelled()
        return timer

    def _drop_cancelled(self) -> None:
        """Each connection has a timer that is cancelled long before its time."""
        self._timers[:] = [entry for entry in self._timers if entry[2].fn is not None]
        heapq.heapify(self._timers)
        self.cancelled_count = 0

    def call_later(self, delay_s: float, fn: Callable[[], object]) -> Timer:
        return self.call_at(self.now + delay_s, fn)

    def ready(self, fn: Callable[..., object], *args: Any) -> None:
        """Call `fn` in one of the next turns, in order, without waiting before it (loop thread only)."""
        self._ready.append((fn, args))

    def ready_heavy(self, fn: Callable[[], object]) -> None:
        """Call `fn` in one of the next turns, a few of all such calls in each: for work that takes a millisecond and could come
        by the thousand at once, such as handshakes (loop thread only)."""
        self._heavy.append(fn)

    def post(self, fn: Callable[..., object], *args: Any) -> None:
        """Call `fn` on the loop thread; from any thread. Posts that come in one batch cost one wake-up."""
        self._posted.append((fn, args))
        if not self._is_waking:
            self._is_waking = True
            _io.notify_eventfd(self._wake_fd)

    def at_turn_end(self, fn: Callable[[], object]) -> None:
        """Call `fn` at the end of every turn from now on."""
        self._turn_hooks.append(fn)

    def at_idle(self, fn: Callable[[], object]) -> None:
        """Call `fn` whenever nothing is ready, before the loop waits; it must not make anything ready."""
        self._idle_hooks.append(fn)

    def watch_signals(self, handlers: dict[int, Callable[[], object]]) -> None:
        """Run each handler as an ordinary call of the loop; the signal itself only queues (main thread only)."""
        reader, writer = self._signal_pair = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        for number in handlers:
            signal.signal(number, lambda *_: None)
            signal.siginterrupt(number, False)

        def on_signal() -> None:
            for number in reader.recv(4096):
                if number in handlers:
                    handlers[number]()

        self.add_reader(reader.fileno(), on_signal)

    # --- running -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Turn until `stop` is called."""
        self._is_running = True
        while self._is_running:
            self.turn()

    def stop(self) -> None:
        """Leave `run` at the end of this turn."""
        self._is_running = False

    def close(self) -> None:
        for sock in self._signal_pair:
            sock.close()
        self._epoll.close()
        os.close(self._wake_fd)

    def turn(self, max_wait_s: float | None = None) -> None:
        """One turn: wait (at most `max_wait_s`) until something is to be done, do it."""
        found = self._poller.wait_now()
        if not found and not self._ready and not self._posted and not self._heavy:
            for hook in self._idle_hooks:
                hook()
            wait_s = -1.0 if max_wait_s is None else max(max_wait_s, 0.0)
            if self._timers:
                until_timer_s = self._timers[0][0] - _io.monotonic_s()
                if wait_s < 0 or until_timer_s < wait_s:
                    wait_s = max(until_timer_s, 0.0)
            if wait_s:
                found = self._poller.wait(wait_s)
        now = _io.monotonic_s()
        self.now = now
        self.turn_started_at = now
        if self._ready:
            for _ in range(len(self._ready)):
                fn, args = self._ready.popleft()
                fn(*args)
                if _io.monotonic_s() - now > _READY_S:
                    break
        if found:
            self._handle_events()
        if self._heavy:
            self._run_heavy()
        if self._timers and self._timers[0][0] <= self.now:
            self._run_timers()
        for hook in self._turn_hooks:
            hook()

    def _run_heavy(self) -> None:
        heavy = self._heavy
        for _ in range(min(HEAVY_PER_TURN, len(heavy))):
            heavy.popleft()()

    def _handle_events(self) -> None:
        """Call who watches the descriptors that the poller has found, in its order."""
        poller = self._poller
        for i in range(poller.count):
            fd = poller.descriptor(i)
            handler = self._find(fd)
            if handler is None:
                continue
            mask = poller.mask(i)
            if handler.on_writable is not None and mask & _WRITE_MASK:
                handler.on_writable()
                if handler.on_readable is not None and self._find(fd) is not handler:
                    continue
            if handler.on_readable is not None and mask & _READ_MASK:
                handler.on_readable()

    def _on_wake(self) -> None:
        _io.drain_eventfd(self._wake_fd)
        self._is_waking = False
        while self._posted:
            fn, args = self._posted.popleft()
            fn(*args)

    def _run_timers(self) -> None:
        timers = self._timers
        while timers and timers[0][0] <= self.now:
            timer = heapq.heappop(timers)[2]
            fn = timer.fn
            if fn is None:
                self.cancelled_count -= 1
            else:
                timer.fn = None  # a `cancel` from now on finds nothing in the heap
                fn()
