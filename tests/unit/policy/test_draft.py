"""What changes make of a mail: where fields go, and that no value can begin another field, end the header, or smuggle a line."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd.mail.changes import (
    AddHeader,
    AddRecipient,
    Change,
    ChangeHeader,
    ChangeReversePath,
    InsertHeader,
    ReplaceBody,
)
from smtpd.mail.line_ends import LineEnds
from smtpd.policy.draft import Draft, find_bad_change

TRACE = b"Received: by us\r\n\tfor you\r\n"
HEADER = b"Subject: one\r\n two\r\nX-A: 1\r\nx-a : 2\r\n"


def draft(header: bytes = HEADER, body: bytes = b"body\r\n") -> Draft:
    data = TRACE + header + b"\r\n" + body
    return Draft(data, "", len(data), TRACE, header)


def changed(*changes: Change, header: bytes = HEADER) -> bytes:
    one = draft(header)
    assert find_bad_change(changes) == ""
    one.apply(changes)
    return one.head


async def read(one: Draft) -> bytes:
    return b"".join([piece async for piece in one])


def test_without_changes_it_is_what_arrived() -> None:
    one = draft()
    assert not one.is_edited
    assert one.head == TRACE + HEADER + b"\r\n"
    assert one.kept_from == len(one.head)
    assert asyncio.run(read(one)) == HEADER + b"\r\nbody\r\n"
    assert one.size_bytes == len(HEADER) + 8


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (AddHeader(b"X-B", b"3"), TRACE + HEADER + b"X-B: 3\r\n\r\n"),
        (InsertHeader(0, b"X-B", b"3"), b"X-B: 3\r\n" + TRACE + HEADER + b"\r\n"),
        (InsertHeader(1, b"X-B", b" 3"), TRACE + b"X-B: 3\r\n" + HEADER + b"\r\n"),
        (InsertHeader(2, b"X-B", b"3"), TRACE + b"Subject: one\r\n two\r\nX-B: 3\r\nX-A: 1\r\nx-a : 2\r\n\r\n"),
        (InsertHeader(99, b"X-B", b"3"), TRACE + HEADER + b"X-B: 3\r\n\r\n"),
        (ChangeHeader(b"SUBJECT", 1, b"new\n\tfolded"), TRACE + b"SUBJECT: new\r\n\tfolded\r\nX-A: 1\r\nx-a : 2\r\n\r\n"),
        (ChangeHeader(b"X-A", 2, None), TRACE + b"Subject: one\r\n two\r\nX-A: 1\r\n\r\n"),
        (ChangeHeader(b"X-A", 3, b"new"), TRACE + HEADER + b"X-A: new\r\n\r\n"),
        (ChangeHeader(b"X-Z", 1, None), TRACE + HEADER + b"\r\n"),
        (AddHeader(b"X-B", b""), TRACE + HEADER + b"X-B: \r\n\r\n"),
    ],
)
def test_fields_go_where_they_belong(change: Change, expected: bytes) -> None:
    assert changed(change) == expected


def test_a_field_is_added_before_what_is_no_field() -> None:
    header = b"Subject: x\r\nthis is no field\r\nX-Late: 1\r\n"
    assert changed(AddHeader(b"X-B", b"3"), header=header) == (
        TRACE + b"Subject: x\r\nX-B: 3\r\nthis is no field\r\nX-Late: 1\r\n\r\n"
    )
    assert changed(AddHeader(b"X-B", b"3"), header=b"Subject: cut") == TRACE + b"Subject: cut\r\nX-B: 3\r\n\r\n"


def test_each_change_sees_those_before_it() -> None:
    one = draft()
    one.apply([InsertHeader(0, b"X-Top", b"1"), AddHeader(b"X-Low", b"1")])
    one.apply([ChangeHeader(b"X-Top", 1, b"2"), ChangeHeader(b"X-Low", 1, None), ReplaceBody((b"new", b" body"))])
    assert one.header == b"X-Top: 2\r\n" + HEADER
    assert asyncio.run(read(one)) == b"X-Top: 2\r\n" + HEADER + b"\r\nnew body"
    assert b"".join(one.new_pieces()) == b"new body\r\n"


def test_a_body_may_come_from_a_file_and_content_from_a_spill_file(tmp_path: Path) -> None:
    stored, other = tmp_path / "stored", tmp_path / "other"
    stored.write_bytes(TRACE + HEADER + b"\r\n" + b"x" * 600_000)
    other.write_bytes(b"line\nline\r\n")
    one = Draft(None, str(stored), stored.stat().st_size, TRACE, HEADER)
    assert asyncio.run(read(one)) == HEADER + b"\r\n" + b"x" * 600_000
    one.apply([ReplaceBody(file=str(other))])
    assert one.size_bytes == len(HEADER) + 2 + 11
    assert b"".join(one.new_pieces()) == b"line\r\nline\r\n"
    assert not other.exists()


@pytest.mark.parametrize(
    "change",
    [
        AddHeader(b"X", b"1\r\nBcc: eve@example.org"),
        AddHeader(b"X", b"1\nBcc: eve@example.org"),
        AddHeader(b"X", b"1\rBcc: eve@example.org"),
        AddHeader(b"X", b"1\0"),
        AddHeader(b"X: y\r\nBcc", b"1"),
        AddHeader(b"", b"1"),
        AddHeader(b"X Y", b"1"),
        AddHeader(b"X", b"x" * 70_000),
        InsertHeader(0, b"X", b"\r\n\r\nbody"[2:] + b"\nno blank"),
        ChangeHeader(b"X\n", 1, None),
        AddRecipient(b"a@b> SIZE=1"),
        AddRecipient(b""),
        ChangeReversePath(b"a@b\r\nRCPT"),
    ],
)
def test_what_would_smuggle_is_found(change: Change) -> None:
    assert find_bad_change([AddHeader(b"X", b"good"), change]) != ""


octets = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b"a", b"X: y", b"\0", b".", b"\xff"])).map(b"".join)


@given(octets, octets, st.integers(-1, 5))
def test_no_value_makes_more_than_one_field(name: bytes, value: bytes, index: int) -> None:
    change = InsertHeader(index, name, value)
    if find_bad_change([change]):
        return
    one = draft()
    one.apply([change])
    lines = one.head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    assert all(line.strip(b" \t") or line[:1] not in (b" ", b"\t", b"") for line in lines)
    assert b"\r" not in b"".join(lines)
    assert b"\n" not in b"".join(lines)
    assert sum(line[:1] not in (b" ", b"\t") for line in lines) == 5


@given(st.lists(octets))
def test_another_body_has_no_bare_line_end_however_it_is_cut(pieces: list[bytes]) -> None:
    ends = LineEnds()
    made = b"".join([*(ends.take(piece) for piece in pieces), ends.finish()])
    assert b"\r" not in made.replace(b"\r\n", b"")
    assert b"\n" not in made.replace(b"\r\n", b"")
    assert not made or made.endswith(b"\r\n")
    whole = LineEnds()
    assert whole.take(b"".join(pieces)) + whole.finish() == made
