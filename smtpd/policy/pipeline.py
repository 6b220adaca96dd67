"""Which checks a session meets: the checks of the configuration, made once for a worker, and the plan for each kind of client.

Owns the checks and their counters. A plan says what is asked at each stage; it is made once for each set of checks that apply and
shared by all sessions with that set. Asking is `smtpd.policy.inspection`'s. Raises StartupError where a check can't be made.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from inspect import iscoroutinefunction

from smtpd.errors import StartupError
from smtpd.mail.reply import Reply
from smtpd.mail.verdict import Verdict
from smtpd.metrics._cells import Cells
from smtpd.metrics.catalogue import BY_NAME
from smtpd.metrics.slab import CellIndex
from smtpd.policy.check import BODY, STAGES, Check, CheckHost
from smtpd.policy.networks import NetworkSet
from smtpd.policy.overrides import Overrides
from smtpd.policy.registry import CheckMissingError, find_check
from smtpd.settings.policy import CheckSettings

OK, REJECT, DEFER, ERROR, TIMEOUT = range(5)
RESULTS = ("ok", "reject", "defer", "error", "timeout")
REASONS = frozenset((*BY_NAME["smtpd_rejections_total"].labels[2].values, "pregreet"))

_TEMPFAIL = Reply(b"451 4.7.1 Service unavailable - try again later")
_REFUSAL = Reply(b"550 5.7.1 Service unavailable")


class Entry:
    """One [[policy.check]] as a worker has it. `number` is its place in the file; `failure` the verdict of `on_error`, None where
    the check is then left out."""

    __slots__ = (
        "_cells",
        "_count",
        "_excepted",
        "_listeners",
        "_networks",
        "_seconds",
        "check",
        "failure",
        "is_async",
        "is_conditional",
        "is_dry_run",
        "is_independent",
        "last_told_s",
        "name",
        "number",
        "timeout_s",
        "untold",
    )  # fmt: skip

    def __init__(
        self, number: int, settings: CheckSettings, check: Check, cells: Cells, index: CellIndex, is_conditional: bool
    ) -> None:
        self.number = number
        self.name = settings.instance
        self.check = check
        self.is_async = iscoroutinefunction(check.ask)
        self.is_independent = check.is_independent
        self.is_dry_run = settings.dry_run
        self.is_conditional = is_conditional
        self.timeout_s = settings.timeout or check.timeout_s
        reply = {"tempfail": _TEMPFAIL, "reject": _REFUSAL}.get(settings.on_error)
        self.failure = None if reply is None else Verdict(reply, check.reason)
        self.last_told_s = -1
        self.untold = 0
        self._listeners = frozenset(settings.listeners)
        self._networks = NetworkSet(settings.networks)
        self._excepted = NetworkSet(settings.except_networks)
        self._cells = cells
        name = self.name
        self._count = [index.counter("smtpd_policy_checks_total", check=name, result=result) for result in RESULTS]
        self._seconds = [index.histogram("smtpd_policy_check_seconds", check=name, result=result) for result in RESULTS]

    def count(self, result: int, seconds: float) -> None:
        """Count an answer."""
        self._cells.inc(self._count[result])
        self._cells.observe(self._seconds[result], seconds)

    def is_for(self, listener: str, address: str, is_trusted: bool) -> bool:
        """Whether sessions with this client are asked about at all."""
        if self._listeners and listener not in self._listeners:
            return False
        if is_trusted and self.check.skips_trusted:
            return False
        if self._networks and address not in self._networks:
            return False
        return not self._excepted or address not in self._excepted


class Plan:
    """`stages[i]` are the entries of STAGES[i] in order. `is_empty`: a session needs no inspection."""

    __slots__ = ("is_empty", "keeps_mail", "overrides", "stages")

    def __init__(self, entries: Sequence[Entry], overrides: Overrides | None, keeps_mail: bool) -> None:
        self.stages = [
            [entry for entry in entries if stage in entry.check.stages and (keeps_mail or stage != BODY)] for stage in STAGES
        ]
        self.overrides = overrides
        self.keeps_mail = keeps_mail
        self.is_empty = overrides is None and not any(self.stages)


class Pipeline:
    """`keeps_mail` False: there is no content, so nothing is asked at stage body."""

    def __init__(self, entries: Sequence[Entry], overrides: Overrides | None = None, *, keeps_mail: bool = True) -> None:
        self.entries = list(entries)
        self._overrides = overrides
        self._keeps_mail = keeps_mail
        self._plans: dict[int, Plan] = {}

    def plan_for(self, listener: str, address: str, is_trusted: bool) -> Plan:
        """Return what sessions with this client meet."""
        key = 0
        for entry in self.entries:
            if entry.is_for(listener, address, is_trusted):
                key |= 1 << entry.number
        plan = self._plans.get(key)
        if plan is None:
            chosen = [entry for entry in self.entries if key >> entry.number & 1]
            plan = self._plans[key] = Plan(chosen, self._overrides, self._keeps_mail)
        return plan

    def close(self) -> None:
        """The worker ends."""
        for entry in self.entries:
            entry.check.close()


def make_entries(
    settings: Sequence[CheckSettings], conditional: frozenset[str], host_for: Callable[[str], CheckHost]
) -> list[Entry]:
    """Make the checks of the configuration; `conditional` are those that only an override turns on."""
    entries = []
    for number, one in enumerate(settings):
        host = host_for(one.instance)
        try:
            check = find_check(one.name)(one.own, host)
        except CheckMissingError as error:
            raise StartupError(f"policy.check {one.instance}: {error}", os.EX_CONFIG) from None
        entries.append(Entry(number, one, check, host.cells, host.index, one.instance in conditional))
    return entries
