"""What the connections of one listener share in a worker: rules, limits, spool, account, and who is connected."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from smtpd.net.files import FilesThread
from smtpd.net.loop import Loop
from smtpd.proto.dialogue import Peer
from smtpd.proto.rules import Rules
from smtpd.proto.trace import DateText
from smtpd.settings import LimitsSettings
from smtpd.spool.base import Spool
from smtpd.spool.item import SpoolItem
from smtpd.worker.account import ListenerAccount

if TYPE_CHECKING:
    from smtpd.policy.inspection import Inspection
    from smtpd.proto.conduct import Conduct
    from smtpd.worker.connection import Connection


def _nobody_counts(row: int) -> None:
    """Where no limits are held."""


class Service:
    """`rules_for(peer)` picks the rules by the peer's network, `conduct_for(peer)` a conduct for its session,
    `policy_for(peer, connection)` the checks that it meets;
    `on_accepted(item)` gets each mail in custody, `left(row)` is told of each client that goes."""

    __slots__ = (
        "account",
        "command_timeout",
        "conduct_for",
        "connections",
        "data_timeout",
        "dates",
        "files",
        "hostname",
        "keeps_mail",
        "left",
        "limits",
        "loop",
        "on_accepted",
        "policy_for",
        "rules_for",
        "spool",
        "timer_period_s",
    )

    def __init__(
        self,
        loop: Loop,
        limits: LimitsSettings,
        spool: Spool,
        account: ListenerAccount,
        rules_for: Callable[[Peer], Rules],
        on_accepted: Callable[[SpoolItem], None],
        hostname: str,
        dates: DateText,
        connections: set[Connection],
        left: Callable[[int], object] = _nobody_counts,
        conduct_for: Callable[[Peer], Conduct | None] | None = None,
        policy_for: Callable[[Peer, Connection], Inspection | None] | None = None,
        files: FilesThread | None = None,
    ) -> None:
        self.files = files
        self.loop = loop
        self.limits = limits
        self.spool = spool
        self.keeps_mail = spool.keeps_mail
        self.account = account
        self.rules_for = rules_for
        self.conduct_for = conduct_for
        self.policy_for = policy_for
        self.on_accepted = on_accepted
        self.hostname = hostname.encode("ascii")
        self.dates = dates
        self.connections = connections
        self.left = left
        self.command_timeout = limits.command_timeout
        self.data_timeout = limits.data_timeout
        # A connection's timer looks at its deadline this often: late by at most a quarter of the shortest limit.
        shortest = min(limits.command_timeout, limits.data_timeout, limits.command_deadline, limits.end_of_data_timeout)
        self.timer_period_s = shortest / 4
