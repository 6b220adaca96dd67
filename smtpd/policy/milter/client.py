"""Sockets to one filter, on the side thread's asyncio loop: connections, their time limits, and those that are kept for later.

Owns the connections that no session has. A failure is an exception: OSError when the filter is away or left midway,
TimeoutError when it is silent, WireError when it sends garbage; the connection is then gone for good. Never decides what a
failure means for the mail.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from smtpd.policy.milter import wire
from smtpd.policy.milter.answer import Answer
from smtpd.policy.milter.negotiation import Agreement
from smtpd.policy.milter.session import GO_ON, MilterSession
from smtpd.settings.endpoint import Endpoint

_READ_BYTES = 65536
_WRITE_BYTES = 65536  # gathered before the socket is asked to take it
_KEPT = 32  # connections kept for later sessions
_KEPT_S = 60.0


@dataclass(slots=True, frozen=True)
class Limits:
    """Seconds to connect and negotiate, for an answer to an event, and for one to the end of the mail; each PROGRESS starts them
    anew. `body_bytes` is the longest new body, 0 = no limit."""

    connect_s: float = 30.0
    command_s: float = 30.0
    content_s: float = 300.0
    body_bytes: int = 0


class MilterConnection:
    """One connection, negotiated. `has_answered` says whether the filter said anything since the question under way began."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limits: Limits, open_ones: set[MilterConnection]
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._limits = limits
        self._open_ones = open_ones  # of the client; this is one of them until it is closed
        self._packets = wire.PacketReader()
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        self.session = MilterSession(limits.body_bytes)
        self.is_kept = False  # it served another session or mail before
        self.has_answered = False
        self.idle_since_s = 0.0
        open_ones.add(self)

    @property
    def agreement(self) -> Agreement:
        """What was negotiated."""
        assert self.session.agreement is not None
        return self.session.agreement

    @property
    def is_stale(self) -> bool:
        """The filter has closed it, or said something that nobody asked for."""
        return self._reader.at_eof() or self._writer.is_closing() or not self._packets.is_empty

    async def negotiate(self) -> None:
        """First of all."""
        self._gather(self.session.open())
        await self._await_answer(self._limits.connect_s)

    async def tell(self, command: bytes, packet: bytes, macros: list[tuple[bytes, bytes]]) -> Answer:
        """Tell an event, if the filter wants it, and return the answer; GO_ON at once where none is due."""
        session = self.session
        if not session.wants(command):
            return GO_ON
        self._gather(session.tell(command, packet, macros))
        if session.is_due:
            limits = self._limits
            return await self._await_answer(limits.content_s if command == wire.END_OF_BODY else limits.command_s)
        if self._unsent_bytes >= _WRITE_BYTES:
            async with asyncio.timeout(self._limits.content_s):
                await self._flush()
        return GO_ON

    def _gather(self, octets: bytes) -> None:
        self._unsent.append(octets)
        self._unsent_bytes += len(octets)

    async def _flush(self) -> None:
        if self._unsent:
            self._writer.write(b"".join(self._unsent))
            self._unsent.clear()
            self._unsent_bytes = 0
        await self._writer.drain()

    async def _await_answer(self, limit_s: float) -> Answer:
        async with asyncio.timeout(limit_s) as limit:
            await self._flush()
            while True:
                for packet in self._packets.packets():
                    self.has_answered = True
                    answer = self.session.take(packet)
                    if answer is not None:
                        if not self._packets.is_empty:
                            raise wire.WireError("more than one answer")
                        return answer
                    if packet.letter == wire.PROGRESS:
                        limit.reschedule(asyncio.get_running_loop().time() + limit_s)
                data = await self._reader.read(_READ_BYTES)
                if not data:
                    raise ConnectionResetError("the filter closed the connection")
                self._packets.feed(data)

    def end_mail(self) -> None:
        """Leave the transaction; the filter hears of it with what is said next."""
        octets = self.session.end_mail()
        if octets:
            self._gather(octets)
        self.is_kept = True
        self.has_answered = False

    def end_session(self, *, may_reuse: bool) -> bool:
        """Leave the session; True when the connection is as new and may serve another one."""
        is_kept = may_reuse and self.agreement.version >= wire.VERSION and not self.session.is_due and not self.is_stale
        self._writer.write(b"".join(self._unsent) + self.session.end_session(may_reuse=is_kept))
        self._unsent.clear()
        self._unsent_bytes = 0
        self.has_answered = False
        self.is_kept = True
        if not is_kept:
            self._open_ones.discard(self)
            self._writer.close()
        return is_kept

    def close(self) -> None:
        """End it without a word: what was under way is void."""
        self._open_ones.discard(self)
        self._writer.transport.abort()


class MilterClient:
    """One filter as a worker knows it. All methods belong to the side thread's loop; `agreement`, the newest one, is written
    there and may be read anywhere."""

    def __init__(self, endpoint: Endpoint, limits: Limits, *, may_reuse: bool = False) -> None:
        self._endpoint = endpoint
        self._limits = limits
        self._may_reuse = may_reuse
        self.kept: list[MilterConnection] = []
        self._open_ones: set[MilterConnection] = set()
        self.agreement: Agreement | None = None

    async def take(self, *, is_fresh: bool = False) -> MilterConnection:
        """Return a connection for one session, one that was kept unless `is_fresh`."""
        now_s = asyncio.get_running_loop().time()
        while self.kept and not is_fresh:
            connection = self.kept.pop()
            if now_s - connection.idle_since_s < _KEPT_S and not connection.is_stale:
                return connection
            connection.close()
        return await self._open()

    async def _open(self) -> MilterConnection:
        async with asyncio.timeout(self._limits.connect_s):
            reader, writer = await open_endpoint(self._endpoint)
        connection = MilterConnection(reader, writer, self._limits, self._open_ones)
        try:
            await connection.negotiate()
        except BaseException:
            connection.close()
            raise
        self.agreement = connection.agreement
        return connection

    def give_back(self, connection: MilterConnection) -> None:
        """The session is over, in order."""
        if not connection.end_session(may_reuse=self._may_reuse and len(self.kept) < _KEPT):
            return
        connection.idle_since_s = asyncio.get_running_loop().time()
        self.kept.append(connection)

    def close(self) -> None:
        """End all connections; the side thread ends."""
        for connection in [*self._open_ones]:
            connection.close()
        self.kept.clear()


async def open_endpoint(endpoint: Endpoint) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to an endpoint; OSError."""
    if endpoint.is_unix:
        return await asyncio.open_unix_connection(endpoint.path)
    return await asyncio.open_connection(endpoint.host, endpoint.port)
