"""What is known of one address of a next hop: whether it is set aside, how many connections the host has to it.

What all workers share is in a row of net.hop_table; where the table has no room the knowledge is this process's alone, and the
limit of connections then holds for each process. Loop thread only; times are monotonic seconds.
"""

from __future__ import annotations

from smtpd.net.hop_table import HopRow, HopTable
from smtpd.net.hops import Hop

_FAILURES_MAX = 3  # in a row, of connections to a next hop that answers
_PLAIN_S = 600.0  # how long a next hop whose TLS is broken is talked to without
_BEGGING_S = 1.0  # how long a wish for a connection counts
_PROBE_FIRST_S = 1e-9  # a time that is over, but is one


class HopHealth:
    """`failures` in a row, and `live` connections that have answered, are this process's."""

    __slots__ = ("_own_text", "_own_until_s", "_plain_until_s", "_row", "failures", "hop", "live")

    def __init__(self, hop: Hop, table: HopTable | None, column: int) -> None:
        self.hop = hop
        self.failures = 0
        self.live = 0
        self._plain_until_s = 0.0
        self._own_until_s = 0.0  # good for others, but not for this route
        self._own_text = ""
        row = None if table is None else table.row_of(f"{hop.address}:{hop.port}", column)
        self._row: HopRow | _OwnRow = _OwnRow() if row is None else row

    @property
    def text(self) -> str:
        """Why it was last set aside."""
        return self._own_text or self._row.text

    # --- set aside, and tried again ----------------------------------------------------------------------------------

    def is_set_aside(self, now_s: float) -> bool:
        """Whether nobody may connect now. When its time is over, somebody has to try it first: `begin_probe`."""
        return self._row.until_s > now_s or self._own_until_s > now_s

    def begin_probe(self, now_s: float, retry_s: float) -> bool:
        """Connect to it. Returns whether it had failed: then everybody else keeps away until it answers."""
        row = self._row
        if not row.until_s:
            return False
        row.set_aside(now_s + retry_s, row.text)
        return True

    def end_probe(self) -> None:
        """The probe was given up, for a reason that says nothing about the next hop: somebody else has to try it."""
        if self._row.until_s:
            self._row.set_aside(_PROBE_FIRST_S, self._row.text)

    def note_answer(self) -> None:
        """It greets and takes mails."""
        self._own_until_s = 0.0
        self._own_text = ""
        if self._row.until_s:
            self._row.welcome()

    def note_success(self) -> None:
        """A mail went through."""
        self.failures = 0
        self.note_answer()

    def note_failure(self, now_s: float, retry_s: float, text: str, was_ready: bool) -> bool:
        """A connection failed. Returns whether the next hop is set aside now: at once when it did not answer at all, after some
        failures in a row where it does, on this connection or on others."""
        self.failures += 1
        if (was_ready or self.live) and self.failures < _FAILURES_MAX:
            return False
        self._row.set_aside(now_s + retry_s, text)
        return True

    def note_unfit(self, until_s: float, text: str) -> None:
        """It answers, and others may well use it, but it has not the TLS that this route requires."""
        self.note_answer()
        self._own_until_s = until_s
        self._own_text = text

    # --- TLS ---------------------------------------------------------------------------------------------------------

    def is_plain(self, now_s: float) -> bool:
        """Whether its TLS is broken: not tried where it is optional."""
        return now_s < self._plain_until_s

    def note_broken_tls(self, now_s: float) -> None:
        self._plain_until_s = now_s + _PLAIN_S

    # --- how many connections ----------------------------------------------------------------------------------------

    def take_connection(self, most: int) -> bool:
        """Count a connection, unless the host has `most` already."""
        return self._row.take_connection(most)

    def give_connection(self) -> None:
        self._row.give_connection()

    def beg(self, now_s: float) -> None:
        """Ask whoever has connections to let one go: there is mail, and not one connection for it."""
        self._row.beg(now_s)

    def is_begged(self, now_s: float) -> bool:
        """Whether somebody has asked lately."""
        return now_s - self._row.begged_at_s < _BEGGING_S


class _OwnRow:
    """A row that only this process knows; see HopRow."""

    __slots__ = ("begged_at_s", "connections", "text", "until_s")

    def __init__(self) -> None:
        self.begged_at_s = 0.0
        self.connections = 0
        self.text = ""
        self.until_s = 0.0

    def take_connection(self, most: int) -> bool:
        if self.connections >= most:
            return False
        self.connections += 1
        return True

    def give_connection(self) -> None:
        self.connections -= 1

    def set_aside(self, until_s: float, text: str) -> None:
        self.until_s = until_s
        self.text = text

    def welcome(self) -> None:
        self.until_s = 0.0

    def beg(self, now_s: float) -> None:
        self.begged_at_s = now_s
