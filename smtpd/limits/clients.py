"""What a client may take of the whole host, as one worker asks it: at accept, at MAIL, at RCPT.

Owns no count: they are in the shared table (`_clients`). A trusted client is counted for the host alone. Never refuses for want
of room in the table: without a row there is no limit.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable

from smtpd import _io
from smtpd.limits._clients import CONNECTION_RATE, MAIL_RATE, RECIPIENT_RATE, ClientTable, key_of
from smtpd.limits.sharing import FleetRates
from smtpd.net.fleet import Fleet
from smtpd.net.loop import Loop
from smtpd.net.side import SideThread
from smtpd.settings import LimitsSettings
from smtpd.settings.rate import parse_rate

HOST_LIMIT, CLIENT_LIMIT, RATE = "host_limit", "client_limit", "rate"  # labels of smtpd_connections_denied_total
NO_ROW = -1
_KNOWN_ADDRESSES = 10_000


class Networks:
    """A set of networks; membership of an address is remembered, for a bounded number of addresses."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = [ipaddress.ip_network(network) for network in networks]
        self._known: dict[str, bool] = {}

    def __bool__(self) -> bool:
        return bool(self._networks)

    def __contains__(self, address: str) -> bool:
        """False for what is no address, such as the peer of a unix socket."""
        known = self._known.get(address)
        if known is None:
            if len(self._known) >= _KNOWN_ADDRESSES:
                self._known.clear()
            known = self._known[address] = self._look_up(address)
        return known

    def _look_up(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed.version == network.version and parsed in network for network in self._networks)


class ClientLimits:
    """The limits of one worker's clients; `bank` is where this worker counts, and nobody else."""

    def __init__(self, table: ClientTable, bank: int, limits: LimitsSettings) -> None:
        self._table = table
        self._bank = bank
        self._host_most = limits.connections
        self._client_most = limits.connections_per_client
        self._rates = {
            CONNECTION_RATE: parse_rate(limits.connection_rate),
            MAIL_RATE: parse_rate(limits.mail_rate),
            RECIPIENT_RATE: parse_rate(limits.recipient_rate),
        }
        self._shared: FleetRates | None = None

    @property
    def has_rates(self) -> bool:
        """There is a limit that holds within a session."""
        return bool(self._rates[MAIL_RATE].count or self._rates[RECIPIENT_RATE].count)

    def enter(self, address: str, is_trusted: bool) -> tuple[int, str]:
        """Count a new connection. Return (row, ""), the row to be given to `leave`; or (NO_ROW, why it is turned away): then it
        counts no more."""
        table, bank = self._table, self._bank
        row = NO_ROW
        if not is_trusted:
            row = table.find(key_of(address), _now_us())
        table.enter(row, bank)
        denial = ""
        if self._host_most and table.host_connections() > self._host_most:
            denial = HOST_LIMIT
        else:
            denial = self._judge(row)
        if denial:
            table.leave(row, bank)
            return NO_ROW, denial
        return row, ""

    def move(self, row: int, address: str, is_trusted: bool) -> tuple[int, str]:
        """A connection that was let in turns out to be another client's. Return as `enter`, but for one thing: a connection that
        is refused is still counted for the host, and NO_ROW is to be given to `leave`."""
        table, bank = self._table, self._bank
        table.leave(row, bank)
        new = NO_ROW if is_trusted else table.find(key_of(address), _now_us())
        table.enter(new, bank)
        denial = self._judge(new)
        if denial:
            table.leave(new, bank)
            table.enter(NO_ROW, bank)
            return NO_ROW, denial
        return new, ""

    def _judge(self, row: int) -> str:
        """Why a client that has just come in is one too many, "" = it is not."""
        if row >= 0:
            if self._client_most and self._table.connections(row) > self._client_most:
                return CLIENT_LIMIT
            if not self.take(row, CONNECTION_RATE):
                return RATE
        return ""

    def leave(self, row: int) -> None:
        """A connection that was let in has ended."""
        self._table.leave(row, self._bank)

    def take(self, row: int, rate: int) -> bool:
        """Count one more of a rate; False: the client has none left now."""
        limit = self._rates[rate]
        if not limit.count:
            return True
        is_taken = self._table.take(row, rate, _now_us(), limit.interval_us, limit.count, 1)
        if is_taken and self._shared is not None and row >= 0:
            self._shared.note(row, rate)
        return is_taken

    def share(self, loop: Loop, side: SideThread, fleet: Fleet, timeout_s: float) -> None:
        """Let the rates hold for all hosts of a fleet together."""
        if any(rate.count for rate in self._rates.values()):
            self._shared = FleetRates(loop, side, fleet, self._table, self._rates, timeout_s, _now_us)


def make_client_table() -> ClientTable:
    """Make the memory that all workers will share; before the fork. OSError: there is none to have."""
    fd = os.memfd_create("smtpd-clients", os.MFD_CLOEXEC)
    try:
        return ClientTable(fd, int.from_bytes(os.urandom(8), "little"))
    finally:
        os.close(fd)  # the map has its own


def _now_us() -> int:
    return int(_io.monotonic_s() * 1e6)
