"""Which servers take part: all that are installed, or those that are named; the others are named as left out, with the reason."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.peer_servers import Aiosmtpd, AiosmtpdUvloop, GoSmtp, Haraka, SmtpServer
from bench.processes import NotReadyError
from bench.servers import Floor, Postfix, Server, SmtpdServe, SmtpdServer, SmtpdSink, SmtpSink

ALL: list[type[Server]] = [
    Floor,
    SmtpSink,
    GoSmtp,
    SmtpServer,
    Haraka,
    Aiosmtpd,
    AiosmtpdUvloop,
    SmtpdSink,
    SmtpdServe,
    Postfix,
]


def choose(names: str, default: Sequence[type[Server]] = ALL) -> list[type[Server]]:
    """Return the servers of a list of names parted by commas ("" is `default`); ValueError for an unknown one."""
    wanted = [name.strip() for name in names.split(",") if name]
    known = {kind.name: kind for kind in ALL}
    if unknown := [name for name in wanted if name not in known]:
        raise ValueError(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    return [known[name] for name in wanted] or list(default)


def with_workers(kind: type[SmtpdServer], workers: int) -> type[SmtpdServer]:
    """Return this project's server with so many workers, its name telling so."""
    name = f"{kind.name} ×{workers}"
    return type(kind.__name__, (kind,), {"name": name, "workers": workers, "__doc__": kind.__doc__})


def start_servers(kinds: Sequence[type[Server]], folder: Path) -> tuple[list[Server], dict[str, str]]:
    """Start what can run here; return the running servers and, by name, why the others are left out."""
    running: list[Server] = []
    left_out: dict[str, str] = {}
    try:
        for kind in kinds:
            server = kind(folder)
            reason = server.missing()
            if not reason:
                try:
                    server.start()
                except NotReadyError as error:
                    reason = str(error)
            if reason:
                left_out[server.name] = reason
                print(f"left out: {server.name}: {reason}", file=sys.stderr)
            else:
                running.append(server)
    except BaseException:
        stop_servers(running)
        raise
    return running, left_out


def stop_servers(servers: Sequence[Server]) -> None:
    for server in servers:
        server.stop()


@contextmanager
def running_servers(kinds: Sequence[type[Server]], folder: Path) -> Iterator[tuple[list[Server], dict[str, str]]]:
    """Servers that run inside the block, and why others are left out."""
    servers, left_out = start_servers(kinds, folder)
    try:
        yield servers, left_out
    finally:
        stop_servers(servers)
