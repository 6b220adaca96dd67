"""The master's control socket, run_dir/master.sock: where `smtpd pause` and `resume` ask.

One JSON object a line: {"do": "pause"}, and for an answer {"state": "paused", "sessions": 3}, or {"error": "..."}. Bounded in
everything, since the group of run_dir may connect. During an upgrade it belongs to the program that is in charge. Without its
socket the master serves on; the log has the reason.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable
from functools import partial

import msgspec

from smtpd.control.server import listen_at
from smtpd.master.children import Log
from smtpd.net.loop import Loop, Timer

NAME = "master.sock"
_CLIENTS_MAX = 16
_REQUEST_BYTES = 4096
_RETRY_S = 0.2  # after EMFILE and its like
_TIMEOUT_S = 120.0  # a pause waits for the end of a reload or an upgrade

Verb = Callable[[Callable[[], object]], object]  # calls back when it is done


class Command(msgspec.Struct, forbid_unknown_fields=True):
    """What is asked."""

    do: str


class Standing(msgspec.Struct, omit_defaults=True):
    """What is answered: `state` is "paused", "serving" or "stopping"; `sessions` are those that are open."""

    state: str = ""
    sessions: int = 0
    error: str = ""


class MasterControl:
    """`verbs` are what may be asked, `standing` is what is answered when it is done."""

    def __init__(self, loop: Loop, run_dir: str, verbs: dict[str, Verb], standing: Callable[[], Standing], log: Log) -> None:
        self.loop = loop
        self._path = os.path.join(run_dir, NAME)
        self._verbs = verbs
        self._standing = standing
        self._log = log
        self._socket: socket.socket | None = None
        self._identity: tuple[int, int] | None = None
        self.clients: set[_Client] = set()

    def start(self) -> None:
        """Listen, in the place of whoever did; a failure is logged."""
        mine = f"{self._path}.{os.getpid()}"
        try:
            self._socket = listen_at(mine)
            found = os.stat(mine)
            self._identity = (found.st_dev, found.st_ino)
            os.rename(mine, self._path)
        except OSError as error:
            self._log.error("master", f"no control socket, `smtpd pause` can't ask: {self._path}: {error.strerror or error}")
            return
        self._watch()

    def close(self, *, is_handed_over: bool = False) -> None:
        """Listen no more; who waits for an answer asks again. The file goes if it is still ours, and nobody will replace it."""
        listening, self._socket = self._socket, None
        for client in list(self.clients):
            client.close()
        if listening is None:
            return
        self.loop.forget(listening.fileno())
        listening.close()
        if is_handed_over:
            return
        with contextlib.suppress(OSError):
            found = os.stat(self._path)
            if (found.st_dev, found.st_ino) == self._identity:
                os.unlink(self._path)

    def _accept(self) -> None:
        assert self._socket is not None
        try:
            sock, _ = self._socket.accept()
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno not in (errno.ECONNABORTED, errno.EPERM):  # no descriptors left: wait, don't spin
                self.loop.remove_reader(self._socket.fileno())
                self.loop.call_later(_RETRY_S, self._watch)
            return
        if len(self.clients) >= _CLIENTS_MAX:
            sock.close()
            return
        self.clients.add(_Client(self, sock))

    def _watch(self) -> None:
        if self._socket is not None:
            self.loop.add_reader(self._socket.fileno(), self._accept)

    def heed(self, client: _Client, line: bytes) -> None:
        """One request."""
        try:
            command = msgspec.json.decode(line, type=Command)
            verb = self._verbs[command.do]
        except (msgspec.MsgspecError, KeyError):
            client.answer(Standing(error="this server doesn't know that"))
            return
        self._log.info("master", f"{command.do} was asked for")
        verb(partial(self._answer, client))

    def _answer(self, client: _Client) -> None:
        client.answer(self._standing())


class _Client:
    """One who asks one thing."""

    def __init__(self, control: MasterControl, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._control = control
        self._socket = sock
        self._request = b""
        self._timer: Timer = control.loop.call_later(_TIMEOUT_S, self.close)
        control.loop.add_reader(sock.fileno(), self._read)

    def _read(self) -> None:
        try:
            data = self._socket.recv(_REQUEST_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._request += data
        if not data or len(self._request) > _REQUEST_BYTES:
            self.close()
        elif b"\n" in self._request:
            self._control.loop.remove_reader(self._socket.fileno())
            self._control.heed(self, self._request.partition(b"\n")[0])

    def answer(self, standing: Standing) -> None:
        """A line that fits into any socket's buffer, then the end."""
        if self._socket.fileno() >= 0:
            with contextlib.suppress(OSError):
                self._socket.send(msgspec.json.encode(standing) + b"\n")
            self.close()

    def close(self) -> None:
        if self._socket.fileno() >= 0:
            self._timer.cancel()
            self._control.loop.forget(self._socket.fileno())
            self._socket.close()
            self._control.clients.discard(self)
