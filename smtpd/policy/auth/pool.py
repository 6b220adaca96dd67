"""The processes of a worker that verify signatures: started when first needed, one mail at a time each.

Owns the processes. One that fails, or whose mail took longer than its check may, is killed and replaced, so that a mail made to
cost time costs its own check's limit and nothing else. Raises VerifierError when a process ended instead of answering.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process

import msgspec

from smtpd.net.side import SideThread
from smtpd.policy.auth.signatures import Order, Verification
from smtpd.policy.auth.verifier import LENGTH_BYTES

_COMMAND = (sys.executable, "-P", "-m", "smtpd.policy.auth.verifier")


class VerifierError(Exception):
    """A process ended without an answer."""


class VerifierPool:
    """Belongs to the side thread. `size` processes at most; who finds none free waits, within its check's time."""

    def __init__(self, side: SideThread, size: int, command: tuple[str, ...] = _COMMAND) -> None:
        self._side = side
        self._size = size
        self._command = command
        self._idle: list[Process] = []
        self._places: asyncio.Semaphore | None = None
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(Verification)

    async def verify(self, order: Order) -> Verification:
        """Have an order carried out; cancelling it kills its process."""
        if self._places is None:
            self._places = asyncio.Semaphore(self._size)
            self._side.at_close(self._close)
        async with self._places:
            process = self._idle.pop() if self._idle else await self._start()
            try:
                answer = await self._exchange(process, self._encoder.encode(order))
            except BaseException as error:
                await _kill(process)
                if isinstance(error, (OSError, EOFError, msgspec.MsgspecError)):
                    raise VerifierError(f"the verifying process ended: {type(error).__name__}") from error
                raise
            self._idle.append(process)
        return answer

    async def _exchange(self, process: Process, octets: bytes) -> Verification:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(len(octets).to_bytes(LENGTH_BYTES) + octets)
        await process.stdin.drain()
        length = int.from_bytes(await process.stdout.readexactly(LENGTH_BYTES))
        return self._decoder.decode(await process.stdout.readexactly(length))

    async def _start(self) -> Process:
        return await asyncio.create_subprocess_exec(
            *self._command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, start_new_session=True
        )

    async def _close(self) -> None:
        while self._idle:
            await _kill(self._idle.pop())


async def _kill(process: Process) -> None:
    """End a process and take what is left of it; also while this task is being cancelled."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    assert process.stdin is not None
    process.stdin.close()
    await asyncio.shield(process.wait())
