"""Asks all workers of a running server over their control sockets, and reads the shards that nobody owns by itself.

For the command line: blocking, one worker after the other, an entry at a time, so that a queue of any length takes no memory.
What could not be asked is told in `problems`, one text each; nothing is raised for it.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import msgspec

from smtpd.control.answer import page_of
from smtpd.control.content import HEADER_MAX_BYTES, header_of
from smtpd.control.filter import Filter
from smtpd.control.wire import Line, QueueEntry, Request, decode_line, encode_line
from smtpd.errors import ShardBusyError, SpoolError
from smtpd.mail.queue_id import parse_queue_id
from smtpd.spool.database import ShardDatabase
from smtpd.spool.lock import shard_number
from smtpd.spool.query import find, open_stopped_shard, shard_dirs

TIMEOUT_S = 60.0
_SOCKET_NAME = re.compile(r"worker-(\d+)-(\d+)\.sock")
_LINE_MAX_BYTES = 1 << 30  # a mail with a million recipients


class QueueReader:
    """`problems` grows while entries are read. `run_dir` and `spool_path` are the configuration's."""

    def __init__(self, run_dir: str, spool_path: str) -> None:
        self.problems: list[str] = []
        self._run_dir = run_dir
        self._spool_path = spool_path
        self._asked_pids: set[int] = set()

    def entries(self, request: Request) -> Iterator[QueueEntry]:
        """Yield what the filter of a "list" wants, worker by worker and shard by shard, oldest first in each."""
        for line in self.lines(request):
            if line.mail is not None:
                yield line.mail

    def lines(self, request: Request) -> Iterator[Line]:
        """Yield all lines of the answers to a reading request."""
        for path, pid in self._sockets():
            yield from self._ask(path, pid, request)
        now_s = time.time()
        for directory in shard_dirs(self._spool_path):
            with self._stopped_shard(directory) as database:
                if database is not None:
                    yield from self._read_stopped(database, request, now_s)

    def find(self, queue_id: str) -> QueueEntry | None:
        """Return one mail with all that is known of it, None if it isn't in the queue."""
        found = self.find_with_content(queue_id, "")
        return None if found is None else found[0]

    def find_with_content(self, queue_id: str, content: str) -> tuple[QueueEntry, Iterator[bytes]] | None:
        """Return one mail and its octets in pieces: none, those of the "header", or "all"."""
        request = Request("show", Filter(ids=[queue_id]), content=content)
        for path, pid in self._sockets():
            lines = self._ask(path, pid, request)
            for line in lines:
                if line.mail is not None:
                    return line.mail, (piece.content for piece in lines if piece.content is not None)
        for directory in self._likely_first(queue_id):
            with self._stopped_shard(directory) as database:
                if database is not None:
                    for line in self._read_stopped(database, request, time.time()):
                        if line.mail is not None:
                            return line.mail, iter(_content(database, line.mail, content))
        return None

    # --- running -----------------------------------------------------------------------------------------------------

    def _sockets(self) -> list[tuple[str, int]]:
        found = []
        try:
            names = os.listdir(self._run_dir)
        except FileNotFoundError:
            names = []
        except OSError as error:
            self.problems.append(f"{self._run_dir}: {error.strerror}")
            names = []
        for name in names:
            match = _SOCKET_NAME.fullmatch(name)
            if match is not None:
                found.append((int(match[1]), int(match[2]), os.path.join(self._run_dir, name)))
        return [(path, pid) for _, pid, path in sorted(found)]

    def _connect(self, path: str, pid: int) -> socket.socket | None:
        """Return a connection to a worker, None (with a problem, unless it has just ended) if it can't be had."""
        try:
            connection = connect(path)
        except ConnectionRefusedError:
            self.problems.append(f"{path}: nobody listens there any more")
            return None
        except FileNotFoundError:  # ended between the look and the call; its shard is free
            return None
        except OSError as error:
            self.problems.append(f"{path}: {error.strerror or error}")
            return None
        self._asked_pids.add(pid)
        return connection

    def _ask(self, path: str, pid: int, request: Request) -> Iterator[Line]:
        """Yield a worker's lines; an end before its time is a problem."""
        connection = self._connect(path, pid)
        if connection is None:
            return
        with connection, connection.makefile("rb") as answer:
            try:
                connection.sendall(encode_line(request))
            except OSError as error:
                self.problems.append(f"{path}: {error}")
                return
            yield from self._lines_of(path, answer)

    def _lines_of(self, path: str, answer: BinaryIO) -> Iterator[Line]:
        """Yield the lines of an answer up to its end; another end, or an error, is a problem."""
        while True:
            try:
                text = answer.readline(_LINE_MAX_BYTES)
                line = decode_line(text) if text else None
            except (OSError, msgspec.MsgspecError) as error:
                self.problems.append(f"{path}: {error}")
                return
            if line is None:
                self.problems.append(f"{path}: the worker ended before its answer did")
                return
            if line.error:
                self.problems.append(f"{path}: {line.error}")
                return
            if line.end:
                return
            yield line

    # --- stopped -----------------------------------------------------------------------------------------------------

    @contextmanager
    def _stopped_shard(self, directory: str) -> Iterator[ShardDatabase | None]:
        """Give the database of a shard that nobody owns, None (with a problem, unless a worker answers for it) otherwise."""
        is_given = False
        try:
            with open_stopped_shard(directory) as database:
                is_given = True
                yield database
        except ShardBusyError as error:
            if error.holder not in self._asked_pids:
                self.problems.append(f"{directory}: held by process {error.holder or 'unknown'}, which can't be asked")
        except (SpoolError, OSError, msgspec.MsgspecError) as error:
            self.problems.append(f"{directory}: {error}")
        if not is_given:
            yield None

    def _read_stopped(self, database: ShardDatabase, request: Request, now_s: float) -> Iterator[Line]:
        after_row = 0
        number = shard_number(database.directory)
        while True:
            page = page_of(database.connection, number, request, now_s, after_row)
            for text in page.data.splitlines():
                yield decode_line(text)
            if page.is_last:
                return
            after_row = page.last_row

    def _likely_first(self, queue_id: str) -> list[str]:
        try:
            _, _, shard = parse_queue_id(queue_id)
        except ValueError:
            return []
        return sorted(shard_dirs(self._spool_path), key=lambda directory: shard_number(directory) != shard)


def _content(database: ShardDatabase, mail: QueueEntry, content: str) -> list[bytes]:
    """Return the octets of a mail of a stopped shard: it may be gone for the next call."""
    if not content:
        return []
    path = os.path.join(database.spill_directory, mail.queue_id)
    row = find(database.connection, mail.queue_id)
    if row is None:
        return []
    if row.spill_name:
        with open(path, "rb") as file:
            data = file.read(HEADER_MAX_BYTES if content == "header" else -1)
    else:
        data = database.read_body(row.row) or b""
    return [header_of(data) if content == "header" else data]


def connect(path: str) -> socket.socket:
    """Return a connection to the socket at `path`, which may be longer than a socket's address may."""
    folder, name = os.path.split(path)
    folder_fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        connection.settimeout(TIMEOUT_S)
        connection.connect(f"/proc/self/fd/{folder_fd}/{name}")
    except BaseException:
        connection.close()
        raise
    finally:
        os.close(folder_fd)
    return connection
