"""Writing settings as TOML with units ("50 MiB", "5 min"), so that loading the text gives the same settings.

Also the TOML form of single values, for the reference and for messages. Raises nothing.
"""

from typing import Any

from smtpd.config.schema import Field, fields_of
from smtpd.config.units import format_duration, format_size, parse_duration
from smtpd.settings.gateway import Settings
from smtpd.settings.policy import CheckSettings
from smtpd.settings.section import Section

_SHORT_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def settings_toml(settings: Settings) -> str:
    """Return the whole file: keys of the root first, then the sections in the order of the struct."""
    lines: list[str] = []
    sections: list[tuple[str, Section]] = []
    for field in fields_of(Settings).values():
        value = getattr(settings, field.name)
        if field.shape == "section":
            sections.append((f"[{field.name}]", value))
        elif field.shape == "sections":
            sections.extend((f"[[{field.name}]]", element) for element in value)
        else:
            lines.extend(_pair(field, value))
    for header, section in sections:
        lines += ["", header, *_pairs(section)]
        for field in fields_of(type(section)).values():
            if field.shape in ("sections", "checks"):
                for element in getattr(section, field.name):
                    lines += ["", f"[[{header.strip('[]')}.{field.name}]]", *_pairs(element)]
                    if isinstance(element, CheckSettings):
                        lines += _pairs(element.own)
    return "\n".join(lines) + "\n"


def _pairs(section: Section) -> list[str]:
    """The lines of the keys of one section, without the sections in it."""
    plain = (field for field in fields_of(type(section)).values() if field.shape in ("scalar", "list", "table"))
    return [line for field in plain for line in _pair(field, getattr(section, field.name))]


def toml_value(field: Field, value: Any) -> str:
    """Return the value of a key as the right side of its line."""
    if field.shape == "list":
        return _list(field, value)
    if field.shape == "table":
        pairs = (
            f"{_text(name)} = {_list(field, element) if field.is_list_table else _scalar(field, element)}"
            for name, element in value.items()
        )
        return f"{{ {', '.join(pairs)} }}" if value else "{}"
    return _scalar(field, value)


def _pair(field: Field, value: Any) -> list[str]:
    # None is said by leaving the key out; so is "" where a text could not be empty
    if value is None or (value == "" == field.default and not field.key.empty and field.key.kind):
        return []
    return [f"{field.name} = {toml_value(field, value)}"]


def _list(field: Field, elements: list[Any]) -> str:
    return f"[{', '.join(_scalar(field, element) for element in elements)}]"


def _scalar(field: Field, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if field.key.kind == "size":
        return _text(format_size(value))
    if field.key.kind == "duration":
        return _duration(value)
    return str(value)


def _duration(seconds: float) -> str:
    text = format_duration(seconds)
    try:
        if parse_duration(text) == seconds:
            return _text(text)
    except ValueError:
        pass  # an exponent, as in 1e-05: a bare number of seconds says it
    return repr(seconds)


def _text(value: str) -> str:
    return '"' + "".join(_character(c) for c in value) + '"'


def _character(character: str) -> str:
    if character in _SHORT_ESCAPES:
        return _SHORT_ESCAPES[character]
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
