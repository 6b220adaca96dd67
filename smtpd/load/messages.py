"""What mails consist of: generated ones, or files, with places that are filled in for each mail.

Places: {n} the mail's number over all processes, {sender}, {recipient} (the first), {recipients} (how many), {date},
{message_id}, {run} (a word of this run), {hello}. A file is sent as it is (its line ends as CRLF) unless it is to be expanded.
Raises ValueError with a text for people when a file can't be used. Compiled: makes each mail's octets.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path

from smtpd._io import unix_us
from smtpd._wire import BodyEncoder

_PLACES = (b"n", b"sender", b"recipient", b"recipients", b"date", b"message_id", b"run", b"hello")
_PLACE = re.compile(rb"\{(" + b"|".join(_PLACES) + rb")\}")
_LINE_BYTES = 78
_WORDS = b"Pack my box with five dozen liquor jugs how vexingly quick daft zebras jump "
_FOLDER_BYTES = 1 << 30  # all files together are kept in memory


class Filler:
    """Text of any size, in lines of 76 characters, the same for the same size."""

    __slots__ = ("_kept", "_kept_size", "_lines", "_text")

    def __init__(self) -> None:
        line = (_WORDS * 2)[: _LINE_BYTES - 2] + b"\r\n"
        self._lines = 64
        self._text = line * self._lines
        self._kept = b""
        self._kept_size = 0

    def make(self, size: int) -> bytes:
        """Return `size` octets that end in CRLF (below 2: none, for which CRLF is sent all the same)."""
        if size == self._kept_size:
            return self._kept
        if size < 2:
            return b""
        lines = size // _LINE_BYTES
        rest = size - lines * _LINE_BYTES
        if lines >= self._lines:
            self._lines = 2 * lines
            self._text = self._text[:_LINE_BYTES] * self._lines
        if rest == 1:
            lines -= 1
            rest = _LINE_BYTES + 1
        if rest == 0:
            body = self._text[: lines * _LINE_BYTES]
        elif rest > _LINE_BYTES:
            body = self._text[: lines * _LINE_BYTES + _LINE_BYTES - 2] + b".\r\n"
        else:
            body = self._text[: lines * _LINE_BYTES + rest - 2] + b"\r\n"
        self._kept = body
        self._kept_size = size
        return body


class Template:
    """Octets with places; with `is_expanding` False there are none, whatever the octets say. `constants` are the values of places
    that are the same in all mails: filled in once."""

    __slots__ = ("_pieces", "_spots", "is_fixed")

    def __init__(self, text: bytes, is_expanding: bool, constants: dict[bytes, bytes]) -> None:
        split = _PLACE.split(text) if is_expanding else [text]
        pieces = self._pieces = split[:1]
        for spot in range(1, len(split), 2):
            name, after = split[spot], split[spot + 1]
            if name in constants:
                pieces[-1] += constants[name] + after
            else:
                pieces += [name, after]
        self._spots = [(spot, self._pieces[spot]) for spot in range(1, len(self._pieces), 2)]
        self.is_fixed = not self._spots

    def expand(self, values: dict[bytes, bytes]) -> bytes:
        pieces = self._pieces
        if self.is_fixed:
            return pieces[0]
        pieces = pieces.copy()
        for spot, name in self._spots:
            pieces[spot] = values[name]
        return b"".join(pieces)


class Calendar:
    """The date of now, as a header has it; made once a second."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second = -1
        self._text = b""

    def now(self) -> bytes:
        second = unix_us() // 1_000_000
        if second != self._second:
            self._second = second
            self._text = time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime(second)).encode()
        return self._text


def head_template(subject: str, headers: Sequence[str]) -> bytes:
    """The header section of a generated mail, with the empty line."""
    lines = [
        "From: <{sender}>",
        "To: <{recipient}>",
        "Date: {date}",
        "Message-ID: {message_id}",
        f"Subject: {subject}",
        "MIME-Version: 1.0",
        *headers,
    ]
    for line in lines:
        if "\r" in line or "\n" in line or ":" not in line:
            raise ValueError(f"{line!r} is no line of a header")
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def read_messages(path: str) -> list[bytes]:
    """Return the contents of a file, or of all files `*.eml` in a folder in the order of their names, with CRLF as line ends."""
    place = Path(path)
    try:
        files = sorted(place.glob("*.eml")) if place.is_dir() else [place]
        total = sum(file.stat().st_size for file in files)
        if total > _FOLDER_BYTES:
            raise ValueError(f"{path}: {total} octets of mails are too many to be kept in memory")
        contents = [normal_content(file.read_bytes()) for file in files]
    except OSError as error:
        raise ValueError(f"{error.filename}: {error.strerror}") from None
    if not contents:
        raise ValueError(f"{path}: there is no file *.eml in it")
    return contents


def normal_content(octets: bytes) -> bytes:
    """What the client session would send for it anyway, made once: CRLF at the end of each line."""
    encoder = BodyEncoder(False)
    return encoder.feed(octets) + encoder.finish()
