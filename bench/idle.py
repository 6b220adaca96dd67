"""Idle sessions on one worker: what each costs in memory, and how long a new one waits for its greeting beside them.

Each session is connected, greeted and past its EHLO, then says nothing. Memory is the growth of the worker's own process
(RssAnon: its private pages, and Pss), after a first round of sessions that came and went has loaded whatever loads late.
"""

from __future__ import annotations

import argparse
import socket
import sys
from collections.abc import Sequence
from statistics import median
from typing import Any

from bench.processes import child_pids, greeting_s, memory_bytes, proportional_bytes
from bench.results import end_in_order, p99, raise_open_files, report, scratch_folder
from bench.servers import SmtpdServe

_WARM_UP = 200


def read_reply(client: socket.socket) -> bytes:
    """Return a whole reply of any number of lines; ConnectionResetError when the server closes."""
    reply = b""
    while not reply.endswith(b"\n") or reply.splitlines()[-1][3:4] == b"-":
        if not (piece := client.recv(4096)):
            raise ConnectionResetError("closed in a reply")
        reply += piece
    return reply


def open_session(host: str, port: int) -> socket.socket:
    """Connect, take the greeting, say EHLO."""
    client = socket.create_connection((host, port), timeout=30)
    read_reply(client)
    client.sendall(b"EHLO idle.example.net\r\n")
    read_reply(client)
    return client


def measure(sessions: int, greetings: int, folder_parent: str) -> dict[str, Any]:
    """Run it; sizes in bytes per session, times in milliseconds."""
    raise_open_files(sessions + 1000)
    with scratch_folder(folder_parent) as folder:
        server = SmtpdServe(folder)
        server.start()
        clients: list[socket.socket] = []
        try:
            (worker,) = child_pids(server.pid)
            for client in [open_session(server.host, server.port) for _ in range(min(_WARM_UP, sessions))]:
                client.close()
            greeting_s(server.host, server.port)
            before = memory_bytes(worker, "RssAnon"), proportional_bytes(worker)
            alone = [greeting_s(server.host, server.port) * 1000 for _ in range(greetings)]
            clients = [open_session(server.host, server.port) for _ in range(sessions)]
            after = memory_bytes(worker, "RssAnon"), proportional_bytes(worker)
            beside = [greeting_s(server.host, server.port) * 1000 for _ in range(greetings)]
            for client in (clients[0], clients[-1]):  # they were idle, not forgotten
                client.sendall(b"NOOP\r\n")
                read_reply(client)
        finally:
            for client in clients:
                client.close()
            server.stop()
    return {
        "sessions": sessions,
        "greetings": greetings,
        "private_bytes_per_session": round((after[0] - before[0]) / sessions),
        "proportional_bytes_per_session": round((after[1] - before[1]) / sessions),
        "greeting_ms_alone": {"median": round(median(alone), 3), "p99": round(p99(alone), 3)},
        "greeting_ms_beside": {"median": round(median(beside), 3), "p99": round(p99(beside), 3)},
    }


def describe(content: dict[str, Any]) -> list[str]:
    """Return the figures as lines for people."""
    alone, beside = content["greeting_ms_alone"], content["greeting_ms_beside"]
    return [
        (
            f"{content['sessions']:,} idle sessions on one worker: {content['private_bytes_per_session']:,} bytes of private"
            f" memory each ({content['proportional_bytes_per_session']:,} by Pss)"
        ),
        (
            f"a new session's greeting beside them: median {beside['median']:.2f} ms, p99 {beside['p99']:.2f} ms"
            f" (alone: {alone['median']:.2f} and {alone['p99']:.2f} ms)"
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.idle", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--greetings", type=int, default=1000)
    parser.add_argument("--dir", default="/var/tmp", help="where the spool lies (default: /var/tmp)")
    parser.add_argument("--quick", action="store_true", help="500 sessions, nothing is written")
    options = parser.parse_args(arguments)
    if options.quick:
        options.sessions, options.greetings = 500, 100
    end_in_order()
    content = measure(options.sessions, options.greetings, options.dir)
    report("idle", content, describe(content), options.quick)
    return 0


if __name__ == "__main__":
    sys.exit(main())
