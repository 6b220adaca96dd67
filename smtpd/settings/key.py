"""What is known of a key besides its type and default: words of the manual, grammar and range of its value.

Carried by the settings structs in `Annotated[type, Key(...)]`. Reading a file, docs/configuration.md and
conf/smtpd.toml are all made from it.
"""

import msgspec


class Key(msgspec.Struct, frozen=True):
    """One key of the configuration file.

    `help` is one sentence without its full stop. `kind` names the grammar of a text
    (`smtpd.config.grammar`), or is "size" (octets) or "duration" (seconds) for a number that may be
    written with a unit; for a list it holds for each element, for a table for each of its keys.
    `choices` are the only values (of a table: the only values in it). `least` and `most` are inclusive
    bounds of a number; 0 is allowed as well when `zero` says what it means, and "" when `empty` does.
    `absent` says what happens without the key where the default does not tell. `example` is a TOML value
    for a key without a useful default.
    """

    help: str
    kind: str = ""
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    zero: str = ""
    absent: str = ""
    example: str = ""
    empty: str = ""
