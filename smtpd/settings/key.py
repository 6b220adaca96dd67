"""What is known of a key besides its type and default: the words of the manual, the grammar and the range of its value.

Carried by the settings structs in `Annotated[type, Key(...)]`. Reading a file, the reference in docs/configuration.md and
conf/smtpd.toml are all made from it.
"""

import msgspec


class Key(msgspec.Struct, frozen=True):
    """One key of the configuration file.

    `help` is one sentence without its full stop. `kind` names the grammar of a text (see `smtpd.config.grammar`), or is
    "size" (octets) or "duration" (seconds) for a number that may be written with a unit; for a list it holds for each element,
    for a table for each of its keys. `choices` are the only values (of a table: the only values in it). `least` and `most` are
    inclusive bounds of a number; with `zero` 0 is allowed as well and has the meaning given. `absent` says what happens
    without the key where the default does not tell. `example` is a TOML value for a key that has no useful default.
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
