"""A mail as a filter sees it: header fields one by one, then the body in pieces.

Owns the splitting. Values keep their blanks; their lines are joined by LF, as Sendmail has it. A line that is no field ends the
header, and is then the first of the body, as Postfix has it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from smtpd.policy.milter import wire

_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:(.*)", re.DOTALL)


class Field(NamedTuple):
    """`value` is all behind the colon, without the final CRLF."""

    name: bytes
    value: bytes


def split_fields(header: bytes) -> tuple[list[Field], bytes]:
    """Return the fields of a header without its blank line, and what of it already belongs to the body."""
    fields: list[list[bytes]] = []
    rest = b""
    position = 0
    for line in header.removesuffix(b"\r\n").split(b"\r\n") if header else ():
        match = _FIELD.fullmatch(line)
        if match is not None:
            fields.append([match[1], match[2]])
        elif line[:1] in (b" ", b"\t") and fields:
            fields[-1].append(line)
        else:
            rest = header[position:] + b"\r\n"  # the blank line that ended the header is body now
            break
        position += len(line) + 2
    return [Field(field[0], b"\n".join(field[1:])) for field in fields], rest


class BodyCutter:
    """Joins and cuts what arrives into pieces of wire.CHUNK_BYTES, the last one shorter."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the pieces that are full."""
        buffer = self._buffer
        buffer += chunk
        if len(buffer) < wire.CHUNK_BYTES:
            return []
        whole = len(buffer) // wire.CHUNK_BYTES * wire.CHUNK_BYTES
        pieces = [bytes(buffer[start : start + wire.CHUNK_BYTES]) for start in range(0, whole, wire.CHUNK_BYTES)]
        del buffer[:whole]
        return pieces

    def end(self) -> list[bytes]:
        """Return what is left."""
        return [bytes(self._buffer)] if self._buffer else []
