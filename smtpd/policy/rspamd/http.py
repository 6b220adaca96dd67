"""HTTP/1.1 requests over kept connections on the side thread's loop, with h11: a streamed body out, a bounded answer back.

Owns the connections. Raises OSError when the server is away or leaves midway, HttpError when it answers what is no HTTP, too
much, or a status other than 200. Time limits are the caller's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import h11

from smtpd.settings.endpoint import Endpoint

_KEPT = 64
_KEPT_S = 30.0
_READ_BYTES = 65536
_WRITE_BYTES = 65536


class HttpError(ValueError):
    """The answer can't be used; the text says why, and holds no octet of it but the status."""


class _Connection:
    """One connection; `is_used` says that it served a request before."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.protocol = h11.Connection(h11.CLIENT)
        self.is_used = False
        self.idle_since_s = 0.0

    @property
    def is_stale(self) -> bool:
        return self.reader.at_eof() or self.writer.is_closing()


class HttpClient:
    """One server as a worker knows it; all methods belong to the side thread's loop."""

    def __init__(self, endpoint: Endpoint, *, connect_s: float, answer_bytes: int) -> None:
        self._endpoint = endpoint
        self._connect_s = connect_s
        self._answer_bytes = answer_bytes
        self._kept: list[_Connection] = []
        self._open_ones: set[_Connection] = set()

    async def post(
        self, path: str, headers: list[tuple[bytes, bytes]], body: Callable[[], AsyncIterator[bytes]], size_bytes: int
    ) -> bytes:
        """Post a body of `size_bytes` octets, which `body()` yields anew each time, and return that of the answer."""
        request = h11.Request(
            method="POST",
            target=path,
            headers=[(b"Host", self._host), (b"Content-Length", b"%d" % size_bytes), *headers],
        )
        kept = self._take_kept()
        if kept is not None:
            try:
                return await self._exchange(kept, request, body)
            except ConnectionError:  # closed while nobody used it
                pass
        return await self._exchange(await self._open(), request, body)

    def close(self) -> None:
        """End all connections."""
        for connection in [*self._open_ones]:
            self._drop(connection)
        self._kept.clear()

    @property
    def _host(self) -> bytes:
        return b"localhost" if self._endpoint.is_unix else str(self._endpoint).encode()

    def _take_kept(self) -> _Connection | None:
        now_s = asyncio.get_running_loop().time()
        while self._kept:
            connection = self._kept.pop()
            if now_s - connection.idle_since_s < _KEPT_S and not connection.is_stale:
                return connection
            self._drop(connection)
        return None

    async def _open(self) -> _Connection:
        endpoint = self._endpoint
        async with asyncio.timeout(self._connect_s):
            if endpoint.is_unix:
                streams = await asyncio.open_unix_connection(endpoint.path)
            else:
                streams = await asyncio.open_connection(endpoint.host, endpoint.port)
        connection = _Connection(*streams)
        self._open_ones.add(connection)
        return connection

    async def _exchange(self, connection: _Connection, request: h11.Request, body: Callable[[], AsyncIterator[bytes]]) -> bytes:
        try:
            answer = await self._ask(connection, request, body)
        except (h11.RemoteProtocolError, h11.LocalProtocolError) as error:
            self._drop(connection)
            raise HttpError(f"no HTTP answer: {type(error).__name__}") from None
        except BaseException:
            self._drop(connection)
            raise
        self._keep(connection)
        return answer

    async def _ask(self, connection: _Connection, request: h11.Request, body: Callable[[], AsyncIterator[bytes]]) -> bytes:
        protocol, writer = connection.protocol, connection.writer
        unsent = [protocol.send(request) or b""]
        unsent_bytes = 0
        async for chunk in body():
            unsent.append(protocol.send(h11.Data(chunk)) or b"")
            unsent_bytes += len(chunk)
            if unsent_bytes >= _WRITE_BYTES:
                writer.write(b"".join(unsent))
                unsent.clear()
                unsent_bytes = 0
                await writer.drain()
        unsent.append(protocol.send(h11.EndOfMessage()) or b"")
        writer.write(b"".join(unsent))
        await writer.drain()
        return await self._read(connection)

    async def _read(self, connection: _Connection) -> bytes:
        protocol = connection.protocol
        pieces: list[bytes] = []
        size_bytes = 0
        has_answered = False
        while True:
            event = protocol.next_event()
            if event is h11.NEED_DATA:
                data = await connection.reader.read(_READ_BYTES)
                if not data and not has_answered and protocol.trailing_data[0] == b"":
                    raise ConnectionResetError("the server closed the connection")
                has_answered = True
                protocol.receive_data(data)
            elif isinstance(event, h11.Response):
                if event.status_code != 200:
                    raise HttpError(f"HTTP status {event.status_code}")
            elif isinstance(event, h11.Data):
                size_bytes += len(event.data)
                if size_bytes > self._answer_bytes:
                    raise HttpError(f"an answer of more than {self._answer_bytes} octets")
                pieces.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                return b"".join(pieces)
            elif isinstance(event, h11.ConnectionClosed):
                raise ConnectionResetError("the server closed the connection")

    def _keep(self, connection: _Connection) -> None:
        protocol = connection.protocol
        if protocol.our_state is h11.DONE and protocol.their_state is h11.DONE and len(self._kept) < _KEPT:
            protocol.start_next_cycle()
            connection.idle_since_s = asyncio.get_running_loop().time()
            self._kept.append(connection)
        else:
            self._drop(connection)

    def _drop(self, connection: _Connection) -> None:
        self._open_ones.discard(connection)
        connection.writer.transport.abort()
