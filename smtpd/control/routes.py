"""The routes of a worker that are suspended and resumed. Loop thread only but for `store`. Raises OSError, ValueError."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from smtpd.delivery.suspension import read_suspended, set_suspended


class SuspendableLane(Protocol):
    """A delivery.lane.Lane."""

    name: str
    is_suspended: bool


class Routes:
    """`spool_path` is where suspensions are kept, "" for a worker without a spool."""

    def __init__(self, spool_path: str, lanes: Sequence[SuspendableLane]) -> None:
        self._spool_path = spool_path
        self._lanes = lanes

    def load(self) -> None:
        """Take up what is stored: at the start, once the control socket is there, so that no command falls between."""
        if self._spool_path:
            self.apply(read_suspended(self._spool_path))

    def suspended(self) -> list[str]:
        """Return the names of the suspended ones among this worker's routes."""
        return sorted(lane.name for lane in self._lanes if lane.is_suspended)

    def check(self, route: str) -> None:
        """Raise ValueError for a route that is none here."""
        if not any(lane.name == route for lane in self._lanes):
            known = ", ".join(lane.name for lane in self._lanes)
            raise ValueError(f"no route {route!r}; there are {known or 'none'}")

    def store(self, route: str, is_suspended: bool) -> list[str]:
        """Make it durable that a route is suspended, or is not; returns what `apply` takes. For a thread that may block."""
        return set_suspended(self._spool_path, route, is_suspended)

    def apply(self, names: Sequence[str]) -> None:
        """Suspend these routes and no others."""
        for lane in self._lanes:
            lane.is_suspended = lane.name in names
