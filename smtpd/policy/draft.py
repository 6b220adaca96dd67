"""A mail between its arrival and its custody, as checks see and change it: header in memory, body where it is.

Changes are carried out on the header and noted for the body; the content is written anew at most once, when all checks have had
their say (`BodyWriter.rewrite`). No value can begin another field or end the header: `find_bad_change` says so before. Content of
a spill file is read in pieces, on a thread of the side loop. Raises OSError only while reading.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

from smtpd.mail.changes import (
    AddHeader,
    AddRecipient,
    Change,
    ChangeHeader,
    ChangeReversePath,
    InsertHeader,
    RemoveRecipient,
    ReplaceBody,
)
from smtpd.mail.line_ends import LineEnds

PIECE_BYTES = 256 * 1024
FIELD_BYTES = 64 * 1024
_NAME = re.compile(rb"[!-9;-~]{1,200}")
_FIELD = re.compile(rb"[!-9;-~]+[ \t]*:")
_MAILBOX = re.compile(rb"[^\x00-\x20\x7f<>]{1,1000}")


class Draft:
    """The content as it lies in the spool's writer, in memory (`data`) or in the file `path`, `stored_bytes` in all: `trace`, our
    Received, then `header` and the rest."""

    def __init__(self, data: bytes | None, path: str, stored_bytes: int, trace: bytes, header: bytes) -> None:
        self._data = data
        self._path = path
        self._stored_bytes = stored_bytes
        self._trace = trace
        self._received_header = header
        self._body_at = len(trace) + len(header) + 2
        self._top: list[bytes] = []  # above our Received
        self._fields, self._rest = _split(header)
        self.new_body: ReplaceBody | None = None
        self.is_edited = False

    # --- as Content --------------------------------------------------------------------------------------------------

    @property
    def header(self) -> bytes:
        """See smtpd.policy.check.Content."""
        return b"".join(self._top + self._fields) + self._rest if self.is_edited else self._received_header

    @property
    def size_bytes(self) -> int:
        """See smtpd.policy.check.Content."""
        return len(self.header) + 2 + self._body_bytes

    @property
    def _body_bytes(self) -> int:
        if self.new_body is None:
            return max(0, self._stored_bytes - self._body_at)
        if self.new_body.file:
            return os.stat(self.new_body.file).st_size
        return sum(map(len, self.new_body.pieces))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.header + b"\r\n"
        async for piece in self.body():
            yield piece

    async def body(self) -> AsyncIterator[bytes]:
        """See smtpd.policy.check.Content."""
        body = self.new_body
        if body is not None and not body.file:
            for piece in body.pieces:
                yield piece
            return
        path, offset = (body.file, 0) if body is not None else (self._path, self._body_at)
        data = self._data
        if body is None and data is not None:
            for start in range(offset, len(data), PIECE_BYTES):
                yield data[start : start + PIECE_BYTES]
            return
        fd = await asyncio.to_thread(os.open, path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            while piece := await asyncio.to_thread(os.pread, fd, PIECE_BYTES, offset):
                offset += len(piece)
                yield piece
        finally:
            os.close(fd)

    # --- changes -----------------------------------------------------------------------------------------------------

    def apply(self, changes: Iterable[Change]) -> None:
        """Carry out what concerns header and body; `find_bad_change` has found nothing in it."""
        for change in changes:
            if isinstance(change, AddHeader):
                self._edit().append(make_field(change.name, change.value))
            elif isinstance(change, InsertHeader):
                self._insert(change)
            elif isinstance(change, ChangeHeader):
                self._change(change)
            elif isinstance(change, ReplaceBody):
                self.new_body = change
                self.is_edited = True

    def _edit(self) -> list[bytes]:
        self.is_edited = True
        return self._fields

    def _insert(self, change: InsertHeader) -> None:
        field = make_field(change.name, change.value)
        if change.index <= 0:
            self._edit()
            self._top.insert(0, field)
        else:
            self._edit().insert(change.index - 1, field)

    def _change(self, change: ChangeHeader) -> None:
        wanted = change.name.lower()
        seen = 0
        for fields in (self._top, self._fields):
            for place, field in enumerate(fields):
                if field.partition(b":")[0].rstrip().lower() != wanted:
                    continue
                seen += 1
                if seen == max(1, change.nth):
                    self.is_edited = True
                    if change.value is None:
                        del fields[place]
                    else:
                        fields[place] = make_field(change.name, change.value)
                    return
        if change.value is not None:
            self._edit().append(make_field(change.name, change.value))

    # --- for the spool -----------------------------------------------------------------------------------------------

    @property
    def head(self) -> bytes:
        """What stands before the body now, our Received and the blank line included."""
        return b"".join([*self._top, self._trace, *self._fields, self._rest, b"\r\n"])

    @property
    def kept_from(self) -> int:
        """Where the body begins in what the writer has."""
        return self._body_at

    def new_pieces(self) -> Iterator[bytes]:
        """The other body in wire form, in pieces; reads its file, so call it on the files thread, or where there is none."""
        assert self.new_body is not None
        ends = LineEnds()
        if self.new_body.file:
            with open(self.new_body.file, "rb") as file:
                while piece := file.read(PIECE_BYTES):
                    yield ends.take(piece)
            os.unlink(self.new_body.file)
        else:
            for piece in self.new_body.pieces:
                yield ends.take(piece)
        yield ends.finish()


def make_field(name: bytes, value: bytes) -> bytes:
    """Return the octets of a field, folded as `value` is."""
    lines = [line for line in value.replace(b"\r\n", b"\n").split(b"\n") if line.strip(b" \t")]
    blank = b"" if lines and lines[0][:1] in b" \t" else b" "
    return name + b":" + blank + b"\r\n".join(lines or [b""]) + b"\r\n"


def find_bad_change(changes: Sequence[Change]) -> str:
    """Say what is wrong with the first change that can't be made, "" if there is none."""
    for change in changes:
        fault = ""
        if isinstance(change, AddHeader | InsertHeader):
            fault = _check_field(change.name, change.value)
        elif isinstance(change, ChangeHeader):
            fault = _check_field(change.name, change.value or b"")
        elif isinstance(change, AddRecipient | RemoveRecipient):
            fault = "" if _MAILBOX.fullmatch(change.mailbox) else "no mailbox"
        elif isinstance(change, ChangeReversePath):
            fault = "" if not change.mailbox or _MAILBOX.fullmatch(change.mailbox) else "no mailbox"
        if fault:
            return f"{type(change).__name__}: {fault}"
    return ""


def _check_field(name: bytes, value: bytes) -> str:
    if _NAME.fullmatch(name) is None:
        return "the name of the field is malformed"
    if len(name) + len(value) > FIELD_BYTES:
        return "the field is too long"
    value = value.replace(b"\r\n", b"\n")
    if b"\r" in value or b"\0" in value:
        return "bare CR or NUL in the value"
    for line in value.split(b"\n")[1:]:
        if line and line[:1] not in (b" ", b"\t"):
            return "a line of the value begins another field"
    return ""


def _split(header: bytes) -> tuple[list[bytes], bytes]:
    """Return the fields, each with its CRLF, and what follows from the first line on that is none."""
    fields: list[bytes] = []
    position = 0
    if header and not header.endswith(b"\r\n"):
        header += b"\r\n"
    while position < len(header):
        end = header.find(b"\r\n", position)
        end = len(header) if end < 0 else end + 2
        line = header[position:end]
        if line[:1] in (b" ", b"\t") and fields:
            fields[-1] += line
        elif _FIELD.match(line) is not None:
            fields.append(line)
        else:
            return fields, header[position:]
        position = end
    return fields, b""
