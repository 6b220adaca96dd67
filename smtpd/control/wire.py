"""What the control socket speaks: one JSON object a line. A request of one line, an answer of many; then the server closes.

Request: {"do": "list", "filter": {...}} or {"do": "show", "queue_id": "..."}. Answer: {"mail": {...}} for each mail, at last
{"end": true}, or {"error": "..."}. An answer without either of the two last was cut short. The fields of a mail are those of
Postfix's `postqueue -j` where it has them. Octets that aren't UTF-8 come as \\xNN. Raises msgspec.MsgspecError for what isn't so.
"""

from __future__ import annotations

import msgspec

from smtpd.mail.envelope import Envelope
from smtpd.mail.outcome import DELIVERED, PENDING, STATUS_NAMES, describe
from smtpd.spool.query import ACTIVE, DEFERRED, HELD, QueuedMail

REQUEST_MAX_BYTES = 64 * 1024
QUEUE_NAMES = {ACTIVE: "active", DEFERRED: "deferred", HELD: "hold"}  # Postfix's word for held
NULL_SENDER = "MAILER-DAEMON"  # as postqueue shows the null reverse-path


class Filter(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """All that is set must hold. `domain` of a recipient that isn't delivered (".example.org": any below it); `sender` the whole
    reverse-path, "" for the null one; `older_s` seconds since arrival; `state` "active", "deferred" or "held"."""

    domain: str = ""
    sender: str | None = None
    older_s: float = 0.0
    state: str = ""

    def matches(self, mail: QueuedMail, now_s: float) -> bool:
        """Whether the mail is wanted at Unix time `now_s`."""
        envelope = mail.envelope
        if self.state and mail.state != self.state:
            return False
        if self.older_s and now_s - envelope.received_at_s < self.older_s:
            return False
        if self.sender is not None and not _is_same_address(envelope.reverse_path, self.sender):
            return False
        return not self.domain or self._has_domain(mail)

    def _has_domain(self, mail: QueuedMail) -> bool:
        wanted = self.domain.lower()
        outcomes = mail.outcomes
        for index, recipient in enumerate(mail.envelope.recipients):
            if outcomes is not None and outcomes[index].is_done:
                continue
            if recipient.domain == wanted or (wanted.startswith(".") and recipient.domain.endswith(wanted)):
                return True
        return False


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`do` is "list" or "show"."""

    do: str
    filter: Filter = Filter()
    queue_id: str = ""


class QueueRecipient(msgspec.Struct, omit_defaults=True):
    """`delay_reason` is what was said last. The rest is there once there was an attempt; `status` is Postfix's word."""

    address: str
    delay_reason: str = ""
    status: str = ""
    dsn: str = ""
    relay: str = ""
    attempts: int = 0
    last_attempt_time: float = 0.0


class QueueEntry(msgspec.Struct, omit_defaults=True):
    """One mail. Times are Unix seconds. A listing names the recipients that aren't delivered yet, `show` all of them."""

    queue_name: str
    queue_id: str
    arrival_time: int
    message_size: int
    sender: str
    recipients: list[QueueRecipient]
    attempts: int = 0
    next_attempt_time: float = 0.0
    client_address: str = ""
    client_name: str = ""
    helo: str = ""
    protocol: str = ""
    listener: str = ""
    shard: int | None = None
    spill_file: str = ""


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of an answer."""

    mail: QueueEntry | None = None
    end: bool = False
    error: str = ""


_ENCODER = msgspec.json.Encoder()
_REQUEST = msgspec.json.Decoder(Request)
_LINE = msgspec.json.Decoder(Line)
END_LINE = _ENCODER.encode(Line(end=True)) + b"\n"


def encode_line(line: Line | Request) -> bytes:
    """Return the object as one line."""
    return _ENCODER.encode(line) + b"\n"


def decode_request(line: bytes) -> Request:
    """Return a request whose `do` and filter make sense; raises msgspec.MsgspecError."""
    request = _REQUEST.decode(line)
    if request.do not in ("list", "show"):
        raise msgspec.ValidationError(f'unknown "do": {request.do[:40]!r}')
    if request.filter.state not in ("", ACTIVE, DEFERRED, HELD):
        raise msgspec.ValidationError(f"unknown state {request.filter.state[:40]!r}")
    return request


def decode_line(line: bytes) -> Line:
    """Return one line of an answer; raises msgspec.MsgspecError."""
    return _LINE.decode(line)


def entry_of(mail: QueuedMail, shard: int, is_full: bool) -> QueueEntry:
    """Return a stored mail as it is shown; `is_full` as `show` does."""
    envelope = mail.envelope
    entry = QueueEntry(
        queue_name=QUEUE_NAMES[mail.state],
        queue_id=mail.queue_id,
        arrival_time=int(envelope.received_at_s),
        message_size=mail.size_bytes,
        sender=text_of(envelope.reverse_path) or NULL_SENDER,
        recipients=_recipients(mail, is_full),
        attempts=mail.attempts,
        next_attempt_time=mail.due_s or 0.0 if mail.attempts else 0.0,
    )
    if is_full:
        _add_details(entry, envelope)
        entry.shard = shard
        entry.spill_file = mail.spill_name
    return entry


def _recipients(mail: QueuedMail, is_full: bool) -> list[QueueRecipient]:
    shown = []
    outcomes = mail.outcomes
    for index, recipient in enumerate(mail.envelope.recipients):
        entry = QueueRecipient(text_of(recipient.path))
        if outcomes is not None:
            outcome = outcomes[index]
            if outcome.is_done and not is_full:
                continue
            entry.delay_reason = "" if outcome.status == DELIVERED else describe(outcome)
            if is_full and outcome.status != PENDING:
                entry.status = STATUS_NAMES[outcome.status]
                entry.dsn = outcome.dsn
                entry.relay = outcome.relay
                entry.attempts = outcome.attempts
                entry.last_attempt_time = outcome.at_s
        shown.append(entry)
    return shown


def _add_details(entry: QueueEntry, envelope: Envelope) -> None:
    entry.client_address = envelope.client_address
    entry.client_name = envelope.client_name
    entry.helo = text_of(envelope.helo)
    entry.protocol = envelope.protocol
    entry.listener = envelope.listener


def text_of(octets: bytes) -> str:
    """Return wire octets as text; what isn't UTF-8 becomes \\xNN."""
    return octets.decode("utf-8", "backslashreplace")


def _is_same_address(path: bytes, wanted: str) -> bool:
    """The domain is compared without case, the local part as it is (RFC 5321 2.4)."""
    local, _, domain = text_of(path).rpartition("@")
    wanted_local, _, wanted_domain = wanted.rpartition("@")
    return local == wanted_local and domain.lower() == wanted_domain.lower()
