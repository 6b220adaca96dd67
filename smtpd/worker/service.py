"""What the connections of one listener share in a worker: rules, limits, spool, account, and who is connected."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from smtpd.mail.reply import Reply
from smtpd.net.files import FilesThread
from smtpd.net.loop import Loop
from smtpd.net.tls.server import ServerTls
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


_NEVER_S = 1e9


def _nobody_counts(row: int) -> None:
    """Where no limits are held."""


class Service:
    """`rules_for(peer)` picks the rules by the peer's network, `conduct_for(peer)` a conduct for its session,
    `policy_for(peer, connection)` the checks that it meets;
    `on_accepted(item)` gets each mail in custody, `left(row)` is told of each client that goes.
    `introduce(connection, peer)` counts a connection for the client that XCLIENT names, and returns what refuses it."""

    __slots__ = (
        "_has_mail_deadline",
        "_stress_timeout",
        "account",
        "command_deadline",
        "command_timeout",
        "conduct_for",
        "connections",
        "data_timeout",
        "dates",
        "files",
        "hostname",
        "introduce",
        "keeps_mail",
        "left",
        "limits",
        "loop",
        "mail_deadline",
        "minimum_data_rate",
        "on_accepted",
        "policy_for",
        "rules_for",
        "spool",
        "timer_period_s",
        "tls",
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
        introduce: Callable[[Connection, Peer], Reply | None] | None = None,
        *,
        stress_timeout: float = 10.0,
        has_mail_deadline: bool = False,
        tls: ServerTls | None = None,
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
        self.introduce = introduce
        self.policy_for = policy_for
        self.on_accepted = on_accepted
        self.hostname = hostname.encode("ascii")
        self.dates = dates
        self.connections = connections
        self.left = left
        self.tls = tls
        self.minimum_data_rate = limits.minimum_data_rate
        self._stress_timeout = stress_timeout
        self._has_mail_deadline = has_mail_deadline
        self.set_stress(False)

    def set_stress(self, is_stressed: bool) -> None:
        """Under stress silence is shorter and slow mails end; for open sessions too, from the next look of their timers on."""
        limits = self.limits
        most = self._stress_timeout if is_stressed else _NEVER_S
        self.command_timeout = min(most, limits.command_timeout)
        self.data_timeout = min(most, limits.data_timeout)
        self.command_deadline = min(most, limits.command_deadline)
        self.mail_deadline = limits.mail_deadline if is_stressed or self._has_mail_deadline else 0.0
        # A connection's timer looks at its times this often: late by at most a quarter of the shortest limit.
        shortest = min(self.command_timeout, self.data_timeout, self.command_deadline, limits.end_of_data_timeout)
        if self.tls is not None:
            shortest = min(shortest, self.tls.handshake_timeout_s)
        self.timer_period_s = min(shortest, self.mail_deadline or shortest) / 4
