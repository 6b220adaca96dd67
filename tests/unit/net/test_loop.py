"""The loop: order within a turn, timers, posts from other threads, descriptors."""

import os
import socket
import threading
import time

import pytest

from smtpd.net.loop import Loop


@pytest.fixture
def loop():
    loop = Loop()
    yield loop
    loop.close()


def test_timers_run_in_order_of_their_time_not_of_their_making(loop):
    seen = []
    loop.call_later(0.002, lambda: seen.append("second"))
    loop.call_later(0.001, lambda: seen.append("first"))
    loop.call_later(0.003, loop.stop)
    loop.run()
    assert seen == ["first", "second"]


def test_cancelled_timer_does_not_run(loop):
    seen = []
    loop.call_later(0.001, lambda: seen.append("cancelled")).cancel()
    loop.call_later(0.002, loop.stop)
    loop.run()
    assert seen == []


def test_posts_from_another_thread_wake_the_loop_and_keep_their_order(loop):
    seen = []

    def post_all():
        for number in range(1000):
            loop.post(seen.append, number)
        loop.post(loop.stop)

    thread = threading.Thread(target=post_all)
    thread.start()
    loop.run()
    thread.join()
    assert seen == list(range(1000))


def test_ready_call_made_by_a_ready_call_waits_for_the_next_turn(loop):
    seen = []

    def again():
        seen.append(len(seen))
        loop.ready(again)

    loop.ready(again)
    loop.turn(0)
    assert seen == [0]
    loop.turn(0)
    assert seen == [0, 1]


def test_turn_end_hook_sees_what_the_turn_did(loop):
    seen = []
    loop.at_turn_end(lambda: seen.append("end"))
    loop.ready(seen.append, "work")
    loop.turn(0)
    assert seen == ["work", "end"]


def test_reader_and_writer_of_one_descriptor_are_independent(loop):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        seen = []
        loop.add_reader(ours.fileno(), lambda: seen.append(("read", ours.recv(10))))
        loop.add_writer(ours.fileno(), lambda: seen.append("write"))
        loop.turn(0)
        assert seen == ["write"]
        loop.remove_writer(ours.fileno())
        theirs.send(b"x")
        loop.turn(1)
        assert seen == ["write", ("read", b"x")]
        loop.forget(ours.fileno())
        theirs.send(b"y")
        loop.turn(0)
        assert seen == ["write", ("read", b"x")]


def test_reader_removed_by_an_earlier_callback_of_the_turn_is_not_called(loop):
    pairs = [socket.socketpair() for _ in range(2)]
    seen = []

    def on_readable():
        seen.append("called")
        for other, _ in pairs:
            loop.forget(other.fileno())

    for ours, theirs in pairs:
        ours.setblocking(False)
        loop.add_reader(ours.fileno(), on_readable)
        theirs.send(b"x")
    loop.turn(1)
    assert len(seen) == 1
    for ours, theirs in pairs:
        ours.close()
        theirs.close()


def test_signal_runs_its_handler_on_the_loop(loop):
    import signal

    before = signal.getsignal(signal.SIGUSR1)
    seen = []
    loop.watch_signals({signal.SIGUSR1: lambda: (seen.append("usr1"), loop.stop())})
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        loop.run()
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGUSR1, before)
    assert seen == ["usr1"]


def test_a_callback_that_raises_ends_run(loop):
    def fail():
        raise ValueError("from a callback")

    loop.ready(fail)
    with pytest.raises(ValueError, match="from a callback"):
        loop.run()


def test_ready_calls_that_never_end_leave_a_turn_to_others(loop):
    """Each turn runs some of them, in order, and what else is ready, however many there are."""
    order = []

    def burn(number):
        order.append(number)
        give_up_at = time.monotonic() + 0.002  # more than a turn has for ready calls
        while time.monotonic() < give_up_at:
            pass

    for number in range(5):
        loop.ready(burn, number)
    ours, theirs = socket.socketpair()
    loop.add_reader(ours.fileno(), lambda: order.append("event"))
    theirs.send(b"x")
    for _ in range(3):
        loop.turn(0)
    assert order == [0, "event", 1, "event", 2, "event"]
    loop.forget(ours.fileno())
    ours.close()
    theirs.close()
