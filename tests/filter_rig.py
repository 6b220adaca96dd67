"""Checks without a gateway: a host to make them from, questions to ask them, and peers that say what a test tells them to.

For what goes on inside of one check. That the pipeline does what a check says is tested with a whole gateway.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any

from smtpd.mail.envelope import Recipient
from smtpd.mail.verdict import Verdict
from smtpd.policy.check import Check, Client, Question
from smtpd.settings import LimitsSettings, ListenerSettings, Settings

BOB = Recipient(b"bob@example.org", "example.org")
CAROL = Recipient(b"carol@example.org", "example.org")
CLIENT = Client("192.0.2.1", 4321, "client.example.org", helo=b"client.example.org", listener="mx")


class Letter:
    """The content of a mail, in pieces."""

    def __init__(self, body: bytes = b"Hello\r\n", header: bytes = b"Subject: x\r\nTo: bob\r\n", piece: int = 100_000) -> None:
        self.header = header
        self.octets = body
        self.piece = piece
        self.size_bytes = len(header) + 2 + len(body)

    async def body(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self.octets), self.piece):
            yield self.octets[start : start + self.piece]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.header + b"\r\n"
        async for piece in self.body():
            yield piece


class SideHere:
    """A side thread that is this thread."""

    def call(self, fn: Callable[[], object]) -> None:
        fn()


def make_check[C: Check](kind: type[C], message_size: int = 0, **settings: Any) -> C:
    """Return a check of this class as a worker would make it."""
    whole = Settings(
        hostname="mx.example.net",
        listener=[ListenerSettings(name="mx", address="127.0.0.1:25")],
        limits=LimitsSettings(message_size=message_size),
    )
    host = SimpleNamespace(name=kind.__name__, hostname="mx.example.net", settings=whole, side=SideHere(), slot=3)
    return kind(kind.Settings(**settings), host)  # type: ignore[arg-type]


class Remembering(Question):
    """A question whose memory is the test's own."""

    place: dict[str, Any]

    @property
    def memory(self) -> dict[str, Any]:
        return self.place


def make_question(stage: str, memory: dict[str, Any] | None = None, **facts: Any) -> Question:
    """Return a question of a mail from Alice to Bob, as far as the stage knows it."""
    known: dict[str, Any] = {"client": CLIENT}
    if stage not in ("connect", "helo"):
        known["reverse_path"] = b"alice@example.org"
    if stage == "rcpt":
        known["recipient"] = BOB
    if stage in ("data", "body"):
        known["recipients"] = (BOB,)
    if stage == "body":
        known |= {"queue_id": "QID", "content": Letter()}
    known |= facts
    question = Remembering(stage, known.pop("client"), **known)
    question.place = {} if memory is None else memory
    return question


async def ask(check: Check, question: Question) -> Verdict | None:
    """Return the check's answer, whichever way it gives it."""
    answer = check.ask(question)
    if inspect.isawaitable(answer):
        return await answer
    assert answer is None or isinstance(answer, Verdict)
    return answer


class Peer:
    """A server whose every connection is `serve(reader, writer)`; `connections` counts them."""

    def __init__(self, serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> None:
        self._serve = serve
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.connections = 0
        self.path = ""

    async def __aenter__(self) -> Peer:
        if self.path:
            self._server = await asyncio.start_unix_server(self._run, self.path)
        else:
            self._server = await asyncio.start_server(self._run, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *failure: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()
        await asyncio.sleep(0)

    @property
    def address(self) -> str:
        """Where it listens."""
        if self.path:
            return f"unix:{self.path}"
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()
        return f"{host}:{port}"

    async def _run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()
