"""One client floods a server of one worker, another sends mail: its median time for a mail, and the server's memory.

Floods come from one address of loopback, the mail from another. With the limits on (their defaults) and off (all 0); the flood is
stopped and continued by turns. The flooder runs at the lowest priority: what counts is what it makes the server do.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any

from bench.flooder import KINDS
from bench.processes import await_quiet, child_pids, end, memory_bytes, reset_peak, tree_cpu_ns
from bench.results import end_in_order, markdown_table, raise_open_files, scratch_folder, write_result, write_section
from bench.servers import ROOT, SmtpdServe

FLOODER, CLIENT = "127.0.0.66", "127.0.0.77"
CONNECTIONS = 5000
BUSY_CONNECTIONS = 50  # of the kinds that keep the server at work
SETTLE_S = 1.0
TURNS = 10
_NO_LIMITS = "connections = 0\nconnections_per_client = 0\nsoft_errors = 0\nhard_errors = 0\njunk_commands = 0\n"
_STRANGERS = '[policy]\ntrusted = ["192.0.2.1"]\n'
_MAIL = b"Subject: a\r\n\r\n" + (b"x" * 70 + b"\r\n") * 56 + b".\r\nQUIT\r\n"


def send_mail(host: str, port: int) -> float:
    """Connect, send one mail of 4 KB, quit; return the seconds it took. OSError, ValueError: it was not taken."""
    began_s = time.monotonic()
    with socket.create_connection((host, port), 60, source_address=(CLIENT, 0)) as sock, sock.makefile("rb") as replies:
        _expect(replies.readline(), b"220")
        sock.sendall(b"EHLO client.example\r\n")
        while (line := replies.readline())[3:4] == b"-":
            pass
        _expect(line, b"250")
        sock.sendall(b"MAIL FROM:<alice@example.com>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\n")
        for code in (b"250", b"250", b"354"):
            _expect(replies.readline(), code)
        sock.sendall(_MAIL)
        _expect(replies.readline(), b"250")
        took_s = time.monotonic() - began_s
        _expect(replies.readline(), b"221")
    return took_s


def _expect(reply: bytes, code: bytes) -> None:
    if not reply.startswith(code):
        raise ValueError(f"{reply!r} instead of {code.decode()}")


@contextmanager
def flooding(kind: str, server: SmtpdServe) -> Iterator[subprocess.Popen[bytes]]:
    """A flood for the time of the block; it can be stopped and continued."""
    count = CONNECTIONS if kind in ("hold", "trickle") else BUSY_CONNECTIONS
    command = [sys.executable, "-m", "bench.flooder", kind, server.host, str(server.port), FLOODER, str(count)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL)
    try:
        time.sleep(SETTLE_S)
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        end(process)


class Sender:
    """The other client: its times in milliseconds, and how many of its mails were not taken."""

    def __init__(self, server: SmtpdServe) -> None:
        self._server = server
        self.times: list[float] = []
        self.failed = 0

    def send(self, mails: int) -> None:
        for _ in range(mails):
            try:
                self.times.append(send_mail(self._server.host, self._server.port) * 1000)
            except (OSError, ValueError):
                self.failed += 1

    @property
    def median_ms(self) -> float | None:
        return round(median(self.times), 2) if self.times else None


def measure(kind: str, server: SmtpdServe, mails: int) -> dict[str, Any]:
    """Send mails beside a flood and beside one that is stopped, by turns, so that whatever else the machine does meets both."""
    (worker,) = child_pids(server.pid)
    reset_peak(worker)
    alone, beside, after = Sender(server), Sender(server), Sender(server)
    cpu_ns = wall_s = 0.0
    with flooding(kind, server) as flood:
        for _ in range(TURNS):
            flood.send_signal(signal.SIGCONT)
            time.sleep(SETTLE_S / 10)
            began_s, used_ns = time.monotonic(), tree_cpu_ns(worker)
            beside.send(mails // TURNS)
            wall_s += time.monotonic() - began_s
            cpu_ns += tree_cpu_ns(worker) - used_ns
            flood.send_signal(signal.SIGSTOP)
            await_quiet(worker, 0.05, 0.1, 5.0)
            alone.send(mails // TURNS)
    await_quiet(worker)
    after.send(mails // TURNS)
    growth = round(beside.median_ms / alone.median_ms, 2) if beside.median_ms and alone.median_ms else None
    return {
        "flood": kind,
        "alone_ms": alone.median_ms,
        "beside_ms": beside.median_ms,
        "after_ms": after.median_ms,
        "growth": growth,
        "failed": alone.failed + beside.failed + after.failed,
        "cpu_share": round(cpu_ns / 1e9 / wall_s, 2),
        "peak_bytes": memory_bytes(worker, "VmHWM"),
    }


def run_floods(kinds: Sequence[str], mails: int, folder_parent: str) -> list[dict[str, Any]]:
    """All kinds with and without limits."""
    rows = []
    for is_limited in (True, False):
        with scratch_folder(folder_parent) as folder:
            server = SmtpdServe(folder)
            server.first_tables = _STRANGERS + ("" if is_limited else f"[limits]\n{_NO_LIMITS}")
            server.start()
            try:
                Sender(server).send(mails // 4)
                for kind in kinds:
                    rows.append({"limits": is_limited, **measure(kind, server, mails)})
                    print("  ".join(_cells(rows[-1])), file=sys.stderr)
            finally:
                server.stop()
    return rows


def refusal_cost(count: int, folder_parent: str) -> dict[str, float]:
    """CPU of a session with one mail, and of a connection that is turned away at accept, in microseconds."""
    figures = {}
    for name, limits in (("served_us", ""), ("refused_us", "[limits]\nconnections_per_client = 1\n")):
        with scratch_folder(folder_parent) as folder:
            server = SmtpdServe(folder)
            server.first_tables = _STRANGERS + limits
            server.start()
            try:
                with socket.create_connection((server.host, server.port), source_address=(CLIENT, 0)):
                    (worker,) = child_pids(server.pid)
                    for is_counted in (False, True):
                        used_ns = tree_cpu_ns(worker)
                        for _ in range(count if is_counted else count // 10):
                            if not limits:
                                send_mail(server.host, server.port)
                            else:
                                with socket.create_connection((server.host, server.port), source_address=(CLIENT, 0)) as sock:
                                    _expect(sock.recv(1024), b"421")
                    figures[name] = round((tree_cpu_ns(worker) - used_ns) / 1e3 / count, 1)
            finally:
                server.stop()
    return figures


def _cells(row: dict[str, Any]) -> list[str]:
    times = [f"{row[name]:.2f}" if row[name] is not None else "-" for name in ("alone_ms", "beside_ms", "growth", "after_ms")]
    state = "on" if row["limits"] else "off"
    return [row["flood"], state, *times, f"{row['failed']}", f"{row['cpu_share']:.0%}", f"{row['peak_bytes'] >> 20}"]


def render(rows: list[dict[str, Any]], cost: dict[str, float]) -> str:
    head = ["flood", "limits", "ms alone", "ms beside", "times", "ms afterwards", "not taken", "worker's CPU", "peak MiB"]
    text = markdown_table(head, [_cells(row) for row in rows])
    if cost:
        share = cost["refused_us"] / cost["served_us"]
        text += (
            f"\nA client that is turned away at accept costs {cost['refused_us']:.0f} µs of CPU, a session with one mail "
            f"{cost['served_us']:.0f} µs: {share:.0%}.\n"
        )
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.floods", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mails", type=int, default=200, help="of the other client, in each phase (default: 200)")
    parser.add_argument("--kinds", default=",".join(KINDS), help="default: all")
    parser.add_argument("--dir", default="/var/tmp", help="where the spool lies (default: /var/tmp)")
    parser.add_argument("--quick", action="store_true", help="few mails, nothing is written")
    options = parser.parse_args(arguments)
    if options.quick:
        options.mails = 50
    end_in_order()
    raise_open_files(CONNECTIONS + 1000)
    rows = run_floods(options.kinds.split(","), options.mails, options.dir)
    cost = refusal_cost(options.mails * 10, options.dir)
    text = render(rows, cost)
    print(text)
    if not options.quick:
        path = write_result("floods", {"mails": options.mails, "rounds": rows, "refusal": cost, "cores": os.cpu_count()})
        write_section("floods", f"{text.strip()}\n\nFrom `results/{path.name}`.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
