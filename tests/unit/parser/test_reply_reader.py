"""Replies of a next hop: what is read, what is tolerated, what is an error, and that memory is bounded."""

from __future__ import annotations

import pytest

from smtpd._wire import LINE_COUNT, LINE_LIMIT, ReplyReader


def read(octets: bytes) -> ReplyReader:
    reader = ReplyReader()
    assert reader.read(bytearray(octets), 0, len(octets)) == len(octets)
    return reader


@pytest.mark.parametrize(
    ("octets", "code", "dsn", "lines"),
    [
        (b"250 2.1.5 Ok\r\n", 250, "2.1.5", [b"Ok"]),
        (b"250\r\n", 250, "", [b""]),
        (b"250 \n", 250, "", [b""]),
        (b"354 go on\n", 354, "", [b"go on"]),
        (b"550 5.1.1\r\n", 550, "5.1.1", [b""]),
        (b"250-a\r\n250-\r\n250 b\r\n", 250, "", [b"a", b"", b"b"]),
        (b"550-5.7.1 a\r\n550 5.7.1 b\r\n", 550, "5.7.1", [b"a", b"b"]),
        (b"550-5.7.1 a\r\n550 5.1.1 b\r\n", 550, "5.7.1", [b"a", b"5.1.1 b"]),
        (b"550-a\r\n550 5.1.1 b\r\n", 550, "", [b"a", b"5.1.1 b"]),
        (b"550 4.7.1 other class\r\n", 550, "", [b"4.7.1 other class"]),
        (b"250 2.1.5x\r\n", 250, "", [b"2.1.5x"]),
        (b"250 2.1234.5 x\r\n", 250, "", [b"2.1234.5 x"]),
        (b"250 2.0. x\r\n", 250, "", [b"2.0. x"]),
    ],
)
def test_reply(octets, code, dsn, lines):
    reader = read(octets)
    assert reader.is_complete
    assert (reader.code, reader.dsn, reader.lines, reader.error) == (code, dsn, lines, "")
    assert not reader.has_partial


@pytest.mark.parametrize(
    "octets",
    [
        b"\r\n",
        b"25\r\n",
        b"25x ok\r\n",
        b"150 x\r\n",
        b"600 x\r\n",
        b"250x\r\n",
        b" 250 x\r\n",
        b"-250\r\n",
        b"\xb2\xb5\xb0 x\r\n",
    ],
)
def test_no_reply(octets):
    assert read(octets).error == "not a reply"


def test_one_reply_at_a_time():
    reader = ReplyReader()
    buffer = bytearray(b"250 a\r\n550 b\r\n25")
    assert reader.read(buffer, 0, len(buffer)) == 7
    assert (reader.is_complete, reader.code) == (True, 250)
    assert reader.read(buffer, 7, len(buffer)) == 14
    assert (reader.is_complete, reader.code) == (True, 550)
    assert reader.read(buffer, 14, len(buffer)) == 16
    assert not reader.is_complete
    assert reader.has_partial


def test_codes_of_one_reply_must_agree():
    assert read(b"250-a\r\n251 b\r\n").error == "lines of one reply have different codes"


def test_open_reply_is_partial():
    assert read(b"250-a\r\n").has_partial


def test_endless_line_is_an_error_before_it_ends():
    reader = ReplyReader()
    for _ in range(LINE_LIMIT):
        assert not reader.error
        reader.read(bytearray(b"2"), 0, 1)
    assert reader.error == "line is too long"
    assert not reader.has_partial
    reader.read(bytearray(b"\r\n250 fine\r\n"), 0, 12)
    assert not reader.is_complete


def test_endless_lines_are_an_error():
    reader = read(b"250-x\r\n" * LINE_COUNT)
    assert not reader.error
    reader.read(bytearray(b"250-x\r\n"), 0, 7)
    assert reader.error == "reply has too many lines"


def test_endless_reply_is_an_error():
    line = bytearray(b"250-" + b"x" * 1000 + b"\r\n")
    reader = ReplyReader(10_000)
    for _ in range(10):
        reader.read(line, 0, len(line))
    assert reader.error == "reply is too long"


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (2, 1), (0, 4)])
def test_range_outside_the_buffer(start, end):
    with pytest.raises(ValueError, match="range"):
        ReplyReader().read(bytearray(b"250"), start, end)
