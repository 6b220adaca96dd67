"""What the layout of a shard costs: page size, one table or two, WAL size, a backlog, a listing beside the traffic.

Runs the real engine (front, shard thread, database) in this process; only the one-table layout is made here. For each
variant: steady traffic, filling a backlog, traffic beside it, the same while the queue is listed again and again, draining, and
giving space back. Writes results/DATE-spool-study.json and prints a table. `python -m bench.spool_study --help`.

Bytes are what the process handed to write calls (wchar) and what went to the block layer (write_bytes of /proc/self/io).
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench.machine import fdatasync_us, filesystem_of
from bench.results import markdown_table, write_result
from smtpd.errors import SpoolError
from smtpd.mail.envelope import Envelope, Recipient
from smtpd.net.files import FilesThread
from smtpd.net.loop import Loop
from smtpd.settings.gateway import SpoolSettings
from smtpd.spool import SpoolObservers, adoption, open_spool, query, schema
from smtpd.spool.batch import Batch
from smtpd.spool.database import ShardDatabase
from smtpd.spool.item import SpoolItem
from smtpd.spool.sqlite import SqliteSpool

SENDERS = 20  # mails on their way at once, as smtp-source -s 20
PAGE_ROWS = 500  # of a listing
SIZES = (4_300, 30_000, 100_000)  # octets of a body with its Received field
_NOISE = os.urandom(1 << 20)


class OneTable(ShardDatabase):
    """The layout that was not taken: the body as the last column of `mail`."""

    def _make_tables(self) -> None:
        execute = self.connection.execute
        execute("BEGIN IMMEDIATE")
        for statement in schema.TABLES:
            if statement.startswith("CREATE TABLE mail"):
                execute(statement.rstrip(")") + ", data BLOB)")
            elif "body" not in statement:
                execute(statement)
        execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        execute(f"PRAGMA user_version = {schema.FORMAT}")
        execute("COMMIT")

    def commit(self, batch: Batch) -> None:
        self._commit_by_parts(batch)

    def _insert(self, batch: Batch) -> None:
        parameters: list[Any] = []
        for at in range(len(batch.writers)):
            parameters += batch.mails[at * 5 : at * 5 + 5]
            parameters.append(batch.bodies[at * 2 + 1])
        self._run(_insert_one_table, parameters, 6)

    def read_body(self, row: int) -> bytes | None:
        found = self.connection.execute("SELECT data FROM mail WHERE id = ?", (row,)).fetchone()
        return None if found is None else found[0]


def _insert_one_table(rows: int) -> str:
    values = ",".join(["(?,?,?,?,?,?)"] * rows)
    return f"INSERT INTO mail (id, size, spilled, queue_id, envelope, data) VALUES {values}"


@dataclass(frozen=True)
class Variant:
    """One line of the table."""

    page_bytes: int
    tables: int
    wal_bytes: int
    is_incremental: bool
    mix: tuple[int, int, int]  # weights of SIZES

    @property
    def name(self) -> str:
        vacuum = "" if self.is_incremental else ", no auto_vacuum"
        tables = "1 table" if self.tables == 1 else f"{self.tables} tables"
        return f"{self.page_bytes // 1024} KiB pages, {tables}, WAL {self.wal_bytes >> 20} MiB{vacuum}"


class Quiet:
    """The spool's log: nothing should be said, what is said stops the study."""

    def info(self, component: str, text: str) -> None:
        pass

    def warning(self, component: str, text: str) -> None:
        raise RuntimeError(text)

    error = warning


class Bench:
    """One variant's spool in `folder`."""

    def __init__(self, folder: Path, variant: Variant) -> None:
        self.folder = folder / "spool"
        self.variant = variant
        self._random = random.Random(1)
        self._bodies = [_NOISE[at : at + size] for at, size in enumerate(SIZES)]
        self.commits: list[tuple[float, int, int]] = []
        self.open()

    def open(self) -> None:
        """Open the spool; a layout is a class of database, put in the place of the real one."""
        adoption.ShardDatabase = ShardDatabase if self.variant.tables == 2 else OneTable  # type: ignore[attr-defined]
        self.loop = Loop()
        self.files = FilesThread(self.loop)
        self.files.start()
        pragmas = schema.Pragmas(
            page_bytes=self.variant.page_bytes,
            wal_bytes=self.variant.wal_bytes,
            is_incremental=self.variant.is_incremental,
        )
        settings = SpoolSettings(path=str(self.folder), free_bytes=0)
        observers = SpoolObservers(commit=lambda *figures: self.commits.append(figures))
        spool = open_spool(self.loop, self.files, settings, 1, Quiet(), observers=observers, pragmas=pragmas)
        assert isinstance(spool, SqliteSpool)
        self.spool = spool
        self.loop.at_turn_end(spool.end_turn)

    def close(self) -> None:
        closed: list[bool] = []
        self.spool.close(lambda: closed.append(True))
        self.turn_until(lambda: bool(closed))
        self.files.close()
        self.loop.close()

    def turn_until(self, is_done: Callable[[], bool]) -> None:
        self.spool.end_turn()
        while not is_done():
            self.loop.turn(0.05)

    def file_bytes(self, name: str) -> int:
        return (self.folder / "shards/0000" / name).stat().st_size

    # --- phases ------------------------------------------------------------------------------------------------------

    def run_traffic(self, count: int, is_kept: bool, beside: Callable[[], object] | None = None) -> dict[str, Any]:
        """Take `count` mails, SENDERS at once, and settle each at once unless it is kept."""
        spool = self.spool
        began = taken = finished = 0
        payload = 0
        bodies = self._random.choices(self._bodies, self.variant.mix, k=count)

        def begin() -> None:
            nonlocal began, payload
            body = bodies[began]
            began += 1
            payload += len(body)
            recipients = [Recipient(b"user@example.org", "example.org")]
            envelope = Envelope(b"a@example.com", recipients, "192.0.2.1", "c.example", b"c.example", "ESMTP", time.time())
            writer = spool.begin(spool.next_queue_id(), envelope)
            writer.write(body)
            spool.commit(writer, on_committed)

        def on_committed(item: SpoolItem | None, error: SpoolError | None) -> None:
            nonlocal taken, finished
            assert item is not None, error
            taken += 1
            if is_kept:
                finished += 1
            else:
                spool.settle(item, None, 0.0, False, on_settled)
            if began < count:
                begin()

        def on_settled(error: SpoolError | None) -> None:
            nonlocal finished
            assert error is None
            finished += 1

        def work() -> None:
            if beside is not None:
                beside()
            for _ in range(min(SENDERS, count)):
                begin()
            self.turn_until(lambda: finished == count)

        figures = self.measure(work, count)
        figures["payload_bytes"] = payload
        figures["amplification_wchar"] = figures["wchar"] / payload
        figures["amplification_disk"] = figures["write_bytes"] / payload
        return figures

    def measure(self, work: Callable[[], None], count: int) -> dict[str, Any]:
        self.commits.clear()
        io, usage, started = read_io(), resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        work()
        seconds = time.perf_counter() - started
        after, io_after = resource.getrusage(resource.RUSAGE_SELF), read_io()
        cpu_s = after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime
        times = sorted(taken_s * 1e3 for taken_s, _, _ in self.commits) or [0.0]
        return {
            "mails": count,
            "seconds": seconds,
            "rate": count / seconds,
            "cpu_us": cpu_s / count * 1e6,
            "commits": len(self.commits),
            "commit_p50_ms": median(times),
            "commit_p99_ms": times[int(len(times) * 0.99)],
            "commit_max_ms": times[-1],
            "wchar": io_after["wchar"] - io["wchar"],
            "write_bytes": io_after["write_bytes"] - io["write_bytes"],
            "wal_bytes": self.file_bytes("mail.db-wal"),
            "database_bytes": self.file_bytes("mail.db"),
        }

    def list_once(self, done: Callable[[int, float], object]) -> None:
        """Walk over the whole shard in pages, as `queue list` does; `done(rows, seconds)`."""
        rows = 0
        started = time.perf_counter()

        def on_page(page: list[query.QueuedMail] | None, error: SpoolError | None) -> None:
            nonlocal rows
            assert page is not None, error
            rows += len(page)
            if len(page) < PAGE_ROWS:
                done(rows, time.perf_counter() - started)
            else:
                ask(page[-1].row)

        def ask(after: int) -> None:
            def job(connection: sqlite3.Connection) -> list[query.QueuedMail]:
                return query.list_page(connection, after, PAGE_ROWS)

            self.spool.query(self.spool.shards[0], job, on_page)

        ask(0)

    def list_alone(self) -> dict[str, Any]:
        answers: list[tuple[int, float]] = []
        self.list_once(lambda rows, seconds: answers.append((rows, seconds)))
        self.turn_until(lambda: bool(answers))
        return {"rows": answers[0][0], "seconds": answers[0][1]}

    def traffic_with_listing(self, count: int) -> dict[str, Any]:
        passes: list[float] = []
        is_over = False

        def again(rows: int, seconds: float) -> None:
            passes.append(seconds)
            if not is_over:
                self.list_once(again)

        figures = self.run_traffic(count, False, beside=lambda: self.list_once(again))
        is_over = True
        known = len(passes)
        self.turn_until(lambda: len(passes) > known)  # the pass that is under way
        figures["listing_passes"] = len(passes)
        figures["listing_pass_s"] = median(passes)
        return figures

    def drain(self) -> dict[str, Any]:
        """Claim and remove all there is."""
        total = self.spool.shards[0].count
        left = total

        def on_settled(error: SpoolError | None) -> None:
            nonlocal left
            assert error is None
            left -= 1

        def on_items(items: list[SpoolItem], error: SpoolError | None) -> None:
            assert error is None
            for item in items:
                self.spool.settle(item, None, 0.0, False, on_settled)
            if self.spool.next_due_s() is not None:
                self.spool.claim(200, time.time(), on_items)

        def work() -> None:
            self.spool.claim(200, time.time(), on_items)
            self.turn_until(lambda: left == 0)

        return self.measure(work, total)

    def wait_for_space(self) -> dict[str, Any]:
        """Wait until nothing more is given back; the mail that keeps arriving meanwhile is one every 50 ms."""
        started = time.perf_counter()
        self.commits.clear()
        size = self.file_bytes("mail.db")
        last_change = started
        while time.perf_counter() - last_change < 15.0:
            self.run_one()
            self.loop.turn(0.05)
            now_bytes = self.file_bytes("mail.db")
            if now_bytes < size:
                size, last_change = now_bytes, time.perf_counter()
        times = sorted(taken_s * 1e3 for taken_s, _, _ in self.commits)
        return {
            "seconds": last_change - started,
            "database_bytes": size,
            "wal_bytes": self.file_bytes("mail.db-wal"),
            "commit_p99_ms": times[int(len(times) * 0.99)],
            "commit_max_ms": times[-1],
        }

    def run_one(self) -> None:
        recipients = [Recipient(b"user@example.org", "example.org")]
        envelope = Envelope(b"a@example.com", recipients, "192.0.2.1", "c.example", b"c.example", "ESMTP", time.time())
        writer = self.spool.begin(self.spool.next_queue_id(), envelope)
        writer.write(self._bodies[0])
        answers: list[SpoolItem | None] = []
        self.spool.commit(writer, lambda item, error: answers.append(item))
        self.turn_until(lambda: bool(answers))
        settled: list[object] = []
        assert answers[0] is not None
        self.spool.settle(answers[0], None, 0.0, False, settled.append)
        self.turn_until(lambda: bool(settled))


def read_io() -> dict[str, int]:
    pairs = (line.split(":") for line in Path("/proc/self/io").read_text().splitlines())
    return {key: int(value) for key, value in pairs}


def study(folder: Path, variant: Variant, mails: int, backlog: int) -> dict[str, Any]:
    """All phases of one variant."""
    bench = Bench(folder, variant)
    try:
        bench.run_traffic(mails // 4, False)
        phases: dict[str, Any] = {"steady": bench.run_traffic(mails, False)}
        if backlog:
            phases["fill"] = bench.run_traffic(backlog, True)
            bench.close()
            started = time.perf_counter()
            bench.open()
            phases["reopen"] = {"seconds": time.perf_counter() - started}
            phases["list"] = bench.list_alone()
            phases["beside backlog"] = bench.run_traffic(mails, False)
            phases["beside listing"] = bench.traffic_with_listing(mails)
            phases["drain"] = bench.drain()
            phases["give back"] = bench.wait_for_space()
            phases["after"] = bench.run_traffic(mails, False)
    finally:
        bench.close()
    return {"variant": variant.name, "mix": variant.mix, "backlog": backlog, "phases": phases}


def rows_of(results: list[dict[str, Any]]) -> Iterator[list[str]]:
    for result in results:
        for phase, found in result["phases"].items():
            yield [
                f"{result['variant']}, {phase}",
                f"{found['rate']:,.0f}" if "rate" in found else "",
                f"{found['cpu_us']:.0f}" if "cpu_us" in found else "",
                f"{found['amplification_wchar']:.2f}" if "amplification_wchar" in found else "",
                f"{found['amplification_disk']:.2f}" if "amplification_disk" in found else "",
                f"{found['commit_p50_ms']:.2f}" if "commit_p50_ms" in found else "",
                f"{found['commit_p99_ms']:.1f}" if "commit_p99_ms" in found else "",
                f"{found['commit_max_ms']:.0f}" if "commit_max_ms" in found else "",
                f"{found['wal_bytes'] / 1e6:,.0f}" if "wal_bytes" in found else "",
                f"{found['database_bytes'] / 1e6:,.0f}" if "database_bytes" in found else "",
                f"{found.get('listing_pass_s', found['seconds']):.2f}",
            ]


HEAD = ["variant, phase", "mails/s", "CPU µs", "×wchar", "×disk", "p50 ms", "p99 ms", "max ms", "WAL MB", "file MB", "s"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", default="4096,8192,16384", help="page sizes in octets")
    parser.add_argument("--tables", default="1,2", help="layouts")
    parser.add_argument("--wal", default="16", help="checkpoint at so many MiB of WAL")
    parser.add_argument("--vacuum", default="1", help="1: auto_vacuum incremental, 0: none")
    parser.add_argument("--mix", default="70,20,10", help="weights of bodies of 4, 30 and 100 KB")
    parser.add_argument("--mails", type=int, default=20_000, help="of each phase with traffic")
    parser.add_argument("--backlog", type=int, default=0, help="mails waiting (18 KB each on average by the mix above)")
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="where the spool is made, and removed")
    parser.add_argument("--name", default="spool-study", help="of the file of results")
    chosen = parser.parse_args()
    sys.setswitchinterval(0.0005)
    weights = [int(weight) for weight in chosen.mix.split(",")]
    results = []
    folder = Path(tempfile.mkdtemp(prefix="spool-study-", dir=chosen.folder))
    try:
        disk = {"filesystem": filesystem_of(folder), "fdatasync_us": fdatasync_us(folder)}
        for page in chosen.pages.split(","):
            for tables in chosen.tables.split(","):
                for wal in chosen.wal.split(","):
                    for vacuum in chosen.vacuum.split(","):
                        variant = Variant(
                            int(page), int(tables), int(wal) << 20, vacuum == "1", (weights[0], weights[1], weights[2])
                        )
                        results.append(study(folder, variant, chosen.mails, chosen.backlog))
                        print(markdown_table(HEAD, list(rows_of(results[-1:]))), flush=True)
                        shutil.rmtree(folder / "spool")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    content = {"sqlite": sqlite3.sqlite_version, "disk": disk, "mails": chosen.mails, "results": results}
    print(write_result(chosen.name, content))


if __name__ == "__main__":
    main()
