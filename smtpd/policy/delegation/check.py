"""The check "policy_service": a service asked in Postfix's policy delegation protocol at the stages of `at`.

Owns what answers within a transaction have asked to be done with the mail, which is carried out when it is whole, and the
`instance` that names the transaction to the service. Raises what `client` and `action` raise, which becomes `on_error`.
"""

from __future__ import annotations

import itertools
import os
from typing import Annotated, Any

import msgspec

from smtpd.mail.verdict import Verdict
from smtpd.policy import check
from smtpd.policy.check import Check, CheckHost, Question
from smtpd.policy.delegation.action import Kept, carry_out
from smtpd.policy.delegation.client import PolicyClient
from smtpd.policy.delegation.wire import make_request
from smtpd.policy.milter.facts import key_bits
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
    answer_timeout: Annotated[float, Key("Longest time for an answer", kind="duration", least=0.001, most=540.0)] = 60.0
    policy_context: Annotated[str, Key("Attribute policy_context, to tell checks that use one service apart", kind="line")] = ""
    keep_connections: Annotated[bool, Key("Ask several questions on one connection, one after another")] = True


class _Memory:
    __slots__ = ("instance", "kept")

    def __init__(self, instance: bytes) -> None:
        self.instance = instance
        self.kept = Kept()


class PolicyServiceCheck(Check):
    """See the module."""

    Settings = PolicyServiceSettings

    def __init__(self, settings: PolicyServiceSettings, host: CheckHost) -> None:
        super().__init__(settings, host)
        self.stages = tuple(stage for stage in check.STAGES if stage in settings.at or stage == check.BODY)
        self._client = PolicyClient(
            parse_filter_address(settings.address),
            connect_s=settings.connect_timeout,
            answer_s=settings.answer_timeout,
            may_keep=settings.keep_connections,
        )
        self._numbers = itertools.count()
        self._servers = {listener.name: _server_values(listener.address) for listener in host.settings.listener}

    def ask(self, question: Question) -> check.Answer:
        memory = question.memory
        known: _Memory | None = memory.get(_KEY)
        if known is None:
            # as Postfix makes it: unique for a transaction, the same for all its questions
            known = memory[_KEY] = _Memory(b"%x.%x.%x" % (os.getpid(), self.host.slot, next(self._numbers)))
        if question.stage not in self.settings.at:  # the end of a mail: what was asked for earlier
            changes = known.kept.changes(question.recipients)
            return Verdict(changes=changes) if changes else None
        return self._ask(question, known)

    async def _ask(self, question: Question, known: _Memory) -> Verdict | None:
        action = await self._client.ask(make_request(self._values(question, known.instance)))
        verdict = carry_out(action, known.kept)
        if question.stage != check.BODY or (verdict is not None and verdict.reply is not None):
            return verdict
        changes = known.kept.changes(question.recipients)
        if verdict is None:
            return Verdict(changes=changes) if changes else None
        return Verdict(changes=changes, ending=verdict.ending, note=verdict.note)

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
            values["encryption_keysize"] = key_bits(client.tls.cipher)
            values["ccert_subject"] = client.tls.client_subject.encode()
        return values


def _server_values(address: str) -> dict[str, bytes]:
    endpoint = parse_endpoint(address)
    if endpoint.is_unix:
        return {}
    return {"server_address": endpoint.host.encode(), "server_port": b"%d" % endpoint.port}
