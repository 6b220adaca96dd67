"""The table of clients: what is counted is right, of whom it is counted, and what it does when full, killed or raced."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd.limits._clients import BANKS, MAIL_RATE, RATES, ROWS, WAYS, ClientTable, key_of

NOW = 1_000_000_000
SECOND = 1_000_000


@pytest.fixture
def fd() -> Iterator[int]:
    number = os.memfd_create("clients")
    yield number
    os.close(number)


@pytest.fixture
def table(fd: int) -> ClientTable:
    made = ClientTable(fd, 12345)
    made.open_bank(0)
    made.open_bank(1)
    return made


def crowd(table: ClientTable, row: int, count: int) -> list[int]:
    """Return keys of so many clients that share the set of this row: found in a table of the same seed."""
    number = os.memfd_create("scratch")
    try:
        scratch = ClientTable(number, 12345)
        keys, key = [], 0xA000000000000000
        while len(keys) < count:
            key += 1
            if scratch.find(key, NOW) // WAYS == row // WAYS:
                keys.append(key)
        return keys
    finally:
        os.close(number)


def test_clients_are_ipv4_addresses_and_ipv6_networks() -> None:
    assert key_of("192.0.2.7") == 0x0000FFFF_C0000207
    assert key_of("::ffff:192.0.2.7") == key_of("192.0.2.7")
    assert key_of("::ffff:c000:207") == key_of("0:0:0:0:0:FFFF:C000:0207") == key_of("192.0.2.7")
    assert key_of("192.0.2.7") != key_of("192.0.2.8")
    assert key_of("2001:db8:1:2::7") == key_of("2001:db8:1:2:ffff::8") == 0x20010DB800010002
    assert key_of("2001:db8:1:2::7") != key_of("2001:db8:1:3::7")
    assert key_of("fe80::1%eth0") == key_of("fe80::2") != 0
    assert key_of("::1") != 0
    assert [key_of(text) for text in ("", "unknown", "192.0.2", "1.2.3.4.5", "é", "\0")] == [0] * 6


def test_connections_are_counted_over_all_processes(table: ClientTable) -> None:
    row = table.find(key_of("192.0.2.7"), NOW)
    other = table.find(key_of("192.0.2.8"), NOW)
    for bank in (0, 0, 1):
        table.enter(row, bank)
    table.enter(other, 1)
    assert (table.connections(row), table.connections(other), table.host_connections()) == (3, 1, 4)
    table.leave(row, 0)
    assert (table.connections(row), table.host_connections()) == (2, 3)
    assert table.find(key_of("192.0.2.7"), NOW + SECOND) == row


def test_what_a_process_had_vanishes_with_its_bank(table: ClientTable) -> None:
    row = table.find(1 << 40, NOW)
    for _ in range(3):
        table.enter(row, 0)
    table.enter(row, 1)
    table.clear_bank(0)
    assert (table.connections(row), table.host_connections()) == (1, 1)
    table.leave(row, 0)  # nothing is counted twice
    assert (table.connections(row), table.host_connections()) == (1, 1)
    table.open_bank(1)
    assert (table.connections(row), table.host_connections()) == (0, 0)


def test_a_client_without_a_row_counts_for_the_host_alone(table: ClientTable) -> None:
    assert table.find(0, NOW) == table.find(0xFFFFFFFFFFFFFFFF, NOW) == -1
    table.enter(-1, 0)
    assert (table.connections(-1), table.host_connections()) == (0, 1)
    assert table.take(-1, MAIL_RATE, NOW, SECOND, 1, 1000)
    table.leave(-1, 0)
    assert table.host_connections() == 0
    for bank in (-1, BANKS):
        with pytest.raises(IndexError, match="no bank"):
            table.open_bank(bank)
        with pytest.raises(IndexError, match="no bank"):
            table.clear_bank(bank)
        table.enter(0, bank)
    assert table.host_connections() == 0
    with pytest.raises(IndexError, match="no row"):
        table.key_at(ROWS)


def test_a_bucket_gives_its_burst_at_once_and_then_as_it_fills(table: ClientTable) -> None:
    row = table.find(1 << 40, NOW)
    taken = [table.take(row, MAIL_RATE, NOW, SECOND, 3, 1) for _ in range(5)]
    assert taken == [True, True, True, False, False]
    assert not table.take(row, MAIL_RATE, NOW + SECOND - 1, SECOND, 3, 1)
    assert table.take(row, MAIL_RATE, NOW + SECOND, SECOND, 3, 1)
    assert not table.take(row, MAIL_RATE, NOW + SECOND, SECOND, 3, 1)
    assert not table.take(row, MAIL_RATE, NOW + 9 * SECOND, SECOND, 3, 4)  # more than it can ever hold
    assert table.take(row, MAIL_RATE, NOW + 9 * SECOND, SECOND, 3, 3)
    other_rates = [rate for rate in range(RATES) if rate != MAIL_RATE]
    assert all(table.take(row, rate, NOW, SECOND, 1, 1) for rate in other_rates)


@given(
    st.integers(1, 50),
    st.integers(1, 10**7),
    st.lists(st.tuples(st.integers(0, 10**8), st.integers(1, 20)), min_size=1, max_size=60),
)
def test_a_bucket_equals_one_that_is_counted_by_hand(burst: int, interval_us: int, steps: list[tuple[int, int]]) -> None:
    number = os.memfd_create("clients")
    try:
        table = ClientTable(number, 1)
        row = table.find(7, NOW)
        level_us, now = burst * interval_us, NOW  # of the oracle, in microseconds of filling
        for pause_us, count in steps:
            now += pause_us
            level_us = min(burst * interval_us, level_us + pause_us)
            fits = level_us >= count * interval_us
            level_us -= count * interval_us if fits else 0
            assert table.take(row, MAIL_RATE, now, interval_us, burst, count) == fits
    finally:
        os.close(number)


def test_a_row_is_given_away_only_when_nothing_is_forgotten_by_it(table: ClientTable) -> None:
    row = table.find(1 << 40, NOW)
    others = crowd(table, row, WAYS + 3)
    rows = [table.find(key, NOW + n) for n, key in enumerate(others[: WAYS - 1])]
    assert len({row, *rows}) == WAYS
    table.enter(row, 1)
    for n, number in enumerate(rows):
        assert table.take(number, MAIL_RATE, NOW, (n + 1) * SECOND, 1, 1)
    newcomer = others[WAYS]
    assert table.find(newcomer, NOW + 10) == -1  # all rows are in use: it has no limits
    assert table.find(newcomer, NOW + 2 * SECOND) == rows[0]  # of the two that are idle, the one not seen for longer
    assert table.take(rows[0], MAIL_RATE, NOW + 2 * SECOND, SECOND, 1, 1)  # it begins with a full bucket
    assert table.find(others[0], NOW + 2 * SECOND) == rows[1]
    assert table.key_at(row) == 1 << 40
    table.leave(row, 1)
    assert {table.find(key, NOW + 100 * SECOND + n) for n, key in enumerate(others[:WAYS])} == {row, *rows}


def test_two_maps_of_one_file_are_one_table(fd: int, table: ClientTable) -> None:
    other = ClientTable(fd, 12345)
    row = table.find(1 << 40, NOW)
    table.enter(row, 0)
    assert (other.find(1 << 40, NOW), other.connections(row), other.host_connections()) == (row, 1, 1)


CHILD = """
import os, sys
from smtpd.limits._clients import ClientTable, MAIL_RATE
table, bank = ClientTable(int(sys.argv[1]), 12345), int(sys.argv[2])
print("here", flush=True)
sys.stdin.readline()
taken = 0
for n in range(20000):
    row = table.find(1000 + n % 50, 1_000_000_000)
    taken += table.take(row, MAIL_RATE, 1_000_000_000, 1, 30000, 1)
    table.enter(row, bank)
    if n % 4:
        table.leave(row, bank)
print(taken, flush=True)
sys.stdin.readline()
"""


def test_processes_at_once_lose_no_count_and_killed_ones_leave_none(fd: int, table: ClientTable) -> None:
    banks = [2, 3, 4]
    for bank in banks:
        table.open_bank(bank)
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, str(fd), str(bank)],
            pass_fds=(fd,), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for bank in banks
    ]  # fmt: skip
    try:
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "here\n"
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        taken = [int(child.stdout.readline()) for child in children if child.stdout is not None]
        assert sum(taken) == 60000  # 50 clients, each with 30,000 in its bucket
        assert table.host_connections() == 3 * 5000
        rows = [table.find(1000 + n, NOW) for n in range(50)]
        assert sum(table.connections(row) for row in rows) == pytest.approx(15000, abs=3 * 50)
        for child, bank in zip(children, banks, strict=True):
            child.send_signal(signal.SIGKILL)
            child.wait(20)
            table.clear_bank(bank)
        assert table.host_connections() == 0
        assert [table.connections(row) for row in range(ROWS)] == [0] * ROWS
    finally:
        for child in children:
            child.kill()
            child.wait(20)
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()
