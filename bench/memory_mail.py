"""One big mail: how much the worker's resident set grows at its peak while 40 MB pass through it into a Maildir.

The kernel keeps the peak (VmHWM) and lets it start anew, so nothing is missed between samples. Mails of 1 MB go before, for
whatever is loaded or allocated once.
"""

from __future__ import annotations

import argparse
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.generator import RECIPIENT, SENDER
from bench.idle import open_session, read_reply
from bench.processes import await_quiet, child_pids, memory_bytes, reset_peak
from bench.results import end_in_order, report, scratch_folder
from bench.servers import SmtpdServe

_LINE = b"x" * 76 + b"\r\n"
_PIECE = _LINE * 840  # about 64 KB


def send_mail(client: socket.socket, size_bytes: int) -> None:
    """Send one mail of at least `size_bytes`; ValueError when it is not taken."""
    for command, code in ((f"MAIL FROM:<{SENDER}>", b"250"), (f"RCPT TO:<{RECIPIENT}>", b"250"), ("DATA", b"354")):
        client.sendall(command.encode() + b"\r\n")
        if not (reply := read_reply(client)).startswith(code):
            raise ValueError(f"{command}: {reply!r}")
    client.sendall(b"Subject: big\r\n\r\n")
    for _ in range(-(-size_bytes // len(_PIECE))):
        client.sendall(_PIECE)
    client.sendall(b".\r\n")
    if not (reply := read_reply(client)).startswith(b"250"):
        raise ValueError(f"end of data: {reply!r}")


def measure(size_mb: int, count: int, folder_parent: str) -> dict[str, Any]:
    """Run it; sizes in bytes, `growth_bytes` one for each of `count` big mails."""
    with scratch_folder(folder_parent) as folder:
        server = SmtpdServe(folder)
        server.route = f'transport = "maildir"\npath = "{folder}/mail"'
        server.start()
        try:
            (worker,) = child_pids(server.pid)
            with open_session(server.host, server.port) as client:
                for _ in range(3):
                    send_mail(client, 1_000_000)
                await_quiet(server.pid)
                growths, seconds = [], []
                for _ in range(count):
                    reset_peak(worker)
                    before = memory_bytes(worker, "VmRSS")
                    started = time.perf_counter()
                    send_mail(client, size_mb * 1_000_000)
                    seconds.append(round(time.perf_counter() - started, 3))
                    await_quiet(server.pid)  # its delivery is part of it
                    growths.append(memory_bytes(worker, "VmHWM") - before)
            arrived = [path for path in Path(folder, "mail").rglob("*") if path.parent.name == "new"]
            if len(arrived) != count + 3:
                raise ValueError(f"{len(arrived)} mails arrived, {count + 3} were sent")
        finally:
            server.stop()
    return {"size_mb": size_mb, "growth_bytes": growths, "accept_s": seconds}


def describe(content: dict[str, Any]) -> list[str]:
    """Return the figures as lines for people."""
    growths = content["growth_bytes"]
    return [
        (
            f"a mail of {content['size_mb']} MB: the worker's resident set grew by {growths[0] / 1e6:.2f} MB at its peak,"
            f" at most {max(growths) / 1e6:.2f} MB in {len(growths)} such mails"
        )
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.memory_mail", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size-mb", type=int, default=40)
    parser.add_argument("--count", type=int, default=5)
    parser.add_argument("--dir", default="/var/tmp", help="where spool and Maildir lie (default: /var/tmp)")
    parser.add_argument("--quick", action="store_true", help="one mail, nothing is written")
    options = parser.parse_args(arguments)
    end_in_order()
    content = measure(options.size_mb, 1 if options.quick else options.count, options.dir)
    report("memory-mail", content, describe(content), options.quick)
    return 0


if __name__ == "__main__":
    sys.exit(main())
