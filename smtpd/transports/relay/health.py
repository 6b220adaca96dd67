"""What is known of one address of a next hop: whether it is set aside, how many connections the host has to it.

What all workers share is in a row of net.hop_table; where the table has no room the knowledge is this process's alone, and the
limit of connections then holds for each process. Loop thread only; times are monotonic seconds.
"""

from __future__ import annotations

from smtpd.net.hop_table import HopRow, HopTable
from smtpd.net.hops import Hop

_FAILURES_MAX = 3  # of connections that had answered before, in a row


class HopHealth:
    """`failures` in a row of connections of this process. `is_probing`: this process has the one connection that tries it."""

    __slots__ = ("_connections", "_row", "_text", "_until_s", "failures", "hop", "is_plain", "is_probing", "live")

    def __init__(self, hop: Hop, table: HopTable | None, column: int) -> None:
        self.hop = hop
        self.failures = 0
        self.live = 0  # connections of this process that have answered
        self.is_probing = False
        self.is_plain = False  # its TLS is broken: not tried where it is optional
        self._row: HopRow | None = None if table is None else table.row_of(f"{hop.address}:{hop.port}", column)
        self._until_s = 0.0
        self._text = ""
        self._connections = 0

    def is_set_aside(self, now_s: float) -> bool:
        """Whether nobody may connect now. When its time is over, somebody has to try it first: `begin_probe`."""
        return self._until() > now_s

    def begin_probe(self, now_s: float, retry_s: float) -> None:
        """Connect to a next hop that had failed: until its answer everybody else keeps away."""
        if self._until():
            self.is_probing = True
            self.set_aside(now_s + retry_s, self.text)

    def end_probe(self) -> None:
        """Nobody tries it any more: it was not reached, for a reason that says nothing about it."""
        if self.is_probing:
            self.is_probing = False
            self._set_until(1e-9)

    def _until(self) -> float:
        return self._row.until_s if self._row is not None else self._until_s

    def _set_until(self, until_s: float) -> None:
        if self._row is None:
            self._until_s = until_s
        elif until_s:
            self._row.set_aside(until_s, self._row.text)
        else:
            self._row.welcome()

    @property
    def text(self) -> str:
        """Why it is set aside."""
        return self._row.text if self._row is not None else self._text

    def note_success(self) -> None:
        """A mail went through."""
        self.failures = 0
        self.is_probing = False
        if self._until():
            self._set_until(0.0)

    def note_failure(self, now_s: float, retry_s: float, text: str) -> bool:
        """A connection failed. Returns whether the next hop is set aside now: at once when no other connection of ours works,
        else after some failures in a row."""
        self.failures += 1
        self.is_probing = False
        if self.live and self.failures < _FAILURES_MAX:
            return False
        self.set_aside(now_s + retry_s, text)
        return True

    def set_aside(self, until_s: float, text: str) -> None:
        self._text = text
        self._until_s = until_s
        if self._row is not None:
            self._row.set_aside(until_s, text)

    def take_connection(self, most: int) -> bool:
        """Count a connection, unless the host has `most` already."""
        if self._row is not None:
            return self._row.take_connection(most)
        if self._connections >= most:
            return False
        self._connections += 1
        return True

    def give_connection(self) -> None:
        if self._row is not None:
            self._row.give_connection()
        else:
            self._connections -= 1
