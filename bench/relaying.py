"""Servers that relay, for the benchmarks: where mail goes (smtp-sink with a count, a next hop that hangs) and who passes it on.

Each relay is started once and takes its configuration from here; ours and Postfix's are as durable as each other: fsync before
the reply. Ends only what it started.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.generator import GeneratorError, Load, source_command
from bench.postfix_instance import PostfixInstance
from bench.processes import await_greeting, await_quiet, end, free_port, tree_cpu_ns
from bench.servers import HOST, Postfix, Server, SmtpdServe

_SINK = shutil.which("smtp-sink", path="/usr/sbin:/usr/local/sbin:/sbin:/usr/bin")
_COUNT = re.compile(rb"mesg=(\d+)")
_PAUSE_S = 0.005
_CONNECTIONS = 50


class CountingSink:
    """smtp-sink that shows how many mails it has taken. `number` tells several apart."""

    def __init__(self, folder: Path, number: int = 0) -> None:
        self.port = free_port(HOST)
        self._output = folder / f"sink-{number}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def missing() -> str:
        return "" if _SINK else "smtp-sink is not installed (it is part of Postfix)"

    def start(self) -> None:
        """Start it; NotReadyError when it doesn't greet."""
        as_nobody = ["-u", "nobody"] if os.geteuid() == 0 else []
        command = [str(_SINK), "-c", "-m", "1000", *as_nobody, f"{HOST}:{self.port}", "1000"]
        with self._output.open("wb") as output:
            self._process = process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        await_greeting(HOST, self.port, lambda: process.poll() is None)

    def stop(self) -> None:
        if self._process is not None:
            end(self._process)

    def count(self) -> int:
        """Return how many mails it has taken so far."""
        with self._output.open("rb") as stream:
            stream.seek(max(0, self._output.stat().st_size - 200))
            found = _COUNT.findall(stream.read())
        return int(found[-1]) if found else 0


class HangingHop:
    """A next hop that accepts every connection and never says a word. `accepted` counts them."""

    def __init__(self) -> None:
        self._listener = socket.create_server((HOST, 0), backlog=1000)
        self.port = int(self._listener.getsockname()[1])
        self.accepted = 0
        self._clients: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                self._clients.append(self._listener.accept()[0])
            except OSError:
                return
            self.accepted += 1

    def close(self) -> None:
        self._listener.close()
        for client in self._clients:
            client.close()


def relay_route(port: int) -> str:
    """Return the lines of a [[route]] to a next hop on this machine, with as many connections as Postfix is given."""
    return f'transport = "smtp"\nnext_hop = ["{HOST}:{port}"]\ntls = "off"\nconnections = {_CONNECTIONS}'


class SmtpdRelay(SmtpdServe):
    """`smtpd serve` with as many workers as cores, everything to one next hop."""

    name = "smtpd-relay"
    weight = 1.0

    def __init__(self, folder: Path, sink_port: int, name: str = "") -> None:
        self.name = name or self.name
        super().__init__(folder)
        self.workers = os.cpu_count() or 1
        self.route = relay_route(sink_port)


class PostfixRelay(Postfix):
    """A private Postfix, everything to one next hop."""

    name = "postfix-relay"
    weight = 1.0

    def __init__(self, folder: Path, sink_port: int) -> None:
        super().__init__(folder)
        relaying = {
            "default_transport": "smtp",
            "relayhost": f"[{HOST}]:{sink_port}",
            "smtp_destination_concurrency_limit": str(_CONNECTIONS),
            "initial_destination_concurrency": str(_CONNECTIONS),
        }
        self._instance = PostfixInstance(self.folder, self.host, self.port, relaying)


def is_ready(server: SmtpdServe) -> bool:
    """Say whether /readyz answers 200."""
    try:
        with urllib.request.urlopen(f"http://{server.host}:{server.metrics_port}/readyz", timeout=10) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class Relayed:
    """One run: `accept_s` until the last reply to the generator, `through_s` until the sink had taken the last mail."""

    mails: int
    accept_s: float
    through_s: float
    cpu_ns: int
    is_quiet: bool
    extra: int  # mails that the sink has taken beyond those sent

    def as_json(self) -> dict[str, Any]:
        return {
            "mails": self.mails,
            "accept_s": round(self.accept_s, 4),
            "through_s": round(self.through_s, 4),
            "mails_per_s": round(self.mails / self.through_s, 1),
            "cpu_us_per_mail": round(self.cpu_ns / 1000 / self.mails, 1),
            "is_quiet": self.is_quiet,
            "extra": self.extra,
        }


def run_through(server: Server, sink: CountingSink, load: Load, mails: int, recipient: str, limit_s: float) -> Relayed:
    """Send `mails` mails and wait until all are at the sink and the server rests; GeneratorError when that takes too long."""
    wanted = sink.count() + mails
    cpu_before = tree_cpu_ns(server.pid)
    started = time.perf_counter()
    command = source_command(load, mails, server.host, server.port, recipient)
    source = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    accept_s = 0.0
    try:
        while (count := sink.count()) < wanted or not accept_s:
            now_s = time.perf_counter() - started
            if not accept_s and source.poll() is not None:
                accept_s = now_s
                if source.returncode:
                    words = source.communicate()[0].decode("utf-8", "replace").strip()
                    raise GeneratorError(words[-500:] or f"smtp-source ended with {source.returncode}")
            if now_s > limit_s:
                raise GeneratorError(f"{wanted - count} of {mails} mails are not through after {limit_s:.0f} s")
            time.sleep(_PAUSE_S)
        through_s = time.perf_counter() - started
    finally:
        end(source)
        if source.stdout is not None:
            source.stdout.close()
    is_quiet = await_quiet(server.pid)
    return Relayed(mails, accept_s, through_s, tree_cpu_ns(server.pid) - cpu_before, is_quiet, sink.count() - wanted)
