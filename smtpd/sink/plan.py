"""How a sink behaves, ready to be asked: rules by the place where they apply, made from options and from a scenario file.

A place is what a conduct is asked for: a verb, the greeting, or the end of a mail's content. Nothing here changes while it runs;
what a connection has drawn and counted is its conduct's (`smtpd.sink.conduct`).
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate

from smtpd import _parser as p
from smtpd.config.latency import Latency, parse_latency
from smtpd.mail.reply import Reply
from smtpd.proto.conduct import CLOSE, RESET, STAY
from smtpd.settings import scenario

CONNECT = -1
END = -2
_VERBS = {
    "helo": p.VERB_HELO, "ehlo": p.VERB_EHLO, "lhlo": p.VERB_LHLO, "mail": p.VERB_MAIL, "rcpt": p.VERB_RCPT,
    "rset": p.VERB_RSET, "noop": p.VERB_NOOP, "vrfy": p.VERB_VRFY, "expn": p.VERB_EXPN, "help": p.VERB_HELP,
    "quit": p.VERB_QUIT, "starttls": p.VERB_STARTTLS, "auth": p.VERB_AUTH, "xclient": p.VERB_XCLIENT, "etrn": p.VERB_ETRN,
}  # fmt: skip
# By the names of options and of the scenario file. BDAT is DATA by another name: a client that prefers it meets the same.
PLACES: dict[str, tuple[int, ...]] = {
    "connect": (CONNECT,), "data": (p.VERB_DATA, p.VERB_BDAT), "end": (END,), ".": (END,),
    **{name: (verb,) for name, verb in _VERBS.items()},
}  # fmt: skip
_ENDINGS = {scenario.STAY: STAY, scenario.CLOSE: CLOSE, scenario.RESET: RESET}
GREYLISTED = "450 4.2.0 Greylisted, please try again later"


@dataclass(frozen=True, slots=True)
class Act:
    """What happens. `cut_bytes` > 0, or 0 with `cuts`: `reply` and `ending` are for the content, not for the command."""

    reply: Reply | None = None
    ending: int = STAY
    delay: Latency | None = None
    hold: Latency | None = None
    cuts: bool = False
    cut_bytes: int = 0

    @property
    def is_random(self) -> bool:
        """A time in it is drawn."""
        return any(latency is not None and latency.kind != "fixed" for latency in (self.delay, self.hold))

    @property
    def decides(self) -> bool:
        """Later rules are not asked any more."""
        return self.reply is not None or self.ending != STAY or self.cuts


@dataclass(frozen=True, slots=True)
class Rule:
    """When and what. `percent` and `connections` are 0 to 100; `bounds` are the running sums of the acts' weights."""

    places: frozenset[int]
    acts: tuple[Act, ...]
    bounds: tuple[float, ...] = ()
    domains: tuple[str, ...] = ()
    percent: float = 100.0
    connections: float = 100.0
    after_mails: int = 0
    greylist_s: float = 0.0

    def draw(self, chance: random.Random) -> Act:
        """One of the acts; a single one takes nothing from `chance`."""
        if len(self.acts) == 1:
            return self.acts[0]
        drawn = bisect_right(self.bounds, chance.random() * self.bounds[-1])
        return self.acts[min(drawn, len(self.acts) - 1)]

    def wants_domain(self, domains: Iterable[str]) -> bool:
        """One of them is among this rule's."""
        return any(
            domain == wanted or wanted == "*" or (wanted.startswith(".") and domain.endswith(wanted))
            for domain in domains
            for wanted in self.domains
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """`rules` in order; `by_place` the numbers of those that apply there; `logged` the places of option -s."""

    seed: int
    rules: tuple[Rule, ...] = ()
    hidden: frozenset[str] = frozenset()
    logged: frozenset[int] = frozenset()
    by_place: dict[int, tuple[int, ...]] = field(default_factory=dict)


def make_plan(seed: int, rules: Iterable[Rule], hidden: Iterable[str] = (), logged: frozenset[int] = frozenset()) -> Plan:
    """Sort rules by place."""
    kept = tuple(rules)
    places = {place for rule in kept for place in rule.places}
    by_place = {place: tuple(n for n, rule in enumerate(kept) if place in rule.places) for place in places}
    return Plan(seed, kept, frozenset(hidden), logged, by_place)


def chance_for(seed: int, number: int) -> random.Random:
    """The randomness of the connection with this number, whichever worker has it: the same for the same seed."""
    return random.Random(f"smtpd sink {seed} {number}")


def rules_of(settings: scenario.ScenarioSettings) -> list[Rule]:
    """The rules of a scenario that is free of faults."""
    return [_rule(entry) for entry in settings.rule]


def _rule(entry: scenario.RuleSettings) -> Rule:
    acts = [_act(outcome, entry) for outcome in entry.outcome if outcome.weight > 0] or [_act(entry, entry)]
    weights = [outcome.weight for outcome in entry.outcome if outcome.weight > 0] or [1.0]
    return Rule(
        frozenset(place for name in entry.at for place in PLACES[name]),
        tuple(acts),
        tuple(accumulate(weights)),
        tuple(entry.domains),
        entry.percent,
        entry.connections,
        entry.after_mails,
        entry.greylist,
    )


def _act(entry: scenario.ActSettings, rule: scenario.RuleSettings) -> Act:
    """`entry` is an outcome of the rule or the rule itself; a rule's delay and hold are those of outcomes without one."""
    reply = entry.reply or (GREYLISTED if rule.greylist and entry is rule and entry.then == scenario.STAY else "")
    delay, hold = entry.delay or rule.delay, entry.hold or rule.hold
    return Act(
        make_refusal(reply, _ENDINGS[entry.then]) if reply else None,
        _ENDINGS[entry.then],
        parse_latency(delay) if delay else None,
        parse_latency(hold) if hold else None,
        bool(entry.cut),
        entry.cut,
    )


def make_refusal(text: str, ending: int) -> Reply:
    """A reply that closes the connection where that is its ending or its code's meaning."""
    if len(text) == 3:
        text += " "
    return Reply(text.encode("ascii"), closes=ending != STAY or text.startswith("421"))
