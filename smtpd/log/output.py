"""Where lines go: stderr, a file, a syslog socket, nowhere. A destination that is stuck, full or gone costs lines, never time.

`write` returns how many lines were lost and never raises. How long it waits for a stuck destination is the caller's `patience`:
none in the master, who has other things to do; a log thread waits. Lines of several processes on one pipe stay whole: pieces of
at most PIPE_BUF octets are written at once, or not at all (POSIX).
"""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
import time
from collections.abc import Callable, Iterator
from typing import Protocol

SYSLOG_PATH = "/dev/log"
_PIPE_BUF = 4096
_RETRY_S = 1.0  # between attempts to open what is gone
_TRIES = 100  # of a write that would block although the descriptor was ready
_MODE = 0o640

# Called with a descriptor before a write: True once it takes data, False when the caller does not want to wait longer.
Patience = Callable[[int], bool]


def no_patience(fd: int) -> bool:
    """Don't wait: True when the descriptor can be written now."""
    return is_writable(fd, 0.0)


def is_writable(fd: int, wait_s: float) -> bool:
    """Return whether a write would not block (an error counts as writable: the write then tells), after at most `wait_s`."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(wait_s * 1000.0))


class Output(Protocol):
    """`complaint` is what went wrong last, "" while all is well."""

    complaint: str

    def write(self, lines: list[str]) -> int: ...
    def reopen(self) -> None: ...
    def close(self) -> None: ...


class NoOutput:
    """Takes everything."""

    complaint = ""

    def write(self, lines: list[str]) -> int:
        return 0

    def reopen(self) -> None: ...

    def close(self) -> None: ...


class DescriptorOutput:
    """Lines to an open descriptor (stderr), which is closed at the end only if it `is_owned`."""

    def __init__(self, fd: int, patience: Patience, *, is_owned: bool = False) -> None:
        self._is_owned = is_owned
        self.complaint = ""
        self._fd = fd
        self._patience = patience
        self._is_torn = False  # half a line was written before the space ran out
        self._look()

    def write(self, lines: list[str]) -> int:
        return self._write_all(lines)

    def reopen(self) -> None: ...

    def close(self) -> None:
        if self._is_owned and self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _look(self) -> None:
        """What kind of thing it is: files take big writes and never block, the rest small ones, and may."""
        try:
            mode = os.fstat(self._fd).st_mode
        except OSError:
            mode = 0
        self._is_file = stat.S_ISREG(mode)
        self._is_socket = stat.S_ISSOCK(mode)

    def _write_all(self, lines: list[str]) -> int:
        pieces = iter([lines]) if self._is_file else _small_pieces(lines)
        lost = 0
        for piece in pieces:
            try:
                self._write_piece(piece)
                self.complaint = ""
            except _LostError as error:
                lost += error.count
                self.complaint = error.text
        return lost

    def _write_piece(self, lines: list[str]) -> None:
        data = memoryview(("\n" * self._is_torn + "\n".join(lines) + "\n").encode("utf-8", "backslashreplace"))
        done = tries = 0
        while done < len(data):
            if tries > _TRIES or not (self._is_file or self._patience(self._fd)):
                raise self._loss(data, done, "it takes no more")
            try:
                done += self._send(data[done:])
            except BlockingIOError:  # another process was faster
                tries += 1
            except OSError as error:
                raise self._loss(data, done, error.strerror or str(error)) from None
        self._is_torn = False

    def _send(self, data: memoryview) -> int:
        if self._is_socket:
            peer = socket.socket(fileno=self._fd)
            try:
                return peer.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            finally:
                peer.detach()
        return os.write(self._fd, data)

    def _loss(self, data: memoryview, done: int, text: str) -> _LostError:
        if done:
            self._is_torn = bytes(data[done - 1 : done]) != b"\n"
        return _LostError(bytes(data[done:]).count(b"\n"), text)


class FileOutput(DescriptorOutput):
    """Lines to the end of a file; made if missing, opened anew by `reopen` and when it was deleted. A FIFO will do too."""

    def __init__(self, path: str, patience: Patience) -> None:
        self._path = path
        self._next_try_s = 0.0
        super().__init__(-1, patience, is_owned=True)
        self._open()

    def write(self, lines: list[str]) -> int:
        if self._fd < 0 or self._is_deleted():
            now = time.monotonic()
            if now >= self._next_try_s:
                self._next_try_s = now + _RETRY_S
                self._open()
            if self._fd < 0:
                return len(lines)
        return self._write_all(lines)

    def reopen(self) -> None:
        """Open the path anew; the old file stays in use when that fails."""
        self._open()

    def _is_deleted(self) -> bool:
        try:
            return os.fstat(self._fd).st_nlink == 0
        except OSError:
            return True

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
        try:
            fd = os.open(self._path, flags, _MODE)
        except OSError as error:
            self.complaint = f"can't open {self._path}: {error.strerror}"
            return
        self.close()
        self._fd = fd
        self._is_torn = False
        self.complaint = ""
        self._look()


class SyslogOutput:
    """One datagram a line to the system's log socket; connected anew when syslogd was restarted."""

    def __init__(self, patience: Patience, path: str = SYSLOG_PATH) -> None:
        self.complaint = ""
        self._path = path
        self._patience = patience
        self._socket: socket.socket | None = None
        self._next_try_s = 0.0

    def write(self, lines: list[str]) -> int:
        return sum(not self._send(line.encode("utf-8", "backslashreplace")) for line in lines)

    def reopen(self) -> None:
        self.close()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._next_try_s = 0.0
        self.complaint = ""

    def _send(self, data: bytes) -> bool:
        is_fresh = self._socket is None
        for _ in range(_TRIES):
            sock = self._connected()
            if sock is None:
                return False
            try:
                sock.send(data)
                self.complaint = ""
                return True
            except BlockingIOError:
                if not self._patience(sock.fileno()):
                    break
            except OSError as error:
                if is_fresh or error.errno in (errno.EMSGSIZE, errno.ENOBUFS):  # the datagram's fault, or memory's
                    self.complaint = f"{self._path}: {error.strerror}"
                    return False
                is_fresh = True  # a restarted syslogd has a new socket under the old name
                self.close()
        self.complaint = f"{self._path} takes no more"
        return False

    def _connected(self) -> socket.socket | None:
        now = time.monotonic()
        if self._socket is None and now >= self._next_try_s:
            self._next_try_s = now + _RETRY_S
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            try:
                sock.connect(self._path)
            except OSError as error:
                sock.close()
                self.complaint = f"{self._path}: {error.strerror}"
                return None
            self._socket = sock
        return self._socket


class _LostError(Exception):
    """A piece was not written; `count` lines of it are lost."""

    def __init__(self, count: int, text: str) -> None:
        super().__init__(text)
        self.count = count
        self.text = text


def _small_pieces(lines: list[str]) -> Iterator[list[str]]:
    """Runs of whole lines that fit into PIPE_BUF octets; a longer line is a piece of its own, and may be torn."""
    piece: list[str] = []
    size_bytes = 0
    for line in lines:
        line_bytes = len(line) + 1 if line.isascii() else len(line.encode("utf-8", "backslashreplace")) + 1
        if piece and size_bytes + line_bytes > _PIPE_BUF - 1:
            yield piece
            piece, size_bytes = [], 0
        piece.append(line)
        size_bytes += line_bytes
    if piece:
        yield piece


def open_output(destination: str, patience: Patience, syslog_path: str = SYSLOG_PATH) -> Output:
    """Return the output of a configured destination: "stderr", "syslog", "none", or the path of a file."""
    if destination == "none":
        return NoOutput()
    if destination == "stderr":
        return DescriptorOutput(2, patience)
    if destination == "syslog":
        return SyslogOutput(patience, syslog_path)
    return FileOutput(destination, patience)
