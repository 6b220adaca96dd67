"""The spool of a stopped server, opened as a worker would, to put mail into it. For the command line: each call turns the loop.

Started as root it leaves what it made to the owner of the spool. Raises StartupError.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from functools import partial
from types import TracebackType

from smtpd.control.importing import MailImport
from smtpd.control.stored import StoredMail
from smtpd.delivery.wishes import NoLeases
from smtpd.errors import StartupError
from smtpd.net.files import FilesThread
from smtpd.net.loop import Loop
from smtpd.settings import Settings
from smtpd.spool.open import open_spool

_TURN_S = 0.2


class _StderrLog:
    """What the spool tells an operator, but for the news that it is open."""

    def info(self, component: str, text: str) -> None:
        pass

    def warning(self, component: str, text: str) -> None:
        print(f"smtpd: {text}", file=sys.stderr)

    error = warning


class OfflineSpool:
    """A context manager: `put` mail, then `settle_all`."""

    def __init__(self, settings: Settings) -> None:
        if settings.spool.engine != "sqlite":
            raise StartupError(f"the spool engine {settings.spool.engine!r} takes no mail in", os.EX_CONFIG)
        self._path = settings.spool.path
        self._loop = Loop()
        self._files = FilesThread(self._loop)
        self._files.start()
        self._spool = open_spool(self._loop, self._files, settings.spool, settings.node, _StderrLog())
        self._loop.at_turn_end(self._spool.end_turn)
        self._open = 0
        self._answers: list[tuple[str, str]] = []

    def put(self, stored: StoredMail, pieces: Iterable[bytes]) -> None:
        """Hand a mail in; its answer comes by `settle_all`."""
        mail = MailImport(self._spool, NoLeases(), stored)
        for piece in pieces:
            written: list[bool] = []
            mail.write(piece, partial(written.append, True))
            self._turn_until(partial(bool, written))
        self._open += 1
        mail.finish(partial(self._on_done, stored.queue_id))

    def _on_done(self, old_id: str, new_id: str, error: str) -> None:
        self._open -= 1
        self._answers.append((old_id, error))

    def settle_all(self) -> list[tuple[str, str]]:
        """Wait until all that was handed in is durable; returns (its old queue id, error text or "") of each."""
        self._turn_until(lambda: not self._open)
        answers, self._answers = self._answers, []
        return answers

    def _turn_until(self, is_done: Callable[[], bool]) -> None:
        while not is_done():
            self._loop.turn(_TURN_S)

    def __enter__(self) -> OfflineSpool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        closed: list[bool] = []
        self._spool.close(partial(closed.append, True))
        self._turn_until(partial(bool, closed))
        self._files.close()
        self._loop.close()
        self._give_to_owner()

    def _give_to_owner(self) -> None:
        """What root has made must not keep the server's user out."""
        owner = os.stat(self._path)
        if os.geteuid() != 0 or owner.st_uid == 0:
            return
        for folder, _, names in os.walk(self._path):
            for path in (folder, *(os.path.join(folder, name) for name in names)):
                if os.lstat(path).st_uid == 0:
                    os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
