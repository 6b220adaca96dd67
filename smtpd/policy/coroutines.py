"""An awaitable between the thread that made it and the one that may never get to run it."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any


class Held:
    """Closes a coroutine that nobody took: its question was cancelled first, and Python would complain that it never ran."""

    __slots__ = ("_awaitable",)

    def __init__(self, awaitable: Awaitable[Any]) -> None:
        self._awaitable: Awaitable[Any] | None = awaitable

    def take(self) -> Awaitable[Any]:
        """Return it, once."""
        awaitable, self._awaitable = self._awaitable, None
        assert awaitable is not None
        return awaitable

    def __del__(self) -> None:
        close = getattr(self._awaitable, "close", None)
        if close is not None:
            close()
