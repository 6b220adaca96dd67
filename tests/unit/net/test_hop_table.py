"""The table of next hops: what processes know together, and what is left of one that died."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from smtpd.net import hop_table
from smtpd.net.hop_table import COLUMNS, HopRow, HopTable

NAME = "192.0.2.1:25"


@pytest.fixture
def table() -> Iterator[HopTable]:
    table = HopTable()
    yield table
    table.close()


def row_of(table: HopTable, name: str = NAME, column: int = 0) -> HopRow:
    row = table.row_of(name, column)
    assert row is not None
    return row


def in_child(work: Callable[[], object]) -> int:
    """Run `work` in a forked process; return its pid."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return pid


def wait_for(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_connections_are_counted_over_all_columns_up_to_the_limit(table: HopTable) -> None:
    first, second = row_of(table, column=0), row_of(table, column=1)
    assert [first.take_connection(3), second.take_connection(3), first.take_connection(3)] == [True, True, True]
    assert not second.take_connection(3)
    assert first.connections == second.connections == 3
    first.give_connection()
    assert second.take_connection(3)


def test_rows_of_different_next_hops_know_nothing_of_each_other(table: HopTable) -> None:
    one, other = row_of(table), row_of(table, "192.0.2.2:25")
    one.set_aside(7.5, "went away")
    one.take_connection(9)
    one.beg(3.0)
    assert (other.until_s, other.text, other.connections, other.begged_at_s) == (0.0, "", 0, 0.0)


def test_what_one_process_sets_aside_all_keep_away_from_until_one_is_answered(table: HopTable) -> None:
    row = row_of(table)
    assert wait_for(in_child(lambda: row_of(table, column=1).set_aside(1234.5, "421 gone \N{SNOWMAN}"))) == 0
    assert (row.until_s, row.text) == (1234.5, "421 gone \N{SNOWMAN}")
    assert wait_for(in_child(lambda: row_of(table, column=1).welcome())) == 0
    assert row.until_s == 0.0


def test_a_long_text_is_cut_and_the_next_row_is_whole(table: HopTable) -> None:
    row_of(table, "a").set_aside(1.0, "é" * 1000)
    for name in ("b", "c", "d"):
        row_of(table, name).set_aside(2.0, name)
    assert row_of(table, "a").text.startswith("é" * 100)
    assert [row_of(table, name).text for name in "bcd"] == ["b", "c", "d"]


def test_a_killed_process_leaves_its_count_until_its_column_is_cleared(table: HopTable) -> None:
    reader, writer = os.pipe()

    def hold() -> None:
        row = row_of(table, column=5)
        for _ in range(4):
            row.take_connection(10)
        os.write(writer, b"x")
        signal.pause()

    pid = in_child(hold)
    os.read(reader, 1)
    os.kill(pid, signal.SIGKILL)
    assert wait_for(pid) == -signal.SIGKILL
    os.close(reader)
    os.close(writer)
    row = row_of(table, column=2)
    row.take_connection(10)
    assert row.connections == 5
    table.clear_column(5)
    assert row.connections == 1


def test_a_process_that_dies_while_it_enters_a_row_locks_nobody_out(table: HopTable, monkeypatch: pytest.MonkeyPatch) -> None:
    def die_in_the_middle() -> None:
        monkeypatch.setattr(table, "_find", lambda *_: -1 if not os.kill(os.getpid(), signal.SIGKILL) else 0)
        hop_table.fcntl.lockf(table._fd, hop_table.fcntl.LOCK_EX)
        table.row_of(NAME, 1)

    assert wait_for(in_child(die_in_the_middle)) == -signal.SIGKILL
    assert row_of(table).take_connection(1)


def test_several_processes_never_have_more_connections_than_the_host_may(table: HopTable) -> None:
    """Each child notes what it has in a byte of its own; whoever has just taken one sees no more than the limit there."""
    most, children, rounds = 3, 4, 1500
    row_of(table)

    def hammer(column: int) -> None:
        row = row_of(table, column=column)
        for _ in range(rounds):
            if row.take_connection(most):
                holders[column] += 1
                assert sum(holders[:children]) <= most
                holders[column] -= 1
                row.give_connection()

    with hop_table.mmap.mmap(-1, 4096) as shared, memoryview(shared) as holders:
        pids = [in_child(lambda column=column: hammer(column)) for column in range(children)]  # type: ignore[misc]
        assert [wait_for(pid) for pid in pids] == [0] * children
    assert row_of(table).connections == 0


def test_processes_that_enter_the_same_names_at_once_share_the_rows(table: HopTable) -> None:
    names = [f"192.0.2.{number}:25" for number in range(200)]

    def enter(column: int) -> None:
        for name in names:
            assert row_of(table, name, column).take_connection(100)

    pids = [in_child(lambda column=column: enter(column)) for column in range(3)]  # type: ignore[misc]
    assert [wait_for(pid) for pid in pids] == [0, 0, 0]
    assert [row_of(table, name).connections for name in names] == [3] * len(names)


def test_names_whose_hashes_collide_get_rows_of_their_own(table: HopTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hop_table, "ROWS", 2)  # so all hashes meet; 16 tries end where they began
    rows = [table.row_of(name, 0) for name in ("one", "two")]
    assert all(rows)
    for row in rows:
        assert row is not None
        row.take_connection(1)
    assert [row_of(table, name).connections for name in ("one", "two")] == [1, 1]


def test_a_full_table_says_so_and_goes_on_to_serve_those_it_has(table: HopTable) -> None:
    for cell in range(hop_table.ROWS):
        table._cells[cell] = 7
    row_of_one = table.row_of(NAME, 0)
    assert row_of_one is None
    table._cells[0] = 0
    names = [name for name in (f"h{number}" for number in range(20_000)) if table.row_of(name, 0) is not None]
    assert len(names) >= 1
    assert row_of(table, names[0]).take_connection(1)


def test_columns_beyond_the_last_one_are_those_of_the_first(table: HopTable) -> None:
    row_of(table, column=COLUMNS + 1).take_connection(5)
    table.clear_column(1)
    assert row_of(table).connections == 0
