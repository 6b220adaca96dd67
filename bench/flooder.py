"""One hostile client, as a program: `python -m bench.flooder KIND HOST PORT SOURCE CONNECTIONS`, until it is ended.

Each kind is a generator that does a little of its harm with every step; nothing of the server's answers is judged. Runs at the
lowest priority, so that on one machine it takes its share of the network's time, not of the server's.
"""

from __future__ import annotations

import os
import selectors
import socket
import sys
import time
from collections.abc import Callable, Iterator
from itertools import cycle

_PIECE = 16 * 1024
_STEP_S = 0.001


class Attack:
    """`connections` at most are open at once; one that the server ends is opened anew."""

    def __init__(self, host: str, port: int, source: str, connections: int) -> None:
        self._target = host, port
        self._source = source
        self.socks: list[socket.socket | None] = [None] * connections
        self._heard: dict[socket.socket, bytes] = {}  # before the session was open

    def connect(self) -> socket.socket | None:
        """A connection, None when there is none to have now."""
        sock = socket.socket()
        try:
            sock.setblocking(False)
            sock.bind((self._source, 0))
            sock.connect(self._target)
        except BlockingIOError:
            return sock
        except OSError:
            sock.close()
            return None
        return sock

    def in_session(self, act: Callable[[socket.socket], bool]) -> Iterator[None]:
        """The same as `each`, after EHLO has been answered: what follows it at once is refused."""

        def open_first(sock: socket.socket) -> bool:
            heard = self._heard.get(sock, b"")
            if heard.endswith(b"\r\n") and heard.rpartition(b"\n250 ")[1]:
                return act(sock)
            heard += (piece := sock.recv(_PIECE))
            if not self._heard.get(sock) and piece.endswith(b"\r\n"):
                sock.send(b"EHLO a.example\r\n")
            self._heard[sock] = heard
            return piece != b""

        return self.each(open_first)

    def each(self, act: Callable[[socket.socket], bool]) -> Iterator[None]:
        """Let `act` work on one connection after the other; False: the server has ended it."""
        for place in cycle(range(len(self.socks))):
            sock = self.socks[place]
            if sock is None:
                self.socks[place] = self.connect()
            else:
                try:
                    is_alive = act(sock)
                except BlockingIOError:
                    is_alive = True
                except OSError:
                    is_alive = False
                if not is_alive:
                    self._heard.pop(sock, None)
                    sock.close()
                    self.socks[place] = None
            yield


def hold(attack: Attack) -> Iterator[None]:
    """Open connections and keep them, silent."""
    return attack.each(lambda sock: sock.recv(_PIECE) != b"")


def connect_and_close(attack: Attack) -> Iterator[None]:
    """Open and close."""
    while True:
        sock = attack.connect()
        if sock is not None:
            sock.close()
        yield


def trickle(attack: Attack) -> Iterator[None]:
    """One octet on each connection in turn, no line ever ends."""
    return attack.each(lambda sock: sock.send(b"x") > 0)


def pipeline(attack: Attack) -> Iterator[None]:
    """Commands without end, no reply is ever read."""
    commands = b"MAIL FROM:<a@example.com>\r\nRSET\r\n" * (_PIECE // 33)
    return attack.in_session(lambda sock: sock.send(commands) > 0)


def noops(attack: Attack) -> Iterator[None]:
    """NOOP after NOOP, replies are read."""
    commands = b"NOOP\r\n" * (_PIECE // 6)

    def act(sock: socket.socket) -> bool:
        sock.send(commands)
        return sock.recv(1 << 20) != b""

    return attack.each(act)


def single_noops(attack: Attack) -> Iterator[None]:
    """The same, each sent when the reply to the one before has come: an event of the server's loop for each."""

    def act(sock: socket.socket) -> bool:
        if sock.recv(_PIECE) == b"":
            return False
        sock.send(b"NOOP\r\n")
        return True

    return attack.each(act)


def recipients(attack: Attack) -> Iterator[None]:
    """Recipients that are refused, mail that is never sent."""
    commands = b"MAIL FROM:<a@example.com>\r\n" + b"RCPT TO:<u@elsewhere.example\r\n" * 500 + b"RSET\r\n"

    def act(sock: socket.socket) -> bool:
        sock.send(commands)
        return sock.recv(1 << 20) != b""

    return attack.in_session(act)


KINDS = {
    "hold": hold,
    "connect-close": connect_and_close,
    "trickle": trickle,
    "pipeline": pipeline,
    "noops": noops,
    "single-noops": single_noops,
    "recipients": recipients,
}


def main() -> None:
    kind, host, port, source, connections = sys.argv[1:]
    os.nice(19)
    attack = Attack(host, int(port), source, int(connections))
    steps = KINDS[kind](attack)
    waiting = selectors.DefaultSelector()
    for number, _ in enumerate(steps):
        if number % 200 == 0:  # full windows everywhere: no need to spin all the time
            waiting.select(0)
            time.sleep(_STEP_S)


if __name__ == "__main__":
    main()
