"""Mails to files, as smtp-sink -d and -D write them: the spool of a sink that dumps.

A mail is gathered in memory and written by the files thread before it is answered: 250 only when the file is written (not
synced), 451 when that fails. Lines end in LF. Owns no file between two mails.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any

from smtpd.errors import SpoolError
from smtpd.mail.envelope import Envelope
from smtpd.net.files import FilesThread
from smtpd.spool.base import Arrived, BodyWriter, CommitDone, Kept
from smtpd.spool.discard import DiscardSpool

_MODE = 0o644


class DumpWriter:
    """One mail. The sink's conduct puts in the arguments of MAIL and RCPT as they were sent."""

    wants_body = True

    def __init__(self, queue_id: str, envelope: Envelope) -> None:
        self.queue_id = queue_id
        self.envelope = envelope
        self.mail_argument = b""
        self.rcpt_arguments: list[bytes] = []
        self.pieces: list[bytes] = []
        self.size_bytes = 0
        self.on_drain: Callable[[], None] | None = None

    def write(self, chunk: bytes) -> bool:
        self.pieces.append(chunk)
        self.size_bytes += len(chunk)
        return True

    def settle(self, done: Callable[[Arrived | None, SpoolError | None], object]) -> None:
        done(None, SpoolError("this spool gives nothing back"))

    def rewrite(
        self,
        head: bytes,
        kept_from: int,
        pieces: Iterator[bytes] | None,
        done: Callable[[SpoolError | None], object],
        *,
        is_slow: bool = False,
    ) -> None:
        done(SpoolError("this spool gives nothing back"))

    def abort(self) -> None:
        self.pieces.clear()


class DumpSpool:
    """See spool.base.Spool. `template` is for strftime; `is_single` appends all mails to what it gives, else each has a file of
    its own, named by it and a random number. `start` comes before each mail. `warn(program, text)` is told why nothing can be
    written, once until a mail could be or there is another reason."""

    is_full = False
    keeps_mail = True

    def __init__(
        self,
        files: FilesThread,
        slot: int,
        template: str,
        *,
        is_single: bool,
        start: bytes,
        warn: Callable[[str, str], object],
    ) -> None:
        self._files = files
        self._warn = warn
        self._told = ""
        self._template = template
        self._is_single = is_single
        self._start = start
        rest = DiscardSpool(1, slot)  # keeps nothing either, and says so
        self.next_queue_id = rest.next_queue_id
        self.claim = rest.claim
        self.next_due_s = rest.next_due_s
        self.open_body = rest.open_body
        self.settle = rest.settle
        self.shards: list[Any] = []
        self.query = rest.query
        self.change = rest.change
        self.end_turn = rest.end_turn
        self.close = rest.close

    def begin(self, queue_id: str, envelope: Envelope) -> DumpWriter:
        return DumpWriter(queue_id, envelope)

    def commit(self, writer: BodyWriter, done: CommitDone, kept: Kept | None = None) -> None:
        assert isinstance(writer, DumpWriter)
        mail = writer

        def on_written(result: Any, failure: BaseException | None) -> None:
            self._tell(failure)
            done(None, None if failure is None else SpoolError(f"dump: {failure}"))

        self._files.submit(lambda: self._write(mail), on_written)

    def _tell(self, failure: BaseException | None) -> None:
        reason = "" if failure is None else (isinstance(failure, OSError) and failure.strerror) or repr(failure)
        if reason and reason != self._told:
            self._warn("sink", f"mails are refused, the dump {self._template} can't be written: {reason}")
        self._told = reason

    def _write(self, mail: DumpWriter) -> None:
        """On the files thread."""
        octets = self._start + render_dump(mail)
        path = time.strftime(self._template, time.localtime(mail.envelope.received_at_s))
        folder = os.path.dirname(path)
        if folder:
            os.makedirs(folder, exist_ok=True)
        if not self._is_single:
            _write_new(path, octets)
            return
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _MODE)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)  # several workers: each mail stays whole
            _write_all(fd, octets)
        finally:
            os.close(fd)


def render_dump(mail: DumpWriter) -> bytes:
    """The mail in smtp-sink's format: its headers, the mail with Received before it, an empty line."""
    envelope = mail.envelope
    address = envelope.client_address
    lines = [
        b"X-Client-Addr: " + (b"ipv6:" if ":" in address else b"") + (address or "unix").encode(),
        b"X-Client-Proto: " + envelope.protocol.encode(),
    ]
    if envelope.helo:
        lines.append(b"X-Helo-Args: " + envelope.helo)
    lines.append(b"X-Mail-Args: " + _behind_colon(mail.mail_argument))
    lines += [b"X-Rcpt-Args: " + _behind_colon(argument) for argument in mail.rcpt_arguments]
    return b"\n".join(lines) + b"\n" + b"".join(mail.pieces).replace(b"\r\n", b"\n") + b"\n"


def _behind_colon(argument: bytes) -> bytes:
    """What follows "FROM:" or "TO:"."""
    return argument.partition(b":")[2].lstrip()


def _write_new(path: str, octets: bytes) -> None:
    """A file that wasn't there."""
    while True:
        try:
            fd = os.open(f"{path}{secrets.token_hex(4)}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
        except FileExistsError:
            continue
        try:
            _write_all(fd, octets)
        finally:
            os.close(fd)
        return


def _write_all(fd: int, octets: bytes) -> None:
    view = memoryview(octets)
    while view:
        view = view[os.write(fd, view) :]
