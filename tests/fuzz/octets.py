"""Hypothesis strategies: octets that look like SMTP just enough to reach every corner of the parser, and ways to cut them."""

from __future__ import annotations

import itertools

from hypothesis import strategies as st

_STRUCTURE = [
    b"\r",
    b"\n",
    b"\r\n",
    b".",
    b"..",
    b"\r\n.",
    b"\r\n.\r\n",
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r",
    b"\0",
    b" ",
    b"\t",
]
_TEXT = [b"a", b"\xc3\xa9", b"\xff", b"\x01", b"\x7f", b"x" * 7, b"x" * 8, b"x" * 9, b"y" * 499, b"z" * 998]
_HEADERS = [b"Received", b"received:", b"Received :", b"X-Received:", b"Message-ID: <a@b>", b":"]
_VERBS = [
    b"EHLO",
    b"mail",
    b"RcPt",
    b"DATA",
    b"BDAT 1",
    b"QUIT",
    b"STARTTLS",
    b"STARTTLSX",
    b"GET",
    b"Host:",
    b"\x16\x03",
    b"\x16",
]
_PATHS = [b"FROM:", b"to:", b"<", b">", b"@", b"-", b"!", b"%", b'"', b"[", b"l" * 63, b"l" * 64, b"l.", b"example.org"]

bodies = st.lists(st.sampled_from(_STRUCTURE + _TEXT + _HEADERS) | st.binary(max_size=3), max_size=40).map(b"".join)
commands = st.lists(st.sampled_from(_STRUCTURE + _TEXT + _VERBS + _PATHS) | st.binary(max_size=3), max_size=30).map(b"".join)
paths = st.lists(st.sampled_from(_PATHS + [b" ", b"\t", b".", b"a", b"X", b"\xe9"]), max_size=12).map(b"".join)
cuts = st.lists(st.integers(0, 4000), max_size=12)


def split(octets: bytes, positions: list[int]) -> list[bytes]:
    """Cut `octets` at the positions that lie inside it; empty pieces are possible."""
    edges = [0, *sorted(position % (len(octets) + 1) for position in positions), len(octets)]
    return [octets[start:end] for start, end in itertools.pairwise(edges)]
