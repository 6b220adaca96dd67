"""Follows the transcripts of all workers at once, also of those that come later. For the command line: blocking.

Problems as in QueueReader.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Iterator

import msgspec

from smtpd.control.client import QueueReader
from smtpd.control.wire import Line, Request, decode_line, encode_line

_LOOK_S = 1.0  # between looks for new workers
_READ_BYTES = 65536


class TranscriptReader(QueueReader):
    """`asked` is how many workers were listened to."""

    def __init__(self, run_dir: str) -> None:
        super().__init__(run_dir, "")
        self._selector = selectors.DefaultSelector()
        self._rests: dict[socket.socket, bytes] = {}
        self._known: set[str] = set()

    @property
    def asked(self) -> int:
        return len(self._asked_pids)

    def begin(self, request: Request) -> None:
        """Ask every worker that wasn't asked yet."""
        for path, pid in self._sockets():
            if path in self._known:
                continue
            self._known.add(path)
            connection = self._connect(path, pid)
            if connection is None:
                continue
            connection.sendall(encode_line(request))
            connection.setblocking(False)
            self._rests[connection] = b""
            self._selector.register(connection, selectors.EVENT_READ)

    def follow(self, request: Request) -> Iterator[Line]:
        """Yield lines until no worker is left that sends any, or `request.seconds` (0: for ever) are over."""
        ends_at = time.monotonic() + request.seconds if request.seconds else float("inf")
        self.begin(request)
        while self._rests:
            left_s = ends_at - time.monotonic()
            for key, _ in self._selector.select(min(_LOOK_S, max(0.05, left_s))):
                connection = key.fileobj
                assert isinstance(connection, socket.socket)
                yield from self._read(connection)
            if left_s > _LOOK_S:
                left = ends_at - time.monotonic()
                self.begin(msgspec.structs.replace(request, seconds=left if request.seconds else 0.0))

    def _read(self, connection: socket.socket) -> Iterator[Line]:
        try:
            data = connection.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        *lines, self._rests[connection] = (self._rests[connection] + data).split(b"\n")
        for text in lines:
            try:
                line = decode_line(text)
            except msgspec.MsgspecError as error:
                self.problems.append(str(error))
                continue
            if line.error:
                self.problems.append(line.error)
            elif not line.end:
                yield line
        if not data:
            self._selector.unregister(connection)
            connection.close()
            del self._rests[connection]

    def close(self) -> None:
        """Let go of all workers."""
        for connection in self._rests:
            connection.close()
        self._rests = {}
        self._selector.close()
