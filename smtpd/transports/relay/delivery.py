"""One mail for some recipients on its way through a pool: what was tried, and the outcomes in the order that was asked for."""

from __future__ import annotations

from smtpd.mail.outcome import PENDING, Outcome
from smtpd.spool.item import Body, SpoolItem
from smtpd.transports.base import Done

_OPEN = Outcome(PENDING)
_ONLY = [0]


class Delivery:
    """`left` are the places (positions in `recipients`) without an outcome. Times are monotonic seconds."""

    __slots__ = (
        "body",
        "connect_s",
        "done",
        "head",
        "is_resent",
        "item",
        "left",
        "outcomes",
        "recipients",
        "sent_at",
        "started_at",
    )

    def __init__(self, item: SpoolItem, body: Body, recipients: list[int], done: Done, now: float) -> None:
        self.begin(item, body, recipients, done, now)

    def begin(self, item: SpoolItem, body: Body, recipients: list[int], done: Done, now: float) -> None:
        """Fill a new one in."""
        self.item = item
        self.body = body
        self.recipients = recipients
        self.done = done
        self.started_at = now
        self.head = b""  # of a body in a file, where the session has to know it
        self.sent_at = now
        self.connect_s = 0.0
        self.is_resent = False  # a kept connection had died under it: that is no attempt
        self.left = _ONLY.copy() if len(recipients) == 1 else list(range(len(recipients)))
        self.outcomes = [_OPEN] * len(recipients)

    @property
    def indexes_left(self) -> list[int]:
        """Indexes into the envelope of the recipients without an outcome."""
        return self.find_left()

    def find_left(self) -> list[int]:
        """The same as `indexes_left`, as a call."""
        return self.recipients if len(self.left) == len(self.recipients) else [self.recipients[place] for place in self.left]

    def take(self, outcomes: list[Outcome], put_off: list[int]) -> bool:
        """Note the outcomes of those that were left; `put_off` are indexes into the envelope of those that are to be sent
        again. True when done."""
        if not put_off and len(self.left) == len(self.recipients):  # as most mails
            self.outcomes = outcomes
            self.left = []
            return True
        again = []
        for place, outcome in zip(self.left, outcomes, strict=True):
            if put_off and self.recipients[place] in put_off:
                again.append(place)
            else:
                self.outcomes[place] = outcome
        self.left = again
        return not again

    def fail(self, outcome: Outcome) -> None:
        """Give everybody who is left this outcome."""
        for place in self.left:
            self.outcomes[place] = outcome
        self.left = []

    def finish(self) -> None:
        """Tell whoever asked for it; once, when nobody is left."""
        self.done(self.outcomes, self.connect_s)


def begin_delivery(item: SpoolItem, body: Body, recipients: list[int], done: Done, now: float) -> Delivery:
    """The same as Delivery(...), where it counts: no arguments are gathered and parsed."""
    delivery = Delivery.__new__(Delivery)
    delivery.begin(item, body, recipients, done, now)
    return delivery
