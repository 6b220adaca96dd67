"""Content by DATA and BDAT: where it ends, what is stored, what is counted."""

from __future__ import annotations

import tracemalloc

import pytest
from false_ends import FALSE_ENDS

from smtpd._parser import BodyDecoder

ENVELOPE = b"MAIL FROM:<evil@example.com>\r\nRCPT TO:<victim@example.net>\r\nDATA\r\n"
TRUE_END = b"\r\n.\r\n"


def decode(pieces: list[bytes]) -> tuple[bytes, BodyDecoder, bytes]:
    """Return what was decoded, the decoder, and the octets it left."""
    decoder = BodyDecoder()
    decoder.start_data()
    out = b""
    left = b""
    for piece in pieces:
        taken, octets = decoder.feed(bytearray(piece), 0, len(piece))
        out += octets
        left += piece[taken:]
    return out, decoder, left


def all_splits(octets: bytes) -> list[list[bytes]]:
    """Whole, in pieces of one octet, and in two pieces at each point."""
    halves = [[octets[:cut], octets[cut:]] for cut in range(1, len(octets))]
    return [[octets], [octets[i : i + 1] for i in range(len(octets))], *halves]


@pytest.mark.parametrize("name", FALSE_ENDS)
def test_false_end_of_data_never_ends(name: str) -> None:
    sent, stored = FALSE_ENDS[name]
    raw = b"text" + sent + ENVELOPE + b"evil" + TRUE_END
    for pieces in all_splits(raw):
        out, decoder, left = decode(pieces)
        assert decoder.is_done
        assert left == b""
        assert out == b"text" + stored + ENVELOPE + b"evil\r\n"
        assert decoder.raw_bytes == len(raw)
        assert decoder.size_bytes == len(out)


@pytest.mark.parametrize("name", FALSE_ENDS)
def test_false_end_at_the_start_of_the_content(name: str) -> None:
    sent, stored = FALSE_ENDS[name]
    for pieces in all_splits(sent + b"x" + TRUE_END):
        assert decode(pieces)[0] == stored + b"x\r\n"


@pytest.mark.parametrize("name", FALSE_ENDS)
def test_false_end_is_reported(name: str) -> None:
    sent, _ = FALSE_ENDS[name]
    _, decoder, _ = decode([b"text" + sent + b"x" + TRUE_END])
    without_crlf = sent.replace(b"\r\n", b"")
    assert decoder.bare_lf_count == without_crlf.count(b"\n")
    assert decoder.bare_cr_count == without_crlf.count(b"\r")
    assert decoder.nul_count == sent.count(b"\0")
    assert decoder.has_8bit == (not sent.isascii())


@pytest.mark.parametrize(
    ("content", "stored"),
    [
        (b"", b""),
        (b"one line\r\n", b"one line\r\n"),
        (b"\r\n", b"\r\n"),
        (b"..\r\n", b".\r\n"),
        (b"..leading\r\n...\r\n", b".leading\r\n..\r\n"),
        (b".x\r\n", b"x\r\n"),
        (b"a.\r\nb\r\n", b"a.\r\nb\r\n"),
        (b"a\nb\n\nc\r\n", b"a\r\nb\r\n\r\nc\r\n"),
        (b"a\rb\r\r\r\n", b"a b  \r\n"),
        (b"\n" * 1000 + b"\r\n", b"\r\n" * 1001),
        (b"\r" * 1000 + b"\r\n", b" " * 1000 + b"\r\n"),
        (b"..\r\n" * 300, b".\r\n" * 300),
        (bytes(range(14, 256)) + b"\r\n", bytes(range(14, 256)) + b"\r\n"),
    ],
)
def test_content(content: bytes, stored: bytes) -> None:
    for pieces in all_splits(content + b".\r\nQUIT\r\n"):
        out, decoder, left = decode(pieces)
        assert (out, left, decoder.is_done) == (stored, b"QUIT\r\n", True)
        assert decoder.raw_bytes == len(content) + 3


def test_nothing_is_taken_after_the_end() -> None:
    decoder = BodyDecoder()
    decoder.start_data()
    assert decoder.feed(bytearray(b"--.\r\nQUIT\r\n"), 2, 11) == (5, b"")
    assert decoder.is_done
    assert decoder.feed(bytearray(b"x"), 0, 1) == (0, b"")


def test_end_is_found_and_counted_while_nothing_is_kept() -> None:
    decoder = BodyDecoder()
    decoder.start_data()
    decoder.is_keeping = False
    raw = bytearray(b"X: y\r\n\r\n..a\nb\r\n.\r\nQUIT\r\n")
    assert decoder.feed(raw, 0, len(raw)) == (len(raw) - 6, b"")
    assert decoder.is_done
    assert (decoder.size_bytes, decoder.bare_lf_count, decoder.header_bytes) == (15, 1, 6)


@pytest.mark.parametrize(("size", "count"), [(997, 0), (998, 0), (999, 1), (16384, 1)])
def test_long_lines(size: int, count: int) -> None:
    for step in (1, 500, 100_000):
        raw = b"x" * size + b"\r\nshort\r\n.\r\n"
        _, decoder, _ = decode([raw[i : i + step] for i in range(0, len(raw), step)])
        assert (decoder.long_line_count, decoder.longest_line_bytes) == (count, size)


def test_dot_that_is_taken_off_is_not_part_of_the_line() -> None:
    _, decoder, _ = decode([b"." + b"x" * 998 + b"\r\n.\r\n"])
    assert (decoder.long_line_count, decoder.longest_line_bytes) == (0, 998)


HEAD = b"Received: a\r\n\tb\r\nRECEIVED:c\r\nReceived : d\r\nReceive: e\r\nX-Received: f\r\nReceived\r\n received: g\r\n"


def test_header_section() -> None:
    raw = HEAD + b"\r\nReceived: not a header\r\n.\r\n"
    for pieces in all_splits(raw):
        _, decoder, _ = decode(pieces)
        assert decoder.received_count == 3
        assert decoder.header_bytes == len(HEAD)
        assert not decoder.is_in_header


@pytest.mark.parametrize("separator", [b"\r\n", b"\n"])
def test_header_section_ends_at_an_empty_line_however_it_was_sent(separator: bytes) -> None:
    _, decoder, _ = decode([b"A: b\r\n" + separator + b"Received: no\r\n.\r\n"])
    assert (decoder.header_bytes, decoder.received_count, decoder.is_in_header) == (6, 0, False)


def test_content_without_an_empty_line_is_all_header() -> None:
    _, decoder, _ = decode([b"just one line\r\n.\r\n"])
    assert (decoder.header_bytes, decoder.is_in_header) == (15, True)


def test_empty_first_line_means_no_header() -> None:
    _, decoder, _ = decode([b"\r\nReceived: x\r\n.\r\n"])
    assert (decoder.header_bytes, decoder.received_count, decoder.is_in_header) == (0, 0, False)


def feed_chunks(chunks: list[bytes], step: int = 100) -> tuple[bytes, BodyDecoder]:
    decoder = BodyDecoder()
    out = b""
    for chunk in chunks:
        decoder.start_chunk(len(chunk))
        buffer = bytearray(chunk + b"NOOP\r\n")
        position = 0
        while not decoder.is_done:
            position, octets = decoder.feed(buffer, position, min(position + step, len(buffer)))
            out += octets
        assert position == len(chunk)
    return out + decoder.finish(), decoder


@pytest.mark.parametrize(
    ("chunks", "stored"),
    [
        ([b""], b""),
        ([b"a\r\n", b""], b"a\r\n"),
        ([b"a"], b"a\r\n"),
        ([b"a\r", b"\nb\r\n"], b"a\r\nb\r\n"),
        ([b"a\r"], b"a \r\n"),
        ([b"\r"], b" \r\n"),
        ([b"a\n"], b"a\r\n"),
        ([b"a\r\n.\r\nb\r\n"], b"a\r\n.\r\nb\r\n"),
        ([b"a\r\n.", b"\r\n", b"..b\r\n"], b"a\r\n.\r\n..b\r\n"),
        ([b".\r\n"], b".\r\n"),
        ([b"a\rb\nc"], b"a b\r\nc\r\n"),
    ],
)
def test_chunks_are_counted_and_dots_are_text(chunks: list[bytes], stored: bytes) -> None:
    for step in (1, 2, 100):
        out, decoder = feed_chunks(chunks, step)
        assert out == stored
        assert decoder.size_bytes == len(stored)
        assert decoder.raw_bytes == sum(map(len, chunks))


def test_lines_and_header_go_on_over_chunks() -> None:
    _, decoder = feed_chunks([b"Recei", b"ved: a\r", b"\n\r\nbo", b"x" * 997, b"\r\n"])
    assert (decoder.received_count, decoder.header_bytes, decoder.long_line_count) == (1, 13, 1)
    assert not decoder.is_in_header


def test_chunk_of_no_octets_is_complete_and_a_negative_one_is_none() -> None:
    decoder = BodyDecoder()
    decoder.start_chunk(0)
    assert decoder.is_done
    with pytest.raises(ValueError, match="chunk of -1"):
        decoder.start_chunk(-1)
    with pytest.raises(OverflowError):
        decoder.start_chunk(1 << 63)


def test_endless_line_takes_bounded_memory() -> None:
    decoder = BodyDecoder()
    decoder.start_data()
    decoder.is_keeping = False
    piece = bytearray(b"x" * 65536)
    tracemalloc.start()
    try:
        for _ in range(1000):
            decoder.feed(piece, 0, len(piece))
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 4096
    assert (decoder.longest_line_bytes, decoder.long_line_count) == (65_536_000, 1)


def test_range_outside_the_buffer_is_refused() -> None:
    decoder = BodyDecoder()
    decoder.start_data()
    for start, end in [(-1, 2), (0, 5), (3, 2)]:
        with pytest.raises(ValueError, match="no range"):
            decoder.feed(bytearray(b"ab\r\n"), start, end)
