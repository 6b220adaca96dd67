"""Memory of idle and of active sessions, server by server: `python -m bench.session_memory`.

An idle session is past its EHLO. An active one is in the middle of a mail: 16 KB of it have been sent and not its end. Memory is
the growth of Pss over the server's whole tree by the sessions, without the kernel's socket buffers. `bench.idle` has our worker
alone, with 10,000 of them.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from statistics import median
from typing import Any

from bench.generator import RECIPIENT, SENDER
from bench.idle import open_session, read_reply
from bench.machine import durable_filesystem
from bench.part import finish, part_parser, remarks
from bench.plots import Plot
from bench.processes import await_quiet, proportional_bytes, tree_pids
from bench.results import end_in_order, markdown_table, raise_open_files, scratch_folder
from bench.roster import choose, running_servers
from bench.servers import Server
from bench.turns import take_turns

_WARM_UP = 50
_CONTENT = b"Subject: half of it\r\n\r\n" + (b"X" * 78 + b"\r\n") * 205


def tree_memory(pid: int) -> int:
    """Return the Pss of the whole tree in octets."""
    total = 0
    for member in tree_pids(pid):
        try:
            total += proportional_bytes(member)
        except (FileNotFoundError, ProcessLookupError, KeyError):  # it has just ended
            continue
    return total


def begin_mail(client: socket.socket) -> None:
    """Bring a session into the middle of a mail; ConnectionResetError when the server refuses it."""
    for command in (f"MAIL FROM:<{SENDER}>", f"RCPT TO:<{RECIPIENT}>", "DATA"):
        client.sendall(command.encode() + b"\r\n")
        reply = read_reply(client)
        if reply[:1] not in b"23":
            raise ConnectionResetError(reply.decode("ascii", "replace").strip())
    client.sendall(_CONTENT)


def measure_sessions(server: Server, sessions: int) -> dict[str, int]:
    """Return octets per idle and per active session."""
    clients: list[socket.socket] = []
    try:
        for client in [open_session(server.host, server.port) for _ in range(min(_WARM_UP, sessions))]:
            client.close()
        await_quiet(server.pid, timeout_s=10)
        before = tree_memory(server.pid)
        for _ in range(sessions):
            clients.append(open_session(server.host, server.port))
        await_quiet(server.pid, timeout_s=10)
        idle = tree_memory(server.pid)
        for client in clients:
            begin_mail(client)
        await_quiet(server.pid, timeout_s=10)
        active = tree_memory(server.pid)
    finally:
        for client in clients:
            client.close()
    return {"idle_bytes": round((idle - before) / sessions), "active_bytes": round((active - before) / sessions)}


def summarize(rounds: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each server: medians over the rounds."""
    rows = []
    for server in dict.fromkeys(one["server"] for one in rounds):
        own = [one for one in rounds if one["server"] == server]
        figures = {key: round(median(one[key] for one in own)) for key in ("sessions", "idle_bytes", "active_bytes")}
        rows.append({"server": server, **figures})
    return rows


def render(content: dict[str, Any]) -> str:
    rows = [
        [row["server"], f"{row['sessions']:,}", f"{row['idle_bytes']:,}", f"{row['active_bytes']:,}"]
        for row in content["summary"]
    ]
    head = ["server", "sessions", "octets per idle session", "per active session"]
    return f"{markdown_table(head, rows)}\n{remarks(content)}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = part_parser("session_memory", __doc__, rounds=1, limit_s=300)
    parser.add_argument("--sessions", type=int, default=1000, help="of each server, fewer where it can't (default: 1000)")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.sessions = 1, 100
    end_in_order()
    raise_open_files(options.sessions + 1000)
    with scratch_folder(options.dir) as folder, running_servers(choose(options.servers), folder) as (servers, left_out):

        def measure(number: int, server: Server, name: str, wanted: int, left_s: float) -> dict[str, Any]:
            sessions = min(wanted, server.most_sessions)
            figures = measure_sessions(server, sessions)
            print(f"{server.name:15} idle {figures['idle_bytes']:,}, active {figures['active_bytes']:,} octets", file=sys.stderr)
            return {"round": number + 1, "server": server.name, "sessions": sessions, **figures}

        versions = {server.name: server.version() for server in servers}
        turns = take_turns(servers, {"sessions": options.sessions}, options.rounds, options.limit, measure)
        filesystem = durable_filesystem(folder)
    content: dict[str, Any] = {
        "options": {"rounds": options.rounds},
        "filesystem": filesystem,
        "versions": versions,
        "left_out": left_out,
        "failed": turns.failed,
        "end": turns.end,
        "summary": summarize(turns.records),
        "rounds": turns.records,
    }
    bars = {row["server"]: {"idle": float(row["idle_bytes"]), "active": float(row["active_bytes"])} for row in content["summary"]}
    picture = Plot("Memory of a session", "", "octets", bars=bars)
    return finish("session-memory", content, render(content), picture, options.quick)


if __name__ == "__main__":
    sys.exit(main())
