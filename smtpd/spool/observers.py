"""What a spool tells of its work, for counters. A leaf."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SpoolObservers:
    """`commit(seconds, inserted, settled)` runs on the shard thread, `space(free bytes, free inodes)` on the loop."""

    commit: Callable[[float, int, int], object] | None = None
    space: Callable[[int, int], object] | None = None
