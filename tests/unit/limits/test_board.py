"""The board of the workers' load: what each writes, what all read, and what is forgotten with a worker."""

from __future__ import annotations

import os

import pytest

from smtpd.limits.board import BANKS, DISK, LAG, MEMORY, ROUTES, PressureBoard


def test_figures_of_all_are_added_up_and_vanish_with_their_worker() -> None:
    board = PressureBoard()
    assert (board.memory_bytes(), board.mails(3, 0)) == (0, 0)
    for bank in (0, 5):
        board.clear(bank)
        board.use_memory(bank, 1000 + bank)
        board.hold_mails(bank, 3, 10 + bank)
        board.flag(bank, LAG, True)
    assert board.memory_bytes() == 2005
    assert board.mails(3, 0) == 25
    assert board.mails(4, 7) == 0
    board.clear(5)
    assert (board.memory_bytes(), board.mails(3, 0), board.is_anybody(LAG)) == (1000, 10, True)
    board.clear(0)
    assert not board.is_anybody(LAG)


def test_a_route_without_a_place_is_each_workers_own_affair() -> None:
    board = PressureBoard()
    board.clear(0)
    board.hold_mails(0, ROUTES, 10)
    assert board.mails(ROUTES, 7) == 7


def test_there_are_so_many_banks() -> None:
    board = PressureBoard()
    board.clear(BANKS - 1)
    board.hold_mails(BANKS - 1, ROUTES - 1, 2)
    assert board.mails(ROUTES - 1, 0) == 2
    for bank in (-1, BANKS):
        with pytest.raises(IndexError):
            board.clear(bank)


def test_a_state_of_the_host_is_told_by_whoever_changes_it_and_seen_by_all() -> None:
    board = PressureBoard()
    pid = os.fork()
    if not pid:
        os._exit(0 if board.change(MEMORY, True) and board.change_queue(ROUTES - 1, True) else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert board.state(MEMORY)
    assert board.is_queue_full(ROUTES - 1)
    assert not board.change(MEMORY, True)
    assert board.change(MEMORY, False)
    assert not board.state(DISK)


def test_the_marks_of_the_newest_that_serve_decide() -> None:
    board = PressureBoard()
    for bank in (0, 1):
        board.clear(bank)
    assert board.serve(0, 1)
    assert board.serve(1, 2)
    assert not board.serve(0, 1)
    assert not board.serve(1, 0)  # the reload has failed, or it drains
    assert board.serve(0, 1)
