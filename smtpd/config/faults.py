"""What is wrong with a configuration file: faults (it can't be used) and warnings, each with file, line
and key.

Everything that comes from the file is escaped before it is shown: a terminal never sees its control
characters.
"""

import os
from collections.abc import Iterable

import msgspec

from smtpd.errors import StartupError

_SHOWN_CHARACTERS = 80
_SHORT_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


class Fault(msgspec.Struct, frozen=True):
    """One finding. `line` counts from 1, 0 = the file as a whole; `key` is dotted ("spool.path") or ""."""

    file: str
    line: int
    key: str
    text: str

    def __str__(self) -> str:
        place = f"{escape(self.file)}:{self.line}" if self.line else escape(self.file)
        return f"{place}: {self.key}: {self.text}" if self.key else f"{place}: {self.text}"


class ConfigError(StartupError):
    """The file can't be used; `faults` holds every fault in the order of the file, the text is one a line."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("\n".join(map(str, faults)), os.EX_CONFIG)
        self.faults = faults


def escape(text: str) -> str:
    """Return `text` with everything that isn't printable as a backslash escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape_character(c) for c in text)


def quote(text: str) -> str:
    """Return `text` in double quotes, escaped, and cut when it is long."""
    if len(text) > _SHOWN_CHARACTERS:
        text = text[:_SHOWN_CHARACTERS] + "…"
    return '"' + escape(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ' (did you mean "x"?)' for the nearest of `known`, "" when none is near."""
    import difflib  # here: only a fault needs it

    by_folded = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(word[:_SHOWN_CHARACTERS].casefold(), by_folded, n=1, cutoff=0.6)
    return f" (did you mean {quote(by_folded[near[0]])}?)" if near else ""


def _escape_character(character: str) -> str:
    short = _SHORT_ESCAPES.get(character)
    if short is not None:
        return short
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
