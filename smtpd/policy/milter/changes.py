"""What a filter wants changed in a mail, from its packets to the changes of a verdict, in the order in which it said so.

Owns the rules for what a filter may ask: allowed by the negotiation, proper addresses, no control octets, a bounded whole. Raises
WireError for what can't be done; nothing here touches the mail. Positions are Sendmail's: a field is inserted relative to the
mail with our own Received field (0 and 1 mean above it), and changed relative to the mail as it came.
"""

from __future__ import annotations

import re

from smtpd.mail import changes as c
from smtpd.mail.address import AddressError, parse_path
from smtpd.policy.milter import wire
from smtpd.policy.milter.negotiation import Agreement
from smtpd.policy.milter.wire import Packet, WireError

MAX_CHANGES = 2000  # pieces of a new body not counted
REASON_BYTES = 200

_LINE_END = re.compile(rb"\r\n|\r|\n")
_CONTROLS = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")


class Changes:
    """`made` is all but the body, in order; `body` are the pieces of a new one, None where it stays."""

    __slots__ = ("_body_bytes", "body", "made")

    def __init__(self) -> None:
        self.made: list[c.Change] = []
        self.body: list[bytes] | None = None
        self._body_bytes = 0

    def all(self) -> tuple[c.Change, ...]:
        """Everything, as a verdict carries it."""
        return (*self.made, *(() if self.body is None else (c.ReplaceBody(self.body),)))

    def take(self, packet: Packet, agreement: Agreement, body_limit: int) -> None:
        """Add one change; raises WireError."""
        letter = packet.letter
        if not agreement.allows(letter):
            raise WireError(f"change {letter.decode()!r}, which it had not asked for")
        if letter == wire.REPLACE_BODY:
            self._take_body(packet.payload, body_limit)
            return
        if len(self.made) >= MAX_CHANGES:
            raise WireError(f"more than {MAX_CHANGES} changes")
        self.made.append(_read_change(packet))

    def _take_body(self, piece: bytes, limit: int) -> None:
        if self.body is None:
            self.body = []
        self._body_bytes += len(piece)
        if limit and self._body_bytes > limit:
            raise WireError(f"a new body of more than {limit} octets")
        self.body.append(piece)


def _read_change(packet: Packet) -> c.Change:
    letter = packet.letter
    if letter == wire.QUARANTINE:
        return c.Hold(clean_reason(wire.parse_text(packet)))
    if letter == wire.CHANGE_SENDER:
        return c.ChangeReversePath(read_mailbox(wire.parse_path(packet).address, is_sender=True))
    if letter in (wire.ADD_RECIPIENT, wire.ADD_RECIPIENT_WITH):
        return c.AddRecipient(read_mailbox(wire.parse_path(packet).address))
    if letter == wire.DELETE_RECIPIENT:
        return c.RemoveRecipient(read_mailbox(wire.parse_path(packet).address))
    change = wire.parse_header_change(packet)
    value = fold_value(change.value)
    if letter == wire.ADD_HEADER:
        return c.AddHeader(change.name, value)
    if letter == wire.INSERT_HEADER:
        return c.InsertHeader(max(0, change.position - 1), change.name, value)
    return c.ChangeHeader(change.name, max(1, change.position), value or None)


def fold_value(value: bytes) -> bytes:
    """Return a header value with CRLF between its lines, each further one beginning with a blank; no control octets, and not the
    blank behind the colon, which filters that keep leading space send along."""
    lines = [_CONTROLS.sub(b"", line) for line in _LINE_END.split(value.rstrip(b"\r\n").removeprefix(b" "))]
    # a line without a blank in front would begin another field, an empty one the body
    return b"\r\n".join([lines[0], *(line if line[:1] in (b" ", b"\t") else b"\t" + line for line in lines[1:] if line.strip())])


def clean_reason(text: bytes) -> str:
    """Return the reason of a quarantine as one short printable line."""
    return "".join(c if c.isprintable() else "?" for c in text[:REASON_BYTES].decode("utf-8", "replace")) or "quarantined"


def read_mailbox(address: bytes, *, is_sender: bool = False) -> bytes:
    """Return the mailbox of an address with or without angle brackets; raises WireError."""
    address = address.strip()
    if not address.startswith(b"<"):
        address = b"<" + address + b">"
    keyword = b"FROM" if is_sender else b"TO"
    try:
        parsed = parse_path(keyword + b":" + address, keyword, True)
    except AddressError as error:
        raise WireError(f"an address that is none: {error.text}") from None
    if parsed.rest:
        raise WireError("an address with something behind it")
    return parsed.mailbox
