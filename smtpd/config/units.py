"""Sizes and durations as people write them: "50 MiB", "5 min", "1 h 30 min".

Parsing gives octets (int) and seconds (float); formatting gives a text that parses to the same value. Raises ValueError only.
"""

import math
import re

from smtpd.config.faults import did_you_mean, quote

_SIZES = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "TiB": 1 << 40,
}
_DURATIONS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION_WORDS = {
    "sec": "s",
    "second": "s",
    "seconds": "s",
    "m": "min",
    "minute": "min",
    "minutes": "min",
    "hour": "h",
    "hours": "h",
    "day": "d",
    "days": "d",
    "week": "w",
    "weeks": "w",
}
_SIZE_BY_FOLDED = {unit.casefold(): factor for unit, factor in _SIZES.items()}
# Bounded digits: a file may hold anything, and int() of a long text takes quadratic time.
_TERM = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,30})?)[ ]*([A-Za-z]*)")


def parse_size(text: str) -> int:
    """Return octets; a bare number is octets, units need no exact case."""
    number, unit = _number_and_unit(text, 'a size such as "50 MiB"')
    factor = _SIZE_BY_FOLDED.get(unit.casefold() or "b")
    if factor is None:
        hint = did_you_mean(unit, _SIZES) or f" (one of {', '.join(_SIZES)})"
        raise ValueError(f"unknown unit {quote(unit)}{hint}")
    if "." not in number:
        return int(number) * factor
    octets = float(number) * factor
    if octets != int(octets):
        raise ValueError(f"{quote(text)} is not a whole number of octets")
    return int(octets)


def parse_duration(text: str) -> float:
    """Return seconds; a bare number is seconds, terms may follow each other ("1 h 30 min")."""
    rest, total_s, terms = text.strip(" "), 0.0, 0
    while rest or not terms:
        match = _TERM.match(rest)
        if match is None or (not match[2] and (terms or match.end() != len(rest))):
            raise ValueError(f'{quote(text)} is not a duration such as "5 min"')
        total_s += float(match[1]) * _duration_unit(match[2] or "s")
        rest, terms = rest[match.end() :].lstrip(" "), terms + 1
    return total_s


def format_size(octets: int) -> str:
    """Return the shortest exact text with a binary unit."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if octets and octets % _SIZES[unit] == 0:
            return f"{octets // _SIZES[unit]} {unit}"
    return f"{octets} B" if octets else "0"


def format_duration(seconds: float) -> str:
    """Return the text with the largest unit that leaves a whole number, else seconds."""
    if seconds == 0:
        return "0"
    for unit in ("w", "d", "h", "min", "s", "ms"):
        count = seconds / _DURATIONS[unit]
        # weeks only from two on, since "7 d" reads better
        if count == math.floor(count) and (unit != "w" or count > 1):
            text = f"{int(count)} {unit}"
            if parse_duration(text) == seconds:
                return text
    return f"{seconds!r} s"


def _number_and_unit(text: str, expected: str) -> tuple[str, str]:
    match = _TERM.fullmatch(text.strip(" "))
    if match is None:
        raise ValueError(f"{quote(text)} is not {expected}")
    return match[1], match[2]


def _duration_unit(unit: str) -> float:
    factor = _DURATIONS.get(unit)
    if factor is not None:
        return factor
    meant = _DURATION_WORDS.get(unit.casefold())
    hint = f' (did you mean "{meant}"?)' if meant else f" (one of {', '.join(_DURATIONS)})"
    raise ValueError(f"unknown unit {quote(unit)}{hint}")
