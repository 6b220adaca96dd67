"""Limits that hold within a session, beside the other checks: mails and recipients of a client in a time, queues of routes.

Answer from memory. A client without a row (trusted, or the table was full) never gets these checks.
"""

from __future__ import annotations

from collections.abc import Callable

from smtpd.limits._clients import MAIL_RATE, RECIPIENT_RATE
from smtpd.limits.clients import ClientLimits
from smtpd.mail.envelope import Recipient
from smtpd.mail.verdict import Verdict
from smtpd.proto import replies
from smtpd.proto.dialogue import Dialogue
from smtpd.proto.rules import Checks

_TOO_MANY_MAILS = Verdict(replies.MAIL_RATE_EXCEEDED, "rate")
_TOO_MANY_RECIPIENTS = Verdict(replies.RECIPIENT_RATE_EXCEEDED, "rate")
_QUEUE_FULL = Verdict(replies.QUEUE_FULL, "other")
_UNKNOWN_CLIENT = Verdict(replies.UNKNOWN_CLIENT, "other")


class RateChecks:
    """`checks` are asked when there is no limit in the way."""

    def __init__(self, limits: ClientLimits, checks: Checks) -> None:
        self._limits = limits
        self._checks = checks

    def at_mail(self, session: Dialogue) -> Verdict | None:
        if not self._limits.take(session.peer.row, MAIL_RATE):
            return _TOO_MANY_MAILS
        return self._checks.at_mail(session)

    def at_rcpt(self, session: Dialogue, recipient: Recipient) -> Verdict | None:
        if not self._limits.take(session.peer.row, RECIPIENT_RATE):
            return _TOO_MANY_RECIPIENTS
        return self._checks.at_rcpt(session, recipient)


class QueueChecks:
    """Puts off recipients whose route has too much mail waiting, and nobody else: `is_full(domain, reverse-path)` says so."""

    def __init__(self, is_full: Callable[[str, bytes], bool], checks: Checks) -> None:
        self._is_full = is_full
        self._checks = checks

    def at_mail(self, session: Dialogue) -> Verdict | None:
        return self._checks.at_mail(session)

    def at_rcpt(self, session: Dialogue, recipient: Recipient) -> Verdict | None:
        verdict = self._checks.at_rcpt(session, recipient)
        if verdict is not None and verdict.reply is not None:
            return verdict
        transaction = session.transaction
        reverse_path = transaction.reverse_path if transaction is not None else b""
        domain = recipient.domain or session.rules.postmaster.domain
        return _QUEUE_FULL if self._is_full(domain, reverse_path) else verdict


class UnknownClientChecks:
    """For a front end that speaks for itself (PROXY UNKNOWN, LOCAL): it may look whether we live, but not send."""

    def at_mail(self, session: Dialogue) -> Verdict | None:
        return _UNKNOWN_CLIENT

    def at_rcpt(self, session: Dialogue, recipient: Recipient) -> Verdict | None:
        return _UNKNOWN_CLIENT
