"""What a program other than the gateway puts into a worker: a conduct for each session, another spool, other greetings.

The gateway's worker has the parts as they stand here: none. `smtpd sink` brings its own (`smtpd.sink.parts`). Made before the
fork; `begin` is called in each worker. Owns nothing of a connection.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from smtpd.log.maillog import MailLog
from smtpd.net.files import FilesThread
from smtpd.proto.conduct import Conduct
from smtpd.proto.dialogue import Peer
from smtpd.spool.base import Spool


@dataclass(frozen=True, slots=True)
class Host:
    """The worker that the parts are put into. `bank` is its number among all that live, draining ones too.

    `finish` asks the master to stop the whole server gracefully.
    """

    slot: int
    bank: int
    files: FilesThread
    log: MailLog
    finish: Callable[[], None]


class Gate(Protocol):
    """Asked before each accept; what was taken is given back when there was no connection, and by whoever ends it."""

    def take(self) -> bool: ...

    def give_back(self) -> None: ...


class SessionTap(Protocol):
    """Sees a session's octets as they pass; `closed` is the last call."""

    def received(self, data: bytes) -> None: ...

    def sent(self, data: bytes) -> None: ...

    def closed(self) -> None: ...


class WorkerParts:
    """None of anything. `suppressed` are EHLO keywords that no client is offered, `greeting` is the whole line without 220, with
    `is_hello_optional` MAIL is taken without HELO."""

    suppressed: frozenset[str] = frozenset()
    greeting: bytes = b""
    is_hello_optional = False
    conduct_for: Callable[[Peer], Conduct | None] | None = None
    tap_for: Callable[[Peer], SessionTap] | None = None
    spool: Spool | None = None
    gate: Gate | None = None

    def begin(self, host: Host) -> None:
        """The worker is being put together; what is set here is used. Raises StartupError."""
