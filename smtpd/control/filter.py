"""Which mails a queue command speaks of, exactly (`matches`) and, cheaply, for SQLite (`narrowing`). Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from smtpd.mail.text import text_of
from smtpd.spool.query import ACTIVE, DEFERRED, HELD, Narrowing, QueuedMail

_STATE_CONDITIONS = {
    HELD: "held = 1",
    DEFERRED: "held = 0 AND due IS NOT NULL AND attempts > 0",
    ACTIVE: "held = 0 AND (due IS NULL OR attempts = 0)",
}


class Filter(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """All that is set must hold. `domain` of a recipient that isn't delivered (".example.org": any below it); `sender` the whole
    reverse-path, "" for the null one; `older_s` seconds since arrival; `state` "active", "deferred" or "held"; `reason` a part
    of what was said last of a recipient; `ids` these queue ids only."""

    domain: str = ""
    sender: str | None = None
    older_s: float = 0.0
    state: str = ""
    reason: str = ""
    ids: list[str] = []

    @property
    def is_all(self) -> bool:
        """Whether nothing is set: every mail is meant."""
        return self == Filter()

    def matches(self, mail: QueuedMail, now_s: float) -> bool:
        """Whether the mail is wanted at Unix time `now_s`."""
        envelope = mail.envelope
        if self.ids and mail.queue_id not in self.ids:
            return False
        if self.state and mail.state != self.state:
            return False
        if self.older_s and now_s - envelope.received_at_s < self.older_s:
            return False
        if self.sender is not None and not _is_same_address(envelope.reverse_path, self.sender):
            return False
        if self.reason and not any(self.reason in outcome.text for outcome in mail.outcomes or () if not outcome.is_done):
            return False
        return not self.domain or self._has_domain(mail)

    def narrowing(self) -> Narrowing:
        """Return what SQLite can tell without anything being decoded: octets that a wanted envelope must hold somewhere."""
        conditions: list[str] = []
        parameters: list[Any] = []
        if self.ids:
            conditions.append(f"queue_id IN ({','.join('?' * len(self.ids))})")
            parameters += self.ids
        if self.state:
            conditions.append(_STATE_CONDITIONS[self.state])
        if self.domain:
            conditions.append("instr(envelope, ?)")
            parameters.append(self.domain.lower().encode())
        if self.sender and "\\" not in self.sender:
            conditions.append("instr(envelope, ?)")
            parameters.append(self.sender.rpartition("@")[0].encode())
        if self.reason:
            conditions.append("instr(outcomes, ?)")
            parameters.append(self.reason.encode())
        return Narrowing(" AND ".join(conditions), tuple(parameters))

    def _has_domain(self, mail: QueuedMail) -> bool:
        wanted = self.domain.lower()
        outcomes = mail.outcomes
        for index, recipient in enumerate(mail.envelope.recipients):
            if outcomes is not None and outcomes[index].is_done:
                continue
            if recipient.domain == wanted or (wanted.startswith(".") and recipient.domain.endswith(wanted)):
                return True
        return False


def _is_same_address(path: bytes, wanted: str) -> bool:
    """The domain is compared without case, the local part as it is (RFC 5321 2.4)."""
    local, _, domain = text_of(path).rpartition("@")
    wanted_local, _, wanted_domain = wanted.rpartition("@")
    return local == wanted_local and domain.lower() == wanted_domain.lower()
