"""Outgoing connections: a non-blocking connect on the loop, with a timeout, without giving the GIL up.

Owns the descriptor until `done` gets it. Never raises and never calls `done` before `connect` has returned: every failure,
also a process without free descriptors, comes as an errno. Looks no names up (`smtpd.net.resolver` does).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from smtpd import _io
from smtpd.net.listeners import Address
from smtpd.net.loop import Loop, Timer

Done = Callable[[int, int], object]

_UNIX_PATH_BYTES = 107  # sun_path of unix(7) without its NUL
_RETRY_S = 0.02  # a unix socket with a full backlog can't be waited for, only asked again


def connect(loop: Loop, address: Address, timeout_s: float, source_address: str, done: Done) -> Connecting:
    """Connect to `(IP address without brackets, port)` or to the path of a unix socket.

    `done(fd, 0)` hands a connected, non-blocking descriptor over; `done(-1, errno)` tells the failure: ETIMEDOUT after
    `timeout_s` seconds, EAFNOSUPPORT when `source_address` ("" = the system chooses) is of the other family, EINVAL when the
    address is none. Called exactly once, on the loop, unless cancelled first.
    """
    return Connecting(loop, address, timeout_s, source_address, done)


class Connecting:
    """A connect under way."""

    __slots__ = ("_address", "_done", "_fd", "_loop", "_retry", "_source", "_timer")

    def __init__(self, loop: Loop, address: Address, timeout_s: float, source_address: str, done: Done) -> None:
        self._loop = loop
        self._address = address
        self._source = source_address
        self._done: Done | None = done
        self._fd = -1
        self._retry: Timer | None = None
        self._timer: Timer = loop.call_later(timeout_s, self._on_timeout)
        self._start()

    def cancel(self) -> None:
        """Give up; `done` is not called. After `done` it changes nothing."""
        self._done = None
        self._drop()

    def _start(self) -> None:
        if self._done is None:
            return
        address = self._address
        if isinstance(address, str):
            self._fd, failure = _start_unix(address)
            if failure == errno.EAGAIN:
                self._retry = self._loop.call_later(_RETRY_S, self._start)
                return
        else:
            self._fd, failure = _io.start_connect(address[0], address[1], self._source)
        if failure == errno.EINPROGRESS:
            self._watch()
        else:
            self._loop.ready(self._finish, failure)

    def _watch(self) -> None:
        try:
            self._loop.add_writer(self._fd, self._on_writable)
        except OSError as error:  # epoll has its own limit (fs.epoll.max_user_watches)
            self._loop.ready(self._finish, error.errno or errno.EIO)

    def _on_writable(self) -> None:
        self._finish(_io.finish_connect(self._fd))

    def _on_timeout(self) -> None:
        self._finish(errno.ETIMEDOUT)

    def _finish(self, failure: int) -> None:
        done = self._done
        if done is None:
            return
        self._done = None
        fd = self._fd
        if failure:
            self._drop()
            done(-1, failure)
            return
        self._fd = -1
        self._drop()
        self._loop.forget(fd)
        done(fd, 0)

    def _drop(self) -> None:
        """Let go of timers and of the descriptor that was not handed over."""
        self._timer.cancel()
        if self._retry is not None:
            self._retry.cancel()
        if self._fd >= 0:
            self._loop.forget(self._fd)
            _io.close(self._fd)
            self._fd = -1


def _start_unix(path: str) -> tuple[int, int]:
    """Begin to connect to a path that may be longer than a socket's address: by way of its folder's descriptor."""
    name = os.fsencode(path)
    if len(name) <= _UNIX_PATH_BYTES:
        return _io.start_connect_unix(name)
    folder, base = os.path.split(name)
    if b"\0" in folder:
        return -1, errno.EINVAL
    try:
        folder_fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        return -1, error.errno or errno.EIO
    try:
        return _io.start_connect_unix(b"/proc/self/fd/%d/%s" % (folder_fd, base))
    finally:
        os.close(folder_fd)
