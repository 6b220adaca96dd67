"""What a session tells its driver besides octets to send, in order (`Session.events`)."""

from __future__ import annotations

from typing import Any

from smtpd.mail.reply import Reply

ASK = 1  # `stage`, `token`: a check can't answer from memory; the session waits for resume(token, verdict)
BODY_BEGIN = 2  # `data`: the Transaction, of which `content.make_envelope` makes an Envelope; content follows
BODY_CHUNK = 3  # `data`: bytes, decoded
BODY_END = 4  # `token`: the content is whole; resume(token, verdict) after custody is durable
BODY_ABORT = 5  # whatever was given of this body is void
REJECT = 6  # `stage`, `data`: Refusal: a command or content was refused for a reason that is counted
VIOLATION = 7  # `data`: label of smtpd_protocol_violations_total
DELAY = 8  # `token`, `data`: resume(token) after so many seconds, None = the rules' error delay
CLOSE = 9  # `data`: label of smtpd_sessions_ended_total; send what is left, then close
RESET = 10  # the CLOSE that follows is to be a TCP reset
CLIENT = 11  # `data`: the Peer that XCLIENT names, `token`: begin_client(token, …) lets it in or not
START_TLS = 12  # shake hands behind the output so far, then Session.tls_started(facts), or abort

STAGE_CONNECT = "connect"
STAGE_HELO = "helo"
STAGE_MAIL = "mail"
STAGE_RCPT = "rcpt"
STAGE_DATA = "data"
STAGE_BODY = "body"


class Refusal:
    """What was refused and why. `reason` is a label of smtpd_rejections_total; counts and size are those of the transaction."""

    __slots__ = ("reason", "recipient", "recipient_count", "reply", "sender", "size_bytes")

    def __init__(
        self, reply: Reply, reason: str, recipient: bytes | None, sender: bytes | None, recipient_count: int, size_bytes: int
    ) -> None:
        self.reply = reply
        self.reason = reason
        self.recipient = recipient
        self.sender = sender
        self.recipient_count = recipient_count
        self.size_bytes = size_bytes


class Event:
    __slots__ = ("data", "kind", "stage", "token")

    def __init__(self, kind: int, data: Any = None, token: int = 0, stage: str = "") -> None:
        self.kind = kind
        self.data = data
        self.token = token
        self.stage = stage

    def __repr__(self) -> str:
        return f"Event({self.kind}, {self.data!r}, {self.token}, {self.stage!r})"


def make_event(kind: int, data: Any, token: int) -> Event:
    """The same as Event(kind, data, token), where it counts: no arguments are gathered and parsed."""
    event = Event.__new__(Event)
    event.kind = kind
    event.data = data
    event.token = token
    event.stage = ""
    return event
