"""What a live transcript of one peer is to those who talk to it."""

from __future__ import annotations

from typing import Protocol


class Transcript(Protocol):
    """Both take octets as they were on the wire, or will be; they never raise and never block."""

    def received(self, data: bytes) -> None: ...

    def sent(self, data: bytes) -> None: ...
