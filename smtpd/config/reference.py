"""The reference of all keys, made from the structs: conf/smtpd.toml and docs/configuration.md.

`python -m smtpd.config.reference` writes both anew; a test holds them to the structs.
"""

import pathlib
import textwrap
import tomllib
from collections.abc import Iterator

import msgspec

from smtpd.config.default import EMBEDDED
from smtpd.config.schema import Field, fields_of
from smtpd.config.units import format_duration, format_size
from smtpd.config.write import toml_value
from smtpd.policy.registry import BUILT_IN, find_check
from smtpd.settings.policy import CheckSettings
from smtpd.settings.section import Section

_COLUMNS = 108

_CONF_HEAD = """\
# The configuration of smtpd: every key with its default, as /etc/smtpd/smtpd.toml or named by -c.
# "smtpd check -c FILE" says what is wrong with a file, "smtpd config -c FILE" what is in force.
#
# A line "#key = value" is a key; "# text" is a comment. Sizes: "512 B", "64 KiB", "50 MiB", "1 GiB" (or kB, MB, GB),
# a bare number is octets. Durations: "500 ms", "30 s", "5 min", "1 h 30 min", "5 d", "2 w", a bare number is seconds.
# Networks: "192.0.2.0/24", "2001:db8::/32", or a single address.
"""

_DOCS_HEAD = """\
# Configuration

<!-- Written by `python -m smtpd.config.reference` from smtpd/settings: change it there. -->

One TOML file, named by `-c`; without `-c` it is `/etc/smtpd/smtpd.toml`, and where that does not exist the embedded
default: SMTP on 127.0.0.1:2525 for any domain, mail filed under `./var/mail`, metrics on 127.0.0.1:9025.
[conf/smtpd.toml](../conf/smtpd.toml) holds every key as a comment, [conf/examples](../conf/examples) whole set-ups.

`smtpd check -c FILE` reports everything that is wrong at once, one a line, and exits 1 if a fault (not only warnings)
was found; `smtpd config -c FILE` prints what is in force, with all defaults:

```
smtpd.toml:7: listener.adress: unknown key (did you mean "address"?)
smtpd.toml:12: limits.message_size: unknown unit "MXB" (did you mean "MB"?)
```

| kind of value | written as |
|---|---|
| size | `"512 B"`, `"64 KiB"`, `"50 MiB"`, `"1 GiB"`, decimal `"50 MB"`; a bare number is octets |
| duration | `"500 ms"`, `"30 s"`, `"5 min"`, `"1 h 30 min"`, `"5 d"`, `"2 w"`; a bare number is seconds |
| network | `"192.0.2.0/24"`, `"2001:db8::/32"`, or a single address |
| domain | `"example.org"`, `".example.org"` for all below it; names in any script, kept as A-labels in lower case |
"""


def conf_text() -> str:
    """Return conf/smtpd.toml."""
    lines = [_CONF_HEAD]
    for header, section in _sections():
        # checks and overrides are examples: as they stand they would be faults
        key_mark = "# " if header.startswith("[[policy.") else "#"
        lines += _comment(_summary(type(section)))
        if header:
            lines.append(f"{key_mark}{header}")
        for field in _plain_fields(type(section)):
            lines += ["", *_comment(" ".join([f"{field.key.help}.", *_remarks(field)]))]
            lines.append(f"{key_mark}{field.name} = {_conf_value(field, getattr(section, field.name))}")
        lines.append("\n")
    return "\n".join(lines).rstrip("\n") + "\n"


def docs_text() -> str:
    """Return docs/configuration.md."""
    lines = [_DOCS_HEAD]
    for header, section in _sections():
        lines += [f"## {f'`{header}`' if header else 'The root'}", "", _summary(type(section)), ""]
        lines += ["| key | meaning | default |", "|---|---|---|"]
        for field in _plain_fields(type(section)):
            meaning = " ".join([f"{_markdown(field.key.help)}.", *map(_markdown, _remarks(field))])
            lines.append(f"| `{field.name}` | {meaning} | {_docs_default(field)} |")
        lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"


def _sections() -> Iterator[tuple[str, Section]]:
    yield "", EMBEDDED
    yield from _inner_sections(EMBEDDED, "")


def _inner_sections(section: Section, prefix: str) -> Iterator[tuple[str, Section]]:
    for field in fields_of(type(section)).values():
        name = prefix + field.name
        if field.shape == "section":
            value = getattr(section, field.name)
            yield f"[{name}]", value
            yield from _inner_sections(value, f"{name}.")
        elif field.shape == "sections":
            assert field.section is not None
            elements = getattr(section, field.name)
            value = elements[0] if elements else _example_of(field.section)
            yield f"[[{name}]]", value
            yield from _inner_sections(value, f"{name}.")
        elif field.shape == "checks":
            yield from _check_sections(name)


def _check_sections(name: str) -> Iterator[tuple[str, Section]]:
    yield f"[[{name}]]", CheckSettings(name="access")
    for check in BUILT_IN:
        section = find_check(check).Settings
        yield f'[[{name}]] # name = "{check}"', _example_of(section)
        for field in fields_of(section).values():
            if field.shape == "sections":
                assert field.section is not None
                yield f"[[{name}.{field.name}]] # of {check}", _example_of(field.section)


def _example_of(section: type[Section]) -> Section:
    """A section with its needed keys as their examples say."""
    needed = {
        field.name: tomllib.loads(f"x = {field.key.example}")["x"] for field in fields_of(section).values() if field.is_needed
    }
    return section(**needed)


def _plain_fields(section: type[Section]) -> list[Field]:
    return [field for field in fields_of(section).values() if field.shape in ("scalar", "list", "table")]


def _summary(section: type[Section]) -> str:
    return " ".join((section.__doc__ or "").split())


def _remarks(field: Field) -> Iterator[str]:
    key = field.key
    if key.choices:
        yield f"One of {', '.join(key.choices)}."
    if field.scalar in (int, float):
        yield _range(field)
    if key.empty:
        yield f'"": {key.empty}.'
    if key.absent:
        yield f"Without it: {key.absent}."
    if key.example and field.default is not None:
        yield f"Example: {key.example}."


def _range(field: Field) -> str:
    key = field.key
    shown = {"size": format_size, "duration": format_duration}.get(key.kind, str)
    name = {"size": "Size", "duration": "Duration"}.get(key.kind, "Number")
    assert key.least is not None
    assert key.most is not None
    text = f"{name}, {shown(field.scalar(key.least))} to {shown(field.scalar(key.most))}"
    return f"{text}, or 0: {key.zero}." if key.zero else f"{text}."


def _conf_value(field: Field, value: object) -> str:
    if value is None or (field.is_needed and not value):
        return field.key.example
    return toml_value(field, value)


def _docs_default(field: Field) -> str:
    if field.default is msgspec.NODEFAULT:
        return "needed"
    return "absent" if field.default is None else f"`{toml_value(field, field.default)}`"


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, _COLUMNS, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


def _markdown(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


if __name__ == "__main__":
    root = pathlib.Path(__file__).parents[2]
    (root / "conf" / "smtpd.toml").write_text(conf_text(), encoding="utf-8")
    (root / "docs" / "configuration.md").write_text(docs_text(), encoding="utf-8")
