"""How a rule asks DNS: the same coroutine runs from memory on the loop thread, and if that isn't enough, on the side thread.

Rules are coroutines over an `Asker`. `answer_from_memory` runs one to its end at once with what the cache knows, or says that
something is not known. Owns nothing; raises NotKnownError inside a rule that runs from memory, which rules let pass.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Protocol

from smtpd.net.dns_records import Answer, DnsRecords, Kind

Ask = tuple[str, Kind]


class NotKnownError(Exception):
    """The cache has no answer: the question has to be asked."""


class Asker(Protocol):
    """What a rule asks."""

    async def ask(self, name: str, kind: Kind) -> Answer: ...

    async def ask_all(self, questions: Sequence[Ask]) -> list[Answer]: ...


class FromMemory:
    """Answers from the cache alone; never waits."""

    def __init__(self, records: DnsRecords) -> None:
        self._known = records.known

    async def ask(self, name: str, kind: Kind) -> Answer:
        answer = self._known(name.removesuffix(".").lower(), kind)
        if answer is None:
            raise NotKnownError
        return answer

    async def ask_all(self, questions: Sequence[Ask]) -> list[Answer]:
        return [await self.ask(name, kind) for name, kind in questions]


class FromServers:
    """Answers from the cache or the name servers, many questions at once; on the side thread."""

    def __init__(self, records: DnsRecords) -> None:
        self.ask = records.ask

    async def ask_all(self, questions: Sequence[Ask]) -> list[Answer]:
        return await asyncio.gather(*(self.ask(name, kind) for name, kind in questions))


def answer_from_memory[T](rule: Coroutine[Any, Any, T]) -> T:
    """Run a rule that was made over `FromMemory`; raises NotKnownError when it has to ask."""
    try:
        rule.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    rule.close()
    raise NotKnownError
