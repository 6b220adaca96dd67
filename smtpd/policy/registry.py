"""Which checks there are: ours by name, and those of other packages by entry point (group `smtpd.checks`).

Nothing is imported before a configuration names it. An entry point never replaces a check of ours. Raises CheckMissingError.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from smtpd.policy.check import STAGES, Check

GROUP = "smtpd.checks"
# name -> "module:class"; a check of ours is one line here
BUILT_IN = {
    "access": "smtpd.policy.access:AccessCheck",
    "auth": "smtpd.policy.auth.check:Auth",
    "dnsbl": "smtpd.policy.dns.dnsbl:Dnsbl",
    "greylist": "smtpd.policy.greylist.check:Greylist",
    "helo": "smtpd.policy.dns.checks:Helo",
    "milter": "smtpd.policy.milter.check:MilterCheck",
    "policy_service": "smtpd.policy.delegation.check:PolicyServiceCheck",
    "pregreet": "smtpd.policy.pregreet:PregreetCheck",
    "recipient_domain": "smtpd.policy.dns.checks:RecipientDomain",
    "reverse_dns": "smtpd.policy.dns.checks:ReverseDns",
    "rspamd": "smtpd.policy.rspamd.check:RspamdCheck",
    "sender_domain": "smtpd.policy.dns.checks:SenderDomain",
}


class CheckMissingError(Exception):
    """There is no such check, or its package is broken; the text says which."""


def check_names() -> list[str]:
    """Return all names that a configuration may use."""
    return [*BUILT_IN, *(name for name in _others() if name not in BUILT_IN)]


@cache
def find_check(name: str) -> type[Check]:
    """Return the class of this name."""
    place = BUILT_IN.get(name)
    if place is not None:
        module, _, attribute = place.partition(":")
        return getattr(import_module(module), attribute)  # type: ignore[no-any-return]
    entry = _others().get(name)
    if entry is None:
        raise CheckMissingError("there is no such check")
    try:
        found = entry.load()
    except Exception as error:
        raise CheckMissingError(f"{entry.value} can't be loaded: {type(error).__name__}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Check)):
        raise CheckMissingError(f"{entry.value} is not a class made from smtpd.policy.check.Check")
    unknown = [stage for stage in found.stages if stage not in STAGES]
    if unknown or not found.stages:
        raise CheckMissingError(f"{entry.value} names {f'an unknown stage {unknown[0]!r}' if unknown else 'no stage'}")
    return found


def _others() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}
