"""Export and import for the command line: mail between spools and a directory (folder.py), never in neither, at worst in both.

Blocking. With workers they are asked; without, shards are taken under their locks, and an import opens the spool as a worker
would.
"""

from __future__ import annotations

import os
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

import msgspec

from smtpd.control import folder
from smtpd.control.client import QueueReader
from smtpd.control.filter import Filter
from smtpd.control.folder import MailFile
from smtpd.control.offline import OfflineSpool
from smtpd.control.stored import StoredMail, stored_of
from smtpd.control.wire import END_LINE, Line, Request, encode_line
from smtpd.settings import Settings
from smtpd.spool.batch import Batch
from smtpd.spool.change import DELETE, Change
from smtpd.spool.database import ShardDatabase
from smtpd.spool.query import Narrowing, QueuedMail, find_page, shard_dirs
from smtpd.spool.spill import remove_spill_files

WINDOW_MAILS = 50  # sent and not acknowledged
_PAGE_MAILS = 100
_PIECE_BYTES = 1 << 20


class FolderError(Exception):
    """The directory can't be written; what was not moved yet is where it was."""


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FolderError(str(error)) from error


class Transfer(QueueReader):
    """See QueueReader for `problems`. `moved` are the queue ids that have left the one place, `busy` those that were in use."""

    def __init__(self, run_dir: str, spool_path: str) -> None:
        super().__init__(run_dir, spool_path)
        self.moved: list[str] = []
        self.busy: list[str] = []

    # --- export ------------------------------------------------------------------------------------------------------

    def export(self, path: str, wanted: Filter, now_s: float) -> None:
        """Move all mail that the filter wants into the directory; raises OSError or FolderError if that can't be written."""
        folder.make(path)
        for socket_path, pid in self._sockets():
            self._export_worker(socket_path, pid, path, wanted)
        for directory in shard_dirs(self._spool_path):
            with self._stopped_shard(directory) as database:
                if database is not None:
                    self._export_stopped(database, path, wanted, now_s)

    def _export_worker(self, socket_path: str, pid: int, path: str, wanted: Filter) -> None:
        file: MailFile | None = None
        finished: list[str] = []

        def keep(connection_send: Callable[[bytes], None], line: Line) -> None:
            nonlocal file, finished
            if line.content is not None:
                assert file is not None
                file.write(line.content)
                return
            if file is not None:
                flaw = line.unreadable or file.flaw
                if flaw:
                    self.problems.append(flaw)
                    file.abandon()
                else:
                    file.finish()
                    finished.append(file.queue_id)
                file = None
            if line.stored is not None:
                file = MailFile(path, line.stored)
            elif line.asks:
                folder.sync(path)
                connection_send(encode_line(Line(done=finished)))
                finished = []
            elif line.results is not None:
                self.moved += line.results.changed
                self.busy += line.results.busy

        try:
            self._talk(socket_path, pid, Request("export", wanted), keep)
        finally:
            if file is not None:
                file.abandon()

    def _talk(self, path: str, pid: int, request: Request, on_line: Callable[[Callable[[bytes], None], Line], None]) -> None:
        """Give each line of a worker to `on_line(send, line)`; a worker that ends before its time is a problem."""
        connection = self._connect(path, pid)
        if connection is None:
            return
        with connection, connection.makefile("rb") as answer:
            try:
                connection.sendall(encode_line(request))
            except OSError as error:
                self.problems.append(f"{path}: {error}")
                return
            for line in self._lines_of(path, answer):
                on_line(connection.sendall, line)

    def _export_stopped(self, database: ShardDatabase, path: str, wanted: Filter, now_s: float) -> None:
        narrowing = wanted.narrowing()
        after_row = 0
        while True:
            found = find_page(database.connection, after_row, narrowing, _PAGE_MAILS)
            mails = [mail for mail in found.mails if wanted.matches(mail, now_s)]
            stored = {mail.queue_id for mail in mails if self._store(database, path, mail)}
            if stored:
                with _writing():
                    folder.sync(path)
                self._delete_stopped(database, after_row, narrowing, stored)
            if found.is_last:
                return
            after_row = found.last_row

    def _store(self, database: ShardDatabase, path: str, mail: QueuedMail) -> bool:
        """Write one mail into the directory; one that can't be read is a problem, and stays where it is."""
        with _writing():
            file = MailFile(path, stored_of(mail))
        try:
            for piece in _octets(database, mail):
                with _writing():
                    file.write(piece)
            if file.flaw:
                self.problems.append(file.flaw)
                return False
            with _writing():
                file.finish()
        except (OSError, sqlite3.Error) as error:
            self.problems.append(f"{mail.queue_id}: {error}")
            return False
        finally:
            file.abandon()
        return True

    def _delete_stopped(self, database: ShardDatabase, after_row: int, narrowing: Narrowing, ids: set[str]) -> None:
        """Remove the mails of a page: they are in their files."""
        change = Change(DELETE, after_row, narrowing, lambda mail: mail.queue_id in ids, lambda change: None)
        gone = Batch()
        gone.changes.append(change)
        database.commit(gone)
        if change.unlinks:
            files = Batch()
            files.gone_files += remove_spill_files(database.spill_directory, change.unlinks)
            database.commit(files)
        self.moved += [entry.before.queue_id for entry in change.changed]

    # --- import ------------------------------------------------------------------------------------------------------

    def take_in(self, path: str, settings: Settings) -> None:
        """Move all mail of the directory into the spool, of a worker if there is one; raises OSError or StartupError."""
        if not folder.queue_ids(path):
            return
        for socket_path, pid in self._sockets():
            connection = self._connect(socket_path, pid)
            if connection is not None:
                with connection, connection.makefile("rb") as answer:
                    self._send_all(socket_path, connection, answer, path)
                return
        if not self.problems:
            self._take_in_stopped(path, settings)

    def _send_all(self, socket_path: str, connection: socket.socket, answer: BinaryIO, path: str) -> None:
        lines = self._lines_of(socket_path, answer)
        try:
            connection.sendall(encode_line(Request("import")))
            ids = folder.queue_ids(path)
            for start in range(0, len(ids), WINDOW_MAILS):
                sent = [queue_id for queue_id in ids[start : start + WINDOW_MAILS] if self._send(connection, path, queue_id)]
                for _ in sent:
                    line = next(lines, None)
                    if line is None or line.imported is None:
                        return  # the problem is noted
                    self._forget(path, line.imported[0])
            connection.sendall(END_LINE)
            for _ in lines:
                pass
        except (BrokenPipeError, ConnectionResetError):
            for _ in lines:  # why it was ended comes last
                pass

    def _send(self, connection: socket.socket, path: str, queue_id: str) -> bool:
        stored = self._read(path, queue_id)
        if stored is None:
            return False
        connection.sendall(encode_line(Line(stored=stored)))
        for piece in folder.read_body(path, queue_id):
            connection.sendall(encode_line(Line(content=piece)))
        connection.sendall(END_LINE)
        return True

    def _read(self, path: str, queue_id: str) -> StoredMail | None:
        """Return what is known of a mail in the directory; one that makes no sense is a problem, and stays there."""
        try:
            stored = folder.read(path, queue_id)
            size_bytes = os.stat(os.path.join(path, queue_id + ".eml")).st_size
            if stored.queue_id != queue_id or stored.size_bytes != size_bytes:
                raise msgspec.ValidationError(f"{size_bytes} octets instead of {stored.size_bytes}, or of another mail")
            stored.check()
        except (OSError, msgspec.MsgspecError) as error:
            self.problems.append(f"{os.path.join(path, queue_id)}: {error}")
            return None
        return stored

    def _forget(self, path: str, queue_id: str) -> None:
        folder.remove(path, queue_id)
        self.moved.append(queue_id)

    def _take_in_stopped(self, path: str, settings: Settings) -> None:
        with OfflineSpool(settings) as spool:
            ids = folder.queue_ids(path)
            for start in range(0, len(ids), WINDOW_MAILS):
                for queue_id in ids[start : start + WINDOW_MAILS]:
                    stored = self._read(path, queue_id)
                    if stored is not None:
                        spool.put(stored, folder.read_body(path, queue_id))
                is_refused = False
                for queue_id, error in spool.settle_all():
                    if error:
                        self.problems.append(f"{queue_id}: {error}")
                        is_refused = True
                    else:
                        self._forget(path, queue_id)
                if is_refused:
                    return  # by the spool: it would say the same of the rest


def _octets(database: ShardDatabase, mail: QueuedMail) -> Iterator[bytes]:
    if not mail.spill_name:
        data = database.read_body(mail.row)
        if data is None:
            raise OSError(f"{database.directory}: the body of {mail.queue_id} is missing")
        yield data
        return
    fd = os.open(os.path.join(database.spill_directory, mail.queue_id), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    with open(fd, "rb") as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece
