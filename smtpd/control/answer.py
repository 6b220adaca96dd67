"""Pages of an answer, made on whichever thread may read the shard: a worker's shard thread, or the command line's own.

Each page is a short read: bounded in mails looked at and in octets made. Raises sqlite3.Error, msgspec.MsgspecError.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from smtpd.control.filter import Filter
from smtpd.control.wire import NULL_SENDER, Line, Request, encode_line, entry_of
from smtpd.mail.text import text_of
from smtpd.spool.query import QueuedMail, find_page

PAGE_MAILS = 100  # about 1 ms of Python beside a loop that wants the GIL
_TALLIED_MAILS = 200  # nothing is encoded for them
_PAGE_BYTES = 128 * 1024
AGE_LIMITS_S = tuple(60 * minutes for minutes in (5, 10, 20, 40, 80, 160, 320, 640, 1280))  # as qshape's columns


@dataclass(frozen=True, slots=True)
class Page:
    """`data` are whole lines about `count` mails, `mail` the last; the next page begins after `last_row`, unless `is_last`."""

    data: bytes
    last_row: int
    is_last: bool
    count: int = 0
    mail: QueuedMail | None = None


def page_of(connection: sqlite3.Connection, shard: int, request: Request, now_s: float, after_row: int) -> Page:
    """Return the next page of what a "list", "show" or "summary" asks for."""
    if request.do == "summary":
        return tally_answer(connection, request.filter, request.by, now_s, after_row)
    return list_answer(connection, shard, request.filter, now_s, after_row, is_full=request.do == "show")


def list_answer(
    connection: sqlite3.Connection, shard: int, wanted: Filter, now_s: float, after_row: int, *, is_full: bool = False
) -> Page:
    """Return the lines of the mails that are wanted among the next ones of a shard."""
    found = find_page(connection, after_row, wanted.narrowing(), PAGE_MAILS)
    lines: list[bytes] = []
    shown: QueuedMail | None = None
    size_bytes = 0
    for mail in found.mails:
        if wanted.matches(mail, now_s):
            line = encode_line(Line(mail=entry_of(mail, shard, is_full=is_full)))
            lines.append(line)
            shown = mail
            size_bytes += len(line)
            if size_bytes > _PAGE_BYTES:
                return Page(b"".join(lines), mail.row, False, len(lines), shown)
    return Page(b"".join(lines), found.last_row, found.is_last, len(lines), shown)


def tally_answer(connection: sqlite3.Connection, wanted: Filter, by: str, now_s: float, after_row: int) -> Page:
    """Return a line with the numbers of mails by domain (of the recipients that wait, or of the sender) and age: one for each of
    AGE_LIMITS_S, and one for what is older."""
    found = find_page(connection, after_row, wanted.narrowing(), _TALLIED_MAILS)
    tally: dict[str, list[int]] = {}
    count = 0
    for mail in found.mails:
        if wanted.matches(mail, now_s):
            count += 1
            age_s = now_s - mail.envelope.received_at_s
            column = sum(age_s >= limit for limit in AGE_LIMITS_S)
            for domain in {_sender_domain(mail)} if by == "sender" else _waiting_domains(mail):
                row = tally.get(domain)
                if row is None:
                    row = tally[domain] = [0] * (len(AGE_LIMITS_S) + 1)
                row[column] += 1
    data = encode_line(Line(tally=tally)) if tally else b""
    return Page(data, found.last_row, found.is_last, count)


def _sender_domain(mail: QueuedMail) -> str:
    path = mail.envelope.reverse_path
    return text_of(path.rpartition(b"@")[2]).lower() if path else NULL_SENDER


def _waiting_domains(mail: QueuedMail) -> set[str]:
    outcomes = mail.outcomes
    return {
        recipient.domain
        for index, recipient in enumerate(mail.envelope.recipients)
        if outcomes is None or not outcomes[index].is_done
    }
