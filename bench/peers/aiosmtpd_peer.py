"""aiosmtpd as a peer of the comparison: it takes everything and returns 250; `aiosmtpd_peer.py HOST PORT [uvloop]`."""

from __future__ import annotations

import asyncio
import signal
import sys

from aiosmtpd.smtp import SMTP, Envelope, Session


class TakeAll:
    """Accepts each mail and keeps nothing."""

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802, its API
        return "250 2.0.0 Ok"


async def serve(host: str, port: int) -> None:
    """Serve until TERM."""
    loop = asyncio.get_running_loop()
    is_over = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, is_over.set)
    server = await loop.create_server(
        lambda: SMTP(TakeAll(), hostname="bench.example.net", enable_SMTPUTF8=True), host, port, backlog=4096
    )
    async with server:
        await is_over.wait()


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[2:] == ["uvloop"]:
        import uvloop

        uvloop.run(serve(arguments[0], int(arguments[1])))
    else:
        asyncio.run(serve(arguments[0], int(arguments[1])))
