"""From the tables that tomllib returns to settings: every fault is collected with its path, none ends
the reading.

A key whose value is wrong keeps its default (or a stand-in, "" or [], where it has none) and is
remembered as bad, so that later checks can leave it alone.
"""

import datetime
import re
from typing import Any

import msgspec

from smtpd.config.faults import did_you_mean, quote
from smtpd.config.grammar import check_text
from smtpd.config.schema import Field, fields_of
from smtpd.config.units import format_duration, format_size, parse_duration, parse_size
from smtpd.policy.registry import CheckMissingError, check_names, find_check
from smtpd.settings.gateway import Settings
from smtpd.settings.key import Key
from smtpd.settings.policy import CheckSettings
from smtpd.settings.section import Section

Path = tuple[str | int, ...]

# Known to the design of the whole, but not to this version: silence would be worse than refusal.
_LATER_KEYS = {
    "listener.tls",
    "listener.xclient",
    "policy.recipients",
    "redis",
    "spool.jetstream",
    "tls",
}
_LATER_VALUES = {("spool.engine", "jetstream")}
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]{1,80}")
NOT_YET = "not supported by this version"


class Finding(msgspec.Struct, frozen=True):
    """A fault or warning before its line is known."""

    path: Path
    text: str


def dotted(path: Path) -> str:
    """Return the name of a key as TOML writes it, without the numbers of array elements:
    "listener.address"."""
    return ".".join(part if _BARE_KEY.fullmatch(part) else quote(part) for part in path if isinstance(part, str))


class Reader:
    """Reads one document; `faults` and `bad` (paths of keys whose value was not taken) grow while it does."""

    def __init__(self) -> None:
        self.faults: list[Finding] = []
        self.bad: set[Path] = set()

    def read(self, document: dict[str, Any]) -> Settings:
        """Return the settings; what was wrong is in `faults`."""
        return self.read_as(Settings, document)

    def read_as[T: Section](self, section: type[T], document: dict[str, Any]) -> T:
        """Return the whole document as this section."""
        settings = self._section(section, document, ())
        assert isinstance(settings, section)
        return settings

    def fault(self, path: Path, text: str) -> None:
        """Note what is wrong with the value at `path`, which may be an element of the key."""
        self.faults.append(Finding(path, text))
        self.bad.add(path)

    def _section(self, section: type[Section], table: dict[str, Any], path: Path) -> Section:
        fields = fields_of(section)
        values: dict[str, Any] = {}
        for name, value in table.items():
            field = fields.get(name)
            if field is None:
                self._unknown(path + (name,), fields)
            else:
                values[name] = self._value(field, value, path + (name,))
        for name, field in fields.items():
            if field.is_needed and name not in values:
                self.fault(path + (name,), "this key is needed")
                values[name] = [] if field.shape == "list" else ""
        return section(**values)

    def _unknown(self, path: Path, fields: dict[str, Field]) -> None:
        if dotted(path) in _LATER_KEYS:
            self.fault(path, NOT_YET)
        else:
            self.fault(path, f"unknown key{did_you_mean(str(path[-1]), fields)}")

    def _value(self, field: Field, value: Any, path: Path) -> Any:
        if field.shape == "section":
            assert field.section is not None
            if type(value) is dict:
                return self._section(field.section, value, path)
            self.fault(path, f"expected a table [{dotted(path)}], not {describe(value)}")
        elif field.shape in ("sections", "checks"):
            return self._sections(field, value, path)
        elif field.shape == "list":
            if type(value) is list:
                return self._list(field, value, path)
            self.fault(path, f"expected a list in [brackets], not {describe(value)}")
        elif field.shape == "table":
            if type(value) is dict:
                return self._table(field, value, path)
            self.fault(path, f"expected a table in {{braces}}, not {describe(value)}")
        else:
            try:
                return _scalar(field, value, path)
            except ValueError as error:
                self.fault(path, str(error))
        return _stand_in(field)

    def _sections(self, field: Field, value: Any, path: Path) -> list[Section]:
        assert field.section is not None
        if type(value) is not list:
            what = "a table in double brackets" if type(value) is dict else "an array of tables"
            self.fault(path, f"expected {what}, [[{dotted(path)}]], not {describe(value)}")
            return []
        sections = []
        for number, element in enumerate(value):
            here = path + (number,)
            if type(element) is not dict:
                self.fault(here, f"expected a table, not {describe(element)}")
            # an element that is no table is kept as an empty one: numbers stay those of the file
            sections.append(
                self._check(element, here)
                if type(element) is dict and field.shape == "checks"
                else self._section(field.section, element, here)
                if type(element) is dict
                else field.section(**{name: _stand_in(f) for name, f in fields_of(field.section).items() if f.shape != "section"})
            )
        return sections

    def _check(self, table: dict[str, Any], path: Path) -> Section:
        """Read the keys of every check, and those of this one by its class."""
        shared = {name: field for name, field in fields_of(CheckSettings).items() if field.shape != "section"}
        name = table.get("name")
        try:
            own = find_check(name).Settings if type(name) is str else Section
        except CheckMissingError as error:
            near = did_you_mean(str(name), check_names())
            self.fault(path + ("name",), f"{quote(str(name))}: {error}{near}")
            table = {key: value for key, value in table.items() if key in shared}
            own = Section
        mine = fields_of(own)
        values: dict[str, Any] = {}
        for key in table:
            if key not in shared and key not in mine:
                self._unknown(path + (key,), {**shared, **mine})
        for key, field in shared.items():
            if key in table:
                values[key] = self._value(field, table[key], path + (key,))
            elif field.is_needed:
                self.fault(path + (key,), "this key is needed")
                values[key] = ""
        own_table = {key: value for key, value in table.items() if key in mine and key not in shared}
        return CheckSettings(own=self._section(own, own_table, path), **values)

    def _list(self, field: Field, elements: list[Any], path: Path) -> list[Any]:
        kept: list[Any] = []
        seen: set[str] = set()  # a list may hold a hundred thousand domains
        for number, element in enumerate(elements):
            try:
                value = _scalar(field, element, path)
            except ValueError as error:
                self.fault(path + (number,), str(error))
                self.bad.add(path)
                continue
            if value in seen:
                self.fault(path + (number,), f"{quote(value)} is in the list already")
                continue
            if type(value) is str:
                seen.add(value)
            kept.append(value)
        return kept

    def _table(self, field: Field, table: dict[str, Any], path: Path) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for name, value in table.items():
            here = path + (name,)
            try:
                normal = check_text(field.key.kind, name)
            except ValueError as error:
                self.fault(here, str(error))
                continue
            if normal in kept:
                self.fault(here, f"{quote(normal)} is in the table already")
            elif not field.is_list_table:
                try:
                    kept[normal] = _choice(field.key, value, path)
                except ValueError as error:
                    self.fault(here, str(error))
            elif type(value) is list:
                kept[normal] = self._choices(field.key, value, here)
            else:
                self.fault(here, f"expected a list in [brackets], not {describe(value)}")
        return kept

    def _choices(self, key: Key, elements: list[Any], path: Path) -> list[str]:
        kept = []
        for number, element in enumerate(elements):
            try:
                kept.append(_choice(key, element, path))
            except ValueError as error:
                self.fault(path + (number,), str(error))
        return kept


def describe(value: Any) -> str:
    """Name a TOML value for a message."""
    if type(value) is bool:
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the text {quote(value)}"
    if isinstance(value, int | float):
        # a number of thousands of digits can't even be printed
        return f"the number {value}" if abs(value) < 1e18 else "a huge number"
    if isinstance(value, datetime.date | datetime.time):
        return f"the date or time {value}"
    return "a list" if type(value) is list else "a table"


def _stand_in(field: Field) -> Any:
    if not field.is_needed:
        return field.default
    return [] if field.shape == "list" else ""


def _scalar(field: Field, value: Any, path: Path) -> Any:
    key = field.key
    if field.scalar is bool:
        if type(value) is not bool:
            raise ValueError(f"expected true or false, not {describe(value)}")
        return value
    if field.scalar is not str:
        return _number(field.scalar, key, value)
    if key.choices:
        return _choice(key, value, path)
    if type(value) is not str:
        raise ValueError(f"expected a text in quotes, not {describe(value)}")
    return value if not value and key.empty else check_text(key.kind, value)


def _choice(key: Key, value: Any, path: Path) -> str:
    if type(value) is not str:
        raise ValueError(f"expected a text in quotes, not {describe(value)}")
    if value in key.choices:
        return value
    if (dotted(path), value) in _LATER_VALUES:
        raise ValueError(f"{quote(value)} is {NOT_YET}")
    raise ValueError(f"{quote(value)} is not one of {', '.join(key.choices)}{did_you_mean(value, key.choices)}")


def _number(scalar: type, key: Key, value: Any) -> int | float:
    if key.kind == "size":
        number: int | float = parse_size(value) if type(value) is str else _plain_int(value, 'a size ("50 MiB")')
        shown = format_size
    elif key.kind == "duration":
        number = parse_duration(value) if type(value) is str else _plain_float(value, 'a duration ("5 min")')
        shown = format_duration  # type: ignore[assignment]
    elif scalar is float:
        number = _plain_float(value, "a number")
        shown = "{:g}".format
    else:
        number = _plain_int(value, "a whole number")
        shown = str  # type: ignore[assignment]
    if number == 0 and key.zero:
        return scalar(0)  # type: ignore[no-any-return]
    if key.least is not None and not number >= key.least:
        or_zero = f", or 0 for {key.zero}" if key.zero else ""
        raise ValueError(f"expected at least {shown(scalar(key.least))}{or_zero}, not {describe(value)}")
    if key.most is not None and not number <= key.most:
        raise ValueError(f"expected at most {shown(scalar(key.most))}, not {describe(value)}")
    return scalar(number)  # type: ignore[no-any-return]


def _plain_int(value: Any, expected: str) -> int:
    if type(value) is not int:
        raise ValueError(f"expected {expected}, not {describe(value)}")
    return value


def _plain_float(value: Any, expected: str) -> float:
    if type(value) is int and abs(value) < 1 << 53:
        return float(value)
    if type(value) is not float:
        raise ValueError(f"expected {expected}, not {describe(value)}")
    return value
