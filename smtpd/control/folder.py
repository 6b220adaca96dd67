"""The directory of an export: `QUEUEID.eml`, the octets of a mail, and `QUEUEID.json`, its envelope and outcomes (stored.py).

A file gets its name when it is whole and synced, the .json last; so a .json means a whole mail, and an .eml alone means nothing.
Nothing planted is followed. Raises OSError, msgspec.MsgspecError.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import msgspec

from smtpd.control.stored import StoredMail
from smtpd.spool.lock import sync_directory

_NAME = re.compile(r"([0-9A-Za-z]{1,64})\.json")
_PIECE_BYTES = 192 * 1024
_STORED = msgspec.json.Decoder(StoredMail)


class MailFile:
    """The body of one mail on its way into the directory."""

    def __init__(self, path: str, stored: StoredMail) -> None:
        if _NAME.fullmatch(f"{stored.queue_id}.json") is None:
            raise OSError(f"{stored.queue_id!r} can't be the name of a file")
        self._stored = stored
        self._stem = os.path.join(path, stored.queue_id)
        self._body = _create(self._stem + ".eml.tmp")
        self._size_bytes = 0

    @property
    def queue_id(self) -> str:
        return self._stored.queue_id

    @property
    def flaw(self) -> str:
        """Why it is not the whole mail, "" if it is."""
        size_bytes = self._stored.size_bytes
        return "" if self._size_bytes == size_bytes else f"{self.queue_id}: {self._size_bytes} octets instead of {size_bytes}"

    def write(self, piece: bytes) -> None:
        """Add some octets."""
        self._size_bytes += len(piece)
        _write_all(self._body, piece)

    def finish(self) -> None:
        """Sync and name both files of a whole mail; durable after the next `sync`."""
        try:
            os.fsync(self._body)
        finally:
            self.abandon()
        os.rename(self._stem + ".eml.tmp", self._stem + ".eml")
        fd = _create(self._stem + ".json.tmp")
        try:
            _write_all(fd, msgspec.json.format(msgspec.json.encode(self._stored)) + b"\n")
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(self._stem + ".json.tmp", self._stem + ".json")

    def abandon(self) -> None:
        """Leave it unfinished. Harmless after `finish`, even one that failed."""
        body, self._body = self._body, -1
        if body >= 0:
            os.close(body)


def make(path: str) -> None:
    """Make the directory for this user alone, durable with all that leads to it, or take one that is there."""
    missing = []
    above = os.path.abspath(path)
    while not os.path.isdir(above):
        missing.append(above)
        above = os.path.dirname(above)
    os.makedirs(path, mode=0o700, exist_ok=True)
    for made in missing:
        sync(os.path.dirname(made))


def sync(path: str) -> None:
    """Make the names of all that is finished durable."""
    sync_directory(os.path.realpath(path))


def queue_ids(path: str) -> list[str]:
    """Return the ids of the whole mails, oldest first."""
    return sorted(match[1] for name in os.listdir(path) if (match := _NAME.fullmatch(name)) is not None)


def read(path: str, queue_id: str) -> StoredMail:
    """Return what is known of a mail beside its octets."""
    fd = os.open(os.path.join(path, queue_id + ".json"), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    with open(fd, "rb") as file:
        return _STORED.decode(file.read())


def read_body(path: str, queue_id: str) -> Iterator[bytes]:
    """Yield the octets of a mail in pieces."""
    fd = os.open(os.path.join(path, queue_id + ".eml"), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    with open(fd, "rb") as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece


def remove(path: str, queue_id: str) -> None:
    """Remove a mail that is in custody elsewhere; the .json first: without it nothing is imported again."""
    os.unlink(os.path.join(path, queue_id + ".json"))
    sync(path)
    os.unlink(os.path.join(path, queue_id + ".eml"))


def _create(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
