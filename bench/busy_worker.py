"""One worker of `smtpd sink` without a master, by itself or beside a thread that is busy in pure Python.

`busy_worker.py HOST PORT [busy]` serves until TERM. The worker is the gateway's own `run_worker`; what a master
would have made for it is made here.
"""

from __future__ import annotations

import socket
import sys
import tempfile
import threading

from smtpd.limits.board import PressureBoard
from smtpd.limits.clients import make_client_table
from smtpd.metrics.slab import CellIndex, Slabs
from smtpd.net.hop_table import HopTable
from smtpd.net.listeners import bind_listener
from smtpd.sink.target import Target, sink_settings
from smtpd.worker.boot import WorkerBoot
from smtpd.worker.main import run_worker


def burn() -> None:
    """Be busy for ever, as a Python callback that never ends would be."""
    count = 0
    while True:
        count += 1


def serve(host: str, port: int, is_busy: bool, run_dir: str) -> int:
    """Serve on `host`:`port` and return the worker's exit code."""
    settings = sink_settings(Target((f"{host}:{port}",), run_dir, "bench.example.net"))
    listeners = [bind_listener(entry, 1) for entry in settings.listener]
    cells, slabs = CellIndex(), Slabs()
    cells.prepare(listeners=[one.name for one in listeners], routes=[route.name for route in settings.route])
    ours, workers = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    boot = WorkerBoot(
        slot=0,
        bank=slabs.take_bank(0),
        generation=1,
        settings=settings,
        listeners=listeners,
        slabs=slabs,
        hops=HopTable(),
        clients=make_client_table(),
        board=PressureBoard(),
        cells=cells,
        channel=workers,
        serves=(0,),
    )
    if is_busy:
        threading.Thread(target=burn, daemon=True).start()
    with ours:  # the worker's lifeline
        return run_worker(boot)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="smtpd-bench-") as folder:
        sys.exit(serve(sys.argv[1], int(sys.argv[2]), sys.argv[3:] == ["busy"], folder))
