"""The check `auth`: SPF at mail where it may refuse, the rest when the mail is whole; refusals, and one field that says it all.

SPF runs on threads of its own, signatures in processes, nothing of either on the loop. DNS that fails makes "temperror" in the
field, never a refusal; a process that fails is a failure of the check.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from importlib.util import find_spec

from smtpd.mail.changes import Change, Hold
from smtpd.mail.reply import Reply
from smtpd.mail.verdict import Verdict
from smtpd.net.dns_records import records_of
from smtpd.policy.auth import spf as spf_module
from smtpd.policy.auth.alignment import DmarcResult, judge
from smtpd.policy.auth.pool import VerifierPool
from smtpd.policy.auth.results import changes_for, make_field
from smtpd.policy.auth.signatures import Key, Order, Verification, key_names
from smtpd.policy.auth.spf import SpfEvaluator, SpfResult
from smtpd.policy.check import BODY, MAIL, Check, CheckHost, Content, Question
from smtpd.policy.dns.asking import FromServers
from smtpd.settings import Settings as WholeSettings
from smtpd.settings.auth import AuthSettings

_DMARC_REJECT = Verdict(Reply(b"550 5.7.26 Message rejected by the DMARC policy of its From domain"), "dmarc")
_FROM_UNUSABLE = Verdict(Reply(b"550 5.7.26 Message rejected: its From can't be authenticated"), "dmarc")
_MODULES = ("dkim", "dmarc", "publicsuffixlist")


class Auth(Check):
    """SPF, DKIM, ARC, DMARC."""

    Settings = AuthSettings
    stages: tuple[str, ...] = (MAIL, BODY)
    skips_trusted = True
    is_independent = False  # it signs off on what earlier checks made of the mail
    reason = "dmarc"
    timeout_s = 30.0

    def __init__(self, settings: AuthSettings, host: CheckHost) -> None:
        super().__init__(settings, host)
        self._rules = settings
        self._name = (settings.authserv_id or host.hostname).lower()
        records = records_of(host.side, host.settings.dns)
        self._dns = FromServers(records)
        self._spf = SpfEvaluator(records)
        self._pool = VerifierPool(host.side, settings.processes)
        if settings.spf != "reject":
            self.stages = (BODY,)

    @classmethod
    def find_faults(cls, settings: AuthSettings, whole: WholeSettings) -> Iterable[tuple[str, str]]:
        if spf_module.find_missing() or any(find_spec(name) is None for name in _MODULES):
            yield "", spf_module.MISSING
        if settings.dmarc != "off" and settings.spf == "off" and not settings.dkim:
            yield "dmarc", "neither spf nor dkim is on, so every mail would fail"

    async def ask(self, question: Question) -> Verdict | None:
        if question.stage == MAIL:
            return self._refuse_spf(await self._evaluate_spf(question))
        return await self._judge_mail(question)

    def end_transaction(self, memory: dict[str, object]) -> None:
        memory.clear()

    def close(self) -> None:
        self._spf.close()

    async def _evaluate_spf(self, question: Question) -> SpfResult | None:
        """Once for each transaction."""
        if self._rules.spf == "off":
            return None
        memory = question.memory
        if "spf" not in memory:
            client = question.client
            sender = (question.reverse_path or b"").decode("utf-8", "replace")
            memory["spf"] = await self._spf.evaluate(client.address, sender, client.helo.decode("ascii", "replace"))
        found: SpfResult = memory["spf"]
        return found

    def _refuse_spf(self, found: SpfResult | None) -> Verdict | None:
        if found is None or found.result != "fail":
            return None
        identity = "HELO" if found.is_helo else "sender"
        text = f"550 5.7.23 SPF of the {identity} domain does not name your address"
        return Verdict(Reply(text.encode("ascii")), "spf")

    async def _judge_mail(self, question: Question) -> Verdict | None:
        content = question.content
        assert content is not None
        header = content.header
        spf, verification = await asyncio.gather(self._evaluate_spf(question), self._verify(content, header))
        dmarc = None
        if self._rules.dmarc != "off":
            dmarc = await judge(self._dns, header, spf, verification.signatures if verification is not None else [])
            is_skipped = self._rules.dkim and verification is None
            if is_skipped and dmarc.result == "fail":
                dmarc = DmarcResult("temperror", dmarc.domain, dmarc.wish, "too large to verify its signatures")
            refusal = self._refuse_dmarc(dmarc)
            if refusal is not None:
                return refusal
        client = question.client
        sender = (question.reverse_path or b"").decode("utf-8", "replace")
        field = make_field(self._name, sender, client.helo.decode("ascii", "replace"), spf, verification, dmarc)
        changes: tuple[Change, ...] = changes_for(header, self._name, field)
        if dmarc is not None and dmarc.result == "fail" and dmarc.wish != "none" and self._rules.quarantine == "hold":
            changes += (Hold(f"DMARC policy of {dmarc.domain}: {dmarc.wish}"),)
        return Verdict(changes=changes)

    def _refuse_dmarc(self, dmarc: DmarcResult) -> Verdict | None:
        if self._rules.dmarc != "reject" or dmarc.wish != "reject":
            return None
        if dmarc.result == "permerror" and not dmarc.domain:
            return _FROM_UNUSABLE
        return _DMARC_REJECT if dmarc.result == "fail" else None

    async def _verify(self, content: Content, header: bytes) -> Verification | None:
        """None: not asked for, or too large. A mail without signatures costs no process."""
        rules = self._rules
        if not (rules.dkim or rules.arc) or content.size_bytes > rules.size_limit:
            return None
        names = key_names(header, rules.signatures, rules.dkim, rules.arc)
        if not names:
            return Verification([], rules.dkim, "none" if rules.arc else "")
        answers = await self._dns.ask_all([(name, "TXT") for name in names])
        keys = {
            name: Key(answer.records[0].encode("latin-1") if answer.records else b"", answer.is_failed)
            for name, answer in zip(names, answers, strict=True)
        }
        message = b"".join([piece async for piece in content])
        return await self._pool.verify(Order(message, keys, rules.signatures, rules.key_bits, rules.dkim, rules.arc))
