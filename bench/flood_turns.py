"""What a flood adds to another client's mail in CPU of the loop: the same however busy the machine is otherwise.

One process holds the loop of a worker (engine discard: no disk is waited for), the flood's connections and the other client. Only
the CPU time of turns between a command of the other client and its reply is added up; that is what it would wait on a machine of
its own, beside the network and the disk. `python -m bench.flood_turns` prints medians.
"""

from __future__ import annotations

import argparse
import gc
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from statistics import median

from bench.mail_instructions import Rig, mail_steps
from bench.results import markdown_table
from smtpd.settings import LimitsSettings

CONNECTIONS = 50
_LIMITS = ("soft_errors", "hard_errors", "junk_commands")
_PIECE = b"NOOP\r\n" * 2730  # 16 KB
Flood = Callable[["Flooder", socket.socket], None]


class Flooder:
    """`act` is called for each connection before each turn; one that has ended is replaced."""

    def __init__(self, rig: Rig, act: Flood, count: int) -> None:
        self._rig = rig
        self._act = act
        self._socks = [self._open() for _ in range(count)]

    def _open(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setblocking(False)
        self._rig.loop.ready(self._rig.begin, ours.detach())
        return theirs

    def work(self) -> None:
        for place, sock in enumerate(self._socks):
            try:
                self._act(self, sock)
            except BlockingIOError:
                continue
            except OSError:
                sock.close()
                self._socks[place] = self._open()

    def read(self, sock: socket.socket) -> None:
        """Take what came; ConnectionError at the end."""
        if not sock.recv(1 << 20):
            raise ConnectionResetError

    def close(self) -> None:
        for sock in self._socks:
            sock.close()


def noops(flooder: Flooder, sock: socket.socket) -> None:
    sock.send(_PIECE)
    flooder.read(sock)


def single_noops(flooder: Flooder, sock: socket.socket) -> None:
    flooder.read(sock)
    sock.send(b"NOOP\r\n")


def no_replies(_: Flooder, sock: socket.socket) -> None:
    sock.send(_PIECE)


def nothing(_: Flooder, sock: socket.socket) -> None:
    """Idle sessions."""


FLOODS: dict[str, Flood] = {"idle": nothing, "noops": noops, "single-noops": single_noops, "no replies read": no_replies}


def mail_ms(rig: Rig, client: socket.socket, flooder: Flooder | None) -> float:
    """CPU of the loop's turns while one mail is sent, milliseconds."""
    used_ns = 0
    for octets, expected in mail_steps(4096):
        client.sendall(octets)
        while True:
            if flooder is not None:
                flooder.work()
            began_ns = time.thread_time_ns()
            rig.loop.turn(0.05)
            used_ns += time.thread_time_ns() - began_ns
            try:
                reply = client.recv(4096, socket.MSG_DONTWAIT)
            except BlockingIOError:
                continue
            if not reply.startswith(expected):
                raise ValueError(f"{reply!r} instead of {expected!r}")
            break
    return used_ns / 1e6


def measure(mails: int, limits: dict[str, int]) -> dict[str, float]:
    """Medians in milliseconds by flood; "alone" is without one."""
    found = {}
    for name in ("alone", *FLOODS):
        with tempfile.TemporaryDirectory(prefix="smtpd-bench-", ignore_cleanup_errors=True) as folder:
            rig = Rig("discard", folder, False, **limits)
            (client,) = rig.connect(1)
            flooder = Flooder(rig, FLOODS[name], CONNECTIONS) if name != "alone" else None
            for _ in range(mails // 10):
                mail_ms(rig, client, flooder)
            found[name] = round(median(mail_ms(rig, client, flooder) for _ in range(mails)), 3)
            client.close()
            if flooder is not None:
                flooder.close()
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.flood_turns", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mails", type=int, default=300)
    options = parser.parse_args(arguments)
    gc.freeze()
    usual = LimitsSettings()
    on = measure(options.mails, {name: getattr(usual, name) for name in _LIMITS})
    off = measure(options.mails, dict.fromkeys(_LIMITS, 0))
    rows = [[name, f"{on[name]:.3f}", f"{off[name]:.3f}"] for name in on]
    print(markdown_table([f"{CONNECTIONS} connections", "ms with limits", "ms without"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
