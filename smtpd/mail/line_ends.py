"""Line ends of content that did not come through the parser: CRLF and nothing else ends a line in what is stored.

A bare LF becomes CRLF, a bare CR a blank, as the parser does for what clients send.
"""

from __future__ import annotations

import re

_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")


class LineEnds:
    """Takes pieces, which may end anywhere."""

    __slots__ = ("_ends_line", "_has_cr")

    def __init__(self) -> None:
        self._has_cr = False
        self._ends_line = True

    def take(self, piece: bytes) -> bytes:
        """Return the next octets in wire form; a CR at the end waits for what follows."""
        if self._has_cr:
            piece = b"\r" + piece
        self._has_cr = piece.endswith(b"\r")
        if self._has_cr:
            piece = piece[:-1]
        if piece:
            piece = _BARE.sub(_as_wire, piece)
            self._ends_line = piece.endswith(b"\n")
        return piece

    def finish(self) -> bytes:
        """Return what ends the last line."""
        rest = b" " if self._has_cr else b""
        self._has_cr = False
        return rest if self._ends_line and not rest else rest + b"\r\n"


def _as_wire(match: re.Match[bytes]) -> bytes:
    return b"\r\n" if match[0] == b"\n" else b" "
