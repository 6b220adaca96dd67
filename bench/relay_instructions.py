"""User-space instructions a relayed mail costs on the loop thread: taken in, stored, passed on to a next hop, settled.

As `bench.mail_instructions`, with a next hop in the same process: clients, next hop, start-up and helper threads stay out of the
count. The next hop speaks as smtp-sink does (PIPELINING, no CHUNKING; `--chunking` offers that too) and answers at once.
"""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.mail_instructions import SESSIONS, Rig, count_run, mail_steps
from smtpd.delivery.router import Router
from smtpd.delivery.scheduler import Scheduler
from smtpd.log.maillog import MailLog
from smtpd.metrics.slab import LOOP, CellIndex, Slabs
from smtpd.net.files import FilesThread
from smtpd.net.loop import Loop
from smtpd.net.resolver import Resolver
from smtpd.net.side import SideThread
from smtpd.proto.trace import DateText
from smtpd.settings import ListenerSettings, LogSettings, RouteSettings, Settings, SpoolSettings
from smtpd.spool.open import open_spool
from smtpd.transports.relay.transport import RelayHost
from smtpd.worker.account import ListenerAccount
from smtpd.worker.rulebook import Rulebook
from smtpd.worker.service import Service


class NextHop:
    """Takes mail on any number of connections and keeps none; driven by `serve`, so that no thread gets in the way."""

    def __init__(self, is_chunking: bool) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._hello = b"250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n" + b"250-CHUNKING\r\n" * is_chunking + b"250 DSN\r\n"
        self._sessions: list[_HopSession] = []

    @property
    def taken(self) -> int:
        """Mails so far."""
        return sum(session.taken for session in self._sessions)

    def serve(self) -> bool:
        """Answer what has come on every connection; whether there was anything."""
        was_busy = False
        while True:
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                break
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setblocking(False)
            connection.sendall(b"220 sink ESMTP\r\n")
            self._sessions.append(_HopSession(connection, self._hello))
            was_busy = True
        for session in self._sessions:
            was_busy |= session.serve()
        return was_busy


class _HopSession:
    def __init__(self, connection: socket.socket, hello: bytes) -> None:
        self._connection = connection
        self._hello = hello
        self._input = b""
        self._is_in_data = False
        self._chunk_left = 0
        self.taken = 0

    def serve(self) -> bool:
        try:
            octets = self._connection.recv(1 << 20)
        except BlockingIOError:
            return False
        if not octets:
            return False
        self._input += octets
        replies: list[bytes] = []
        while self._step(replies):
            pass
        if replies:
            self._connection.sendall(b"".join(replies))
        return True

    def _step(self, replies: list[bytes]) -> bool:
        """Take one command, chunk or content; False when more has to come."""
        if self._chunk_left:
            if len(self._input) < self._chunk_left:
                return False
            self._input, self._chunk_left = self._input[self._chunk_left :], 0
            self.taken += 1
            replies.append(b"250 2.0.0 Ok\r\n")
            return True
        end = b"\r\n.\r\n" if self._is_in_data else b"\r\n"
        line, found, rest = self._input.partition(end)
        if not found:
            return False
        self._input = rest
        if self._is_in_data:
            self._is_in_data = False
            self.taken += 1
            replies.append(b"250 2.0.0 Ok\r\n")
            return True
        verb = line[:4]
        if verb == b"DATA":
            self._is_in_data = True
            replies.append(b"354 End data with <CR><LF>.<CR><LF>\r\n")
        elif verb == b"BDAT":
            self._chunk_left = int(line.split()[1])
        elif verb == b"EHLO":
            replies.append(self._hello)
        else:
            replies.append(b"250 2.1.0 Ok\r\n")
        return True


class RelayRig(Rig):
    """One worker's parts with a route to `next_hop` instead of one that discards."""

    def __init__(self, next_hop: NextHop, folder: str, is_logging: bool) -> None:
        settings = Settings(
            hostname="bench.example.net",
            run_dir=folder,
            listener=[ListenerSettings(address="127.0.0.1:0", name="sink")],
            spool=SpoolSettings(path=folder),
            route=[RouteSettings(domains=["*"], transport="smtp", name="relay", next_hop=[f"127.0.0.1:{next_hop.port}"])],
            log=LogSettings(level="info" if is_logging else "warning", destination=f"file:{folder}/log"),
        )
        self.loop = loop = Loop()
        cells, slabs = CellIndex(), Slabs()
        cells.prepare(listeners=["sink"], routes=["relay"])
        row = slabs.cells(slabs.take_bank(0), LOOP)
        log = MailLog(settings.log, settings.hostname, lambda count: None)
        log.start()
        files = FilesThread(loop)
        files.start()
        self._next_hop = next_hop
        self._spool = spool = open_spool(loop, files, settings.spool, settings.node, log, slot=0)
        router = Router(settings.route)
        resolver = Resolver(loop, SideThread(loop), settings.dns)
        relay = RelayHost(loop, files, resolver, None, 0, settings.hostname, print)
        scheduler = Scheduler(loop, files, spool, router, settings, row, cells, log, relay)
        account = ListenerAccount("sink", row, cells, log, is_logging, spool.keeps_mail)
        rulebook = Rulebook(settings, settings.listener[0], "sink", router.has_route, lambda: spool.is_full)
        self._service = Service(
            loop, settings.limits, spool, account, rulebook.rules_for, scheduler.accepted, settings.hostname, DateText(), set()
        )
        loop.at_turn_end(spool.end_turn)
        loop.at_turn_end(log.end_turn)
        scheduler.start()

    def settle(self) -> None:
        """Turn until nothing is left in the spool."""
        while self._spool.shards[0].count:
            is_busy = self._next_hop.serve()
            self.loop.turn(0.0 if is_busy else 0.001)


def relay_mails(mails: int, size_bytes: int, is_logging: bool, is_chunking: bool) -> None:
    """Send so many mails over kept sessions; runs inside valgrind and ends the process."""
    with tempfile.TemporaryDirectory(prefix="smtpd-bench-", ignore_cleanup_errors=True) as folder:
        next_hop = NextHop(is_chunking)
        rig = RelayRig(next_hop, folder, is_logging)
        clients = rig.connect(SESSIONS)
        steps = mail_steps(size_bytes)
        gc.collect()
        gc.disable()
        for _ in range(mails // SESSIONS):
            for octets, expected in steps:
                rig.say(clients, octets, expected)
            rig.settle()
        if next_hop.taken != mails // SESSIONS * SESSIONS:
            raise RuntimeError(f"{next_hop.taken} mails of {mails} came through")
    os._exit(0)  # threads and sessions have nothing left to lose


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.relay_instructions", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mails", type=int, default=1000, help="more of them in the second run than in the first")
    parser.add_argument("--size", type=int, default=4096, help="octets of a body")
    parser.add_argument("--log", action="store_true", help="with a log line for each step of a mail")
    parser.add_argument("--chunking", action="store_true", help="to a next hop that takes BDAT")
    parser.add_argument("--keep", metavar="FILE", help="keep callgrind's output of the second run, for callgrind_annotate")
    parser.add_argument("--serve", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        relay_mails(options.serve, options.size, options.log, options.chunking)
    if shutil.which("valgrind") is None:
        print("valgrind is not installed", file=sys.stderr)
        return 1
    common = ["--size", str(options.size), *(["--log"] if options.log else []), *(["--chunking"] if options.chunking else [])]
    with tempfile.TemporaryDirectory(prefix="smtpd-bench-") as folder:
        output = Path(options.keep or f"{folder}/callgrind.out").resolve()
        warm_up = 10 * SESSIONS
        module = "bench.relay_instructions"
        before = count_run([*common, "--serve", str(warm_up)], output, module)
        whole = count_run([*common, "--serve", str(warm_up + options.mails)], output, module)
    each = (whole - before) / options.mails
    print(f"- relayed, {options.size:,} octets: {each:,.0f} instructions a mail on the loop thread")
    return 0


if __name__ == "__main__":
    sys.exit(main())
