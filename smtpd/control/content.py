"""A mail's octets as an answer: base64 pieces of it, or only of its header. Files are read on the files thread."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Protocol

from smtpd.control.wire import Line, encode_line
from smtpd.errors import SpoolError
from smtpd.net.files import FilesThread
from smtpd.spool.base import Spool, SpoolShard
from smtpd.spool.item import Body, SpoolItem
from smtpd.spool.query import QueuedMail

PIECE_BYTES = 192 * 1024
HEADER_MAX_BYTES = 4 << 20
_HEADER_END = b"\r\n\r\n"


class Answerer(Protocol):
    """The connection that answers."""

    def send(self, data: bytes, go_on: Callable[[], None]) -> None: ...
    def finish(self, error: str = "") -> None: ...


def item_of(mail: QueuedMail, shard: SpoolShard) -> SpoolItem:
    """Return a stored mail as the spool's calls take it; the caller must have its lease to settle it."""
    item = SpoolItem(mail.queue_id, mail.envelope, mail.size_bytes, mail.row, shard)
    item.attempts = mail.attempts
    item.outcomes = mail.outcomes
    item.is_spilled = bool(mail.spill_name)
    return item


class ContentAnswer:
    """Sends the content of one mail through `client`, then calls `go_on`; or `fail(why)` when it can't be read (any more), by
    default the end of the answer."""

    def __init__(
        self,
        client: Answerer,
        spool: Spool,
        files: FilesThread | None,
        is_header_only: bool,
        go_on: Callable[[], None],
        fail: Callable[[str], None] | None = None,
    ) -> None:
        self._client = client
        self._spool = spool
        self._files = files
        self._is_header_only = is_header_only
        self._go_on = go_on
        self._fail = client.finish if fail is None else fail

    def send(self, item: SpoolItem) -> None:
        """Begin with the mail's octets."""
        self._spool.open_body(item, self._on_body)

    def _on_body(self, body: Body | None, error: SpoolError | None) -> None:
        if body is None:
            self._fail(str(error))
        elif body.data is not None:
            self._send_data(body.data, 0)
        else:
            self._read_file(body.path, 0)

    def _send_data(self, data: bytes, at: int) -> None:
        if self._is_header_only:
            data = header_of(data)
        piece = data[at : at + PIECE_BYTES]
        is_last = at + PIECE_BYTES >= len(data)
        self._send(piece, self._go_on if is_last else partial(self._send_data, data, at + PIECE_BYTES))

    def _read_file(self, path: str, at: int) -> None:
        if self._files is None:
            self._fail(f"{path} can't be read here")
            return
        size = HEADER_MAX_BYTES if self._is_header_only else PIECE_BYTES
        self._files.submit(partial(_read_piece, path, at, size), partial(self._on_piece, path, at))

    def _on_piece(self, path: str, at: int, piece: bytes | None, failure: BaseException | None) -> None:
        if piece is None:
            self._fail(f"{path}: {failure}")
        elif self._is_header_only:
            self._send_data(piece, 0)
        elif piece:
            self._send(piece, partial(self._read_file, path, at + len(piece)))
        else:
            self._go_on()

    def _send(self, piece: bytes, go_on: Callable[[], None]) -> None:
        self._client.send(encode_line(Line(content=piece)) if piece else b"", go_on)


def _read_piece(path: str, at: int, size: int) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        return os.pread(fd, size, at)
    finally:
        os.close(fd)


def header_of(data: bytes) -> bytes:
    """Return the lines before the first empty one."""
    if data.startswith(b"\r\n"):
        return b""
    header, _, _ = data.partition(_HEADER_END)
    return header + b"\r\n" if len(header) < len(data) else data
