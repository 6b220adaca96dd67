"""Whether a domain exists for mail: what the sender gives must be able to take an answer, what a recipient is at must take mail.

MX, else addresses (RFC 5321 5.1); a null MX takes no mail (RFC 7505). Codes of RFC 3463 and RFC 7505 4. Raises nothing.
"""

from __future__ import annotations

from smtpd.mail.reply import Reply
from smtpd.mail.verdict import Verdict
from smtpd.policy.dns.asking import Asker

_SENDER_ABSENT = Verdict(Reply(b"550 5.1.8 Sender address rejected: domain not found"), "sender_domain")
_SENDER_FAILED = Verdict(Reply(b"451 4.1.8 Sender address rejected: domain could not be looked up"), "sender_domain")
_SENDER_NULL = Verdict(Reply(b"550 5.7.27 Sender address rejected: domain takes no mail (null MX)"), "sender_domain")
_RECIPIENT_ABSENT = Verdict(Reply(b"550 5.1.2 Recipient address rejected: domain not found"), "unknown_user")
_RECIPIENT_FAILED = Verdict(Reply(b"450 4.1.2 Recipient address rejected: domain could not be looked up"), "unknown_user")
_RECIPIENT_NULL = Verdict(Reply(b"556 5.1.10 Recipient address rejected: domain takes no mail (null MX)"), "unknown_user")

EXISTS, ABSENT, FAILED, NULL_MX = range(4)
_SENDER = (None, _SENDER_ABSENT, _SENDER_FAILED, _SENDER_NULL)
_RECIPIENT = (None, _RECIPIENT_ABSENT, _RECIPIENT_FAILED, _RECIPIENT_NULL)


async def judge_sender(asker: Asker, domain: str) -> Verdict | None:
    """`domain` of the reverse-path as A-labels; literals and "" (null reverse-path) are taken."""
    return _SENDER[await find_out(asker, domain)]


async def judge_recipient(asker: Asker, domain: str) -> Verdict | None:
    """`domain` of the forward-path as A-labels; literals and "" (bare postmaster) are taken."""
    return _RECIPIENT[await find_out(asker, domain)]


async def find_out(asker: Asker, domain: str) -> int:
    """Return EXISTS, ABSENT, FAILED or NULL_MX."""
    if not domain or domain.startswith("["):
        return EXISTS
    mx = await asker.ask(domain, "MX")
    if mx.is_found:
        return EXISTS if any(mx.records) else NULL_MX
    if mx.is_absent:
        return ABSENT
    if mx.is_failed:
        return FAILED
    addresses = await asker.ask_all([(domain, "A"), (domain, "AAAA")])
    if any(answer.is_found for answer in addresses):
        return EXISTS
    return FAILED if any(answer.is_failed for answer in addresses) else ABSENT
