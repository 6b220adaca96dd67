"""How large mails are: a fixed size, or one drawn from a distribution. Sizes are octets of the body, without the header.

`parse_sizes` raises ValueError with a text for people. Draws depend on the random numbers given alone.
"""

from __future__ import annotations

import math
from random import Random
from typing import Protocol

from smtpd.config.units import parse_size

LARGEST = 100 * 1024 * 1024  # of one drawn from a distribution without its own limit
_SIGMA = 1.2  # of lognormal where none is given: half of the mails within 0.44 to 2.2 times the median


class Sizes(Protocol):
    """`fixed` is the one size there is, -1 when they vary."""

    fixed: int

    def draw(self, random: Random) -> int: ...


class FixedSize:
    def __init__(self, size: int) -> None:
        self.fixed = size

    def draw(self, random: Random) -> int:
        return self.fixed


class UniformSize:
    def __init__(self, least: int, most: int) -> None:
        self.fixed = -1
        self._least, self._most = least, most

    def draw(self, random: Random) -> int:
        return random.randint(self._least, self._most)


class LognormalSize:
    def __init__(self, median: int, sigma: float, most: int) -> None:
        self.fixed = -1
        self._mu, self._sigma, self._most = math.log(median), sigma, most

    def draw(self, random: Random) -> int:
        return min(round(random.lognormvariate(self._mu, self._sigma)), self._most)


class MixedSize:
    """Each of the parts as often as its weight says."""

    def __init__(self, parts: list[tuple[float, Sizes]]) -> None:
        self.fixed = -1
        self._sizes = [sizes for _, sizes in parts]
        total = 0.0
        self._bounds = [total := total + weight for weight, _ in parts]

    def draw(self, random: Random) -> int:
        return random.choices(self._sizes, cum_weights=self._bounds)[0].draw(random)


def parse_sizes(text: str) -> Sizes:
    """Parse "4096", "30KiB", "uniform:1KiB-64KiB", "lognormal:MEDIAN[:SIGMA[:MOST]]" or "mix:70=4KiB,30=lognormal:100KiB"."""
    kind, colon, rest = text.partition(":")
    if not colon:
        return FixedSize(parse_size(text))
    if kind == "uniform":
        least_text, dash, most_text = rest.partition("-")
        least, most = parse_size(least_text), parse_size(most_text) if dash else -1
        if most < least:
            raise ValueError(f'"{text}" is not "uniform:LEAST-MOST"')
        return UniformSize(least, most)
    if kind == "lognormal":
        return _parse_lognormal(text, rest.split(":"))
    if kind == "mix":
        parts = []
        for part in rest.split(","):
            weight, sign, sizes = part.partition("=")
            if not sign or not _is_positive(weight.removesuffix("%")) or sizes.startswith("mix:"):
                raise ValueError(f'"{part}" is not a part of a mix such as "70=4KiB"')
            parts.append((float(weight.removesuffix("%")), parse_sizes(sizes)))
        return MixedSize(parts)
    raise ValueError(f'"{kind}" is no distribution of sizes (uniform, lognormal or mix)')


def _parse_lognormal(text: str, words: list[str]) -> Sizes:
    median = parse_size(words[0])
    sigma = words[1] if len(words) > 1 else str(_SIGMA)
    if len(words) > 3 or median <= 0 or not _is_positive(sigma) or float(sigma) > 10:
        raise ValueError(f'"{text}" is not "lognormal:MEDIAN[:SIGMA[:MOST]]"')
    return LognormalSize(median, float(sigma), parse_size(words[2]) if len(words) > 2 else LARGEST)


def _is_positive(text: str) -> bool:
    try:
        return 0 < float(text) < math.inf
    except ValueError:
        return False
