"""User-space instructions a mail costs on the loop thread, counted by valgrind: the same number however busy the machine is.

Clients and server share one process and take turns; only what runs inside `Loop.turn` is counted (callgrind's toggle), so
clients, start-up and helper threads stay out. Two runs of different lengths are subtracted: what is done once stays out as well.
The kernel's share doesn't show here: `bench.compare` measures the whole.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.generator import RECIPIENT, SENDER
from smtpd.delivery.router import Router
from smtpd.delivery.scheduler import Scheduler
from smtpd.log.maillog import MailLog
from smtpd.metrics.slab import LOOP, CellIndex, Slabs
from smtpd.net.files import FilesThread
from smtpd.net.loop import Loop
from smtpd.net.side import SideThread
from smtpd.policy.access import AccessSettings
from smtpd.policy.check import CheckHost
from smtpd.proto.dialogue import Peer
from smtpd.proto.trace import DateText
from smtpd.settings import ListenerSettings, LogSettings, PolicySettings, RouteSettings, Settings, SpoolSettings
from smtpd.settings.policy import CheckSettings
from smtpd.sink.target import Target, sink_settings
from smtpd.spool.open import open_spool
from smtpd.worker.account import ListenerAccount
from smtpd.worker.connection import Connection
from smtpd.worker.policing import Policing
from smtpd.worker.rulebook import Rulebook
from smtpd.worker.service import Service

ROOT = Path(__file__).resolve().parent.parent
TOGGLE = "__pyx_pw_5smtpd_3net_4loop_4Loop_*turn"  # the C function behind `loop.turn()`, called from Python
SESSIONS = 20
_LINE = b"X" * 78 + b"\r\n"


def mail_steps(size_bytes: int) -> list[tuple[bytes, bytes]]:
    """Return what a client says for one mail, piece by piece as smtp-source does, and how each reply begins."""
    head = b"From: <%b>\r\nTo: <%b>\r\nMessage-Id: <1@example.com>\r\nSubject: x\r\n\r\n" % (SENDER.encode(), RECIPIENT.encode())
    body = head + _LINE * (size_bytes // len(_LINE)) + b".\r\n"
    return [
        (b"MAIL FROM:<%b>\r\n" % SENDER.encode(), b"250"),
        (b"RCPT TO:<%b>\r\n" % RECIPIENT.encode(), b"250"),
        (b"DATA\r\n", b"354"),
        (body, b"250"),
    ]


def _access(number: int) -> CheckSettings:
    """A check that has something to look up at connect, MAIL and RCPT, and finds nothing."""
    rules = ["client 198.51.100.0/24 reject", "sender bulk.example reject", "recipient nobody@example.org reject"]
    return CheckSettings(name="access", label=f"access-{number}", own=AccessSettings(rules=rules))


def hang_up(clients: list[socket.socket], rig: Rig) -> None:
    """Let each client say QUIT, and turn until the server has closed its side of each."""
    rig.say(clients, b"QUIT\r\n", b"221")
    for client in clients:
        client.close()


class Rig:
    """One worker's parts without its life: loop, spool, scheduler, connections. `engine` "discard" is what a sink serves."""

    def __init__(self, engine: str, folder: str, is_logging: bool, checks: int = 0) -> None:
        settings = sink_settings(Target(("127.0.0.1:0",), folder, "bench.example.net", is_verbose=is_logging))
        if engine != "discard":
            settings = Settings(
                hostname="bench.example.net",
                run_dir=folder,
                listener=[ListenerSettings(address="127.0.0.1:0", name="sink")],
                spool=SpoolSettings(path=folder),
                route=[RouteSettings(domains=["*"], transport="discard", name="discard")],
                log=LogSettings(level="info" if is_logging else "warning", destination=f"file:{folder}/log"),
                policy=PolicySettings(check=[_access(number) for number in range(checks)]),
            )
        self.loop = loop = Loop()
        cells, slabs = CellIndex(), Slabs()
        cells.prepare(listeners=["sink"], routes=["discard"], checks=[check.instance for check in settings.policy.check])
        row = slabs.cells(slabs.take_bank(0), LOOP)
        log = MailLog(settings.log, settings.hostname, lambda count: None)
        log.start()
        files = FilesThread(loop)
        files.start()
        spool = open_spool(loop, files, settings.spool, settings.node, log, slot=0)
        router = Router(settings.route)
        scheduler = Scheduler(loop, files, spool, router, settings, row, cells, log)
        account = ListenerAccount("sink", row, cells, log, is_logging, spool.keeps_mail)
        rulebook = Rulebook(settings, settings.listener[0], "sink", router.has_route, lambda: spool.is_full)
        side = SideThread(loop)

        def host_for(name: str) -> CheckHost:
            return CheckHost(name, loop, side, files, log, row, cells, settings)

        policing = Policing(settings, loop, side, log, host_for, spool.keeps_mail, is_logging)
        self._service = Service(
            loop, settings.limits, spool, account, rulebook.rules_for, scheduler.accepted, settings.hostname, DateText(), set(),
            policy_for=policing.policy_for("sink"), files=files,
        )  # fmt: skip
        loop.at_turn_end(spool.end_turn)
        loop.at_turn_end(log.end_turn)
        scheduler.start()

    def connect(self, sessions: int) -> list[socket.socket]:
        """Return the clients' ends of so many greeted sessions."""
        clients = []
        for _ in range(sessions):
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            self.loop.ready(self._begin, ours.detach())
            clients.append(theirs)
        self.await_replies(clients, b"220")
        self.say(clients, b"EHLO client.example.com\r\n", b"250")
        return clients

    def _begin(self, fd: int) -> None:
        Connection(self._service, fd, Peer("192.0.2.1", 25000)).start()

    def say(self, clients: list[socket.socket], octets: bytes, expected: bytes) -> None:
        """Let each client send, and turn until each has its reply; ValueError when that is another one."""
        for client in clients:
            client.sendall(octets)
        self.await_replies(clients, expected)

    def await_replies(self, clients: list[socket.socket], expected: bytes) -> None:
        left = list(clients)
        while left:
            self.loop.turn()
            waiting = []
            for client in left:
                try:
                    reply = client.recv(4096, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    waiting.append(client)
                    continue
                if not reply.startswith(expected):
                    raise ValueError(f"{reply!r} instead of {expected!r}")
            left = waiting


def serve_mails(engine: str, mails: int, size_bytes: int, is_logging: bool, is_kept: bool, checks: int = 0) -> None:
    """Send so many mails over kept sessions, or over a session each; runs inside valgrind and ends the process."""
    with tempfile.TemporaryDirectory(prefix="smtpd-bench-", ignore_cleanup_errors=True) as folder:
        rig = Rig(engine, folder, is_logging, checks)
        clients = rig.connect(SESSIONS)
        steps = mail_steps(size_bytes)
        gc.collect()
        gc.disable()
        for _ in range(mails // SESSIONS):
            if not is_kept:
                hang_up(clients, rig)
                clients = rig.connect(SESSIONS)
            for octets, expected in steps:
                rig.say(clients, octets, expected)
    os._exit(0)  # threads and sessions have nothing left to lose


def count_run(arguments: list[str], output: Path, module: str = "bench.mail_instructions") -> int:
    """Run a module inside callgrind with `arguments` and return the instructions counted."""
    command = [
        "valgrind", "--tool=callgrind", f"--callgrind-out-file={output}", f"--toggle-collect={TOGGLE}",
        sys.executable, "-m", module, *arguments,
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False)
    found = re.search(r"Collected : (\d+)", result.stderr)
    if result.returncode or found is None or not int(found[1]):
        raise RuntimeError(f"callgrind counted nothing: {(result.stdout + result.stderr)[-2000:]}")
    return int(found[1])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.mail_instructions", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engine", choices=("discard", "sqlite"), default="discard", help="discard is `smtpd sink`")
    parser.add_argument("--mails", type=int, default=1000, help="more of them in the second run than in the first")
    parser.add_argument("--size", type=int, default=4096, help="octets of a body")
    parser.add_argument("--log", action="store_true", help="with a log line for each step of a mail")
    parser.add_argument("--checks", type=int, default=0, help="so many access lists, asked from memory at MAIL and RCPT")
    parser.add_argument("--connect", action="store_true", help="a connection for each mail, from its first octet to its end")
    parser.add_argument("--keep", metavar="FILE", help="keep callgrind's output of the second run, for callgrind_annotate")
    parser.add_argument("--serve", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        serve_mails(options.engine, options.serve, options.size, options.log, not options.connect, options.checks)
    if shutil.which("valgrind") is None:
        print("valgrind is not installed", file=sys.stderr)
        return 1
    common = ["--engine", options.engine, "--size", str(options.size), *(["--log"] if options.log else [])]
    common += ["--checks", str(options.checks)] if options.checks else []
    common += ["--connect"] if options.connect else []
    with tempfile.TemporaryDirectory(prefix="smtpd-bench-") as folder:
        output = Path(options.keep or f"{folder}/callgrind.out").resolve()
        warm_up = 10 * SESSIONS
        before = count_run([*common, "--serve", str(warm_up)], output)
        whole = count_run([*common, "--serve", str(warm_up + options.mails)], output)
    each = (whole - before) / options.mails
    kind = ", a connection a mail" if options.connect else ""
    print(f"- {options.engine}, {options.size:,} octets{kind}: {each:,.0f} instructions a mail on the loop thread")
    return 0


if __name__ == "__main__":
    sys.exit(main())
