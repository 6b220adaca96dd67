"""The side thread: every question is answered once, nothing is swallowed, too much is refused."""

import asyncio
import threading

import pytest

from smtpd.net.loop import Loop
from smtpd.net.side import SideBusyError, SideThread


class Rig:
    def __init__(self, **limits):
        self.loop = Loop()
        self.side = SideThread(self.loop, **limits)
        self.answers = []

    def ask(self, make_coroutine, timeout_s=10.0):
        return self.side.ask(make_coroutine, lambda result, error: self.answers.append((result, error)), timeout_s)

    def turn_until(self, condition):
        for _ in range(500):
            if condition():
                return
            self.loop.turn(0.05)
        raise AssertionError("never happened")

    def until_answers(self, count):
        self.turn_until(lambda: len(self.answers) >= count)
        self.loop.turn(0)
        assert len(self.answers) == count
        return self.answers


@pytest.fixture
def rig(request):
    rig = Rig(**getattr(request, "param", {}))
    yield rig
    assert rig.side.close(10)
    rig.loop.close()


async def twice(number):
    await asyncio.sleep(0)
    return 2 * number


async def forever(marks=None):
    try:
        await asyncio.Event().wait()
    finally:
        if marks is not None:
            marks.append("stopped")


async def fail(error):
    raise error


def test_thread_starts_with_the_first_question(rig):
    before = set(threading.enumerate())  # one of a test before may end meanwhile
    SideThread(rig.loop)
    assert not set(threading.enumerate()) - before
    rig.ask(lambda: twice(21))
    assert len(set(threading.enumerate()) - before) == 1
    assert rig.until_answers(1) == [(42, None)]
    assert not rig.side._open


def test_many_questions_are_all_answered(rig):
    for number in range(2000):
        rig.ask(lambda number=number: twice(number))
    assert sorted(result for result, _ in rig.until_answers(2000)) == [2 * n for n in range(2000)]


def test_answer_comes_on_the_loop_thread(rig):
    threads = []
    rig.side.ask(lambda: twice(1), lambda *_: threads.append(threading.current_thread()), 10.0)
    rig.turn_until(lambda: threads)
    assert threads == [threading.current_thread()]


def bad_maker():
    raise LookupError("no coroutine")


@pytest.mark.parametrize("make", [lambda: fail(ValueError("x")), bad_maker, lambda: fail(asyncio.CancelledError()), lambda: 7])
def test_what_goes_wrong_is_given_to_who_asked(rig, make):
    rig.ask(make)
    result, error = rig.until_answers(1)[0]
    assert result is None
    assert isinstance(error, ValueError | LookupError | asyncio.CancelledError | TypeError)
    rig.ask(lambda: twice(1))  # and the thread goes on
    assert rig.until_answers(2)[1] == (2, None)


def test_time_over_stops_the_coroutine(rig):
    marks = []
    rig.ask(lambda: forever(marks), timeout_s=0.01)
    result, error = rig.until_answers(1)[0]
    assert result is None
    assert isinstance(error, TimeoutError)
    rig.turn_until(lambda: marks == ["stopped"])


def test_cancelled_question_is_stopped_and_never_answered(rig):
    marks = []
    running = rig.ask(lambda: forever(marks))
    at_once = rig.ask(lambda: twice(1))
    at_once.cancel()
    rig.ask(lambda: twice(2))
    rig.until_answers(1)
    running.cancel()
    running.cancel()
    rig.turn_until(lambda: marks == ["stopped"])
    rig.ask(lambda: twice(3))
    assert rig.until_answers(2) == [(4, None), (6, None)]


@pytest.mark.parametrize("rig", [{"max_running": 2, "max_waiting": 3}], indirect=True)
def test_no_more_than_allowed_run_and_wait(rig):
    running = []
    peak = []
    gate = []

    async def work():
        running.append(1)
        await asyncio.sleep(0)  # the other one that may run begins here
        peak.append(len(running))
        while not gate:
            await asyncio.sleep(0.001)
        running.pop()

    questions = [rig.ask(work) for _ in range(6)]
    result, error = rig.until_answers(1)[0]
    assert result is None
    assert isinstance(error, SideBusyError)
    rig.turn_until(lambda: len(peak) == 2)
    questions[3].cancel()  # one that waits
    gate.append(True)
    assert rig.until_answers(5)[1:] == [(None, None)] * 4
    assert max(peak) == 2
    assert not rig.side._open


@pytest.mark.parametrize("rig", [{"max_running": 1}], indirect=True)
def test_questions_stopped_before_they_began_give_their_place_back(rig):
    for _ in range(50):
        rig.ask(lambda: twice(1)).cancel()
    rig.ask(lambda: twice(5))
    assert rig.until_answers(1) == [(10, None)]


def test_close_stops_what_runs_and_calls_the_closers():
    rig = Rig()
    marks = []

    async def closer():
        marks.append("closed")

    async def work():
        rig.side.at_close(closer)
        await forever(marks)

    rig.ask(work)
    rig.ask(lambda: twice(1))
    rig.until_answers(1)
    assert rig.side.close(10)
    assert marks == ["stopped", "closed"]
    rig.ask(lambda: twice(1))
    rig.loop.turn(0)
    assert isinstance(rig.answers[1][1], SideBusyError)
    assert rig.side.close(10)
    rig.loop.close()


def test_calls_come_in_order_and_are_not_answered(rig):
    said = []

    async def note():
        said.append("asked")

    rig.side.call(lambda: said.append("before the thread"))
    rig.ask(note)
    rig.until_answers(1)
    rig.side.call(lambda: said.append("called"))
    rig.ask(note)
    rig.until_answers(2)
    assert said == ["asked", "called", "asked"]


def test_calls_after_close_are_dropped(rig):
    said = []
    rig.ask(lambda: twice(1))
    rig.until_answers(1)
    assert rig.side.close(10)
    rig.side.call(lambda: said.append("late"))
    assert not said


@pytest.mark.parametrize("rig", [{"max_running": 1}], indirect=True)
def test_those_who_wait_for_a_slow_peer_hold_up_nobody_of_another_kind(rig):
    def take(result, error):
        rig.answers.append((result, error))

    for _ in range(3):
        rig.side.ask(forever, take, 100.0, "slow")
    rig.side.ask(lambda: twice(1), take, 10.0, "quick")
    rig.ask(lambda: twice(2))
    assert sorted(rig.until_answers(2)) == [(2, None), (4, None)]
