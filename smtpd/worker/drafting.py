"""A mail between its last octet and its custody: the checks see it, change it, and what they made of it is stored.

Owns the order: what was written can be read, the checks have their say, the content is written anew if they changed it, then the
spool's commit as for any mail (a spill file is synced before its row). Nothing is promised to the client before that.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from smtpd.errors import SpoolError, SpoolFullError
from smtpd.mail.address import AddressError, parse_path
from smtpd.mail.changes import AddRecipient, Change, ChangeReversePath, Discard, Hold, RemoveRecipient
from smtpd.mail.envelope import Envelope, Recipient
from smtpd.mail.outcome import Outcome
from smtpd.mail.verdict import Verdict, accept_as
from smtpd.net.files import FilesThread
from smtpd.policy.draft import Draft
from smtpd.proto import replies
from smtpd.spool.base import Arrived, BodyWriter, Kept

if TYPE_CHECKING:
    from smtpd.worker.connection import Connection, PendingMail

_FAILED = Verdict(replies.SPOOL_FAILED, "other")
_FULL = Verdict(replies.SPOOL_FULL, "other")


class Drafting:
    """`trace` is our Received, `header_bytes` the size of the header behind it. `draft` is there once `open` says so."""

    def __init__(self, writer: BodyWriter, trace: bytes, header_bytes: int, files: FilesThread) -> None:
        self._writer = writer
        self._trace = trace
        self._header_bytes = header_bytes
        self._files = files
        self.draft: Draft | None = None

    def open(self, done: Callable[[Verdict | None], None]) -> None:
        """Make the draft; `done(None)`, or what the client is told instead. Perhaps before this returns."""

        def on_settled(arrived: Arrived | None, error: SpoolError | None) -> None:
            if arrived is None:
                done(_FULL if isinstance(error, SpoolFullError) else _FAILED)
            elif arrived.data is not None:
                start = len(self._trace)
                self._make(arrived, arrived.data[start : start + self._header_bytes])
                done(None)
            else:
                self._files.submit(lambda: self._read_header(arrived.path), lambda *answer: on_header(arrived, *answer))

        def on_header(arrived: Arrived, header: bytes, failure: BaseException | None) -> None:
            if failure is None:
                self._make(arrived, header)
            done(None if failure is None else _FAILED)

        self._writer.settle(on_settled)

    def _read_header(self, path: str) -> bytes:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            return os.pread(fd, self._header_bytes, len(self._trace))
        finally:
            os.close(fd)

    def _make(self, arrived: Arrived, header: bytes) -> None:
        self.draft = Draft(arrived.data, arrived.path, arrived.size_bytes, self._trace, header)


def commit_draft(connection: Connection, mail: PendingMail, changes: Sequence[Change]) -> None:
    """Store a mail as its checks left it: `changes` of the envelope and of its fate, header and body as in the draft."""
    service = connection.service
    assert mail.drafting is not None and mail.drafting.draft is not None
    draft = mail.drafting.draft
    change_envelope(mail.envelope, changes)
    stored: Envelope = mail.writer.envelope
    if stored is not mail.envelope:  # it has copies besides (always_bcc)
        change_envelope(stored, changes)
    reason = next((change.reason or "a check" for change in changes if isinstance(change, Discard)), "")
    if not stored.recipients:
        reason = reason or "no recipient is left"
    if reason:
        mail.writer.abort()
        count = len(mail.envelope.recipients)
        service.account.discarded(mail.envelope.reverse_path, count, mail.queue_id, connection.client, mail.size_bytes, reason)
        connection.end_mail(mail, accept_as(mail.queue_id))
        return
    mail.held_for = next((change.reason or "a check" for change in changes if isinstance(change, Hold)), "")
    kept = Kept(0.0, True, 0, [Outcome(text=mail.held_for) for _ in stored.recipients]) if mail.held_for else None

    def commit(error: SpoolError | None) -> None:
        if error is not None:
            mail.writer.abort()
            mail.on_committed(None, error)
        elif mail.is_abandoned:  # the client was told 451 meanwhile
            mail.writer.abort()
        else:
            service.spool.commit(mail.writer, mail.on_committed, kept)

    if not draft.is_edited:
        commit(None)
        return
    body = draft.new_body
    pieces = draft.new_pieces() if body is not None else None
    mail.writer.rewrite(draft.head, draft.kept_from, pieces, commit, is_slow=body is not None and bool(body.file))


def change_envelope(envelope: Envelope, changes: Sequence[Change]) -> None:
    """Carry out what concerns reverse-path and recipients; those of the session's own transaction stay as they are."""
    for change in changes:
        if isinstance(change, AddRecipient):
            recipient = _parse_recipient(change.mailbox)
            if recipient is not None and all(known.path != recipient.path for known in envelope.recipients):
                envelope.recipients = [*envelope.recipients, recipient]
        elif isinstance(change, RemoveRecipient):
            wanted = change.mailbox.lower()
            envelope.recipients = [known for known in envelope.recipients if known.path.lower() != wanted]
        elif isinstance(change, ChangeReversePath):
            envelope.reverse_path = change.mailbox


def _parse_recipient(mailbox: bytes) -> Recipient | None:
    try:
        parsed = parse_path(b"TO:<" + mailbox + b">", b"TO", True)
    except AddressError:
        return None
    return Recipient(parsed.mailbox, parsed.domain) if parsed.domain and not parsed.rest else None
