"""The conduct of one session of a sink: asks the plan's rules at each stage, with the connection's own randomness.

What is drawn depends on the seed, the connection's number and what its client did on it, never on another connection, on time or
on the worker. Owns what the connection has drawn and counted.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol

from smtpd import _parser as p
from smtpd._scan import PathScan
from smtpd.mail.reply import Reply
from smtpd.proto import events as ev
from smtpd.proto.conduct import CLOSE, Step
from smtpd.proto.dialogue import Dialogue
from smtpd.sink.plan import CONNECT, END, Act, Plan, Rule, chance_for
from smtpd.sink.shared import SharedCounts, SharedGreylist

ENOUGH = Reply(b"421 4.3.2 Enough mail, closing", closes=True)
_MAIL, _RCPT = p.VERB_MAIL, p.VERB_RCPT
_SCAN = PathScan()


class Dump(Protocol):
    """Where a mail that is dumped wants the words of its MAIL and RCPT."""

    mail_argument: bytes
    rcpt_arguments: list[bytes]


class Surroundings:
    """What all conducts of a worker share. `clock` gives monotonic seconds, `note` logs a command, `finish` ends the server."""

    def __init__(
        self,
        plan: Plan,
        counts: SharedCounts,
        greylist: SharedGreylist | None,
        worker: int,
        clock: Callable[[], float],
        note: Callable[[str, str], object],
        finish: Callable[[], object],
        *,
        is_dumping: bool = False,
    ) -> None:
        self.plan = plan
        self.counts = counts
        self.greylist = greylist
        self.worker = worker
        self.clock = clock
        self.note = note
        self.finish = finish
        self.is_dumping = is_dumping


class SinkConduct:
    """See `proto.conduct.Conduct`. `number` is the connection's over all workers, from 1."""

    __slots__ = ("_arguments", "_around", "_chance", "_is_for_us", "_mail_count", "_number", "_recipients", "_sender")

    def __init__(self, around: Surroundings, number: int) -> None:
        self._around = around
        self._number = number
        self._chance: random.Random | None = None
        self._is_for_us: dict[int, bool] = {}  # by number of a rule with `connections`
        self._mail_count = 0
        self._sender = b""
        self._recipients: list[str] = []
        self._arguments: list[bytes] = []  # of MAIL and then each RCPT that was taken, or is tried now

    def at_stage(self, session: Dialogue, stage: str, verb: int, argument: bytes) -> Step | None:
        around = self._around
        place = CONNECT if stage == ev.STAGE_CONNECT else END if stage == ev.STAGE_BODY else verb
        if around.plan.logged and place in around.plan.logged:
            around.note(session.peer.address, _describe(place, argument))
        domains = self._look(session, place, argument)
        step = None
        if place in around.plan.by_place:
            has_own_replies = place == END and session.rules.is_lmtp and len(domains) > 1
            step = self._decide_each(session, domains) if has_own_replies else self._decide(session, place, domains)
        if place == _RCPT and step is not None and (step.reply is not None or step.ending):  # it will be no recipient
            self._arguments.pop()
            self._recipients.pop()
        if place == END and (step is None or step.reply is None):
            return self._take_mail(step)
        return step

    def begin_body(self, writer: object) -> None:
        if self._around.is_dumping:
            dump: Dump = writer  # type: ignore[assignment] # the sink's own spool made it
            dump.mail_argument = self._arguments[0] if self._arguments else b""
            dump.rcpt_arguments = self._arguments[1:]

    def end(self) -> None:
        around = self._around
        if around.counts.max_sessions:
            around.counts.give_session_back(around.worker)
        if around.counts.end_session():
            around.finish()

    # --- deciding ----------------------------------------------------------------------------------------------------

    def _decide(self, session: Dialogue, place: int, domains: list[str]) -> Step | None:
        """Delays of the rules add up; the first act that decides ends the search."""
        plan = self._around.plan
        delay_s = hold_s = 0.0
        decided: Act | None = None
        is_touched = False
        for number in plan.by_place[place]:
            rule = plan.rules[number]
            if not self._applies(number, rule, session, domains):
                continue
            is_touched = True
            act = rule.draw(self._draws())
            delay_s += act.delay.draw(self._draws()) if act.delay is not None else 0.0
            hold_s += act.hold.draw(self._draws()) if act.hold is not None else 0.0
            if act.decides:
                decided = act
                break
        if not is_touched:
            return None
        if decided is None:
            return Step(delay_s=delay_s, hold_s=hold_s)
        if decided.cuts:
            cut = Step(decided.reply, decided.ending)
            return Step(delay_s=delay_s, hold_s=hold_s, cut=cut, cut_bytes=decided.cut_bytes)
        return Step(decided.reply, decided.ending, delay_s=delay_s, hold_s=hold_s)

    def _decide_each(self, session: Dialogue, domains: list[str]) -> Step | None:
        """The end of content in LMTP: each recipient draws for itself, one after the other (RFC 2033 4.2)."""
        steps = [self._decide(session, END, [domain]) for domain in domains]
        delay_s = sum(step.delay_s for step in steps if step is not None)
        hold_s = sum(step.hold_s for step in steps if step is not None)
        for step in steps:
            if step is not None and step.ending:  # no recipient has a connection of its own
                return Step(step.reply, step.ending, delay_s=delay_s, hold_s=hold_s)
        each = [None if step is None else step.reply for step in steps]
        if not any(each):
            return Step(delay_s=delay_s, hold_s=hold_s) if delay_s or hold_s else None
        whole = next(reply for reply in each if reply is not None) if all(each) else None
        return Step(whole, delay_s=delay_s, hold_s=hold_s, each=each)

    def _applies(self, number: int, rule: Rule, session: Dialogue, domains: list[str]) -> bool:
        if self._mail_count < rule.after_mails or (rule.domains and not rule.wants_domain(domains)):
            return False
        if rule.connections < 100.0:
            if number not in self._is_for_us:
                chance = random.Random(f"{self._around.plan.seed} {self._number} rule {number}")
                self._is_for_us[number] = chance.random() * 100.0 < rule.connections
            if not self._is_for_us[number]:
                return False
        if rule.greylist_s and not self._is_grey(rule, session):
            return False
        return rule.percent >= 100.0 or self._draws().random() * 100.0 < rule.percent

    def _is_grey(self, rule: Rule, session: Dialogue) -> bool:
        around = self._around
        assert around.greylist is not None
        now = around.clock()
        recipient = _without_parameters(self._arguments[-1]) if self._arguments else b""
        first = around.greylist.first_seen(session.peer.address, self._sender, recipient, now)
        return now - first < rule.greylist_s

    def _draws(self) -> random.Random:
        if self._chance is None:
            self._chance = chance_for(self._around.plan.seed, self._number)
        return self._chance

    # --- what the connection does ------------------------------------------------------------------------------------

    def _look(self, session: Dialogue, place: int, argument: bytes) -> list[str]:
        """Remember what MAIL and RCPT say; return the domains that a rule's `domains` are about."""
        transaction = session.transaction
        if transaction is not None and len(self._recipients) > len(transaction.recipients):
            self._arguments.pop()  # the session did not take the last one
            self._recipients.pop()
        if place == _MAIL:
            self._sender = _without_parameters(argument)
            self._arguments = [argument]
            self._recipients = []
            return [_domain(argument, is_recipient=False)]
        if place == _RCPT:
            self._arguments.append(argument)
            domain = _domain(argument, is_recipient=True)
            self._recipients.append(domain)
            return [domain]
        return self._recipients

    def _take_mail(self, step: Step | None) -> Step | None:
        """The mail would be taken: count it, unless there were enough."""
        if step is not None and step.ending:
            return step
        may_take, is_last = self._around.counts.take_mail()
        if not may_take:
            return Step(ENOUGH, CLOSE)
        self._mail_count += 1
        if is_last:
            self._around.finish()
        return step


def _without_parameters(argument: bytes) -> bytes:
    """What a sender is known by: its next mail has another SIZE."""
    return argument.partition(b">")[0]


def _domain(argument: bytes, is_recipient: bool) -> str:
    """The domain of a path in an argument, in lower case; "" when there is none."""
    if _SCAN.read(argument, is_recipient):
        return _SCAN.domain()
    path = argument.partition(b"<")[2].partition(b">")[0]
    return path.rpartition(b"@")[2].decode("ascii", "replace").lower() if b"@" in path else ""


def _describe(place: int, argument: bytes) -> str:
    if place == CONNECT:
        return "connect"
    if place == END:
        return "."
    return f"{p.VERB_NAMES[place].upper()} {argument.decode('ascii', 'backslashreplace')}".rstrip()
