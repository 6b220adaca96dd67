"""What a client session tells its driver besides octets to send: `ClientSession.next_event` hands these out in order."""

from __future__ import annotations

from smtpd.mail.outcome import Outcome
from smtpd.proto.client.transmission import Transmission

READY = 1  # the session takes a mail: after the greeting and EHLO (and TLS and EHLO), and after each RSET
START_TLS = 2  # the driver shakes hands, then calls tls_started() or fail()
WANTS_BODY = 3  # `transmission`: the driver gives its content by feed()
DONE = 4  # `transmission`: each of its recipients has an outcome, nothing of it is under way any more
CLOSED = 5  # `reason`: send what is left, then close; what was under way got DONE before. None after QUIT

EVENT_NAMES = ("", "READY", "START_TLS", "WANTS_BODY", "DONE", "CLOSED")


class ClientEvent:
    __slots__ = ("kind", "reason", "transmission")

    def __init__(self, kind: int, transmission: Transmission | None = None, reason: Outcome | None = None) -> None:
        self.kind = kind
        self.transmission = transmission
        self.reason = reason

    def __repr__(self) -> str:
        return f"ClientEvent({EVENT_NAMES[self.kind]}, {self.transmission!r}, {self.reason!r})"


def make_event(kind: int, transmission: Transmission) -> ClientEvent:
    """The same as ClientEvent(kind, transmission), where it counts: no arguments are gathered and parsed."""
    event = ClientEvent.__new__(ClientEvent)
    event.kind = kind
    event.transmission = transmission
    event.reason = None
    return event
