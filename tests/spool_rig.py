"""A spool of its own for tests: loop, files thread and engine, with calls that turn the loop until the answer is there."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from smtpd.errors import SpoolError
from smtpd.mail.envelope import Envelope, Recipient
from smtpd.mail.outcome import Outcome
from smtpd.net.files import FilesThread
from smtpd.net.loop import Loop
from smtpd.settings.gateway import SpoolSettings
from smtpd.spool import SpoolObservers, open_spool
from smtpd.spool.base import NewMail
from smtpd.spool.item import SpoolItem
from smtpd.spool.schema import Pragmas
from smtpd.spool.sqlite import SqliteSpool

PATIENCE_S = 60.0


def make_envelope(sender: bytes = b"a@example.com", recipients: int = 1) -> Envelope:
    paths = [Recipient(b"b%d@example.org" % i, "example.org") for i in range(recipients)]
    return Envelope(sender, paths, "192.0.2.1", "client.example", b"client.example", "ESMTP", time.time())


def make_body(size: int) -> bytes:
    """Return a body of `size` >= 64 octets that tells by itself whether it is whole."""
    payload = os.urandom(size - 64)
    return hashlib.sha256(payload).hexdigest().encode() + payload


def is_whole(body: bytes) -> bool:
    return hashlib.sha256(body[64:]).hexdigest().encode() == body[:64]


class Rig:
    """`reports` holds what the spool told the log as (level, text)."""

    def __init__(self, path: Path | str, pragmas: Pragmas | None = None, **settings: Any) -> None:
        self.path = str(path)
        self.loop = Loop()
        self.files = FilesThread(self.loop)
        self.files.start()
        self.reports: list[tuple[str, str]] = []
        self.commits: list[tuple[float, int, int]] = []
        self.space: list[tuple[int, int]] = []
        self._is_open = False
        observers = SpoolObservers(
            commit=lambda *figures: self.commits.append(figures),
            space=lambda *figures: self.space.append(figures),
        )
        try:
            spool = open_spool(
                self.loop,
                self.files,
                SpoolSettings(path=self.path, **{"free_bytes": 0, "free_inodes": 0, **settings}),
                1,
                self,
                observers=observers,
                **({} if pragmas is None else {"pragmas": pragmas}),
            )
        except BaseException:
            self.files.close()
            self.loop.close()
            raise
        assert isinstance(spool, SqliteSpool)
        self.spool = spool
        self._is_open = True
        self.loop.at_turn_end(spool.end_turn)

    def info(self, component: str, text: str) -> None:
        self.reports.append(("info", text))

    def warning(self, component: str, text: str) -> None:
        self.reports.append(("warning", text))

    def error(self, component: str, text: str) -> None:
        self.reports.append(("error", text))

    def __enter__(self) -> Rig:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            closed: list[bool] = []
            self.spool.close(lambda: closed.append(True))
            self.run_until(lambda: bool(closed))
            self.files.close()
            self.loop.close()

    def run_until(self, is_done: Callable[[], bool]) -> None:
        self.spool.hand_over()
        deadline_s = time.monotonic() + PATIENCE_S
        while not is_done():
            assert time.monotonic() < deadline_s, f"no answer from the spool; it said {self.reports}"
            self.loop.turn(0.1)

    # --- calls with their answers ------------------------------------------------------------------------------------

    def accept_all(self, bodies: list[bytes], piece: int = 1 << 16) -> list[SpoolItem | SpoolError]:
        """Commit these bodies in one turn; what became of each, in order."""
        answers: dict[int, SpoolItem | SpoolError] = {}

        def take(at: int) -> Callable[[SpoolItem | None, SpoolError | None], None]:
            def done(item: SpoolItem | None, error: SpoolError | None) -> None:
                assert at not in answers
                answers[at] = item if item is not None else error  # type: ignore[assignment]

            return done

        for at, body in enumerate(bodies):
            writer = self.spool.begin(self.spool.next_queue_id(), make_envelope())
            for start in range(0, len(body), piece):
                self.write(writer, body[start : start + piece])
            self.spool.commit(writer, take(at))
        self.run_until(lambda: len(answers) == len(bodies))
        return [answers[at] for at in range(len(bodies))]

    def write(self, writer: Any, chunk: bytes) -> None:
        drained: list[bool] = []
        writer.on_drain = lambda: drained.append(True)
        if not writer.write(chunk):
            self.run_until(lambda: bool(drained))

    def accept(self, body: bytes, piece: int = 1 << 16) -> SpoolItem:
        (answer,) = self.accept_all([body], piece)
        assert isinstance(answer, SpoolItem), answer
        return answer

    def claim(self, limit: int = 1000, now_s: float | None = None, not_before_s: float = 0.0) -> list[SpoolItem]:
        answers: list[tuple[list[SpoolItem], SpoolError | None]] = []
        at_s = time.time() if now_s is None else now_s
        self.spool.claim(limit, at_s, lambda items, error: answers.append((items, error)), not_before_s)
        self.run_until(lambda: bool(answers))
        items, error = answers[0]
        assert error is None, error
        return items

    def claim_all(self) -> list[SpoolItem]:
        """Every mail that is due, of all shards."""
        items: list[SpoolItem] = []
        while (due_s := self.spool.next_due_s()) is not None and due_s <= time.time():
            items += self.claim()
        return items

    def read(self, item: SpoolItem) -> bytes:
        answers: list[tuple[Any, SpoolError | None]] = []
        self.spool.open_body(item, lambda body, error: answers.append((body, error)))
        self.run_until(lambda: bool(answers))
        body, error = answers[0]
        if error is not None:
            raise error
        return body.data if body.data is not None else Path(body.path).read_bytes()

    def new_mail(self, body: bytes) -> NewMail:
        """A mail of the server's own, for `settle`."""
        return NewMail(self.spool.next_queue_id(), make_envelope(b""), body)

    def exchange(
        self, item: SpoolItem, *new: NewMail, outcomes: list[Outcome] | None = None, due_s: float = 0.0
    ) -> list[SpoolItem]:
        """Settle with new mails; what the spool handed out for them."""
        items: list[SpoolItem] = []
        answers: list[SpoolError | None] = []
        self.spool.settle(item, outcomes, due_s, False, answers.append, new, items.append)
        self.run_until(lambda: bool(answers))
        assert answers == [None]
        return items

    def settle(self, item: SpoolItem, outcomes: list[Outcome] | None = None, due_s: float = 0.0, is_held: bool = False) -> None:
        answers: list[SpoolError | None] = []
        self.spool.settle(item, outcomes, due_s, is_held, answers.append)
        self.run_until(lambda: bool(answers))
        assert answers == [None]

    def wait_for_thread(self) -> None:
        """Let the shard thread finish what it was given so far."""
        done: list[bool] = []
        self.spool._thread.call(lambda: done.append(True))
        self.run_until(lambda: bool(done))

    def query(self, job: Callable[[Any], Any], shard: Any = None) -> Any:
        answers: list[tuple[Any, SpoolError | None]] = []
        self.spool.query(shard or self.spool.shards[0], job, lambda result, error: answers.append((result, error)))
        self.run_until(lambda: bool(answers))
        result, error = answers[0]
        assert error is None, error
        return result
