"""What the control socket speaks: one JSON object a line. A request of one line, an answer of many; then the server closes.

Answer: {"mail": {...}} for each mail, {"results": {...}}, {"tally": {...}} and so on, at last {"end": true}, or {"error":
"..."}. An answer without either of the two last was cut short. The fields of a mail are those of Postfix's `postqueue -j`
where it has them. Octets that aren't UTF-8 come as \\xNN. Raises msgspec.MsgspecError for what isn't so.
"""

from __future__ import annotations

import msgspec

from smtpd.control.filter import Filter
from smtpd.control.stored import StoredMail
from smtpd.mail.envelope import Envelope
from smtpd.mail.outcome import DELIVERED, PENDING, STATUS_NAMES, describe
from smtpd.mail.text import text_of
from smtpd.spool.change import ACTIONS, LEASE
from smtpd.spool.query import ACTIVE, DEFERRED, HELD, STATES, QueuedMail

__all__ = ["Filter", "Line", "QueueEntry", "QueueRecipient", "Request", "Results"]

REQUEST_MAX_BYTES = 64 * 1024
QUEUE_NAMES = {ACTIVE: "active", DEFERRED: "deferred", HELD: "hold"}  # Postfix's word for held
NULL_SENDER = "MAILER-DAEMON"  # as postqueue shows the null reverse-path
_CHANGES = tuple(action for action in ACTIONS if action != LEASE)
READS = ("list", "show", "summary")
ROUTE_REQUESTS = ("routes", "suspend", "resume")
_REQUESTS = (*READS, *_CHANGES, *ROUTE_REQUESTS, "export", "import", "transcript")


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`do` is "list", "show" (of `filter.ids`; `content`: "header" or "all" comes with it), "summary" (by "domain" or "sender"),
    one of the changes, "routes", "suspend" or "resume" of `route`, "export", "import", or "transcript" (of `client`, a network,
    or `next_hop`, for `seconds`). A change without a filter must say that it means `everything`."""

    do: str
    filter: Filter = Filter()
    everything: bool = False
    content: str = ""
    by: str = "domain"
    route: str = ""
    client: str = ""
    next_hop: str = ""
    seconds: float = 0.0


class Results(msgspec.Struct, omit_defaults=True):
    """Queue ids by what a change made of them: `under_way` is being delivered, and what is left of it will be changed after that;
    `busy` could not be got at."""

    changed: list[str] = []
    unchanged: list[str] = []
    under_way: list[str] = []
    busy: list[str] = []

    def add(self, other: Results) -> None:
        """Take in those of another page."""
        self.changed += other.changed
        self.unchanged += other.unchanged
        self.under_way += other.under_way
        self.busy += other.busy

    @property
    def known(self) -> int:
        """How many mails were found."""
        return len(self.changed) + len(self.unchanged) + len(self.under_way) + len(self.busy)


class Said(msgspec.Struct):
    """One line of a transcript: who of `session` said it at Unix time `at_s`, "C" the client or "S" the server; "": neither."""

    session: int
    peer: str
    at_s: float
    who: str
    text: str


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
    """One line of an answer. `content` (base64 in JSON) is a piece of the mail before it; `tally`: see answer.tally_answer. The
    next five are of export and import: `unreadable` is why the mail before it ends here, `asks` whether the mails so far are
    stored, and `done` says so; the next two of transcripts, where `lost` lines are missing because the reader was slow."""

    mail: QueueEntry | None = None
    content: bytes | None = None
    results: Results | None = None
    tally: dict[str, list[int]] | None = None
    suspended: list[str] | None = None
    stored: StoredMail | None = None
    imported: list[str] | None = None
    unreadable: str = ""
    asks: bool = False
    done: list[str] | None = None
    said: Said | None = None
    lost: int = 0
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
    if request.do not in _REQUESTS:
        raise msgspec.ValidationError(f'unknown "do": {request.do[:40]!r}')
    if request.filter.state not in ("", *STATES):
        raise msgspec.ValidationError(f"unknown state {request.filter.state[:40]!r}")
    if request.do in _CHANGES and request.filter.is_all and not request.everything:
        raise msgspec.ValidationError("a change of everything must say so")
    if request.do == "show" and len(request.filter.ids) != 1:
        raise msgspec.ValidationError("show is of one mail")
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
