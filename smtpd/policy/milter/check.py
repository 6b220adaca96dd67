"""The check "milter": one filter, asked live at the stages that it answers and about the whole mail at the end.

Owns, for each session, what the filter is told (`facts`) and the conversation with it. What the filter neither wants nor answers
costs nothing until it has to be asked. Reject, tempfail and its own replies refuse; discard and quarantine take the mail and say
what becomes of it; accept means that this filter has no more to say. Failures are raised, and become `on_error`.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec

from smtpd.mail import changes as c
from smtpd.mail.reply import Reply
from smtpd.mail.verdict import Verdict
from smtpd.policy import check
from smtpd.policy.check import Check, CheckHost, Question
from smtpd.policy.milter import wire
from smtpd.policy.milter.answer import Answer
from smtpd.policy.milter.client import Limits, MilterClient
from smtpd.policy.milter.conversation import Conversation, Event
from smtpd.policy.milter.facts import SessionFacts
from smtpd.policy.milter.macros import DEFAULTS, MacroTable
from smtpd.settings.endpoint import parse_endpoint, parse_filter_address
from smtpd.settings.key import Key
from smtpd.settings.section import Section

_DISCARDED = Verdict(changes=(c.Discard("milter"),))


class MilterSettings(Section, frozen=True, kw_only=True):
    """A filter that speaks the milter protocol."""

    address: Annotated[
        str,
        Key(
            'Where the filter listens: "inet:IPv4:port", "inet6:[IPv6]:port", "unix:/path", or without the family',
            kind="filter_address",
            example='"inet:127.0.0.1:11332"',
        ),
    ]
    connect_timeout: Annotated[float, Key("Longest time to connect and negotiate", kind="duration", least=0.001, most=540.0)] = (
        30.0
    )
    command_timeout: Annotated[
        float,
        Key(
            "Longest time for an answer to a command, a header field or a piece of body", kind="duration", least=0.001, most=540.0
        ),
    ] = 30.0
    content_timeout: Annotated[
        float,
        Key(
            "Longest silence of the filter at the end of a mail; what it does meanwhile may be said by progress",
            kind="duration",
            least=0.001,
            most=540.0,
        ),
    ] = 90.0
    daemon_name: Annotated[str, Key("Macro {daemon_name}", kind="line", empty="the name of the listener")] = ""
    connect_macros: Annotated[
        list[str],
        Key(
            "Macros sent with the connection instead of Postfix's",
            kind="macro",
            example='["j", "{daemon_name}", "{client_addr}"]',
        ),
    ] = msgspec.field(default_factory=list)
    helo_macros: Annotated[
        list[str], Key("Macros sent with HELO instead of Postfix's", kind="macro", example='["{tls_version}"]')
    ] = msgspec.field(default_factory=list)
    mail_macros: Annotated[
        list[str], Key("Macros sent with MAIL instead of Postfix's", kind="macro", example='["{mail_addr}", "{client_addr}"]')
    ] = msgspec.field(default_factory=list)
    rcpt_macros: Annotated[
        list[str], Key("Macros sent with RCPT instead of Postfix's", kind="macro", example='["{rcpt_addr}"]')
    ] = msgspec.field(default_factory=list)
    data_macros: Annotated[
        list[str], Key("Macros sent with DATA instead of Postfix's", kind="macro", example='["{mail_addr}"]')
    ] = msgspec.field(default_factory=list)
    end_of_header_macros: Annotated[
        list[str], Key("Macros sent at the end of the header instead of Postfix's", kind="macro", example='["i"]')
    ] = msgspec.field(default_factory=list)
    end_of_data_macros: Annotated[
        list[str], Key("Macros sent at the end of the mail instead of Postfix's", kind="macro", example='["i"]')
    ] = msgspec.field(default_factory=list)
    reuse_connections: Annotated[
        bool,
        Key("Use a connection for several sessions (SMFIC_QUIT_NC); rspamd can do that, filters with libmilter may hang"),
    ] = False


class _Memory:
    """What the check keeps of a session. `failure` is why the filter can't be asked about the rest of the transaction."""

    __slots__ = ("conversation", "facts", "failure")

    def __init__(self, facts: SessionFacts, conversation: Conversation) -> None:
        self.facts = facts
        self.conversation = conversation
        self.failure: Exception | None = None


class MilterCheck(Check):
    """See the module."""

    Settings = MilterSettings
    stages = check.STAGES
    reason = "milter"
    timeout_s = 100.0
    is_independent = False  # it sees the changes of those before it

    def __init__(self, settings: MilterSettings, host: CheckHost) -> None:
        super().__init__(settings, host)
        limits = Limits(
            settings.connect_timeout, settings.command_timeout, settings.content_timeout, host.settings.limits.message_size
        )
        self._table = MacroTable({stage: getattr(settings, f"{stage}_macros") for stage in DEFAULTS})
        self.client = MilterClient(parse_filter_address(settings.address), limits, may_reuse=settings.reuse_connections)
        self._values = {
            listener.name: self._listener_values(listener.name, listener.address) for listener in host.settings.listener
        }

    def ask(self, question: Question) -> check.Answer:
        memory = self._memory(question)
        if question.stage == check.BODY:
            return self._ask_content(memory, question)
        events = memory.facts.events(question)
        if memory.failure is None and not memory.conversation.must_ask(events):
            return None
        return self._ask(memory, events, is_early=question.stage in (check.CONNECT, check.HELO))

    async def _ask(self, memory: _Memory, events: list[Event], is_early: bool) -> Verdict | None:
        try:
            with _Attempt(memory):
                return _verdict(await memory.conversation.tell(events))
        except (OSError, ValueError):
            if not is_early:
                raise
            return None  # nobody is refused before there is a mail; MAIL then fails with what is kept

    async def _ask_content(self, memory: _Memory, question: Question) -> Verdict | None:
        assert question.content is not None
        events = memory.facts.events(question)
        values = memory.facts.content_values(question)
        with _Attempt(memory):
            answer, changes = await memory.conversation.tell_content(events, question.content, values)
        return _verdict(answer, changes.all())

    def _memory(self, question: Question) -> _Memory:
        memory = question.memory
        known: _Memory | None = memory.get("milter")
        if known is None:
            values = self._values.get(question.client.listener)
            if values is None:
                values = self._listener_values(question.client.listener, "")
            known = memory["milter"] = _Memory(SessionFacts(question.client, values), Conversation(self.client, self._table))
        return known

    def end_transaction(self, memory: dict[str, Any]) -> None:
        known: _Memory | None = memory.get("milter")
        if known is not None:
            known.facts.end_transaction()
            known.failure = None

    def end_session(self, memory: dict[str, Any]) -> None:
        known: _Memory | None = memory.pop("milter", None)
        if known is not None:
            self.host.side.call(known.conversation.end_session)

    def close(self) -> None:
        self.host.side.call(self.client.close)

    def _listener_values(self, name: str, address: str) -> dict[bytes, bytes]:
        hostname = self.host.hostname.encode()
        values = {
            b"j": hostname,
            b"v": b"smtpd",
            b"{daemon_name}": (self.settings.daemon_name or name).encode() or hostname,
        }
        endpoint = parse_endpoint(address) if address else None
        if endpoint is not None and not endpoint.is_unix:
            values[b"{daemon_addr}"] = endpoint.host.encode()
            values[b"{daemon_port}"] = b"%d" % endpoint.port
        return values


class _Attempt:
    """Keeps a failure for the rest of the transaction: a filter that is away isn't tried again at each command of a mail."""

    __slots__ = ("_memory",)

    def __init__(self, memory: _Memory) -> None:
        self._memory = memory

    def __enter__(self) -> None:
        if self._memory.failure is not None:
            raise self._memory.failure

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, asyncio.CancelledError):
            self._memory.failure = TimeoutError("the filter took too long")
        elif isinstance(error, Exception):
            self._memory.failure = error


def _verdict(answer: Answer, changes: tuple[c.Change, ...] = ()) -> Verdict | None:
    if answer.refuses:
        return Verdict(Reply(answer.reply, closes=answer.reply.startswith(b"421")), "milter")
    if answer.letter == wire.DISCARD:
        return _DISCARDED
    return Verdict(changes=changes) if changes else None
