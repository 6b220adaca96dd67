"""The checks `sender_domain`, `recipient_domain`, `reverse_dns` and `helo`: what they ask, and when.

Each answers from memory on the loop thread when DNS is known already, else on the side thread. What DNS can't tell is a temporary
refusal of the check's own, with the code of its kind, and no failure for `on_error`. What is said of the client is said at rcpt,
so that the log has sender and recipient, and postmaster can always be written to.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from smtpd.mail.address import normal_domain
from smtpd.mail.verdict import Verdict
from smtpd.net.dns_records import records_of
from smtpd.policy.check import MAIL, RCPT, Answer, Check, CheckHost, Question
from smtpd.policy.dns.asking import Asker, FromMemory, FromServers, NotKnownError, answer_from_memory
from smtpd.policy.dns.client_name import judge_client_name
from smtpd.policy.dns.domains import judge_recipient, judge_sender
from smtpd.policy.dns.helo import HeloRules
from smtpd.settings.dns_checks import HeloSettings, ReverseDnsSettings

KEPT = 20_000  # verdicts of one check
KEPT_S = 30.0  # beyond the TTL of what they were made from

Judgement = tuple[Verdict | None, bool]


class DnsCheck(Check):
    """Base of checks whose rule is a coroutine over an Asker. Verdicts are kept by their subject for a moment, so that a client
    that sends mail after mail costs a look into a dict for each."""

    def __init__(self, settings: Any, host: CheckHost) -> None:
        super().__init__(settings, host)
        records = records_of(host.side, host.settings.dns)
        self._memory = FromMemory(records)
        self._servers = FromServers(records)
        self._loop = host.loop
        self._kept: dict[Hashable, tuple[float, Verdict | None]] = {}  # both threads write it, one key at a time

    def ask(self, question: Question) -> Answer:
        subject = self.subject_of(question)
        if subject is None:
            return None
        kept = self._kept.get(subject)
        if kept is not None and kept[0] > self._loop.now:
            return kept[1]
        try:
            return self._keep(subject, answer_from_memory(self.judge(self._memory, question)))
        except NotKnownError:
            return self._find(subject, question)

    async def _find(self, subject: Hashable, question: Question) -> Verdict | None:
        return self._keep(subject, await self.judge(self._servers, question))

    def _keep(self, subject: Hashable, judgement: Judgement) -> Verdict | None:
        verdict, is_lasting = judgement
        if is_lasting:
            if len(self._kept) >= KEPT:
                self._kept.clear()
            self._kept[subject] = (self._loop.now + KEPT_S, verdict)
        return verdict

    def subject_of(self, question: Question) -> Hashable:
        """All that the rule looks at; None where it has nothing to say."""
        raise NotImplementedError

    async def judge(self, asker: Asker, question: Question) -> Judgement:
        """The rule: a verdict, and whether it may be kept (what DNS couldn't tell may not)."""
        raise NotImplementedError


class SenderDomain(DnsCheck):
    """The sender's domain exists and takes mail."""

    stages = (MAIL,)
    reason = "sender_domain"

    def subject_of(self, question: Question) -> Hashable:
        return (question.reverse_path or b"").rpartition(b"@")[2] or None

    async def judge(self, asker: Asker, question: Question) -> Judgement:
        return lasting(await judge_sender(asker, domain_of(question.reverse_path or b"")))


class RecipientDomain(DnsCheck):
    """The recipient's domain exists and takes mail: for gateways that send on by MX."""

    stages = (RCPT,)
    reason = "unknown_user"

    def subject_of(self, question: Question) -> Hashable:
        return (question.recipient and question.recipient.domain) or None

    async def judge(self, asker: Asker, question: Question) -> Judgement:
        assert question.recipient is not None
        return lasting(await judge_recipient(asker, question.recipient.domain))


class ReverseDns(DnsCheck):
    """The client's address has a name, and where asked for one that leads back."""

    Settings = ReverseDnsSettings
    stages = (RCPT,)
    skips_trusted = True

    def subject_of(self, question: Question) -> Hashable:
        return None if is_for_postmaster(question) else question.client.address or None

    async def judge(self, asker: Asker, question: Question) -> Judgement:
        return lasting(await judge_client_name(asker, question.client.address, self.settings.confirmed))


class Helo(DnsCheck):
    """HELO or EHLO is a name that isn't ours, or an address that is the client's."""

    Settings = HeloSettings
    stages = (RCPT,)
    skips_trusted = True

    def __init__(self, settings: HeloSettings, host: CheckHost) -> None:
        super().__init__(settings, host)
        self._rules = HeloRules(
            frozenset([host.hostname.lower(), *settings.own_names]),
            needs_full=settings.fully_qualified, needs_record=settings.resolvable, literal=settings.literal,
        )  # fmt: skip

    def subject_of(self, question: Question) -> Hashable:
        return None if is_for_postmaster(question) else (question.client.helo, question.client.address)

    async def judge(self, asker: Asker, question: Question) -> Judgement:
        return lasting(await self._rules.judge(asker, question.client.helo, question.client.address))


def lasting(verdict: Verdict | None) -> Judgement:
    """A verdict that may be kept unless it says that DNS failed."""
    return verdict, verdict is None or verdict.reply is None or verdict.reply.code >= 500


def domain_of(mailbox: bytes) -> str:
    """The domain of a mailbox as A-labels in lower case, "" where there is none."""
    _, at, domain = mailbox.rpartition(b"@")
    if not at:
        return ""
    try:
        return normal_domain(domain.decode())
    except ValueError:
        return ""


def is_for_postmaster(question: Question) -> bool:
    """Whether this recipient is a postmaster (RFC 5321 4.5.1), who hears of blocks that shouldn't be."""
    recipient = question.recipient
    return recipient is not None and recipient.path.partition(b"@")[0].lower() == b"postmaster"
