"""Senders and recipients: one address, a pattern of many, or those of a file; picked in turn.

`user{1-500}@example.org` stands for 500 addresses ({001-500}: with zeros), `user{n}@example.org` for as many as are asked for,
`@FILE` for the lines of a file. `parse_addresses` raises ValueError with a text for people.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

_RANGE = re.compile(rb"\{(?:n|([0-9]{1,9})-([0-9]{1,9}))\}")
_UNFIT = re.compile(rb"[\x00-\x20\x7f<>]")
_MANY = 1 << 62


class AddressPattern:
    """`count` addresses; a pattern without a place for a number is one."""

    __slots__ = ("_end", "_first", "_start", "_width", "count")

    def __init__(self, text: bytes) -> None:
        check(text)
        found = _RANGE.search(text)
        self._start, self._end = text, b""
        self._first, self._width, self.count = 0, 0, 1
        if found is not None:
            self._start, self._end = text[: found.start()], text[found.end() :]
            self.count = _MANY
            if found[1] is not None:
                self._first = int(found[1])
                self._width = len(found[1]) if found[1].startswith(b"0") else 0
                self.count = int(found[2]) - self._first + 1
        if self.count < 1 or _RANGE.search(self._end):
            raise ValueError(f'"{text.decode()}" is not a pattern such as "user{{1-500}}@example.org"')

    def pick(self, place: int) -> bytes:
        if self.count == 1:
            return self._start + self._end if self._end else self._start
        return b"%s%0*d%s" % (self._start, self._width, self._first + place % self.count, self._end)


class AddressFile:
    __slots__ = ("_addresses", "count")

    def __init__(self, path: str) -> None:
        try:
            lines = Path(path).read_bytes().splitlines()
        except OSError as error:
            raise ValueError(f"{path}: {error.strerror}") from None
        self._addresses = [line.strip() for line in lines if line.strip()]
        for address in self._addresses:
            check(address)
        self.count = len(self._addresses)
        if not self.count:
            raise ValueError(f"{path}: there is no address in it")

    def pick(self, place: int) -> bytes:
        return self._addresses[place % self.count]


class Addresses:
    """Several sources: the first address of each, then the second of each, and so on. `fixed` is the only one, or None."""

    __slots__ = ("_sources", "fixed")

    def __init__(self, sources: Sequence[AddressPattern | AddressFile]) -> None:
        self._sources = list(sources)
        self.fixed = sources[0].pick(0) if len(sources) == 1 and sources[0].count == 1 else None

    def pick(self, place: int) -> bytes:
        if self.fixed is not None:
            return self.fixed
        turn, source = divmod(place, len(self._sources))
        return self._sources[source].pick(turn)


def parse_addresses(texts: Sequence[str]) -> Addresses:
    """`texts` are patterns, or "@FILE"."""
    return Addresses([AddressFile(text[1:]) if text.startswith("@") else AddressPattern(text.encode()) for text in texts])


def check(address: bytes) -> None:
    """Raise ValueError for what would not stay within its angle brackets."""
    if _UNFIT.search(address):
        raise ValueError(f'"{address.decode(errors="backslashreplace")}" is not an address: it has a blank, "<" or ">" in it')
