"""What this gateway and a filter agree on: which events it wants, which it answers, what it may change.

Owns the bits of both masks. The gateway offers all it can do, the filter takes from it; what it takes beyond the offer, or a
version that nobody has offered, is a WireError. Source: libmilter's mfapi.h, mfdef.h.
"""

from __future__ import annotations

from smtpd.policy.milter import wire
from smtpd.policy.milter.wire import Offer, WireError

# Actions of a filter.
MAY_ADD_HEADERS = 0x01
MAY_CHANGE_BODY = 0x02
MAY_ADD_RECIPIENTS = 0x04
MAY_DELETE_RECIPIENTS = 0x08
MAY_CHANGE_HEADERS = 0x10
MAY_QUARANTINE = 0x20
MAY_CHANGE_SENDER = 0x40
MAY_ADD_RECIPIENTS_WITH = 0x80
MAY_SET_MACROS = 0x100
ALL_ACTIONS = 0x1FF

# Steps: events that the filter doesn't want, events that it doesn't answer, and how header fields are told.
NO_EVENT = {
    wire.CONNECT: 0x01, wire.HELO: 0x02, wire.MAIL: 0x04, wire.RCPT: 0x08, wire.BODY: 0x10, wire.HEADER: 0x20,
    wire.END_OF_HEADER: 0x40, wire.UNKNOWN: 0x100, wire.DATA: 0x200,
}  # fmt: skip
NO_ANSWER = {
    wire.HEADER: 0x80, wire.CONNECT: 0x1000, wire.HELO: 0x2000, wire.MAIL: 0x4000, wire.RCPT: 0x8000, wire.DATA: 0x10000,
    wire.UNKNOWN: 0x20000, wire.END_OF_HEADER: 0x40000, wire.BODY: 0x80000,
}  # fmt: skip
SKIPS = 0x400
KEEPS_LEADING_SPACE = 0x100000
# Not offered: refused recipients (0x800), since a check after another one isn't asked about what that one refused; and larger
# pieces of body (0x10000000, 0x20000000).
ALL_STEPS = sum(NO_EVENT.values()) | sum(NO_ANSWER.values()) | SKIPS | KEEPS_LEADING_SPACE

_ACTION_OF = {
    wire.ADD_HEADER: MAY_ADD_HEADERS, wire.INSERT_HEADER: MAY_ADD_HEADERS, wire.CHANGE_HEADER: MAY_CHANGE_HEADERS,
    wire.REPLACE_BODY: MAY_CHANGE_BODY, wire.ADD_RECIPIENT: MAY_ADD_RECIPIENTS,
    wire.ADD_RECIPIENT_WITH: MAY_ADD_RECIPIENTS_WITH, wire.DELETE_RECIPIENT: MAY_DELETE_RECIPIENTS,
    wire.CHANGE_SENDER: MAY_CHANGE_SENDER, wire.QUARANTINE: MAY_QUARANTINE,
}  # fmt: skip

OFFER = Offer(wire.VERSION, ALL_ACTIONS, ALL_STEPS, {})

# Numbers of the stages for which a filter may name macros, by the command before which they are told.
MACRO_STAGES = {
    wire.CONNECT: 0, wire.HELO: 1, wire.MAIL: 2, wire.RCPT: 3, wire.DATA: 4, wire.END_OF_BODY: 5, wire.END_OF_HEADER: 6,
}  # fmt: skip


class Agreement:
    """The outcome of a negotiation, for all sessions on that connection."""

    __slots__ = ("actions", "macros", "steps", "version")

    def __init__(self, offer: Offer) -> None:
        """Take the filter's answer to OFFER; raises WireError."""
        if not wire.OLDEST_VERSION <= offer.version <= wire.VERSION:
            raise WireError(f"version {offer.version} of the protocol")
        # Some filters answer all bits when they know none of them, so what wasn't offered and means nothing is let go by;
        # an action that is not there would be a change that never happens.
        if offer.actions & ~ALL_ACTIONS:
            raise WireError(f"actions {offer.actions:#x} that were not offered")
        self.version = offer.version
        self.actions = offer.actions
        self.steps = offer.steps & ALL_STEPS
        self.macros = offer.macros

    def wants(self, command: bytes) -> bool:
        """Whether the filter is told of this event at all."""
        return not self.steps & NO_EVENT.get(command, 0)

    def answers(self, command: bytes) -> bool:
        """Whether the filter answers this event."""
        return self.wants(command) and not self.steps & NO_ANSWER.get(command, 0)

    def allows(self, change: bytes) -> bool:
        """Whether the filter may make this change."""
        return bool(self.actions & _ACTION_OF[change])

    @property
    def keeps_leading_space(self) -> bool:
        """Header values are told, and come, with the blank behind the colon."""
        return bool(self.steps & KEEPS_LEADING_SPACE)

    @property
    def may_skip(self) -> bool:
        """The filter may say SKIP within the body."""
        return bool(self.steps & SKIPS)

    def set_macros(self, packet: wire.Packet) -> None:
        """Take SET_MACROS: a stage and its names; raises WireError."""
        if not self.actions & MAY_SET_MACROS:
            raise WireError("names of macros without having asked to name them")
        offer = wire.parse_offer(wire.Packet(wire.NEGOTIATE, bytes(12) + packet.payload))
        self.macros = {**self.macros, **offer.macros}
