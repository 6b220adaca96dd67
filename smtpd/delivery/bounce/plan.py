"""Who is told what about a mail after an attempt, and what is then left of it: the rules, without octets, clock or disk.

NOTIFY (RFC 3461 4.1, 5.2) is honoured: NEVER gets nothing, SUCCESS and DELAY only what they name, without NOTIFY failures and
delays are told. A null reverse-path gets no report (RFC 5321 4.5.5): its undeliverable mail goes to `double_bounce`, once, or
is held. Where bounces are off nothing is dropped, whatever NOTIFY says. Never changes the outcomes it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from smtpd.delivery.bounce.report import DELAY, FAILURE, SUCCESS
from smtpd.delivery.router import Route
from smtpd.mail.envelope import NOTIFY_DELAY, NOTIFY_FAILURE, NOTIFY_NEVER, NOTIFY_SUCCESS, Envelope, Recipient
from smtpd.mail.outcome import DEFERRED, DELIVERED, PENDING, UNDELIVERABLE, Outcome, describe
from smtpd.settings import BounceSettings

DOUBLE = "double"  # a failure that is told to double_bounce instead of the sender
EXPIRED = "expired, last: "
RouteOf = Callable[[Envelope, str], Route | None]  # the mail, a domain
MayTell = Callable[[str, bytes], bool]  # kind, address: whether its cap allows one more report; counts it


@dataclass(frozen=True, slots=True)
class Told:
    """One report: its kind, its recipient's mailbox, and which recipients of the mail it is about with the action of each."""

    kind: str
    to: bytes
    actions: dict[int, str]


@dataclass(slots=True)
class Plan:
    """`outcomes` for the spool, None: nothing is left of the mail. `is_held` with the reason in `held_text`."""

    outcomes: list[Outcome] | None
    told: list[Told]
    expired: frozenset[int]
    is_held: bool = False
    held_text: str = ""


class Planner:
    """`settings` is the section [bounce]; `route_of` may return None (no route any more)."""

    def __init__(self, settings: BounceSettings, route_of: RouteOf, may_tell: MayTell) -> None:
        self._settings = settings
        self._route_of = route_of
        self._may_tell = may_tell
        self._double_bounce = settings.double_bounce.encode()

    def plan(
        self, envelope: Envelope, outcomes: Sequence[Outcome], *, was_warned: bool, age_s: float, is_over: bool
    ) -> Plan:  # fmt: skip
        """`outcomes` are those after the attempt; `is_over`: what is deferred will not be tried again; `age_s` of the mail."""
        results = list(outcomes)
        waiting = [index for index, outcome in enumerate(results) if outcome.status in (PENDING, DEFERRED)]
        failed = [index for index, outcome in enumerate(results) if outcome.status == UNDELIVERABLE and not outcome.is_reported]
        plan = Plan(results, [], frozenset(waiting if is_over else ()))
        if is_over:
            failed = sorted(failed + waiting)
        reason = self._tell_failures(envelope, results, failed, plan.told)
        if not is_over:
            self._tell_delay(envelope, results, waiting, was_warned, age_s, plan.told)
        self._tell_success(envelope, results, plan.told)
        left = [index for index, outcome in enumerate(results) if not outcome.is_done]
        if not left:
            plan.outcomes = None
        elif is_over or not waiting:
            plan.is_held = True
            plan.held_text = f"{EXPIRED if left[0] in plan.expired else ''}{describe(results[left[0]])} ({reason})"
            for index in plan.expired.intersection(left):
                if not results[index].text.startswith(EXPIRED):
                    results[index] = msgspec.structs.replace(results[index], text=EXPIRED + results[index].text)
        return plan

    def _tell_failures(self, envelope: Envelope, results: list[Outcome], failed: list[int], told: list[Told]) -> str:
        """Mark what is told, or need not be; return why the rest is not."""
        recipients = envelope.recipients
        reason = ""
        actions: dict[int, str] = {}
        for index in failed:
            refusal = self._why_not(envelope, recipients[index])
            if refusal:
                reason = reason or refusal
            elif envelope.reverse_path and not _wants(recipients[index], NOTIFY_FAILURE):
                results[index] = msgspec.structs.replace(results[index], status=UNDELIVERABLE, is_reported=True)
            else:
                actions[index] = "failed"
        if not actions:
            return reason
        kind, to = (FAILURE, envelope.reverse_path) if envelope.reverse_path else (DOUBLE, self._double_bounce)
        if not self._may_tell(kind, to):
            return f"more than {self._settings.per_sender} bounces an hour to one address"
        told.append(Told(kind, to, actions))
        for index in actions:
            results[index] = msgspec.structs.replace(results[index], status=UNDELIVERABLE, is_reported=True)
        return reason

    def _tell_delay(
        self, envelope: Envelope, results: list[Outcome], waiting: list[int], was_warned: bool, age_s: float, told: list[Told]
    ) -> None:
        late_s = self._settings.delay_warning
        if not late_s or age_s < late_s or not envelope.reverse_path:
            return
        if not was_warned:
            late = [
                index
                for index in waiting
                if results[index].status == DEFERRED
                and _wants(envelope.recipients[index], NOTIFY_DELAY)
                and not self._why_not(envelope, envelope.recipients[index])
            ]
            if not late or not self._may_tell(DELAY, envelope.reverse_path):
                return
            told.append(Told(DELAY, envelope.reverse_path, dict.fromkeys(late, "delayed")))
        for index in waiting:  # all: that one mail is told of once must outlive every one of them
            results[index] = msgspec.structs.replace(results[index], is_warned=True)

    def _tell_success(self, envelope: Envelope, results: list[Outcome], told: list[Told]) -> None:
        actions: dict[int, str] = {}
        for index, (recipient, outcome) in enumerate(zip(envelope.recipients, results, strict=True)):
            if not recipient.notify & NOTIFY_SUCCESS or outcome.status != DELIVERED or outcome.is_reported or outcome.passes_dsn:
                continue
            if envelope.reverse_path and not self._why_not(envelope, recipient):
                route = self._route_of(envelope, recipient.domain)
                actions[index] = "relayed" if route is not None and route.settings.transport == "smtp" else "delivered"
        if actions and self._may_tell(SUCCESS, envelope.reverse_path):
            told.append(Told(SUCCESS, envelope.reverse_path, actions))
            for index in actions:
                results[index] = msgspec.structs.replace(results[index], is_reported=True)

    def _why_not(self, envelope: Envelope, recipient: Recipient) -> str:
        """Return why nobody can be told about this recipient, "" if the sender (or double_bounce) can."""
        if not self._settings.enabled:
            return "bounces are off"
        route = self._route_of(envelope, recipient.domain)
        if route is not None and not route.settings.bounce:
            return f"bounces of route {route.name} are off"
        if not envelope.reverse_path:
            if not self._double_bounce:
                return "an undeliverable bounce, and there is no double_bounce"
            if recipient.path.lower() == self._double_bounce.lower():
                return "it is for double_bounce itself"
        return ""


def _wants(recipient: Recipient, what: int) -> bool:
    notify = recipient.notify
    return not notify or bool(notify & what and not notify & NOTIFY_NEVER)
