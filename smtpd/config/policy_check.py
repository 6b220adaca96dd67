"""What is wrong with checks and overrides although each key by itself is right. Faults, by path, for `crosscheck`."""

from collections.abc import Iterator

from smtpd.config.complete import listener_name
from smtpd.config.faults import did_you_mean, quote
from smtpd.config.read import Finding, Path
from smtpd.policy.registry import CheckMissingError, find_check
from smtpd.settings import Settings


def find_policy_faults(settings: Settings, bad: set[Path]) -> Iterator[Finding]:
    """Yield the faults; what was bad by itself is left alone."""
    if ("policy",) in bad or ("policy", "check") in bad:
        return
    names: set[str] = set()
    listeners = {listener_name(listener) for listener in settings.listener}
    for number, check in enumerate(settings.policy.check):
        path: Path = ("policy", "check", number)
        if any(one[: len(path)] == path for one in bad):
            names.add(check.instance)
            continue
        if check.instance in names:
            key = "label" if check.label else "name"
            yield Finding(path + (key,), f"{quote(check.instance)} stands here for the second time: give each a label of its own")
        names.add(check.instance)
        for place, listener in enumerate(check.listeners):
            if listener not in listeners:
                yield Finding(
                    path + ("listeners", place), f"there is no listener {quote(listener)}{did_you_mean(listener, listeners)}"
                )
        try:
            for key, text in find_check(check.name).find_faults(check.own, settings):
                yield Finding(path + ((key,) if key else ()), text)
        except CheckMissingError as error:
            yield Finding(path + ("name",), str(error))
    yield from _overrides(settings, bad, names)


def _overrides(settings: Settings, bad: set[Path], checks: set[str]) -> Iterator[Finding]:
    taken: set[str] = set()
    limit = settings.limits.message_size
    for number, override in enumerate(settings.policy.override):
        path: Path = ("policy", "override", number)
        if any(one[: len(path)] == path for one in bad):
            continue
        if not override.domains:
            yield Finding(path + ("domains",), "at least one domain is needed")
        for place, domain in enumerate(override.domains):
            if domain in taken:
                yield Finding(path + ("domains", place), f"{quote(domain)} has an override already")
            taken.add(domain)
        for key in ("checks_off", "checks_on"):
            for place, name in enumerate(getattr(override, key)):
                if name not in checks:
                    yield Finding(path + (key, place), f"there is no check {quote(name)}{did_you_mean(name, checks)}")
        if limit and override.message_size > limit and ("limits", "message_size") not in bad:
            yield Finding(path + ("message_size",), "larger than limits.message_size, which is what clients are told")
