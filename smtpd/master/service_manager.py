"""What is told to systemd, if it has started us (sd_notify(3)), and the sockets it has made (sd_listen_fds(3)).

READY=1, RELOADING=1 with MONOTONIC_USEC, STOPPING=1, STATUS=, MAINPID= at an upgrade, and WATCHDOG=1 as long as the workers turn
their loops. Says nothing without NOTIFY_SOCKET. Never waits; a manager that doesn't listen is no reason not to serve.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time

from smtpd.errors import StartupError
from smtpd.master.children import Children, Log
from smtpd.net.loop import Loop

_FIRST_FD = 3  # SD_LISTEN_FDS_START
_STATUS_S = 5.0


class ServiceManager:
    """Reads its environment once; a program that is run anew has it too, but for what was meant for this process alone."""

    def __init__(self, loop: Loop, log: Log, children: Children) -> None:
        self._loop = loop
        self._log = log
        self._children = children
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        self._socket: socket.socket | None = None
        self._words = ""
        self._shown = ""
        self._is_ready = False
        if self._address[:1] in ("/", "@"):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
            self._period_s = _watchdog_period_s()

    def say_ready(self, words: str) -> None:
        """We serve, for the first time or after a reload."""
        self._say("READY=1", self._status(words))
        if not self._is_ready and self._socket is not None:
            self._is_ready = True
            self._renew_status()
            if self._period_s:
                self._feed()

    def say_reloading(self) -> None:
        self._say(
            "RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}", self._status("reloading")
        )

    def say_stopping(self) -> None:
        self._say("STOPPING=1", self._status("draining"))

    def say_status(self, words: str) -> None:
        self._say(self._status(words))

    def say_successor(self, pid: int) -> None:
        """Another process is the service from now on; what this one says is heard no more."""
        self._say(f"MAINPID={pid}", "READY=1")
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _status(self, words: str) -> str:
        self._words = words
        count = len(self._children.slots)
        state = "paused, " if self._children.is_paused else ""
        sessions = self._children.session_count
        return (
            f"STATUS={state}{words}: {count} worker{'s' if count != 1 else ''}, {sessions} session{'s' if sessions != 1 else ''}"
        )

    def _renew_status(self) -> None:
        if self._socket is not None:
            self._loop.call_later(_STATUS_S, self._renew_status)
            text = self._status(self._words)
            if text != self._shown:
                self._shown = text
                self._say(text)

    def _feed(self) -> None:
        """The watchdog: a server whose workers stand still is as good as dead, however lively its master."""
        if self._socket is None:
            return
        self._loop.call_later(self._period_s, self._feed)
        silent_s = self._children.oldest_heartbeat_s()
        timeout_s = self._children.generation.settings.heartbeat_timeout
        if self._children.is_stopping or (silent_s is not None and silent_s <= timeout_s):
            self._say("WATCHDOG=1")

    def _say(self, *lines: str) -> None:
        if self._socket is None:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError):
            self._socket.sendto("\n".join(lines).encode(), address)


def _watchdog_period_s() -> float:
    """How often the watchdog is fed, half of what it allows; 0.0: there is none for this process."""
    pid, interval = os.environ.get("WATCHDOG_PID", ""), os.environ.get("WATCHDOG_USEC", "")
    if not interval.isdigit() or (pid and pid != str(os.getpid())):
        return 0.0
    return int(interval) / 2e6


def given_sockets() -> dict[str, list[socket.socket]]:
    """The sockets that were made for this process, by their names, and a cleaned environment; to be called once.

    Raises StartupError for what is no listening stream socket.
    """
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdigit():
        return {}
    found: dict[str, list[socket.socket]] = {}
    for number in range(int(count)):
        name = names[number] if number < len(names) and names[number] else "unknown"
        os.set_inheritable(_FIRST_FD + number, False)
        try:
            sock = socket.socket(fileno=_FIRST_FD + number)
            is_listening = sock.type == socket.SOCK_STREAM and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError as error:
            raise StartupError(f'the socket "{name}" that was given: {error.strerror}', os.EX_CONFIG) from None
        if not is_listening or sock.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
            raise StartupError(f'the socket "{name}" that was given is no listening stream socket', os.EX_CONFIG)
        found.setdefault(name, []).append(sock)
    return found
