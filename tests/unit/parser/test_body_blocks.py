"""Bodies are looked at 64 octets at a time: whatever lies wherever in such a block is decoded as the oracle does it."""

import random

import pytest
from oracle.body import BodyDecoder as SlowDecoder

from smtpd._parser import BodyDecoder

FIELDS = (
    "size_bytes", "raw_bytes", "bare_lf_count", "bare_cr_count", "nul_count", "long_line_count", "longest_line_bytes",
    "received_count", "header_bytes", "is_in_header", "has_8bit", "is_done",
)  # fmt: skip
ODD = (b"\r", b"\n", b".", b"\0", b"\xe9", b"\r\n", b"\r\n.", b"\r\n\r\n", b"\r\n..", b"\t", b"\x0b", b"\r\n.\r", b"\r\r\n")
HEADS = (b"", b"Received: by x\r\nreceived :y\r\n\r\n", b"X-Long: " + b"y" * 70 + b"\r\n\tz\r\nReceived: z\r\n\r\n")


def decode(decoder, pieces, chunk_bytes=None, is_keeping=True):
    if chunk_bytes is None:
        decoder.start_data()
    else:
        decoder.start_chunk(chunk_bytes)
    decoder.is_keeping = is_keeping
    decoded, taken = b"", 0
    for piece in pieces:
        position, chunk = decoder.feed(bytearray(piece), 0, len(piece))
        decoded += chunk
        taken += position
    return [decoded, taken, *(getattr(decoder, field) for field in FIELDS)]


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("ending", [b"", b"x" * 61 + b"\r\n" + b"y" * 70, b"\r\n.\r\nQUIT \xff\0\r\n" + b"z" * 100])
def test_odd_octets_at_any_place_of_a_block(odd, ending):
    for place in range(132):
        octets = (b"a" * 29 + b"\r\n" + b"b" * 47 + b"\r\n" + b"c" * 200)[:place] + odd + b"d" * 66 + b"\r\n" + b"e" * 9 + ending
        expected = decode(SlowDecoder(), [octets])
        assert decode(BodyDecoder(), [octets]) == expected, place
        assert decode(BodyDecoder(), [octets[:place], octets[place:]]) == expected, place


@pytest.mark.parametrize("seed", range(30))
def test_mixed_content_equals_the_oracle(seed):
    rng = random.Random(seed)
    parts = [rng.choice(HEADS)]
    for _ in range(rng.randrange(5, 80)):
        parts.append(b"w" * rng.choice((0, 1, 5, 30, 61, 62, 63, 64, 65, 78, 300, 998, 1000)) + b"\r\n")
        if rng.random() < 0.3:
            parts.append(rng.choice(ODD))
    octets = b"".join(parts)
    cuts = sorted(rng.randrange(len(octets)) for _ in range(4))
    pieces = [octets[a:b] for a, b in zip([0, *cuts], [*cuts, len(octets)], strict=True)]
    for is_keeping in (True, False):
        for size in (None, len(octets)):
            expected = decode(SlowDecoder(), [octets], size, is_keeping)
            assert decode(BodyDecoder(), [octets], size, is_keeping) == expected
            assert decode(BodyDecoder(), pieces, size, is_keeping) == expected
