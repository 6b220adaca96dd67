"""A mail as the Maildir holds it, taken apart: the three header fields that the gateway adds, and what the client sent.

Shared by the tests that hold a delivered mail against the sent one, byte for byte.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_FIELD = re.compile(rb"([!-9;-~]+):[ \t]*((?:.*\n)(?:[ \t].*\n)*)")
_ADDED = (b"Return-Path", b"Delivered-To", b"Received")


@dataclass(frozen=True, slots=True)
class Delivered:
    """Values are unfolded; `content` is everything behind the added fields."""

    return_path: bytes
    delivered_to: bytes
    received: bytes
    content: bytes

    @property
    def queue_id(self) -> bytes:
        """The queue id that Received names; AssertionError without one."""
        found = re.search(rb" id ([0-9A-Za-z]+)", self.received)
        assert found, self.received
        return found[1]


def take_apart(stored: bytes) -> Delivered:
    """Return the parts of a stored mail; AssertionError when it doesn't begin with exactly the added fields, in order."""
    values = []
    position = 0
    for name in _ADDED:
        field = _FIELD.match(stored, position)
        assert field, f"{name!r} expected at {stored[position : position + 200]!r}"
        assert field[1] == name, f"{field[1]!r} where {name!r} belongs"
        values.append(re.sub(rb"\n[ \t]+", b" ", field[2]).strip())
        position = field.end()
    return_path, delivered_to, received = values
    return Delivered(return_path, delivered_to, received, stored[position:])


def crlf(text: bytes) -> bytes:
    """Return `text` as a client sends it: every line end CRLF, the last line ended."""
    lines = re.sub(rb"\r\n|\r|\n", b"\r\n", text)
    return lines if not lines or lines.endswith(b"\r\n") else lines + b"\r\n"


def on_disk(sent: bytes) -> bytes:
    """Return what a Maildir holds of content sent with CRLF line ends (before dot-stuffing)."""
    return sent.replace(b"\r\n", b"\n")
