"""The check `dnsbl`: lists of addresses and domains, weighed; who reaches the threshold is refused.

Asks at rcpt by default; what a list answers is kept by its TTL. A list that
fails says nothing: it is logged once in a while, counted, and a failure of the check only where `unreachable` says so.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable

from smtpd.mail.reply import Reply
from smtpd.mail.verdict import Verdict
from smtpd.policy.check import CONNECT, RCPT, CheckHost, Question
from smtpd.policy.dns.asking import Asker
from smtpd.policy.dns.checks import DnsCheck, Judgement, domain_of, is_for_postmaster
from smtpd.policy.dns.codes import Codes
from smtpd.policy.dns.lists import DnsList, Score, find_reason, score
from smtpd.settings import Settings as WholeSettings
from smtpd.settings.dns_checks import DnsblSettings

_QUIET_S = 600.0  # between two log lines about a list that fails


class ListsFailedError(Exception):
    """Lists that could have tipped the scales didn't answer."""


class Dnsbl(DnsCheck):
    """Refuses clients and domains that DNS lists name."""

    Settings = DnsblSettings
    stages: tuple[str, ...] = (RCPT, CONNECT)
    skips_trusted = True
    reason = "dnsbl"

    def __init__(self, settings: DnsblSettings, host: CheckHost) -> None:
        super().__init__(settings, host)
        self.stages = (settings.stage,)
        self._lists = [DnsList(entry.zone, Codes(entry.codes), entry.weight, entry.of) for entry in settings.lists]
        self._rules = settings
        self._asks_clients_alone = all(entry.of == "client" for entry in settings.lists)
        self._told_at: dict[str, float] = {}  # by zone; both threads write it, the worst of which is a line twice
        self._errors = host.index.counter("smtpd_dns_list_errors_total", check=host.name)

    @classmethod
    def find_faults(cls, settings: DnsblSettings, whole: WholeSettings) -> Iterable[tuple[str, str]]:
        if not settings.lists:
            yield "lists", "no list is named"
        if settings.defer_at >= settings.reject_at:
            yield "defer_at", f"not below reject_at ({settings.reject_at}): it would never be reached alone"
        for entry in settings.lists:
            try:
                Codes(entry.codes)
            except ValueError as error:
                yield "lists", f"{entry.zone}: {error}"
            if settings.stage == CONNECT and entry.of in ("sender", "helo"):
                yield "lists", f"{entry.zone}: at connect there is no {entry.of} to look up"

    def subject_of(self, question: Question) -> Hashable:
        if is_for_postmaster(question):
            return None
        client = question.client
        if self._asks_clients_alone:
            return client.address or None
        return (client.address, client.name, client.helo, (question.reverse_path or b"").rpartition(b"@")[2])

    async def judge(self, asker: Asker, question: Question) -> Judgement:
        client = question.client
        subjects = {
            "client": client.address,
            "client_name": "" if client.name == "unknown" else client.name,
            "sender": domain_of(question.reverse_path or b""),
            "helo": client.helo.decode("ascii", "replace"),
        }
        found = await score(asker, self._lists, subjects)
        verdict = await self._weigh(asker, found, client.address)
        if found.errors:
            self._tell_errors(found)
        return verdict, not found.errors

    async def _weigh(self, asker: Asker, found: Score, address: str) -> Verdict | None:
        settings = self._rules
        if found.points >= settings.reject_at:
            return await self._refuse(asker, found, b"550 5.7.1", address)
        if found.missing and settings.unreachable == "error" and found.points + found.missing >= settings.reject_at:
            self._tell_errors(found)
            raise ListsFailedError("no answer from " + ", ".join(zone for zone, _ in found.errors))
        if settings.defer_at and found.points >= settings.defer_at:
            return await self._refuse(asker, found, b"450 4.7.1", address)
        return None

    async def _refuse(self, asker: Asker, found: Score, codes: bytes, address: str) -> Verdict:
        entry, name = found.hits[0]
        subject = f"client [{address}]" if entry.of.startswith("client") else f"domain {name.removesuffix('.' + entry.zone)}"
        text = f"Service unavailable; {subject} blocked using {entry.zone}"
        if self.settings.reason:
            reason = await find_reason(asker, name)
            if reason:
                text += f"; {reason}"
        plain = "".join(c if " " <= c <= "~" else "?" for c in text)
        return Verdict(Reply(codes + b" " + plain.encode("ascii")), "dnsbl")

    def _tell_errors(self, found: Score) -> None:
        """Count each, and name each list in the log once in a while; on either thread."""
        host = self.host
        host.loop.post(host.cells.add, self._errors, len(found.errors))
        now = time.monotonic()
        for zone, error in found.errors:
            if now - self._told_at.get(zone, -_QUIET_S) >= _QUIET_S:
                self._told_at[zone] = now
                host.log.warning("smtpd", f"check {host.name}: the list {zone} is passed over: {error}")
