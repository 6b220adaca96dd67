"""The common form of a path, and single header fields."""

from __future__ import annotations

import pytest

from smtpd._parser import find_header, scan_path


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        (b"FROM:<alice@Example.ORG>", (b"alice@Example.ORG", "example.org", b"")),
        (b"from:<a.b+c=d@x-1.example> SIZE=1 BODY=8BITMIME", (b"a.b+c=d@x-1.example", "x-1.example", b"SIZE=1 BODY=8BITMIME")),
        (b"FROM:<a@b> \t X", (b"a@b", "b", b"X")),
        (b"FROM:<> SIZE=1", (b"", "", b"SIZE=1")),
        (b"FROM:<" + b"l" * 64 + b"@" + b"d" * 63 + b">", (b"l" * 64 + b"@" + b"d" * 63, "d" * 63, b"")),
    ],
)
def test_common_reverse_paths(argument: bytes, expected: tuple[bytes, str, bytes]) -> None:
    assert scan_path(argument, False) == expected


def test_common_forward_path() -> None:
    assert scan_path(b"TO:<bob@example.net> NOTIFY=NEVER", True) == (b"bob@example.net", "example.net", b"NOTIFY=NEVER")


@pytest.mark.parametrize(
    "path",
    [b"", b"<", b"<>", b"<a>", b"<a@>", b"<@b>", b"<a@b", b"a@b", b" <a@b>", b"<a@b>x", b"<a%c@b>", b"<c!a@b>", b'<"a"@b>',
     b"<a..b@c>",     b"<.a@b>", b"<a.@b>", b"<a@b.>", b"<a@b..c>", b"<a@-b>", b"<a@b->", b"<a@[1.2.3.4]>", b"<a@b_c>",
     b"<\xc3\xa9@b>",
     b"<a@\xc3\xa9>",     b"<@c:a@b>", b"<a@b@c>", b"<a\0@b>", b"<" + b"l" * 65 + b"@b>", b"<a@" + b"d" * 64 + b">",
     b"<a@" + b"d." * 127 + b"dd>",
     b"<postmaster>", b">[[D", b"<" * 1000],
)  # fmt: skip
def test_everything_else_is_left_to_the_grammar(path: bytes) -> None:
    assert scan_path(b"TO:" + path, True) is None


@pytest.mark.parametrize("argument", [b"", b"FRO", b"FROM", b"FROM:", b"FROM <a@b>", b"TO:<a@b>", b"FROM :<a@b>"])
def test_keyword_must_be_there(argument: bytes) -> None:
    assert scan_path(argument, False) is None


HEAD = b"Received: from a\r\n\tby b\r\nMESSAGE-id :\t <1@x> \r\nX: \r\n \r\n  two\r\nEmpty:\r\n\r\nBody: no header\r\n"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"received", b"from a\tby b"),
        (b"message-id", b"<1@x>"),
        (b"x", b"two"),
        (b"empty", b""),
        (b"body", None),
        (b"message", None),
        (b"eceived", None),
    ],
)
def test_find_header(name: bytes, value: bytes | None) -> None:
    assert find_header(HEAD, name) == value


@pytest.mark.parametrize(
    ("head", "value"),
    [
        (b"", None),
        (b"\r\n", None),
        (b"a", None),
        (b"a:", b""),
        (b"a:b", b"b"),
        (b"a:b\r", b"b\r"),
        (b"a:b\r\n", b"b"),
        (b"a:b\r\n c", b"b c"),
        (b"aa:b\r\na:c\r\na:d\r\n", b"c"),
        (b" a:b\r\n", None),
        (b"a:" + b"x" * 5000, b"x" * 1000),
        (b"a:" + b"\r\n x" * 5000, b"x" + b" x" * 499),
    ],
)
def test_find_header_at_the_edges(head: bytes, value: bytes | None) -> None:
    assert find_header(head, b"a") == value


def test_none_is_no_value() -> None:
    with pytest.raises(TypeError):
        find_header(None, b"a")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        scan_path(None, True)  # type: ignore[arg-type]
