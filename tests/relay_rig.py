"""A relaying transport on a real loop, with next hops of tests (next_hop.py): mails in, outcomes out."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from smtpd.mail.envelope import Envelope, Recipient
from smtpd.mail.outcome import Outcome
from smtpd.net.files import FilesThread
from smtpd.net.hop_table import HopTable
from smtpd.net.loop import Loop
from smtpd.net.resolver import Resolver
from smtpd.net.side import SideThread
from smtpd.settings import DeliverySettings, RouteSettings
from smtpd.settings.delivery import DnsSettings
from smtpd.spool.item import Body, SpoolItem
from smtpd.transports.relay.link import Link
from smtpd.transports.relay.transport import RelayHost, RelayTransport

PATIENCE_S = 20.0  # before a test is given up
LONG_S = 60.0  # a timeout that isn't to come
_TIMEOUTS = ("connect", "greeting", "hello", "tls", "mail", "recipient", "data", "block", "end_of_data", "quit")
BODY = b"Subject: x\r\n\r\n.dot\r\ntext\r\n"


def _links(transport: RelayTransport) -> list[Link]:
    return [link for pool in transport._pools.values() for link in pool.links]


def _is_free(link: Link) -> bool:
    return link.is_ready and not link.is_quitting and not link.deliveries and link.session.takes_mail()


class Sent:
    """One delivery: `outcomes` when it is done; being done twice fails the test."""

    def __init__(self, item: SpoolItem) -> None:
        self.item = item
        self.outcomes: list[Outcome] = []
        self.connect_s = -1.0
        self.is_done = False
        self.then: Callable[[Sent], object] | None = None

    def take(self, outcomes: list[Outcome], connect_s: float) -> None:
        assert not self.is_done
        self.is_done = True
        self.outcomes = list(outcomes)
        self.connect_s = connect_s
        if self.then is not None:
            self.then(self)

    @property
    def statuses(self) -> list[int]:
        return [outcome.status for outcome in self.outcomes]

    @property
    def outcome(self) -> Outcome:
        (outcome,) = self.outcomes
        return outcome


class RelayRig:
    """The process's part of relaying; `make` a transport for each route. `warnings` are what the log would get."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.files = FilesThread(self.loop)
        self.files.start()
        self.side = SideThread(self.loop)
        self.table = HopTable()
        self.warnings: list[str] = []
        self.transports: list[RelayTransport] = []
        self._count = 0

    def make(
        self,
        *next_hops: str,
        column: int = 0,
        lmtp: bool = False,
        table: HopTable | None = None,
        route: dict[str, Any] | None = None,
        dns: DnsSettings | None = None,
        mx_port: int = 25,
        **delivery: Any,
    ) -> RelayTransport:
        timeouts = {f"{name}_timeout": LONG_S for name in _TIMEOUTS}
        settings = DeliverySettings(**{**timeouts, "connection_idle": LONG_S, "retry_next_hop": LONG_S, **delivery})
        resolver = Resolver(self.loop, self.side, dns or DnsSettings(), mx_port=mx_port)
        host = RelayHost(self.loop, self.files, resolver, table or self.table, column, "out.example.org", self.warnings.append)
        kind = "lmtp" if lmtp else "smtp"
        options: dict[str, Any] = {"tls": "off", **(route or {})}
        section = RouteSettings(domains=["*"], transport=kind, next_hop=list(next_hops), name="r", **options)
        transport = RelayTransport(section, settings, host)
        self.transports.append(transport)
        return transport

    def send(self, transport: RelayTransport, *paths: bytes, body: bytes | Path = BODY, key: str = "", then: Any = None) -> Sent:
        recipients = [Recipient(path, path.rpartition(b"@")[2].decode()) for path in paths or (b"b@example.net",)]
        envelope = Envelope(b"a@example.org", recipients, "192.0.2.7", "c.example", b"c.example", "ESMTP", 0.0)
        self._count += 1
        if isinstance(body, bytes):
            stored = Body(body, "", len(body))
        else:
            stored = Body(None, str(body), body.stat().st_size)
        item = SpoolItem(f"Q{self._count}", envelope, stored.size_bytes, self._count, None)  # type: ignore[arg-type]
        sent = Sent(item)
        sent.then = then
        transport.deliver(item, stored, list(range(len(recipients))), sent.take, key)
        return sent

    def run_until(self, probe: Callable[[], object]) -> None:
        """Turn the loop until `probe()` is true."""
        deadline = time.monotonic() + PATIENCE_S
        while not probe():
            assert time.monotonic() < deadline, "what was waited for did not come"
            self.loop.turn(0.02)

    def await_done(self, *all_sent: Sent) -> None:
        self.run_until(lambda: all(sent.is_done for sent in all_sent))

    def await_connected(self, transport: RelayTransport) -> None:
        """Until our side of a transport's only connection knows that it is one."""
        self.run_until(lambda: any(link._stream is not None for link in _links(transport)))

    def await_free(self, transport: RelayTransport) -> None:
        """Until each connection of a transport, at least one, has nothing under way and waits for no reply: the next mail goes
        over one of these. That the next hop has been told something does not mean that its answer is here."""
        self.run_until(lambda: transport.connections and all(map(_is_free, _links(transport))))

    def await_closed(self, transport: RelayTransport) -> None:
        self.run_until(lambda: not transport.connections)

    def connections(self, name: str) -> int:
        """What the shared table says of a next hop, over all columns."""
        row = self.table.row_of(name, 0)
        return 0 if row is None else row.connections

    def close(self) -> None:
        for transport in self.transports:
            transport.close()
        for _ in range(3):
            self.loop.turn(0)
        assert self.side.close(10.0)
        self.files.close()
        self.table.close()
        self.loop.close()
