"""What a verdict may change of a mail before it is stored: header fields, body, envelope, and what becomes of it.

Values only; `smtpd.policy.draft` carries them out, in the order in which they were given, before custody. Header values are
octets that shall stand behind "Name: "; folded lines are separated by CRLF (a bare LF is taken for one, as milters send it) and
start with a blank. What could begin another field or the body is refused by `smtpd.policy.draft`.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class Change(msgspec.Struct, frozen=True):
    """Base of all that follows."""


class AddHeader(Change, frozen=True):
    """A field below all others."""

    name: bytes
    value: bytes


class InsertHeader(Change, frozen=True):
    """A field at a place: 0 = above everything, our Received too; n = before the n-th field that the client sent (1 = directly
    below our Received); beyond the last = below all others."""

    index: int
    name: bytes
    value: bytes


class ChangeHeader(Change, frozen=True):
    """The `nth` field of this name (from 1, case doesn't matter) gets this value, None deletes it. One that isn't there is added
    below all others, or stays away."""

    name: bytes
    nth: int
    value: bytes | None


class ReplaceBody(Change, frozen=True):
    """Another body: all that follows the blank line. `pieces` are joined; with `file`, the octets of that file are taken instead
    and the file is removed when they were. Lines end with CRLF; a bare LF is stored as one, a bare CR as a blank."""

    pieces: Sequence[bytes] = ()
    file: str = ""


class AddRecipient(Change, frozen=True):
    """A mailbox as wire bytes without angle brackets. No check is asked about it; without a route it stays queued."""

    mailbox: bytes


class RemoveRecipient(Change, frozen=True):
    """A mailbox as it stands in the envelope; one that isn't there is no fault. A mail that loses all is answered with 250 and
    discarded."""

    mailbox: bytes


class ChangeReversePath(Change, frozen=True):
    """Another reverse-path, b"" for the null one."""

    mailbox: bytes


class Hold(Change, frozen=True):
    """The mail is stored held, with this reason: `smtpd queue release` lets it go on."""

    reason: str


class Discard(Change, frozen=True):
    """The client hears 250, and the mail is dropped. `reason` is for the log."""

    reason: str = ""
