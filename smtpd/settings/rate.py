"""How often something may happen, as written in the configuration: "600/min", "20/10 s", "0" for as often as one likes.

Raises ValueError only.
"""

import re

import msgspec

_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400}
_FORM = re.compile(r"([0-9]{1,9}) ?/ ?(?:([0-9]{1,4}) ?)?([A-Za-z]+)")


class Rate(msgspec.Struct, frozen=True):
    """`count` at once, and as many again over each `period_s` seconds; a count of 0 is no limit."""

    count: int = 0
    period_s: int = 1

    @property
    def interval_us(self) -> int:
        """Microseconds from one to the next, at least 1; 0 without a limit."""
        return max(1, self.period_s * 1_000_000 // self.count) if self.count else 0

    def __str__(self) -> str:
        if not self.count:
            return "0"
        unit = next(unit for unit in ("d", "h", "min", "s") if self.period_s % _SECONDS[unit] == 0)
        periods = self.period_s // _SECONDS[unit]
        return f"{self.count}/{unit}" if periods == 1 else f"{self.count}/{periods} {unit}"


def parse_rate(text: str) -> Rate:
    """Return the rate that `text` names; ValueError says what is wrong with it."""
    text = text.strip(" ")
    if text == "0":
        return Rate()
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError('expected a rate such as "600/min", or "0" for no limit')
    if match[3] not in _SECONDS:
        raise ValueError(f'the unit of a rate is one of {", ".join(_SECONDS)}, as in "600/min"')
    count, periods = int(match[1]), int(match[2] or 1)
    if not count or not periods:
        raise ValueError('a rate is at least 1 in a time; no limit is "0"')
    return Rate(count, periods * _SECONDS[match[3]])
