"""Makes one report: a multipart/report mail of three parts as octets, and its envelope (RFC 3464, 6522; 6533 for UTF-8).

The parts: a text for people, message/delivery-status for programs, the original or its header. Everything is ASCII with CRLF
lines below 998 octets, but for what the envelope says: `body` "8BITMIME" when the original or an address needs 8 bits,
`smtputf8` when the sender's own address isn't ASCII. Pure: clock and boundary are given. Never decides whether to report.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from smtpd.delivery.bounce import fields
from smtpd.delivery.bounce.original import Original, Part, original_part, quoted_printable
from smtpd.log.escape import clean_text
from smtpd.mail.address import AddressError, normal_domain
from smtpd.mail.envelope import NOTIFY_NEVER, Envelope, Recipient
from smtpd.mail.outcome import Outcome
from smtpd.proto.trace import DateText

FAILURE, DELAY, SUCCESS = "failure", "delay", "success"
_SUBJECTS = {
    FAILURE: "Undelivered Mail Returned to Sender",
    DELAY: "Delayed Mail (still being retried)",
    SUCCESS: "Successful Mail Delivery Report",
}
_INTRODUCTIONS = {
    FAILURE: "Your mail could not be delivered to the recipients below. It will not be tried again.",
    DELAY: "Your mail could not be delivered yet to the recipients below. It will be tried again; do not send it anew.",
    SUCCESS: "Your mail was passed on for the recipients below, as you asked to be told.",
}
_ACTION_TEXTS = {
    "delivered": "delivered",
    "relayed": "passed on to a host that sends no reports of successful delivery",
}
_EXPIRED_STATUS = "4.4.7"  # RFC 3463 3.5: delivery time expired
_date = DateText()


@dataclass(frozen=True, slots=True)
class Entry:
    """One recipient in a report. `action` is failed, delayed, delivered or relayed; `is_expired`: its time was over."""

    recipient: Recipient
    outcome: Outcome
    action: str
    is_expired: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """What a report is about: the mail in custody, how much of it is at hand, and until when it will be tried (Unix time)."""

    queue_id: str
    envelope: Envelope
    original: Original | None
    retry_until_s: float


def make_report(
    kind: str, case: Case, entries: Sequence[Entry], *, to: bytes, wants_whole: bool, hostname: str, queue_id: str, boundary: str,
    now_s: float,
) -> tuple[Envelope, bytes]:  # fmt: skip
    """Return (envelope, content) of a report to the mailbox `to`; `queue_id` is the report's own.

    `boundary` must be one that is in no mail: random (it is checked against the original).
    """
    parts = [
        _text_part(kind, case, entries, hostname),
        _status_part(kind, case, entries, hostname),
    ]
    if case.original is not None:
        while boundary.encode() in case.original.data:
            boundary += "x"  # chosen by chance before, so this is for tests and miracles
        parts.append(original_part(case.original, wants_whole and kind == FAILURE, case.envelope.smtputf8))
    is_8bit = any(part.encoding == "8bit" for part in parts)
    header = _header(kind, to, is_8bit, hostname, queue_id, boundary, now_s)
    data = b"".join((header, b"This is a MIME-encapsulated message.\r\n", *_framed(parts, boundary)))
    envelope = Envelope(
        b"", [Recipient(to, _domain_of(to), notify=NOTIFY_NEVER)], "", "localhost", hostname.encode(), "ESMTP", now_s,
        smtputf8=not to.isascii(), body="8BITMIME" if is_8bit else "", via="bounce",
    )  # fmt: skip
    return envelope, data


def _domain_of(path: bytes) -> str:
    try:
        return normal_domain(path.rpartition(b"@")[2].decode()) if b"@" in path else ""
    except (AddressError, UnicodeDecodeError):
        return ""  # it was an address once; its bounce will say that there is no way there


def _header(kind: str, to: bytes, is_8bit: bool, hostname: str, queue_id: str, boundary: str, now_s: float) -> bytes:
    date = _date.at(now_s).decode("ascii")
    address = fields.address_text(to)
    lines = (
        f"Received: by {hostname} (smtpd) id {queue_id};",
        f"\t{date}",
        f"Date: {date}",
        f"From: Mail Delivery System <MAILER-DAEMON@{hostname}>",
        f"To: <{address}>",
        f"Subject: {_SUBJECTS[kind]}",
        f"Message-ID: <{queue_id}@{hostname}>",
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        "Content-Type: multipart/report; report-type=delivery-status;",
        f'\tboundary="{boundary}"',
        f"Content-Transfer-Encoding: {'8bit' if is_8bit else '7bit'}",
        "",
        "",
    )
    return "\r\n".join(lines).encode()


def _framed(parts: Sequence[Part], boundary: str) -> list[bytes]:
    framed = []
    for part in parts:
        framed.append(
            f"\r\n--{boundary}\r\nContent-Description: {part.description}\r\nContent-Type: {part.type}\r\n"
            f"Content-Transfer-Encoding: {part.encoding}\r\n\r\n".encode("ascii")
        )
        framed.append(part.data)
    framed.append(f"\r\n--{boundary}--\r\n".encode("ascii"))
    return framed


# --- for people ----------------------------------------------------------------------------------------------------------


def _text_part(kind: str, case: Case, entries: Sequence[Entry], hostname: str) -> Part:
    paragraphs = [f"This is the mail system at host {hostname}.", _INTRODUCTIONS[kind]]
    if kind == DELAY and case.retry_until_s:
        paragraphs.append(f"It will be tried until {_date.at(case.retry_until_s).decode('ascii')}.")
    if kind != SUCCESS:
        paragraphs.append("For help, write to postmaster at your provider and include this report.")
    paragraphs += [_entry_text(entry) for entry in entries]
    if case.original is None:
        paragraphs.append("The mail itself could not be read for this report.")
    text = "\r\n\r\n".join("\r\n".join(_wrap(paragraph)) for paragraph in paragraphs) + "\r\n"
    if text.isascii():
        return Part("text/plain; charset=us-ascii", "7bit", text.encode("ascii"), "Notification")
    return Part("text/plain; charset=utf-8", "quoted-printable", quoted_printable(text.encode()), "Notification")


def _entry_text(entry: Entry) -> str:
    outcome = entry.outcome
    said = clean_text(fields.reply_text(outcome))
    if outcome.code and outcome.relay:
        said = f"host {clean_text(outcome.relay)} said: {said}"
    if entry.action in _ACTION_TEXTS:
        said = _ACTION_TEXTS[entry.action]
    elif entry.is_expired:
        said = f"the time for delivery is over; the last attempt: {said}"
    return f"<{fields.address_text(entry.recipient.path)}>: {said or 'no reason was given'}"


def _wrap(text: str) -> list[str]:
    indent = "    " if text.startswith("<") else ""  # what belongs to a recipient
    lines = textwrap.wrap(text, fields.FIELD_LENGTH - 2, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return [line[at : at + fields.LINE_LENGTH] for line in lines for at in range(0, len(line), fields.LINE_LENGTH)]


# --- for programs --------------------------------------------------------------------------------------------------------


def _status_part(kind: str, case: Case, entries: Sequence[Entry], hostname: str) -> Part:
    groups = [_mail_fields(case, hostname)]
    groups += [_recipient_fields(entry, case.retry_until_s if kind == DELAY else 0.0) for entry in entries]
    data = b"\r\n".join(groups)
    if data.isascii():
        return Part("message/delivery-status", "7bit", data, "Delivery report")
    return Part("message/global-delivery-status", "8bit", data, "Delivery report")


def _mail_fields(case: Case, hostname: str) -> bytes:
    lines = [f"Reporting-MTA: dns; {hostname}\r\n".encode(), f"X-Smtpd-Queue-ID: {case.queue_id}\r\n".encode()]
    envelope_id = fields.decode_xtext(case.envelope.envid)
    if envelope_id and envelope_id.isascii():
        lines.append(f"Original-Envelope-Id: {envelope_id}\r\n".encode("ascii"))
    lines.append(b"Arrival-Date: " + _date.at(case.envelope.received_at_s) + b"\r\n")
    return b"".join(lines)


def _recipient_fields(entry: Entry, retry_until_s: float) -> bytes:
    outcome = entry.outcome
    if entry.is_expired:
        status = _EXPIRED_STATUS
    elif entry.action == "failed":
        status = fields.status_code(outcome, "54", "5.0.0")
    elif entry.action == "delayed":
        status = fields.status_code(outcome, "4", "4.0.0")
    else:
        status = fields.status_code(outcome, "2", "2.0.0")
    lines = [
        fields.original_recipient(entry.recipient),
        fields.final_recipient(entry.recipient),
        f"Action: {entry.action}\r\nStatus: {status}\r\n".encode("ascii"),
        fields.remote_mta(outcome),
        fields.diagnostic(outcome),
    ]
    if outcome.at_s:
        lines.append(b"Last-Attempt-Date: " + _date.at(outcome.at_s) + b"\r\n")
    if retry_until_s:
        lines.append(b"Will-Retry-Until: " + _date.at(retry_until_s) + b"\r\n")
    return b"".join(lines)
