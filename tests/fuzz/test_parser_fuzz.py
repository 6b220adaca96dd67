"""The parser equals the oracle on any octets, and any split of the input gives the same events.

`make fuzz` runs the same properties with 200 times as many examples.
"""

from __future__ import annotations

from typing import Any

import pytest
from fuzz.octets import bodies, commands, cuts, paths, split
from hypothesis import example, given, settings
from hypothesis import strategies as st
from oracle import body as slow_body
from oracle import commands as slow

from smtpd import _parser as fast

pytestmark = pytest.mark.timeout(1800)  # for the profile of `make fuzz`

COUNTERS = (
    "is_done", "size_bytes", "raw_bytes", "bare_lf_count", "bare_cr_count", "nul_count", "long_line_count", "longest_line_bytes",
    "received_count", "header_bytes", "is_in_header", "has_8bit",
)  # fmt: skip
FIELDS = ("verb", "argument", "word", "flags", "is_complete", "has_partial")


def read_commands(reader: Any, pieces: list[bytes]) -> list[tuple[Any, ...]]:
    """Return (verb, argument, word, flags, octets so far) of each command, and at the end whether octets are left."""
    seen = []
    taken = 0
    for piece in pieces:
        buffer = bytearray(b"[" + piece + b"]\n")  # nothing outside start and end may be looked at
        position, end = 1, 1 + len(piece)
        while position < end:
            before = position
            position = reader.read(buffer, position, end)
            taken += position - before
            assert position > before
            if reader.is_complete:
                seen.append((reader.verb, reader.argument, reader.word, reader.flags, taken))
            else:
                assert position == end
    seen.append((reader.has_partial, taken))
    return seen


def decode_body(decoder: Any, pieces: list[bytes], chunk_bytes: int | None, is_keeping: bool) -> list[Any]:
    """Return the decoded octets and all counters."""
    if chunk_bytes is None:
        decoder.start_data()
    else:
        decoder.start_chunk(chunk_bytes)
    decoder.is_keeping = is_keeping
    out = b""
    for piece in pieces:
        taken, octets = decoder.feed(bytearray(b"\r" + piece + b"\n"), 1, 1 + len(piece))
        assert decoder.is_done or taken == 1 + len(piece)
        out += octets
    if chunk_bytes is not None:
        out += decoder.finish()
    return [out, *(getattr(decoder, name) for name in COUNTERS)]


@given(commands, cuts, st.sampled_from([2, 7, 40, 512, 2048]))
@example(b"\x16\x03\x01\x02\x00\x01", [1], 2048)
def test_commands_of_any_split_equal_the_whole_and_the_oracle(octets: bytes, positions: list[int], limit: int) -> None:
    expected = read_commands(slow.CommandReader(limit), [octets])
    assert read_commands(fast.CommandReader(limit), [octets]) == expected
    assert read_commands(fast.CommandReader(limit), split(octets, positions)) == expected
    assert read_commands(fast.CommandReader(limit), split(octets, list(range(len(octets))))) == expected


@given(bodies, cuts, st.booleans())
@example(b"\r\n.\r\n", [], True)
@example(b".\r\n", [1, 2], True)
@example(b"\n" * 500, [250], True)
def test_data_of_any_split_equals_the_whole_and_the_oracle(octets: bytes, positions: list[int], is_keeping: bool) -> None:
    expected = decode_body(slow_body.BodyDecoder(), [octets], None, is_keeping)
    assert decode_body(fast.BodyDecoder(), [octets], None, is_keeping) == expected
    assert decode_body(fast.BodyDecoder(), split(octets, positions), None, is_keeping) == expected
    assert decode_body(fast.BodyDecoder(), split(octets, list(range(len(octets)))), None, is_keeping) == expected


@given(bodies, cuts, st.integers(0, 3), st.booleans())
def test_chunk_of_any_split_equals_the_whole_and_the_oracle(
    octets: bytes, positions: list[int], behind: int, is_keeping: bool
) -> None:
    size = max(0, len(octets) - behind)
    expected = decode_body(slow_body.BodyDecoder(), [octets], size, is_keeping)
    assert decode_body(fast.BodyDecoder(), [octets], size, is_keeping) == expected
    assert decode_body(fast.BodyDecoder(), split(octets, positions), size, is_keeping) == expected


@given(bodies, cuts)
def test_chunks_of_any_sizes_equal_one_chunk(octets: bytes, positions: list[int]) -> None:
    decoder = fast.BodyDecoder()
    out = b""
    for piece in split(octets, positions):
        decoder.start_chunk(len(piece))
        out += decoder.feed(bytearray(piece), 0, len(piece))[1]
        assert decoder.is_done
    out += decoder.finish()
    assert [out, *(getattr(decoder, name) for name in COUNTERS)] == decode_body(
        slow_body.BodyDecoder(), [octets], len(octets), True
    )


@given(bodies)
def test_counters_agree_after_every_octet(octets: bytes) -> None:
    decoder, oracle = fast.BodyDecoder(), slow_body.BodyDecoder()
    decoder.start_data()
    oracle.start_data()
    for octet in octets[:200]:
        piece = bytearray([octet])
        assert decoder.feed(piece, 0, 1) == oracle.feed(piece, 0, 1)
        assert [getattr(decoder, name) for name in COUNTERS] == [getattr(oracle, name) for name in COUNTERS]


@given(bodies)
def test_decoded_body_has_no_bare_newline_and_survives_another_hop(octets: bytes) -> None:
    decoded = decode_body(fast.BodyDecoder(), [octets], len(octets), True)[0]
    assert decoded.replace(b"\r\n", b"").translate(None, b"\r\n") == decoded.replace(b"\r\n", b"")
    stuffed = decoded.replace(b"\r\n.", b"\r\n..")
    stuffed = (b"." + stuffed if stuffed.startswith(b".") else stuffed) + b".\r\n"
    again = decode_body(fast.BodyDecoder(), [stuffed], None, True)
    assert again[0] == decoded
    assert again[1] is True


@given(st.sampled_from([b"FROM:<", b"TO:<", b"from:<", b""]), paths, paths, st.booleans())
@example(b"TO:<", b"a@b", b"> X=1", True)
def test_paths_equal_the_oracle(keyword: bytes, local: bytes, rest: bytes, is_recipient: bool) -> None:
    for argument in (keyword + local + rest, keyword + local + b"@example.org>" + rest, keyword + b"l@" + local + b">" + rest):
        assert fast.scan_path(argument, is_recipient) == slow.scan_path(argument, is_recipient)


@given(bodies, st.sampled_from([b"received", b"message-id", b"x", b"a"]))
def test_header_fields_equal_the_oracle(octets: bytes, name: bytes) -> None:
    assert fast.find_header(octets, name) == slow.find_header(octets, name)


@given(
    st.lists(st.sampled_from([b"X", b"x:", b":", b"1", b" ", b"\t", b"\r\n", b"\n", b"\r", b"v" * 600]), max_size=20).map(
        b"".join
    )
)
def test_folded_header_fields_equal_the_oracle(octets: bytes) -> None:
    assert fast.find_header(octets, b"x") == slow.find_header(octets, b"x")


@pytest.mark.full
@settings(max_examples=max(10_000, settings.default.max_examples))
@given(st.binary(max_size=300), cuts)
def test_any_octets_at_all(octets: bytes, positions: list[int]) -> None:
    pieces = split(octets, positions)
    assert read_commands(fast.CommandReader(64), pieces) == read_commands(slow.CommandReader(64), [octets])
    assert decode_body(fast.BodyDecoder(), pieces, None, True) == decode_body(slow_body.BodyDecoder(), [octets], None, True)
