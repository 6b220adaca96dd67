"""A milter for tests, written with kilter-protocol: the library decodes what arrives and refuses answers that break the protocol.

Runs in the event loop of a test, or in a thread of its own (`running_milter`). What it heard is in `heard`; what it answers, the
test says: `answers[message class]` is a list of messages, or a function from the message to that list.
"""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from kilter.protocol import messages as km
from kilter.protocol.buffer import SimpleBuffer
from kilter.protocol.core import FilterProtocol

Messages = list[km.Message] | Callable[[km.Message], list[km.Message]]
_BUFFER_BYTES = 1 << 18


class Milter:
    """`actions`, `steps` and `macros` are what it asks for. `raw[message class]` are octets to send instead of an answer, None to
    close the connection, "hang" to say nothing."""

    def __init__(
        self, *, actions: int = 0x1FF, steps: int = 0, macros: dict[int, list[str]] | None = None, version: int = 6
    ) -> None:
        self.actions = actions
        self.steps = steps
        self.macros = macros or {}
        self.version = version
        self.answers: dict[type, Messages] = {}
        self.raw: dict[type, bytes | str | None] = {}
        self.heard: list[km.Message] = []
        self.connections = 0
        self.server: asyncio.Server | None = None
        self.writers: set[asyncio.StreamWriter] = set()

    @property
    def address(self) -> str:
        """Where it listens."""
        assert self.server is not None
        host, port = self.server.sockets[0].getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def start(self, host: str = "127.0.0.1", path: str = "") -> None:
        """Listen."""
        if path:
            self.server = await asyncio.start_unix_server(self._serve, path)
        else:
            self.server = await asyncio.start_server(self._serve, host, 0)

    async def stop(self) -> None:
        """Leave all."""
        assert self.server is not None
        self.server.close()
        for writer in self.writers:
            writer.transport.abort()
        await self.server.wait_closed()

    def close_connections(self) -> None:
        """End what is open, as a restart does."""
        for writer in self.writers:
            writer.close()

    def of(self, kind: type[km.Message]) -> list[Any]:
        """What it heard of a kind."""
        return [message for message in self.heard if isinstance(message, kind)]

    def names(self) -> str:
        """What it heard, macros left out, as the names of the messages."""
        return " ".join(type(message).__name__ for message in self.heard if not isinstance(message, km.Macro))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.add(writer)
        protocol = FilterProtocol()
        buffer = SimpleBuffer(_BUFFER_BYTES)
        try:
            while data := await reader.read(65536):
                buffer[:] = data
                for message in protocol.read_from(buffer):
                    message.freeze()
                    self.heard.append(copy.copy(message))
                    if not await self._answer(protocol, message, writer):
                        return
        except ConnectionError:
            pass
        finally:
            self.writers.discard(writer)
            writer.close()

    async def _answer(self, protocol: FilterProtocol, message: km.Message, writer: asyncio.StreamWriter) -> bool:
        kind = type(message)
        if kind in self.raw:
            raw = self.raw[kind]
            if raw == "hang":
                await asyncio.Event().wait()
            if not isinstance(raw, bytes):
                return False
            writer.write(raw)
            await writer.drain()
            return True
        if isinstance(message, km.Close):
            return False
        if not protocol.needs_response(message):
            return True
        if isinstance(message, km.Negotiate):
            steps = km.ProtocolFlags(self.steps)
            macros = {km.Stage(stage): names for stage, names in self.macros.items()}
            answers: list[km.Message] = [km.Negotiate(self.version, km.ActionFlags(self.actions), steps, macros)]
        else:
            told = self.answers.get(kind, [km.Continue()])
            answers = told(message) if callable(told) else told
        out = SimpleBuffer(1 << 20)
        for answer in answers:
            protocol.write_to(out, answer)
        writer.write(out[:].tobytes())
        await writer.drain()
        return True


@contextmanager
def backstage() -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    """A thread with a loop, for peers of a whole gateway: yields what runs a coroutine there and returns its result."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="backstage", daemon=True)
    thread.start()
    try:
        yield lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop).result(30)
    finally:
        asyncio.run_coroutine_threadsafe(_end_tasks(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()


@contextmanager
def running_milter(milter: Milter, host: str = "127.0.0.1", path: str = "") -> Iterator[Milter]:
    """The milter on a backstage."""
    with backstage() as run:
        run(milter.start(host, path))
        try:
            yield milter
        finally:
            run(milter.stop())


async def _end_tasks() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0)
