"""The checks `sender_domain`, `recipient_domain`, `reverse_dns` and `helo`: what they ask, and when.

Each answers from memory on the loop thread when DNS is known already, else on the side thread. What DNS can't tell is a temporary
refusal of the check's own, with the code of its kind, and no failure for `on_error`. What is said of the client is said at rcpt,
so that the log has sender and recipient, and postmaster can always be written to.
"""

from __future__ import annotations

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


class DnsCheck(Check):
    """Base of checks whose rule is a coroutine over an Asker."""

    def __init__(self, settings: Any, host: CheckHost) -> None:
        super().__init__(settings, host)
        records = records_of(host.side, host.settings.dns)
        self._memory = FromMemory(records)
        self._servers = FromServers(records)

    def ask(self, question: Question) -> Answer:
        try:
            return answer_from_memory(self.judge(self._memory, question))
        except NotKnownError:
            return self.judge(self._servers, question)

    async def judge(self, asker: Asker, question: Question) -> Verdict | None:
        """The rule."""
        raise NotImplementedError


class SenderDomain(DnsCheck):
    """The sender's domain exists and takes mail."""

    stages = (MAIL,)

    async def judge(self, asker: Asker, question: Question) -> Verdict | None:
        return await judge_sender(asker, domain_of(question.reverse_path or b""))


class RecipientDomain(DnsCheck):
    """The recipient's domain exists and takes mail: for gateways that send on by MX."""

    stages = (RCPT,)

    async def judge(self, asker: Asker, question: Question) -> Verdict | None:
        assert question.recipient is not None
        return await judge_recipient(asker, question.recipient.domain)


class ReverseDns(DnsCheck):
    """The client's address has a name, and where asked for one that leads back."""

    Settings = ReverseDnsSettings
    stages = (RCPT,)
    skips_trusted = True

    async def judge(self, asker: Asker, question: Question) -> Verdict | None:
        if is_for_postmaster(question):
            return None
        return await judge_client_name(asker, question.client.address, self.settings.confirmed)


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

    async def judge(self, asker: Asker, question: Question) -> Verdict | None:
        if is_for_postmaster(question):
            return None
        return await self._rules.judge(asker, question.client.helo, question.client.address)


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
