"""The board: figures as they are, lines only where something changed, a table without control of a terminal that isn't one."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest

from smtpd.metrics.slab import LOOP, CellIndex, Slabs
from smtpd.net.loop import Loop
from smtpd.sink.board import Board
from smtpd.sink.figures import report_of, summarize


class Server:
    """What a board sees of a master, and a worker's counters."""

    def __init__(self, workers: int = 2) -> None:
        index = CellIndex()
        index.prepare(listeners=["sink"])
        slabs = Slabs(index)
        self._index = index
        self._cells = [slabs.cells(slabs.take_bank(slot), LOOP) for slot in range(workers)]
        self.master: Any = SimpleNamespace(loop=Loop(), slabs=slabs, cells=index)

    def count(self, slot: int, mails: int) -> None:
        cells, index = self._cells[slot], self._index
        for _ in range(mails):
            cells.inc(index.counter("smtpd_messages_total", listener="sink", result="discarded"))
            cells.add(index.counter("smtpd_message_bytes_total", listener="sink", result="discarded"), 1000)
            cells.inc(index.counter("smtpd_replies_total", code="250"))
            cells.inc(index.counter("smtpd_commands_total", command="data"))
        cells.inc(index.counter("smtpd_connections_total", listener="sink"))


def test_lines_of_counters_come_when_something_has_changed() -> None:
    server, out = Server(), io.StringIO()
    board = Board("lines", out)
    board.watch(server.master)
    board._look()
    server.count(0, 3)
    board._look()
    board._look()
    server.count(1, 1)
    board._look()
    assert out.getvalue() == "sess=1 quit=0 mesg=3 open=0\nsess=2 quit=0 mesg=4 open=0\n"


@pytest.mark.parametrize("no_color", ["", "1"])
def test_the_table_shows_each_worker_and_all(monkeypatch: pytest.MonkeyPatch, no_color: str) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    server, out = Server(), io.StringIO()
    board = Board("live", out)
    board.watch(server.master)
    server.count(0, 3)
    server.count(1, 4)
    board.close()
    rows = [line.split() for line in out.getvalue().splitlines() if "│" in line]
    cells = [[cell for cell in row if cell != "│"] for row in rows]
    assert ["0", "0", "1", "3", "0.0", "0"] in cells
    assert ["all", "0", "2", "7", "0.0", "0"] in cells


def test_the_report_has_sums_and_workers() -> None:
    server = Server()
    board = Board("")
    board.watch(server.master)
    server.count(0, 3)
    server.count(1, 1)
    total, workers, times = board.close()
    report = report_of(total, workers, seed=1, **{**times, "busy_s": 2.0})
    assert (report["mails"], report["bytes"], report["connections"], report["mails_per_s"]) == (4, 4000, 2, 2.0)
    assert report["replies"] == {"250": 4}
    assert [worker["mails"] for worker in report["workers"]] == [3, 1]
    assert summarize(report) == (
        "smtpd sink: 4 mails (4,000 octets) for 0 recipients on 2 connections in 2.0 s: 2 mails/s\n"
        "  commands: data 4\n"
        "  replies: 250 4\n"
        "  mails by worker: 0: 3, 1: 1"
    )


def test_nothing_counted_is_no_fault() -> None:
    server = Server(1)
    board = Board("")
    board.watch(server.master)
    total, workers, times = board.close()
    assert report_of(total, workers, **times)["mails_per_s"] == 0.0
