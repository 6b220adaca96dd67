"""`_wire` equals the oracle on any octets, cut in any way, and what it stuffs the server's decoder gives back."""

from __future__ import annotations

import pytest
from fuzz.octets import bodies, cuts, split
from hypothesis import example, given
from hypothesis import strategies as st
from oracle import wire as slow

from smtpd import _wire as fast
from smtpd._parser import BodyDecoder

pytestmark = pytest.mark.timeout(1800)  # for the profile of `make fuzz`

_PIECES = [
    b"250", b"250-", b"250 ", b"550-", b"550 ", b"354", b"199 ", b"600 ", b"2.0.0 ", b"5.1.1", b"2.1000.0 ", b"2.1.", b"\r\n",
    b"\r\n", b"\n", b"\r", b" ", b"\t", b"-", b"ok", b"\0", b"\xff", b"x" * 300,
]  # fmt: skip
_LINES = st.sampled_from([b"250-ok\r\n", b"250 2.0.0 ok\r\n", b"550-5.1.1 no\n", b"550 5.1.1\r\n", b"250-2.0.0 a\r\n", b"421\n"])
replies = st.lists(st.sampled_from(_PIECES) | _LINES, max_size=40).map(b"".join)


@given(replies, cuts)
@example(b"250-" + b"x" * 4092 + b"\r\n", [])
@example(b"250-" + b"x" * 4090 + b"\r\n250 x\r\n", [17])
@example(b"250-x\r\n" * 201, [])
@example(b"250-x\r\n" * 199 + b"250 x\r\n", [])
def test_replies_equal_the_oracle(octets, positions):
    reader = fast.ReplyReader(5000)
    seen = []
    for piece in split(octets, positions):
        buffer = bytearray(b"2" + piece + b"\n")  # nothing outside start and end may be looked at
        position, end = 1, 1 + len(piece)
        while position < end:
            position = reader.read(buffer, position, end)
            if reader.is_complete:
                seen.append((reader.code, reader.dsn, reader.lines))
    assert (seen, reader.error) == slow.read_replies(octets, 5000)


@given(bodies, cuts, st.booleans())
def test_content_equals_the_oracle(octets, positions, is_stuffing):
    encoder = fast.BodyEncoder(is_stuffing)
    content = b"".join(encoder.feed(piece) for piece in split(octets, positions)) + encoder.finish()
    assert content == slow.encode(octets, is_stuffing)
    if not is_stuffing:
        return
    decoder = BodyDecoder()
    decoder.start_data()
    wire = bytearray(content + b".\r\n" + b"MAIL FROM:<>\r\n")
    end, decoded = decoder.feed(wire, 0, len(wire))
    assert decoder.is_done
    assert end == len(content) + 3
    assert decoded == slow.encode(octets, False)
    assert decoder.bare_lf_count == decoder.bare_cr_count == 0
