"""What is different for the recipients of some domains: size, TLS, checks. One such class a transaction, or none.

A recipient's domain picks the class, exact names before subdomains, the nearest subdomain first. All recipients of a mail are of
the class of the first: the reply to others is 452 4.5.3, which clients take for "in another transaction" (RFC 5321 4.5.3.1.10).
"""

from __future__ import annotations

from collections.abc import Sequence

from smtpd.mail.reply import Reply
from smtpd.mail.verdict import Verdict
from smtpd.settings.policy import OverrideSettings

_OTHER_CLASS = Verdict(Reply(b"452 4.5.3 Error: recipient needs a transaction of its own"), "other")
_NO_TLS = Verdict(Reply(b"530 5.7.0 Must issue a STARTTLS command first"), "other")
_TOO_BIG = Verdict(Reply(b"552 5.3.4 Message size exceeds limit of this recipient"), "size")
_REMEMBERED = 10_000


class PolicyClass:
    """`off` and `on` are names of checks. The class of all other domains has the number -1."""

    __slots__ = ("is_tls_required", "number", "off", "on", "size_limit")

    def __init__(self, number: int = -1, settings: OverrideSettings | None = None) -> None:
        self.number = number
        self.size_limit = settings.message_size if settings is not None else 0
        self.is_tls_required = settings is not None and settings.tls_required
        self.off = frozenset(settings.checks_off if settings is not None else ())
        self.on = frozenset(settings.checks_on if settings is not None else ())


class Overrides:
    """`conditional` are the checks that are asked only where a class has them on."""

    def __init__(self, settings: Sequence[OverrideSettings]) -> None:
        self._rest = PolicyClass()
        self._by_domain: dict[str, PolicyClass] = {}
        for number, one in enumerate(settings):
            policy_class = PolicyClass(number, one)
            for domain in one.domains:
                self._by_domain.setdefault(domain, policy_class)
        self.conditional = frozenset(name for one in settings for name in one.checks_on)
        self._known: dict[str, PolicyClass] = {}

    def find(self, domain: str) -> PolicyClass:
        """Return the class of a domain in the form in which domains are compared."""
        found = self._known.get(domain)
        if found is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            found = self._known[domain] = self._look_up(domain)
        return found

    def _look_up(self, domain: str) -> PolicyClass:
        found = self._by_domain.get(domain)
        rest = domain
        while found is None and "." in rest:
            rest = rest.partition(".")[2]
            found = self._by_domain.get("." + rest)
        return found or self._rest


def judge_class(wanted: PolicyClass, current: PolicyClass | None, is_tls: bool, declared_bytes: int) -> Verdict | None:
    """What a class says of one more recipient; `current` is that of the transaction, None before the first."""
    if current is not None and wanted is not current:
        return _OTHER_CLASS
    if wanted.is_tls_required and not is_tls:
        return _NO_TLS
    if wanted.size_limit and declared_bytes > wanted.size_limit:
        return _TOO_BIG
    return None
