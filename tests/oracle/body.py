"""Twin of `BodyDecoder`: keeps all raw octets and decodes all of them again at each call, by the sentences of `_parser.pyi`."""

from __future__ import annotations

import re

CRLF = b"\r\n"
TEXT_LINE = 998


def decode(raw: bytes) -> bytes:
    """Bare CR becomes a space, bare LF becomes CRLF. `raw` has no CR at its end that could still be half of a CRLF."""
    return re.sub(rb"(?<!\r)\n", CRLF, re.sub(rb"\r(?!\n)", b" ", raw))


class BodyDecoder:
    def __init__(self) -> None:
        self.is_done = False
        self.is_keeping = True
        self.is_chunked = False
        self.chunk_left = 0
        self.raw = b""
        self.decoded = b""
        self.padding = b""  # what finish() added
        self.held = 0  # octets at the end of `raw` that are not decoded yet
        self.is_ended = False

    def start_data(self) -> None:
        self.is_done = False

    def start_chunk(self, size_bytes: int) -> None:
        self.is_chunked = True
        self.chunk_left = size_bytes
        self.is_done = size_bytes == 0

    def feed(self, data: bytearray, start: int, end: int) -> tuple[int, bytes]:
        if self.is_done:
            return start, b""
        if self.is_chunked:
            end = min(end, start + self.chunk_left)
            self.chunk_left -= end - start
            self.is_done = self.chunk_left == 0
            self.raw += data[start:end]
        else:
            before = len(self.raw)
            self.raw += data[start:end]
            found = (CRLF + self.raw).find(b"\r\n.\r\n")
            if found >= 0:
                self.is_done = self.is_ended = True
                self.raw = self.raw[: found + len(b".\r\n")]
                end = start + len(self.raw) - before
        return end, self._decode_rest(len(self.raw) - self._count_held())

    def finish(self) -> bytes:
        rest = self._decode_rest(len(self.raw))
        if self.decoded and not self.decoded.endswith(CRLF):
            self.padding += CRLF
            self.decoded += CRLF
            return rest + CRLF if self.is_keeping else b""
        return rest

    def _count_held(self) -> int:
        if self.is_ended:
            return len(b".\r\n")
        if self.is_chunked:
            return int(self.raw.endswith(b"\r"))
        stream = CRLF + self.raw
        if stream.endswith(b"\r\n.\r"):
            return 2
        return int(stream.endswith((b"\r\n.", b"\r")))

    def _decode_rest(self, size: int) -> bytes:
        before = len(self.decoded)
        self.held = len(self.raw) - size
        self.decoded = decode(self._undotted()) + self.padding
        return self.decoded[before:] if self.is_keeping else b""

    def _undotted(self) -> bytes:
        taken = self.raw[: len(self.raw) - self.held]
        if self.is_chunked:
            return taken
        return re.sub(rb"(?<=\r\n)\.", b"", CRLF + taken)[len(CRLF) :]

    @property
    def size_bytes(self) -> int:
        return len(self.decoded)

    @property
    def raw_bytes(self) -> int:
        return len(self.raw)

    @property
    def bare_lf_count(self) -> int:
        return len(re.findall(rb"(?<!\r)\n", self._undotted()))

    @property
    def bare_cr_count(self) -> int:
        return len(re.findall(rb"\r(?!\n)", self._undotted()))

    @property
    def nul_count(self) -> int:
        return self.raw.count(b"\0")

    @property
    def has_8bit(self) -> bool:
        return not self.raw.isascii()

    @property
    def _line_sizes(self) -> list[int]:
        return [len(line) for line in self.decoded.split(CRLF)]

    @property
    def long_line_count(self) -> int:
        return sum(size > TEXT_LINE for size in self._line_sizes)

    @property
    def longest_line_bytes(self) -> int:
        return max(self._line_sizes)

    @property
    def is_in_header(self) -> bool:
        return b"\r\n\r\n" not in CRLF + self.decoded

    @property
    def header_bytes(self) -> int:
        return len(self.decoded) if self.is_in_header else (CRLF + self.decoded).find(b"\r\n\r\n")

    @property
    def received_count(self) -> int:
        lines = self.decoded[: self.header_bytes].split(CRLF)
        return sum(re.match(rb"(?i)received[ \t]*:", line) is not None for line in lines)
