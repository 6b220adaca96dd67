"""The settings structs as a table: for each section its keys with shape, default and `Key`.

Reading, writing and documenting a file all walk this table, so none of them can know a key that the
others don't.
"""

import types
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec

from smtpd.settings.key import Key
from smtpd.settings.policy import CheckSettings
from smtpd.settings.section import Section

_NO_KEY = Key("")


class Field(msgspec.Struct, frozen=True):
    """One key. `shape` is "scalar", "list", "table" (free keys), "section", "sections" (array of tables) or
    "checks" (array of tables, each with the keys of its own check besides).

    `scalar` is the type of the value, of an element, or of a value in the table; `is_list_table` says
    that the table holds lists of it. `section` is the struct of a section. `default` is
    msgspec.NODEFAULT where the key is needed.
    """

    name: str
    shape: str
    scalar: type
    key: Key
    default: Any
    section: type[Section] | None = None
    is_list_table: bool = False

    @property
    def is_needed(self) -> bool:
        return self.default is msgspec.NODEFAULT


@cache
def fields_of(section: type[Section]) -> dict[str, Field]:
    """Return the keys of a section in the order of the struct."""
    hints = get_type_hints(section, include_extras=True)
    return {info.name: _field(info.name, hints[info.name], _default(info)) for info in msgspec.structs.fields(section)}


def _default(info: msgspec.structs.FieldInfo) -> Any:
    if info.default_factory is not msgspec.NODEFAULT:
        return info.default_factory()
    return info.default


def _field(name: str, hint: Any, default: Any) -> Field:
    key = _NO_KEY
    if get_origin(hint) is Annotated:
        hint, key = get_args(hint)
    if get_origin(hint) in (types.UnionType, Union):
        hint = next(part for part in get_args(hint) if part is not type(None))
    if get_origin(hint) is list:
        (element,) = get_args(hint)
        if issubclass(element, Section):
            return Field(name, "checks" if element is CheckSettings else "sections", dict, key, default, section=element)
        return Field(name, "list", element, key, default)
    if get_origin(hint) is dict:
        value = get_args(hint)[1]
        if get_origin(value) is list:
            return Field(name, "table", get_args(value)[0], key, default, is_list_table=True)
        return Field(name, "table", value, key, default)
    if issubclass(hint, Section):
        return Field(name, "section", dict, key, default, section=hint)
    return Field(name, "scalar", hint, key, default)
