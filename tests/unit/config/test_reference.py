"""conf/smtpd.toml, docs/configuration.md and the examples hold what the structs hold, and nothing else."""

from __future__ import annotations

import pathlib
import re
import tomllib
from typing import Any

import pytest
from msgspec.structs import replace

from smtpd.config import embedded_default, examine, load_settings
from smtpd.config.reference import conf_text, docs_text
from smtpd.config.schema import fields_of
from smtpd.policy.registry import BUILT_IN, find_check
from smtpd.settings import Settings
from smtpd.settings.policy import CheckSettings, OverrideSettings
from smtpd.settings.section import Section

ROOT = pathlib.Path(__file__).parents[3]
EXAMPLES_ONLY = ("check", "override")  # arrays within [policy]: shown as comments, as they stand they would be faults
EXAMPLES = sorted((ROOT / "conf" / "examples").glob("*.toml"))


def keys_of_structs(section: type[Section] = Settings, prefix: str = "") -> set[str]:
    found = set()
    for field in fields_of(section).values():
        if field.section is None:
            found.add(prefix + field.name)
        elif field.name not in EXAMPLES_ONLY:
            found |= keys_of_structs(field.section, f"{prefix}{field.name}.")
    return found


def keys_of_document(document: dict[str, Any]) -> set[str]:
    found = set()
    for name, value in document.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            value = value[0]
        if isinstance(value, dict) and name not in {"suppress", "bare_newline_networks"}:
            found |= {f"{name}.{key}" for key in keys_of_document(value)}
        else:
            found.add(name)
    return found


def uncommented() -> str:
    text = (ROOT / "conf" / "smtpd.toml").read_text(encoding="utf-8")
    return re.sub("(?m)^#(?! |$)", "", text)


@pytest.mark.parametrize(("path", "text"), [("conf/smtpd.toml", conf_text()), ("docs/configuration.md", docs_text())])
def test_the_written_file_is_current(path: str, text: str) -> None:
    assert (ROOT / path).read_text(encoding="utf-8") == text, "run `python -m smtpd.config.reference`"


def test_every_key_is_in_the_file_and_every_key_of_the_file_exists() -> None:
    assert keys_of_document(tomllib.loads(uncommented())) == keys_of_structs()


def test_as_it_stands_the_file_sets_nothing() -> None:
    assert tomllib.loads((ROOT / "conf" / "smtpd.toml").read_text(encoding="utf-8")) == {}


def test_uncommented_it_loads_and_equals_the_embedded_default(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "smtpd.toml"
    path.write_text(uncommented(), encoding="utf-8")
    loaded = load_settings(str(path))
    # the one key whose default is to be absent: the file shows an example
    assert loaded.policy.relay_domains == ["example.org", ".example.org"]
    assert replace(loaded, policy=replace(loaded.policy, relay_domains=None)) == embedded_default()


def test_every_key_is_explained_with_its_range() -> None:
    for section in [Settings, *(f.section for f in fields_of(Settings).values() if f.section is not None)]:
        assert section.__doc__, section
        for field in fields_of(section).values():
            if field.section is None:
                assert field.key.help, field.name
                assert not field.key.help.endswith("."), field.name
                is_bounded = field.key.least is not None and field.key.most is not None
                assert is_bounded or field.scalar in (str, bool), field.name


def test_every_key_is_in_the_manual() -> None:
    manual = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    for key in keys_of_structs():
        assert f"| `{key.rpartition('.')[2]}` |" in manual


def test_every_key_of_checks_and_overrides_is_in_file_and_manual() -> None:
    conf, manual = (ROOT / "conf" / "smtpd.toml").read_text(), (ROOT / "docs" / "configuration.md").read_text()
    sections: list[type[Section]] = [CheckSettings, OverrideSettings, *(find_check(name).Settings for name in BUILT_IN)]
    for section in sections:
        for field in fields_of(section).values():
            if field.section is None:
                assert f"\n# {field.name} = " in conf
                assert f"| `{field.name}` |" in manual


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 3


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_pass_check(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pwd.getpwnam", lambda name: name)
    examined = examine(str(path))
    assert (examined.faults, examined.warnings) == ([], [])
