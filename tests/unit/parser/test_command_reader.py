"""Command lines: verbs, arguments, what is reported about octets that don't belong there, and bounded memory."""

from __future__ import annotations

import tracemalloc

import pytest

from smtpd import _parser as p


def read_one(line: bytes, limit: int = 2048) -> p.CommandReader:
    reader = p.CommandReader(limit)
    assert reader.read(bytearray(line), 0, len(line)) == len(line)
    return reader


@pytest.mark.parametrize("code", range(p.VERB_FORBIDDEN + 1, p.VERB_COUNT))
def test_every_verb_in_any_case(code: int) -> None:
    name = p.VERB_NAMES[code].encode()
    for word in (name, name.upper(), name.capitalize()):
        reader = read_one(word + b" x y\r\n")
        assert (reader.verb, reader.argument, reader.word, reader.flags) == (code, b"x y", b"", 0)


def test_names_cover_the_codes() -> None:
    assert len(p.VERB_NAMES) == p.VERB_COUNT
    assert p.VERB_NAMES[p.VERB_NONE] == p.VERB_NAMES[p.VERB_OTHER] == p.VERB_NAMES[p.VERB_FORBIDDEN] == "other"


@pytest.mark.parametrize("word", [b"FOO", b"MAILX", b"MAI", b"STARTTLSS", b"\0GET", b"QUIT\0", b"EHLO.", b":", b"x" * 10_000])
def test_unknown_words(word: bytes) -> None:
    reader = read_one(word + b" a\r\n", 20_000)
    assert (reader.verb, reader.word, reader.argument) == (p.VERB_OTHER, word[:32], b"a")


@pytest.mark.parametrize(
    "word", [b"GET", b"post", b"PUT", b"HEAD", b"OPTIONS", b"DELETE", b"CONNECT", b"TRACE", b"PATCH", b"PRI"]
)
def test_verbs_of_http(word: bytes) -> None:
    reader = read_one(word + b" / HTTP/1.1\r\n")
    assert (reader.verb, reader.word, reader.argument) == (p.VERB_FORBIDDEN, word, b"/ HTTP/1.1")


@pytest.mark.parametrize("word", [b"User-Agent:", b"Host:", b"Subject:", b"X:"])
def test_header_fields_are_no_commands(word: bytes) -> None:
    assert read_one(word + b" x\r\n").verb == p.VERB_FORBIDDEN


@pytest.mark.parametrize("cut", [0, 1])
def test_tls_handshake_is_known_without_a_line_end(cut: int) -> None:
    reader = p.CommandReader()
    hello = bytearray(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc")
    position = reader.read(hello, 0, cut)
    position = reader.read(hello, position, len(hello))
    assert (position, reader.is_complete, reader.verb, reader.flags) == (2, True, p.VERB_FORBIDDEN, 0)
    assert not reader.has_partial


@pytest.mark.parametrize("line", [b"\r\n", b"\n", b" \t \r\n"])
def test_empty_line(line: bytes) -> None:
    reader = read_one(line)
    assert (reader.verb, reader.argument, reader.is_complete) == (p.VERB_NONE, b"", True)


def test_blanks_are_dropped_around_verb_and_argument() -> None:
    reader = read_one(b" \tMAIL \t FROM:<a@b>  SIZE=1\t \r\n")
    assert (reader.verb, reader.argument) == (p.VERB_MAIL, b"FROM:<a@b>  SIZE=1")


@pytest.mark.parametrize(
    ("line", "flags"),
    [
        (b"NOOP x\r\n", 0),
        (b"NOOP \tx\r\n", 0),
        (b"NOOP x\n", p.LINE_BARE_LF),
        (b"\n", p.LINE_BARE_LF),
        (b"NOOP \rx\r\n", p.LINE_BARE_CR),
        (b"NOOP x\r\r\n", p.LINE_BARE_CR),
        (b"NOOP \r\0\n", p.LINE_BARE_CR | p.LINE_NUL | p.LINE_BARE_LF),
        (b"NOOP \0\r\n", p.LINE_NUL),
        (b"NOOP \x1b[2J\r\n", p.LINE_CONTROL),
        (b"NOOP \x7f\r\n", p.LINE_CONTROL),
        (b"NOOP \x80\r\n", p.LINE_8BIT),
        (b"NOOP \xff\r\n", p.LINE_8BIT),
    ],
)
def test_octets_are_reported(line: bytes, flags: int) -> None:
    reader = read_one(line)
    assert reader.flags == flags
    for cut in range(len(line)):  # and in two pieces
        reader = p.CommandReader()
        assert reader.read(bytearray(line[:cut]), 0, cut) == cut
        reader.read(bytearray(line[cut:]), 0, len(line) - cut)
        assert (reader.is_complete, reader.flags) == (True, flags)


def test_one_command_at_a_time() -> None:
    data = bytearray(b"--RSET\r\nDATA\r\nhello\r\n.\r\n")
    reader = p.CommandReader()
    position = reader.read(data, 2, len(data))
    assert (position, reader.verb) == (8, p.VERB_RSET)
    position = reader.read(data, position, len(data))
    assert (position, reader.verb) == (14, p.VERB_DATA)


def test_partial_line_is_an_owned_copy() -> None:
    data = bytearray(b"MAIL FROM:")
    reader = p.CommandReader()
    assert reader.read(data, 0, len(data)) == len(data)
    assert (reader.is_complete, reader.has_partial) == (False, True)
    data[:] = b"<a@b>\r\n"
    reader.read(data, 0, len(data))
    assert (reader.is_complete, reader.has_partial) == (True, False)
    assert (reader.verb, reader.argument) == (p.VERB_MAIL, b"FROM:<a@b>")


@pytest.mark.parametrize(("excess", "is_long"), [(-1, False), (0, False), (1, True), (2, True), (1000, True)])
def test_limit_counts_the_line_end(excess: int, is_long: bool) -> None:
    argument = b"x" * (2048 - len(b"NOOP \r\n") + excess)
    for step in (1, 100, 5000):
        reader = p.CommandReader(2048)
        line = bytearray(b"NOOP " + argument + b"\r\n")
        for start in range(0, len(line), step):
            reader.read(line, start, min(start + step, len(line)))
        assert reader.is_complete
        assert reader.verb == p.VERB_NOOP
        assert reader.flags == (p.LINE_TOO_LONG if is_long else 0)
        assert reader.argument == argument[: 2048 - len(b"NOOP ")]


def test_line_without_an_end_takes_bounded_memory() -> None:
    reader = p.CommandReader(2048)
    piece = bytearray(b"x" * 65536)
    tracemalloc.start()
    try:
        for _ in range(160):
            assert reader.read(piece, 0, len(piece)) == len(piece)
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 8192
    reader.read(bytearray(b"\r\nQUIT\r\n"), 0, 8)
    assert reader.flags == p.LINE_TOO_LONG
    reader.read(bytearray(b"\r\nQUIT\r\n"), 2, 8)
    assert (reader.verb, reader.flags) == (p.VERB_QUIT, 0)


def test_range_outside_the_buffer_is_refused() -> None:
    reader = p.CommandReader()
    for start, end in [(-1, 2), (0, 5), (3, 2)]:
        with pytest.raises(ValueError, match="no range"):
            reader.read(bytearray(b"ab\r\n"), start, end)
    with pytest.raises(ValueError, match="no range"):
        reader.read(None, 0, 0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no room"):
        p.CommandReader(1)
