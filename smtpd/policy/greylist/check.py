"""The check `greylist`: a sender that isn't known is put off with 450 4.7.1, and taken when it comes again in time.

Known is a triplet of client, sender and recipient that came again, and a client that did so often enough. A client is its
network, or the domain that its SPF passes for, so that large senders may try again from another address. Clients that are known
are remembered in the worker for a while, so that they cost a look into a dict. Failures of the store are the check's.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from smtpd.mail.reply import Reply
from smtpd.mail.verdict import Verdict
from smtpd.net.dns_records import records_of
from smtpd.net.fleet import fleet_of
from smtpd.policy.auth import spf
from smtpd.policy.auth.spf import SpfEvaluator
from smtpd.policy.check import RCPT, Answer, Check, CheckHost, Question
from smtpd.policy.dns.checks import is_for_postmaster
from smtpd.policy.greylist.fleet import FleetStore
from smtpd.policy.greylist.local import LocalStore
from smtpd.policy.greylist.sender import make_key, network_of, normal_sender
from smtpd.policy.greylist.store import Store, Times
from smtpd.settings import Settings as WholeSettings
from smtpd.settings.greylist import GreylistSettings

REMEMBERED = 100_000  # clients
REMEMBERED_S = 600.0  # after that the store is told again that a client was here


class Greylist(Check):
    """Puts off who comes for the first time."""

    Settings = GreylistSettings
    stages = (RCPT,)
    skips_trusted = True
    is_independent = False  # a mail that others refuse is no first try
    reason = "greylist"

    def __init__(self, settings: GreylistSettings, host: CheckHost) -> None:
        super().__init__(settings, host)
        self._rules = settings
        times = Times(round(settings.delay), round(settings.retry_window), round(settings.lifetime), settings.known_after)
        path = settings.path or str(Path(host.settings.spool.path) / "greylist.sqlite")
        self._local = LocalStore(path, times, lambda text: host.log.warning("smtpd", text))
        self._store: Store = self._local
        self._spf = SpfEvaluator(records_of(host.side, host.settings.dns)) if settings.spf else None
        fleet = fleet_of(host.settings.redis, host.side, host.loop, host.log, host.cells, host.index)
        if fleet is not None and settings.redis:
            self._store = FleetStore(fleet, times, self._local)
        self._known: dict[str, float] = {}  # clients, until when; written by both threads, one key at a time

    @classmethod
    def find_faults(cls, settings: GreylistSettings, whole: WholeSettings) -> Iterable[tuple[str, str]]:
        if settings.delay >= settings.retry_window:
            yield "retry_window", "not above delay: no second try could ever pass"
        if settings.spf and spf.find_missing():
            yield "spf", spf.find_missing()

    def ask(self, question: Question) -> Answer:
        if is_for_postmaster(question):
            return None
        network = network_of(question.client.address, self._rules.ipv4_prefix, self._rules.ipv6_prefix)
        if self._is_remembered(network) or (self._spf is not None and self._is_remembered(_pair(question))):
            return None
        return self._touch(question, network)

    async def _touch(self, question: Question, network: str) -> Verdict | None:
        assert question.recipient is not None
        sender = question.reverse_path or b""
        client = await self._find_domain(question) or network
        triplet = make_key(client, normal_sender(sender), question.recipient.path.lower())
        touch = await self._store.touch(make_key(client), triplet)
        if touch.is_client_known:  # a domain only from where its SPF has passed
            self._remember(network if client == network else _pair(question))
        if not touch.wait_s:
            return None
        return Verdict(Reply(b"450 4.7.1 Greylisted, please try again in %d seconds" % touch.wait_s), "greylist")

    async def _find_domain(self, question: Question) -> str:
        """The domain that SPF passes for, "" without; asked once for each sender of a session."""
        if self._spf is None:
            return ""
        memory = question.memory
        sender = (question.reverse_path or b"").decode("utf-8", "replace")
        if memory.get("sender") != sender:
            client = question.client
            found = await self._spf.evaluate(client.address, sender, client.helo.decode("ascii", "replace"))
            memory["sender"], memory["domain"] = sender, f"spf:{found.domain}" if found.result == "pass" else ""
        domain: str = memory["domain"]
        return domain

    def _is_remembered(self, client: str) -> bool:
        return self._known.get(client, 0.0) > time.monotonic()

    def _remember(self, client: str) -> None:
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        self._known[client] = time.monotonic() + REMEMBERED_S

    def close(self) -> None:
        self._local.close()
        if self._spf is not None:
            self._spf.close()


def _pair(question: Question) -> str:
    """A client and a sender's domain."""
    domain = (question.reverse_path or b"").rpartition(b"@")[2].decode("utf-8", "replace").lower()
    return f"{question.client.address} {domain or question.client.helo.decode('ascii', 'replace')}"
