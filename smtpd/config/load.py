"""Loading the configuration: the file that applies, all its faults and warnings, the settings.

`load_settings` is what a server calls, `examine` what `smtpd check` calls. Settings from here are
complete: host name, postmaster, and the names of listeners and routes are filled in.
"""

import os
import re
import tomllib
from typing import Any

import msgspec

from smtpd.config.complete import complete
from smtpd.config.crosscheck import cross_check
from smtpd.config.default import EMBEDDED
from smtpd.config.faults import ConfigError, Fault, escape
from smtpd.config.locate import LineIndex
from smtpd.config.read import Finding, Reader, dotted
from smtpd.settings import Settings

DEFAULT_PATH = "/etc/smtpd/smtpd.toml"

# Nobody writes more by hand, and /dev/zero has no end.
_FILE_BYTES = 8 * 1024 * 1024
_TOML_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


class Examined(msgspec.Struct, frozen=True):
    """What a file holds. `file` is "" for the embedded default; `settings` is None when there are faults."""

    file: str
    settings: Settings | None
    faults: list[Fault]
    warnings: list[Fault]


def settings_file(path: str | None) -> str | None:
    """Return the file that applies: `path`, else the default file where it exists, else None (embedded
    default)."""
    if path is not None:
        return path
    try:
        os.stat(DEFAULT_PATH)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        pass  # it is there but can't be looked at: reading it gives the clear message
    return DEFAULT_PATH


def load_settings(path: str | None) -> Settings:
    """Return the complete settings of the file that applies; ConfigError holds every fault."""
    examined = examine(path)
    if examined.settings is None:
        raise ConfigError(examined.faults)
    return examined.settings


def embedded_default() -> Settings:
    """Return the settings without any file: loopback only, any domain, everything filed under ./var."""
    return complete(EMBEDDED)


def examine(path: str | None) -> Examined:
    """Read the file that applies and return everything that can be said about it; raises nothing of its
    own."""
    file = settings_file(path)
    if file is None:
        return Examined("", embedded_default(), [], [])
    parsed = parse_file(file)
    if isinstance(parsed, Fault):
        return Examined(file, None, [parsed], [])
    document, index = parsed
    reader = Reader()
    settings = reader.read(document)
    faults, warnings = cross_check(settings, reader.bad)
    all_faults = placed(file, index, reader.faults + faults)
    kept = None if all_faults else complete(settings)
    return Examined(file, kept, all_faults, placed(file, index, warnings))


def parse_file(file: str) -> tuple[dict[str, Any], LineIndex] | Fault:
    """Return the tables of a TOML file and where they stand, or why there are none."""
    try:
        text = _read_text(file)
        document = tomllib.loads(text)
        return document, LineIndex(text)
    except _FileError as error:
        return Fault(file, error.line, "", str(error))
    except RecursionError:
        return Fault(file, 0, "", "lists or tables are nested too deeply")
    except tomllib.TOMLDecodeError as error:
        return _syntax_fault(file, text, error)
    except ValueError as error:
        # int() of thousands of digits, which tomllib passes through
        return Fault(file, 0, "", f"not TOML: {escape(str(error))}")


class _FileError(Exception):
    def __init__(self, text: str, line: int = 0) -> None:
        super().__init__(text)
        self.line = line


def _read_text(file: str) -> str:
    try:
        with open(file, "rb") as stream:
            data = stream.read(_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise _FileError(f"can't be read: {reason}") from None
    if len(data) > _FILE_BYTES:
        raise _FileError(f"larger than {_FILE_BYTES >> 20} MiB, this is no configuration file")
    try:
        # a byte order mark is what some editors write; tomllib takes it for a statement
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _FileError(f"not UTF-8: byte 0x{data[error.start]:02x}", line) from None
    return text


def _syntax_fault(file: str, text: str, error: tomllib.TOMLDecodeError) -> Fault:
    message = str(error)
    place = _TOML_PLACE.search(message)
    if place is None:
        return Fault(file, 0, "", f"not TOML: {escape(message)}")
    words = escape(message[: place.start()])
    words = words[:1].lower() + words[1:]
    if place[1] is None:
        return Fault(file, max(1, len(text.splitlines())), "", f"not TOML: {words} (at the end of the file)")
    return Fault(file, int(place[1]), "", f"not TOML: {words} (column {place[2]})")


def placed(file: str, index: LineIndex, findings: list[Finding]) -> list[Fault]:
    """Return findings with their lines, in the order of the file."""
    faults = [Fault(file, index.line(f.path), dotted(f.path), f.text) for f in findings]
    return sorted(faults, key=lambda fault: fault.line)
