"""Connections to one policy service on the side thread's loop: one question at a time on each, kept between questions.

Raises OSError when the service is away or leaves midway, TimeoutError when it takes no connection, PolicyWireError for garbage;
the connection is then gone, as it is when the question is cancelled. A kept connection that the service closed meanwhile is no
failure: the question goes to a new one.
"""

from __future__ import annotations

import asyncio

from smtpd.policy.delegation.wire import ANSWER_BYTES, PolicyWireError, parse_answer
from smtpd.settings.endpoint import Endpoint

_KEPT = 64
_KEPT_S = 300.0  # Postfix closes an idle one after as long (smtpd_policy_service_max_idle)
_READ_BYTES = 4096
_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class PolicyClient:
    """One service as a worker knows it; all methods belong to the side thread's loop."""

    def __init__(self, endpoint: Endpoint, *, connect_s: float, may_keep: bool = True) -> None:
        self._endpoint = endpoint
        self._connect_s = connect_s
        self._may_keep = may_keep
        self._kept: list[tuple[_Streams, float]] = []

    async def ask(self, request: bytes) -> bytes:
        """Send a request and return the action that the service answers."""
        streams = self._take_kept()
        if streams is not None:
            try:
                return await self._ask_on(streams, request)
            except ConnectionError:  # closed while nobody used it
                pass
        async with asyncio.timeout(self._connect_s):
            streams = await self._open()
        return await self._ask_on(streams, request)

    def close(self) -> None:
        """End what is kept."""
        for (_, writer), _ in self._kept:
            writer.transport.abort()
        self._kept.clear()

    def _take_kept(self) -> _Streams | None:
        now_s = asyncio.get_running_loop().time()
        while self._kept:
            (reader, writer), since_s = self._kept.pop()
            if now_s - since_s < _KEPT_S and not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.transport.abort()
        return None

    async def _open(self) -> _Streams:
        if self._endpoint.is_unix:
            return await asyncio.open_unix_connection(self._endpoint.path, limit=ANSWER_BYTES)
        return await asyncio.open_connection(self._endpoint.host, self._endpoint.port, limit=ANSWER_BYTES)

    async def _ask_on(self, streams: _Streams, request: bytes) -> bytes:
        reader, writer = streams
        try:
            writer.write(request)
            await writer.drain()
            action = parse_answer(await _read_answer(reader))
        except BaseException:
            writer.transport.abort()
            raise
        if self._may_keep and len(self._kept) < _KEPT:
            self._kept.append((streams, asyncio.get_running_loop().time()))
        else:
            writer.close()
        return action


async def _read_answer(reader: asyncio.StreamReader) -> bytes:
    answer = b""
    while not answer.endswith(b"\n\n"):
        piece = await reader.read(_READ_BYTES)
        if not piece:
            if answer:
                raise PolicyWireError("an answer that breaks off")
            raise ConnectionResetError("the policy service closed the connection")
        answer += piece
        if len(answer) > ANSWER_BYTES:
            raise PolicyWireError(f"an answer of more than {ANSWER_BYTES} octets")
        if b"\n\n" in answer[:-2]:
            raise PolicyWireError("more than one answer")
    return answer
