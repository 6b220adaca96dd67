"""Descriptors that are closed a little later: what was said arrives, their number is bounded, none is forgotten."""

from __future__ import annotations

import resource
import socket

import pytest

from smtpd.net.loop import Loop
from smtpd.worker import lingering
from smtpd.worker.descriptors import Descriptors
from smtpd.worker.lingering import Lingering


def pair() -> tuple[int, socket.socket]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(20)
    return ours.detach(), theirs


def test_the_last_words_arrive_and_then_the_end_though_nobody_read_what_the_client_wrote() -> None:
    loop = Loop()
    waiting = Lingering(loop, Descriptors(print))
    fd, theirs = pair()
    theirs.sendall(b"EHLO client.example.org\r\n")
    waiting.dismiss(fd, b"421 4.7.0 no\r\n")
    assert theirs.recv(100) == b"421 4.7.0 no\r\n"
    assert theirs.recv(100) == b""
    theirs.sendall(b"still here\r\n")  # not reset: the descriptor is open yet
    assert len(waiting) == 1
    waiting.close()
    assert len(waiting) == 0
    theirs.close()
    loop.close()


def test_the_oldest_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lingering, "MOST", 2)
    loop = Loop()
    waiting = Lingering(loop, Descriptors(print))
    others = []
    for _ in range(3):
        fd, theirs = pair()
        waiting.dismiss(fd, b"")
        others.append(theirs)
    assert len(waiting) == 2
    with pytest.raises(BrokenPipeError):
        others[0].sendall(b"x")
    others[1].sendall(b"x")
    waiting.close()
    for theirs in others:
        theirs.close()
    loop.close()


@pytest.mark.parametrize(("descriptors", "most"), [(32, 4), (4, 1)])
def test_few_descriptors_leave_room_for_fewer(monkeypatch: pytest.MonkeyPatch, descriptors: int, most: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda what: (descriptors, descriptors))
    loop = Loop()
    waiting = Lingering(loop, Descriptors(print))
    others = []
    for _ in range(most + 2):
        fd, theirs = pair()
        waiting.dismiss(fd, b"")
        others.append(theirs)
    assert len(waiting) == most
    waiting.close()
    for theirs in others:
        theirs.close()
    loop.close()


def test_a_sweep_closes_what_is_old_enough_and_comes_again_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lingering, "LINGER_S", 0.01)
    loop = Loop()
    waiting = Lingering(loop, Descriptors(print))
    others = []
    for _ in range(2):
        fd, theirs = pair()
        waiting.dismiss(fd, b"")
        others.append(theirs)
        loop.turn(0)
    for _ in range(1000):
        if not waiting:
            break
        loop.turn(0.05)
    assert len(waiting) == 0
    for theirs in others:
        with pytest.raises(BrokenPipeError):
            theirs.sendall(b"x")
        theirs.close()
    loop.close()
