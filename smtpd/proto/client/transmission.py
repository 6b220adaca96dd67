"""One mail for some of its recipients, on its way over one connection, and what came of each."""

from __future__ import annotations

from smtpd.mail.envelope import Envelope
from smtpd.mail.outcome import PENDING, Outcome

# 0: nothing of the content was handed out
CONTENT_GIVEN = 1  # pieces come by feed()
CONTENT_ENDED = 2  # all of it, with its end
CONTENT_VOID = 3  # no recipient was taken: a lone dot

_UNDECIDED = Outcome(PENDING)  # shared; a place that still holds it has no outcome


class Transmission:
    """`recipients` are indexes into the envelope's list. `body` is the whole content, or None: then it comes by `feed`, and
    `head`, its first octets with the whole header section, is needed where `envelope.smtputf8` is set. `size_bytes` is the
    content's size.

    When the session is DONE with it: `outcomes` has one for each of `recipients`, in their order (outcomes may be shared;
    `attempts` and `at_s` are not filled in, `relay` is the session's). `put_off` has those of `recipients` that are deferred only
    because this transaction or connection takes no more of them, or ended before the mail had its turn (it was no connection's
    first mail, and MAIL was not answered): they may be sent again at once, and no mail is put off for ever by that.
    `is_8bit_unannounced`: 8-bit text went to a next hop that does not offer 8BITMIME.

    What follows are the session's own: places are positions in `recipients`.
    """

    __slots__ = (
        "accepted", "asked", "body", "commands", "content_state", "end_bytes", "envelope", "final_count", "has_turn", "head",
        "is_8bit_unannounced", "is_chunked", "needs_reset", "outcomes", "put_off", "recipients", "reply_count",
        "size_bytes", "undecided",
    )  # fmt: skip

    def __init__(
        self, envelope: Envelope, recipients: list[int], body: bytes | None, size_bytes: int = -1, head: bytes = b""
    ) -> None:
        self.begin(envelope, recipients, body, size_bytes, head)

    def begin(self, envelope: Envelope, recipients: list[int], body: bytes | None, size_bytes: int, head: bytes) -> None:
        """Fill a new one in."""
        self.envelope = envelope
        self.recipients = recipients
        self.body = body
        self.head = head
        self.size_bytes = len(body) if body is not None else size_bytes
        self.outcomes: list[Outcome] = [_UNDECIDED] * len(recipients)
        self.put_off: list[int] = []
        self.is_8bit_unannounced = False
        self.undecided = len(recipients)
        self.asked: list[int] = []  # places with a RCPT
        self.commands: list[bytes] = []  # MAIL, then one RCPT for each of `asked`
        self.accepted: list[int] = []  # places whose RCPT was taken
        self.reply_count = 0  # replies to RCPT so far
        self.final_count = 0  # final replies so far (LMTP)
        self.is_chunked = False  # goes by BDAT
        self.content_state = 0  # CONTENT_*
        self.end_bytes = 0  # the end of its content, counted in octets of all that the session handed out
        self.has_turn = False  # it is the connection's first mail, or its MAIL was answered
        self.needs_reset = False  # the next hop has begun a transaction that no end of data ended

    def decide(self, place: int, outcome: Outcome) -> None:
        """Fill in the outcome of one recipient. The first one stays."""
        if self.outcomes[place] is _UNDECIDED:
            self.outcomes[place] = outcome
            self.undecided -= 1

    def decide_rest(self, outcome: Outcome) -> None:
        """Fill in the outcome of all that have none."""
        if self.undecided:
            self.outcomes = [outcome if old is _UNDECIDED else old for old in self.outcomes]
            self.undecided = 0

    def is_decided(self, place: int) -> bool:
        return self.outcomes[place] is not _UNDECIDED

    def put_off_rest(self, outcome: Outcome, first: int = 0) -> None:
        """Fill in the outcome of all from this place on that have none; they may be sent again at once."""
        for place in range(first, len(self.recipients)):
            if self.outcomes[place] is _UNDECIDED:
                self.put_off.append(self.recipients[place])
                self.decide(place, outcome)


def begin_transmission(envelope: Envelope, recipients: list[int], body: bytes) -> Transmission:
    """The same as Transmission(envelope, recipients, body), where it counts: no arguments are gathered and parsed."""
    transmission = Transmission.__new__(Transmission)
    transmission.begin(envelope, recipients, body, -1, b"")
    return transmission
