"""A worker's queue with its control socket, served on a thread of its own, for tests of who asks it."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from spool_rig import Rig

from smtpd.control.server import ControlServer
from smtpd.mail.envelope import Envelope, Recipient
from smtpd.mail.outcome import DEFERRED, DELIVERED, Outcome
from smtpd.spool.item import SpoolItem


def envelope_of(sender: bytes, *paths: bytes, received_at_s: float | None = None) -> Envelope:
    recipients = [Recipient(path, path.rpartition(b"@")[2].decode().lower()) for path in paths]
    at_s = time.time() if received_at_s is None else received_at_s
    return Envelope(sender, recipients, "192.0.2.1", "client.example", b"helo.example", "ESMTP", at_s, "mx")


def delivered() -> Outcome:
    return Outcome(DELIVERED, 250, "2.0.0", "ok", "maildir", 1, 1_700_000_000.0)


def deferred(text: str = "disk full") -> Outcome:
    return Outcome(DEFERRED, 0, "4.3.1", text, "maildir", 1, 1_700_000_000.0)


def put(
    rig: Rig,
    envelope: Envelope,
    outcomes: list[Outcome] | None = None,
    *,
    due_s: float = 4e9,
    is_held: bool = False,
    body: bytes = b"text\r\n",
) -> SpoolItem:
    """Store a mail; with `outcomes` it is deferred or held, else it stays leased."""
    [item] = put_all(rig, [envelope], body)
    if outcomes is not None:
        item.attempts = 1
        rig.settle(item, outcomes, due_s, is_held)
    return item


def put_all(rig: Rig, envelopes: list[Envelope], body: bytes = b"text\r\n") -> list[SpoolItem]:
    items: list[SpoolItem] = []
    for envelope in envelopes:
        writer = rig.spool.begin(rig.spool.next_queue_id(), envelope)
        rig.write(writer, body)
        rig.spool.commit(writer, lambda item, error: items.append(item))  # type: ignore[arg-type]
    rig.run_until(lambda: len(items) == len(envelopes))
    return items


class QueueRig(Rig):
    """Between `serve` and `close` its loop turns on a thread, and `control` answers."""

    def __init__(self, folder: Path, slot: int = 0, **settings: Any) -> None:
        super().__init__(folder / "spool", **settings)
        self.run_dir = folder / "run"
        self.run_dir.mkdir(exist_ok=True)
        self.problems: list[str] = []
        self.control = ControlServer(self.loop, self.spool, str(self.run_dir), slot, self.problems.append, files=self.files)
        self._thread: threading.Thread | None = None

    def serve(self) -> None:
        self.control.start()
        self._thread = threading.Thread(target=self.loop.run)
        self._thread.start()

    def call(self, fn: Any) -> Any:
        """Run `fn()` on the loop's thread and return its result."""
        results: list[Any] = []
        is_done = threading.Event()

        def run() -> None:
            results.append(fn())
            is_done.set()

        self.loop.post(run)
        assert is_done.wait(30)
        return results[0]

    def close(self) -> None:
        if self._thread is not None:
            self.loop.post(self.control.close)
            self.loop.post(self.loop.stop)
            self._thread.join()
            self._thread = None
        super().close()
