"""How long something takes, as people write it: a duration, or a distribution of durations.

"2 s" · "uniform 1 s to 5 s" · "normal 2 s +- 500 ms" · "lognormal 200 ms sigma 0.8" (the median first) · "exponential 2 s" (the
mean) · "dice 1 s 30" (a multiple of 1 s: how often a die of 0 to 99 is rolled until it shows 30 or more, as smtp-sink -W).
Parsing raises ValueError; nothing that is drawn is negative or longer than a day.
"""

from __future__ import annotations

import math
import random
import re
from dataclasses import dataclass

from smtpd.config.faults import did_you_mean, quote
from smtpd.config.units import format_duration, parse_duration

LONGEST_S = 86400.0
_KINDS = ("uniform", "normal", "lognormal", "exponential", "dice")
_SHAPES = {
    "uniform": (re.compile(r"(.+?)\s+to\s+(.+)"), "uniform 1 s to 5 s"),
    "normal": (re.compile(r"(.+?)\s*\+-\s*(.+)"), "normal 2 s +- 500 ms"),
    "lognormal": (re.compile(r"(.+?)\s+sigma\s+(.+)"), "lognormal 200 ms sigma 0.8"),
    "exponential": (re.compile(r"(.+)()"), "exponential 2 s"),
    "dice": (re.compile(r"(.+)\s+(\d{1,2})"), "dice 1 s 30"),
}


@dataclass(frozen=True, slots=True)
class Latency:
    """`first` and `second` are what the kind says: seconds, or for lognormal's second sigma, for dice's the odds."""

    kind: str  # "fixed" or one of the words above
    first: float
    second: float = 0.0

    def draw(self, chance: random.Random) -> float:
        """Return seconds. "fixed" takes nothing from `chance`."""
        if self.kind == "fixed":
            return self.first
        if self.kind == "uniform":
            drawn = chance.uniform(self.first, self.second)
        elif self.kind == "normal":
            drawn = chance.normalvariate(self.first, self.second)
        elif self.kind == "lognormal":
            drawn = chance.lognormvariate(math.log(self.first), self.second)
        elif self.kind == "exponential":
            drawn = chance.expovariate(1.0 / self.first)
        else:
            rolls = 1
            while chance.randrange(100) < self.second:
                rolls += 1
            drawn = rolls * self.first
        return min(max(drawn, 0.0), LONGEST_S)

    def __str__(self) -> str:
        first = format_duration(self.first)
        if self.kind == "fixed":
            return first
        if self.kind == "uniform":
            return f"uniform {first} to {format_duration(self.second)}"
        if self.kind == "normal":
            return f"normal {first} +- {format_duration(self.second)}"
        if self.kind == "lognormal":
            return f"lognormal {first} sigma {self.second:g}"
        return f"exponential {first}" if self.kind == "exponential" else f"dice {first} {self.second:.0f}"


def parse_latency(text: str) -> Latency:
    """Return what `text` says; see the module's head."""
    word, _, rest = text.strip().partition(" ")
    if not word.isalpha():
        return Latency("fixed", _seconds(text))
    if word not in _KINDS:
        words = f'a duration such as "2 s", or one of {", ".join(_KINDS)} and what belongs to it'
        raise ValueError(f"{quote(text)} is not {words}{did_you_mean(word, _KINDS)}")
    shape, example = _SHAPES[word]
    match = shape.fullmatch(rest.strip())
    if match is None:
        raise ValueError(f'{quote(text)} is not complete: write it as "{example}"')
    first = _seconds(match[1])
    if word in ("lognormal", "exponential") and first <= 0:
        raise ValueError(f"{quote(text)}: the {'median' if word == 'lognormal' else 'mean'} must be more than 0")
    if word == "exponential":
        return Latency(word, first)
    if word == "lognormal":
        return Latency(word, first, _sigma(match[2]))
    if word == "dice":
        if not 1 <= int(match[2]) <= 99:
            raise ValueError(f"{quote(text)}: odds are from 1 to 99")
        return Latency(word, first, float(match[2]))
    second = _seconds(match[2])
    if word == "uniform" and second < first:
        raise ValueError(f"{quote(text)}: the second bound is below the first")
    return Latency(word, first, second)


def normal_latency(text: str) -> str:
    """Return the text in one normal form."""
    return str(parse_latency(text))


def _seconds(text: str) -> float:
    seconds = parse_duration(text)
    if seconds > LONGEST_S:
        raise ValueError(f"{quote(text)} is longer than a day")
    return seconds


def _sigma(text: str) -> float:
    try:
        sigma = float(text)
    except ValueError:
        sigma = -1.0
    if not 0 <= sigma <= 10:
        raise ValueError(f"sigma is a number from 0 to 10, not {quote(text)}")
    return sigma
