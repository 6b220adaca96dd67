"""The check "policy_service": a service asked in Postfix's policy delegation protocol at the stages of `at`.

Owns the `instance` that names a transaction to the service, and a REDIRECT until all recipients are known. Raises what `client`
and `action` raise, which becomes `on_error`.
"""

from __future__ import annotations

import itertools
import os
from typing import Annotated, Any

import msgspec

from smtpd.mail import changes as c
from smtpd.mail.verdict import Verdict
from smtpd.policy import check
from smtpd.policy.check import Check, CheckHost, Question
from smtpd.policy.delegation.action import REASON, Redirect, carry_out
from smtpd.policy.delegation.client import PolicyClient
from smtpd.policy.delegation.wire import make_request
from smtpd.policy.milter.changes import clean_reason
from smtpd.settings.endpoint import parse_endpoint, parse_filter_address
from smtpd.settings.key import Key
from smtpd.settings.section import Section

STATES = {
    "connect": b"CONNECT", "helo": b"EHLO", "mail": b"MAIL", "rcpt": b"RCPT", "data": b"DATA", "body": b"END-OF-MESSAGE",
}  # fmt: skip
_KEY = "policy_service"


class PolicyServiceSettings(Section, frozen=True, kw_only=True):
    """A service that speaks Postfix's policy delegation protocol."""

    address: Annotated[
        str,
        Key(
            'Where the service listens: "inet:IPv4:port", "inet6:[IPv6]:port", "unix:/path", or without the family',
            kind="filter_address",
            example='"inet:127.0.0.1:10023"',
        ),
    ]
    at: Annotated[list[str], Key("Stages at which it is asked; body is the end of the mail", choices=check.STAGES)] = (
        msgspec.field(default_factory=lambda: ["rcpt"])
    )
    connect_timeout: Annotated[float, Key("Longest time to connect", kind="duration", least=0.001, most=540.0)] = 30.0
    policy_context: Annotated[str, Key("Attribute policy_context, to tell checks that use one service apart", kind="line")] = ""
    keep_connections: Annotated[bool, Key("Ask several questions on one connection, one after another")] = True


class _Memory:
    """Of a transaction: what names it to the service, and where all of it goes if the service said so."""

    __slots__ = ("instance", "redirect")

    def __init__(self, instance: bytes) -> None:
        self.instance = instance
        self.redirect: bytes | None = None


class PolicyServiceCheck(Check):
    """See the module."""

    Settings = PolicyServiceSettings
    reason = REASON
    timeout_s = 100.0

    def __init__(self, settings: PolicyServiceSettings, host: CheckHost) -> None:
        super().__init__(settings, host)
        # at data all recipients are known, whom a REDIRECT takes off
        self.stages = tuple(stage for stage in check.STAGES if stage in settings.at or stage == check.DATA)
        self._client = PolicyClient(
            parse_filter_address(settings.address), connect_s=settings.connect_timeout, may_keep=settings.keep_connections
        )
        self._numbers = itertools.count()
        self._servers = {listener.name: _server_values(listener.address) for listener in host.settings.listener}

    def ask(self, question: Question) -> check.Answer:
        memory = question.memory
        known: _Memory | None = memory.get(_KEY)
        if known is None:
            # as Postfix makes it: unique for a transaction, the same for all its questions
            known = memory[_KEY] = _Memory(b"%x.%x.%x" % (os.getpid(), self.host.slot, next(self._numbers)))
        if question.stage in self.settings.at:
            return self._ask(question, known)
        return _redirected(question, known, None)

    async def _ask(self, question: Question, known: _Memory) -> Verdict | None:
        request = make_request(self._values(question, known.instance))
        verdict = carry_out(await self._client.ask(request))
        if isinstance(verdict, Redirect):
            known.redirect = verdict.mailbox
            verdict = None
        return _redirected(question, known, verdict) if question.stage in (check.DATA, check.BODY) else verdict

    def end_transaction(self, memory: dict[str, Any]) -> None:
        memory.pop(_KEY, None)

    def close(self) -> None:
        self.host.side.call(self._client.close)

    def _values(self, question: Question, instance: bytes) -> dict[str, bytes]:
        client = question.client
        recipient = question.recipient
        is_late = question.stage in (check.DATA, check.BODY)
        name = client.name.encode()
        state = STATES[question.stage]
        values = {
            "protocol_state": b"HELO" if state == b"EHLO" and client.protocol == "SMTP" else state,
            "protocol_name": client.protocol.encode(),
            "client_address": client.address.encode(),
            "client_name": name,
            "reverse_client_name": name,
            "client_port": b"%d" % client.port if client.port else b"",
            "helo_name": client.helo,
            "sender": question.reverse_path or b"",
            "recipient": b"" if recipient is None else recipient.path,
            "recipient_count": b"%d" % len(question.recipients) if is_late else b"0",
            "queue_id": question.queue_id.encode(),
            "instance": instance,
            "policy_context": self.settings.policy_context.encode(),
            **self._servers.get(client.listener, {}),
        }
        if is_late and recipient is None and len(question.recipients) == 1:  # as Postfix: known when there is but one
            values["recipient"] = question.recipients[0].path
        if question.content is not None:
            values["size"] = b"%d" % question.content.size_bytes
        elif question.parameters is not None:
            values["size"] = b"%d" % question.parameters.size_bytes
        if client.tls is not None:
            values["encryption_protocol"] = client.tls.version.encode()
            values["encryption_cipher"] = client.tls.cipher.encode()
            values["encryption_keysize"] = b"%d" % client.tls.cipher_bits
            values["ccert_subject"] = client.tls.client_subject.encode()
            values["ccert_issuer"] = client.tls.client_issuer.encode()
        return values


def _redirected(question: Question, known: _Memory, verdict: Verdict | None) -> Verdict | None:
    """The verdict, with what a REDIRECT does to the recipients; once for a transaction."""
    if known.redirect is None or (verdict is not None and verdict.reply is not None):
        return verdict
    mailbox, known.redirect = known.redirect, None
    gone = tuple(c.RemoveRecipient(recipient.path) for recipient in question.recipients if recipient.path != mailbox)
    more = () if verdict is None else verdict.changes
    return Verdict(changes=(*more, c.AddRecipient(mailbox), *gone), note=f"REDIRECT {clean_reason(mailbox)}")


def _server_values(address: str) -> dict[str, bytes]:
    endpoint = parse_endpoint(address)
    if endpoint.is_unix:
        return {}
    return {"server_address": endpoint.host.encode(), "server_port": b"%d" % endpoint.port}
