"""What one SMTP session tells one filter, across connections: which of the session's events the filter has heard.

Owns the connection that the session has, if any. A filter that neither wants nor answers a stage hears of it later, together
with what it does answer, so most sessions that end early cost it nothing; when a kept connection turns out to be dead before it
said anything, all is told again on a new one. Belongs to the side thread; raises what `client` raises.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from smtpd.policy.check import Content
from smtpd.policy.milter import wire
from smtpd.policy.milter.answer import TRY_AGAIN, Answer
from smtpd.policy.milter.changes import Changes
from smtpd.policy.milter.client import MilterClient, MilterConnection
from smtpd.policy.milter.content import BodyCutter, split_fields
from smtpd.policy.milter.macros import MacroTable
from smtpd.policy.milter.session import GO_ON

_LATE = Answer(wire.TEMPFAIL, TRY_AGAIN)
_OF_SESSION = (wire.CONNECT, wire.HELO)

Values = Mapping[bytes, bytes]


class Event:
    """One thing to tell; `values` are those of macros, by normal name. Two events are the same if they are one object.

    `is_refused`: a recipient that the filter has refused itself; it need not hear of it again."""

    __slots__ = ("command", "is_refused", "packet", "values")

    def __init__(self, command: bytes, packet: bytes, values: Values) -> None:
        self.command = command
        self.packet = packet
        self.values = values
        self.is_refused = False


class Conversation:
    """Give it all events of the session that still hold, each time: it tells those that the filter has not heard."""

    __slots__ = ("_client", "_connection", "_heard", "_is_busy", "_table")

    def __init__(self, client: MilterClient, table: MacroTable) -> None:
        self._client = client
        self._table = table
        self._connection: MilterConnection | None = None
        self._heard: list[Event] = []
        self._is_busy = False

    def must_ask(self, events: Sequence[Event]) -> bool:
        """Whether the filter answers the last of these events, as far as is known, or has refused the session or this mail
        already. From any thread, while no call of this conversation is under way."""
        connection = self._connection
        command = events[-1].command
        if connection is None:
            agreement = self._client.agreement
            return agreement is None or agreement.answers(command)
        decided = connection.session.decision
        if decided is None and any(event.command == wire.MAIL and event in events for event in self._heard):
            decided = connection.session.mail_decision
        return connection.agreement.answers(command) if decided is None else decided.refuses

    async def tell(self, events: Sequence[Event]) -> Answer:
        """Tell what is new; the answer to the last event, or what the filter decided before."""
        answer = await self._attempt(lambda: self._catch_up(events))
        if events and events[-1].command == wire.RCPT and answer.refuses:
            events[-1].is_refused = True
        return answer

    async def tell_content(self, events: Sequence[Event], content: Content, values: Values) -> tuple[Answer, Changes]:
        """Tell what is new and the whole mail. Returns the answer, and the changes to make if it takes the mail."""

        async def attempt() -> tuple[Answer, Changes]:
            answer = await self._catch_up(events)
            if answer.refuses or answer.letter in (wire.ACCEPT, wire.DISCARD):
                return answer, Changes()
            assert self._connection is not None
            return await _tell_content(self._connection, self._table, content, values)

        outcome = await self._attempt(attempt)
        # the mail is over for the filter, and its connection as good as one that was kept
        del self._heard[_session_part(self._heard) :]
        if self._connection is not None:
            self._connection.end_mail()
        return outcome

    def end_session(self) -> None:
        """The SMTP session is over."""
        if self._is_busy:  # its question was cancelled and does not know it yet
            self.drop()
            return
        connection, self._connection = self._connection, None
        self._heard.clear()
        if connection is not None:
            self._client.give_back(connection)

    def drop(self) -> None:
        """Something failed: the connection is of no more use."""
        connection, self._connection = self._connection, None
        self._heard.clear()
        if connection is not None:
            connection.close()

    async def _attempt[T](self, attempt: Callable[[], Awaitable[T]]) -> T:
        self._is_busy = True
        try:
            return await self._attempt_twice(attempt)
        except BaseException:
            self.drop()
            raise
        finally:
            self._is_busy = False

    async def _attempt_twice[T](self, attempt: Callable[[], Awaitable[T]]) -> T:
        before = self._connection
        if before is not None:
            before.has_answered = False
        try:
            return await attempt()
        except OSError as error:
            connection = self._connection
            if connection is None or isinstance(error, TimeoutError):
                raise
            # closed by the filter while nobody used it: no failure of this question
            if connection.has_answered or not (connection is before or connection.is_kept):
                raise
        self.drop()
        self._connection = await self._client.take(is_fresh=True)
        return await attempt()

    async def _catch_up(self, events: Sequence[Event]) -> Answer:
        connection = self._connection
        if connection is None:
            connection = self._connection = await self._client.take()
        same = 0
        while same < min(len(events), len(self._heard)) and events[same] is self._heard[same]:
            same += 1
        if same < len(self._heard):
            session_part = _session_part(self._heard)
            if session_part < len(self._heard):  # a mail that is over, or lost a recipient: it can only be told anew
                connection.end_mail()
            same = min(same, session_part)
            del self._heard[same:]
        answer = GO_ON
        is_late = False
        for number in range(same, len(events)):
            event = events[number]
            self._heard.append(event)
            if event.is_refused:
                continue
            macros = self._table.select(event.command, connection.agreement, event.values)
            answer = await connection.tell(event.command, event.packet, macros)
            # A recipient that was taken already can't be refused any more. The filter has only now said that it would: the
            # client comes again, and is then refused in time.
            is_late = is_late or (event.command == wire.RCPT and answer.refuses and number < len(events) - 1)
        session = connection.session
        decided = session.decision or session.mail_decision
        if decided is not None:
            return decided
        return _LATE if is_late else answer


async def _tell_content(
    connection: MilterConnection, table: MacroTable, content: Content, values: Values
) -> tuple[Answer, Changes]:
    session = connection.session
    agreement = connection.agreement
    fields, rest = split_fields(content.header)
    if session.wants(wire.HEADER):
        for name, value in fields:
            text = value if agreement.keeps_leading_space else value.removeprefix(b" ")
            packet = wire.make_strings(wire.HEADER, name[: wire.ITEM_BYTES], text[: wire.ITEM_BYTES])
            await connection.tell(wire.HEADER, packet, [])
    macros = table.select(wire.END_OF_HEADER, agreement, values)
    await connection.tell(wire.END_OF_HEADER, wire.make_packet(wire.END_OF_HEADER), macros)
    if session.wants(wire.BODY):
        await _tell_body(connection, content, rest)
    macros = table.select(wire.END_OF_BODY, agreement, values)
    answer = await connection.tell(wire.END_OF_BODY, wire.make_packet(wire.END_OF_BODY), macros)
    return session.decision or session.mail_decision or answer, session.changes


async def _tell_body(connection: MilterConnection, content: Content, rest: bytes) -> None:
    cutter = BodyCutter()
    for piece in cutter.feed(rest):
        await connection.tell(wire.BODY, wire.make_packet(wire.BODY, piece), [])
    async for chunk in content.body():
        for piece in cutter.feed(chunk):
            await connection.tell(wire.BODY, wire.make_packet(wire.BODY, piece), [])
        if not connection.session.wants(wire.BODY):  # it has heard enough
            return
    for piece in cutter.end():
        await connection.tell(wire.BODY, wire.make_packet(wire.BODY, piece), [])


def _session_part(events: Sequence[Event]) -> int:
    """How many of the events are of the session, not of a transaction."""
    count = 0
    while count < len(events) and events[count].command in _OF_SESSION:
        count += 1
    return count
