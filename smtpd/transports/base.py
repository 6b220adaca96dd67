"""The face of every transport (maildir, discard; smtp and lmtp come with the relay)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from smtpd.mail.outcome import Outcome
from smtpd.spool.base import Body, SpoolItem

Done = Callable[[list[Outcome]], None]


class Transport(Protocol):
    """`deliver` tries some recipients of one mail. `recipients` are indexes into the envelope's list; `done` gets one outcome
    for each of them in the same order, on the loop thread, exactly once (possibly before `deliver` returns). Never raises.

    The outcomes and their list may be shared by many mails: whoever gets them changes neither. `attempts` and `at_s` are the
    scheduler's to fill in. A transport that says `needs_body = False` may be given any body, an empty one too."""

    name: str
    needs_body: bool

    def deliver(self, item: SpoolItem, body: Body, recipients: list[int], done: Done) -> None: ...
