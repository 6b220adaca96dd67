"""The side thread: one asyncio loop beside the event loop, for what only libraries of coroutines can do (DNS, later HTTP).

Owns the thread, its loop, and how much runs on it at once. Questions and answers cross in batches, one wake-up each way.
Every question is answered once: with the coroutine's result or its exception, TimeoutError when its time is over, or
SideBusyError when too many wait; only cancelled ones and those open at `close` are not. Coroutines share nothing with the loop
thread but what they return. The thread starts with the first question, so make it after the fork.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from smtpd.net.loop import Loop, Timer

T = TypeVar("T")

MAX_RUNNING = 200
MAX_WAITING = 10_000


class SideBusyError(Exception):
    """More questions wait than the side thread takes."""


class Question:
    """One call of `ask`. Its methods and all attributes but `task` and `is_dropped` belong to the loop thread."""

    __slots__ = ("_side", "done", "is_dropped", "kind", "make_coroutine", "task", "timer")

    def __init__(
        self, side: SideThread, make_coroutine: Callable[[], Awaitable[Any]], done: Callable[[Any, Any], object], kind: str
    ) -> None:
        self._side = side
        self.kind = kind
        self.make_coroutine = make_coroutine
        self.done: Callable[[Any, Any], object] | None = done
        self.timer: Timer | None = None
        self.task: asyncio.Task[None] | None = None  # belongs to the side thread
        self.is_dropped = False  # written by the side thread alone

    def cancel(self) -> None:
        """Stop the coroutine and drop its answer; after the answer it changes nothing."""
        if self.done is not None:
            self._side.drop(self)


class SideThread:
    """All methods belong to the loop thread."""

    def __init__(self, loop: Loop, name: str = "side", max_running: int = MAX_RUNNING, max_waiting: int = MAX_WAITING) -> None:
        self._loop = loop
        self._name = name
        self._max_running = max_running
        self._max_open = max_running + max_waiting
        self._open: set[Question] = set()
        self._thread: threading.Thread | None = None
        self._aio: asyncio.AbstractEventLoop | None = None
        self._is_closed = False
        # shared with the thread: deques, and a flag that only saves wake-ups
        self._handed_over: deque[tuple[Callable[[Question], object], Question]] = deque()
        self._is_waking = False
        # the thread's own
        self._waiting: dict[str, dict[Question, None]] = {}  # of each kind, in the order in which they came
        self._running: dict[str, int] = {}
        self._closers: list[Callable[[], Awaitable[object]]] = []

    def ask(
        self,
        make_coroutine: Callable[[], Awaitable[T]],
        done: Callable[[T | None, BaseException | None], object],
        timeout_s: float,
        kind: str = "",
    ) -> Question:
        """Run `make_coroutine()` on the side thread; `done(result, None)` or `done(None, error)` comes on the loop.

        How many may run at once is a limit of each `kind`, so that those who wait for a slow peer hold up nobody else.
        `timeout_s` counts from now, the wait for a free place included. `done` is never called before this returns."""
        question = Question(self, make_coroutine, done, kind)
        if self._is_closed or len(self._open) >= self._max_open:
            reason = "the side thread is closed" if self._is_closed else f"{len(self._open)} questions are open already"
            self._loop.ready(self._refuse, question, SideBusyError(reason))
            return question
        self._open.add(question)
        question.timer = self._loop.call_later(timeout_s, lambda: self._on_timeout(question))
        if self._thread is None:
            self._start()
        self._hand_over(self._begin, question)
        return question

    def call(self, fn: Callable[[], object]) -> None:
        """Have `fn()` called on the side thread soon, in the order of calls; nothing when it does not run. What `fn` raises goes
        to the handler of its loop: it has nobody else to tell."""
        if self._thread is not None and self._thread.is_alive() and self._aio is not None and not self._is_closed:
            self._aio.call_soon_threadsafe(fn)

    def at_close(self, closer: Callable[[], Awaitable[object]]) -> None:
        """Have `closer()` awaited on the side thread when it ends; from a coroutine on it."""
        self._closers.append(closer)

    def drop(self, question: Question) -> None:
        """Forget a question; `Question.cancel` is the way to ask for it."""
        question.done = None
        if question.timer is not None:
            question.timer.cancel()
        if question in self._open:
            self._open.remove(question)
            self._hand_over(self._stop_question, question)

    def close(self, timeout_s: float) -> bool:
        """Stop what runs and end the thread; open questions get no answer. Returns whether the thread ended in time: it is a
        daemon, so one that hangs in a library does not keep the process."""
        self._is_closed = True
        for question in list(self._open):
            self.drop(question)
        if self._thread is None or self._aio is None:
            return True
        if self._thread.is_alive():
            self._aio.call_soon_threadsafe(self._end)
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # --- on the loop thread ------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._aio = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(self._aio,), name=self._name, daemon=True)
        self._thread.start()

    def _hand_over(self, fn: Callable[[Question], object], question: Question) -> None:
        self._handed_over.append((fn, question))
        if not self._is_waking and self._thread is not None and self._thread.is_alive() and self._aio is not None:
            self._is_waking = True
            self._aio.call_soon_threadsafe(self._take)

    def _on_timeout(self, question: Question) -> None:
        done = question.done
        if done is not None:
            self.drop(question)
            done(None, TimeoutError("no answer in time"))

    def _refuse(self, question: Question, error: BaseException) -> None:
        if question.done is not None:
            question.done(None, error)

    def _answer(self, question: Question, result: object, error: BaseException | None) -> None:
        done = question.done
        if done is None:  # cancelled, or too late
            return
        question.done = None
        self._open.discard(question)
        if question.timer is not None:
            question.timer.cancel()
        done(result, error)

    # --- on the side thread ------------------------------------------------------------------------------------------

    def _run(self, aio: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(aio)
        try:
            aio.run_forever()
            aio.run_until_complete(self._finish())
        finally:
            aio.close()

    def _take(self) -> None:
        self._is_waking = False
        while self._handed_over:
            fn, question = self._handed_over.popleft()
            fn(question)

    def _begin(self, question: Question) -> None:
        kind = question.kind
        running = self._running.get(kind, 0)
        if running >= self._max_running:
            self._waiting.setdefault(kind, {})[question] = None
            return
        self._running[kind] = running + 1
        question.task = asyncio.get_running_loop().create_task(self._work(question))
        # not at the end of `_work`: a task stopped early never gets there
        question.task.add_done_callback(lambda _: self._begin_next(kind))

    def _begin_next(self, kind: str) -> None:
        self._running[kind] -= 1
        waiting = self._waiting.get(kind)
        if waiting:
            question = next(iter(waiting))
            del waiting[question]
            self._begin(question)

    def _stop_question(self, question: Question) -> None:
        question.is_dropped = True
        self._waiting.get(question.kind, {}).pop(question, None)
        if question.task is not None:
            question.task.cancel()

    async def _work(self, question: Question) -> None:
        result: object = None
        error: BaseException | None = None
        try:
            result = await question.make_coroutine()
        except BaseException as raised:  # noqa: BLE001 whatever it is, who asked gets it
            error = raised
        if not question.is_dropped and not self._is_closed:
            self._loop.post(self._answer, question, result, error)

    def _end(self) -> None:
        asyncio.get_running_loop().stop()

    async def _finish(self) -> None:
        """Stop all tasks and call the closers; the first failure of these ends the thread with a trace."""
        self._waiting.clear()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for closer in self._closers:
            await closer()
        await asyncio.get_running_loop().shutdown_asyncgens()
