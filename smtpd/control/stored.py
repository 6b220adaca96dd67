"""A mail outside of a spool: what an export writes and an import reads beside its octets. Raises msgspec.MsgspecError.

`envelope` and `outcomes` are as in the spool (mail.envelope, mail.outcome); `sender` and `recipients` are for people only.
"""

from __future__ import annotations

import msgspec

from smtpd.mail.envelope import Envelope, decode_envelope, encode_envelope
from smtpd.mail.outcome import Outcome, decode_outcomes, encode_outcomes
from smtpd.mail.text import text_of
from smtpd.spool.query import HELD, QueuedMail

FORMAT = 1


class StoredMail(msgspec.Struct, forbid_unknown_fields=True):
    """`due_s` is the Unix time of the next attempt, 0.0: at once. `size_bytes` counts the octets of the body file."""

    format: int
    queue_id: str
    sender: str
    recipients: list[str]
    size_bytes: int
    attempts: int
    due_s: float
    is_held: bool
    envelope: bytes
    outcomes: bytes | None = None

    def check(self) -> None:
        """Raise msgspec.MsgspecError if it makes no sense here."""
        if self.format != FORMAT:
            raise msgspec.ValidationError(f"format {self.format} of an exported mail is not known here")
        self.read_outcomes(self.read_envelope())

    def read_envelope(self) -> Envelope:
        return decode_envelope(self.envelope)

    def read_outcomes(self, envelope: Envelope) -> list[Outcome]:
        """Return one for each recipient."""
        if self.outcomes is None:
            return [Outcome()] * len(envelope.recipients)
        outcomes = decode_outcomes(self.outcomes)
        if len(outcomes) != len(envelope.recipients):
            raise msgspec.ValidationError(f"{len(outcomes)} outcomes of {len(envelope.recipients)} recipients")
        return outcomes


def stored_of(mail: QueuedMail) -> StoredMail:
    """Return a mail of a spool as it is taken out."""
    envelope = mail.envelope
    return StoredMail(
        FORMAT,
        mail.queue_id,
        text_of(envelope.reverse_path),
        [text_of(recipient.path) for recipient in envelope.recipients],
        mail.size_bytes,
        mail.attempts,
        mail.due_s or 0.0,
        mail.state == HELD,
        encode_envelope(envelope),
        None if mail.outcomes is None else encode_outcomes(mail.outcomes),
    )
