"""Pages of an answer, made on whichever thread may read the shard: a worker's shard thread, or the command line's own.

Each page is a short read: bounded in mails looked at and in octets made. Raises sqlite3.Error, msgspec.MsgspecError.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from smtpd.control.wire import Filter, Line, encode_line, entry_of
from smtpd.spool.query import find, list_page

PAGE_MAILS = 100  # about 1 ms of Python beside a loop that wants the GIL
_PAGE_BYTES = 128 * 1024


@dataclass(frozen=True, slots=True)
class Page:
    """`data` are whole lines; the next page begins after `last_row`, unless `is_last`."""

    data: bytes
    last_row: int
    is_last: bool


def list_answer(connection: sqlite3.Connection, shard: int, wanted: Filter, now_s: float, after_row: int) -> Page:
    """Return the lines of the mails that are wanted among the next ones of a shard."""
    mails = list_page(connection, after_row, PAGE_MAILS)
    lines: list[bytes] = []
    size_bytes = 0
    for mail in mails:
        after_row = mail.row
        if wanted.matches(mail, now_s):
            line = encode_line(Line(mail=entry_of(mail, shard, is_full=False)))
            lines.append(line)
            size_bytes += len(line)
            if size_bytes > _PAGE_BYTES:
                break
    return Page(b"".join(lines), after_row, len(mails) < PAGE_MAILS and (not mails or after_row == mails[-1].row))


def show_answer(connection: sqlite3.Connection, shard: int, queue_id: str) -> bytes:
    """Return the line of one mail, b"" when the shard doesn't hold it."""
    mail = find(connection, queue_id)
    return b"" if mail is None else encode_line(Line(mail=entry_of(mail, shard, is_full=True)))
