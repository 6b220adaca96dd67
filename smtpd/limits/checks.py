"""Limits that hold within a session, in front of the other checks: mails and recipients of a client in a time.

Answer from memory. A client without a row (trusted, or the table was full) never gets these checks.
"""

from __future__ import annotations

from smtpd.limits._clients import MAIL_RATE, RECIPIENT_RATE
from smtpd.limits.clients import ClientLimits
from smtpd.mail.envelope import Recipient
from smtpd.mail.verdict import Verdict
from smtpd.proto import replies
from smtpd.proto.dialogue import Dialogue
from smtpd.proto.rules import Checks

_TOO_MANY_MAILS = Verdict(replies.MAIL_RATE_EXCEEDED, "rate")
_TOO_MANY_RECIPIENTS = Verdict(replies.RECIPIENT_RATE_EXCEEDED, "rate")
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


class UnknownClientChecks:
    """For a front end that speaks for itself (PROXY UNKNOWN, LOCAL): it may look whether we live, but not send."""

    def at_mail(self, session: Dialogue) -> Verdict | None:
        return _UNKNOWN_CLIENT

    def at_rcpt(self, session: Dialogue, recipient: Recipient) -> Verdict | None:
        return _UNKNOWN_CLIENT
