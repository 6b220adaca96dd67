"""The face of every transport (smtp, lmtp, maildir, discard)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from smtpd.mail.outcome import Outcome
from smtpd.spool.item import Body, SpoolItem

Done = Callable[[list[Outcome], float], None]
_LOCAL_WINDOW = 200  # mails: what one batch of syncs can use


class Transport(Protocol):
    """`deliver` tries some recipients of one mail. `recipients` are indexes into the envelope's list; `done` gets one outcome
    for each of them in the same order and the seconds spent on connecting, on the loop thread, exactly once (possibly before
    `deliver` returns). Never raises.

    The outcomes and their list may be shared by many mails: whoever gets them changes neither. `attempts` and `at_s` are the
    scheduler's to fill in. A transport that says `needs_body = False` may be given any body, an empty one too. `is_per_domain`:
    recipients of different domains have different next hops, so each domain waits for itself; `key` is then the domain, else "".

    `unconfirmed` counts mails whose last reply was lost, `unannounced_8bit` those with 8-bit text that went to a next hop without
    8BITMIME, both for ever; `connections` are open now.
    """

    name: str
    needs_body: bool
    is_per_domain: bool
    unconfirmed: int
    unannounced_8bit: int

    @property
    def connections(self) -> int: ...

    def deliver(self, item: SpoolItem, body: Body, recipients: list[int], done: Done, key: str = "") -> None: ...

    def window(self, key: str) -> int:
        """Return how many deliveries may be under way at once to this destination, now."""
        ...

    def close(self) -> None:
        """End what is under way: each delivery gets its outcome now."""
        ...


class LocalTransport:
    """What transports without a next hop have in common."""

    is_per_domain = False
    unconfirmed = 0
    unannounced_8bit = 0
    connections = 0

    def window(self, key: str) -> int:
        return _LOCAL_WINDOW

    def close(self) -> None:
        pass
