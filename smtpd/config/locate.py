"""On which line each key and each list element of a TOML text stands; tomllib keeps the values only.

Reads texts that tomllib has taken, and only those: it checks nothing, it finds ends (TOML 1.0, and the
line breaks in inline tables of 1.1). A path is a tuple of keys and indices: ("listener", 0, "address"),
("policy", "trusted", 1).
"""

import re
import tomllib
from bisect import bisect_right

Path = tuple[str | int, ...]

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BLANK = re.compile(r"[ \t]*")
# white space, line breaks and comments
_FILLER = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_BASIC = re.compile(r'"(?:[^"\\]|\\.)*"')
_LITERAL = re.compile(r"'[^']*'")
# up to two quotes may stand before the closing three
_BASIC_LINES = re.compile(r'"""(?:[^"\\]|\\.|"{1,2}(?!"))*"{3,5}', re.DOTALL)
_LITERAL_LINES = re.compile(r"'''(?:[^']|'{1,2}(?!'))*'{3,5}", re.DOTALL)
_ATOM = re.compile(r"[^,\]}#\n]*")


class LineIndex:
    """The lines of one text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line_starts = [0] + [match.end() for match in re.finditer("\n", text)]
        self._lines: dict[Path, int] = {}
        self._array_sizes: dict[Path, int] = {}
        self._document()

    def line(self, path: Path) -> int:
        """Return the line of `path`, or of the nearest table around it that the text holds, else 1."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 1)

    def has(self, path: Path) -> bool:
        """Whether the text holds it."""
        return path in self._lines

    def paths(self) -> set[Path]:
        """Return every path that has a line."""
        return set(self._lines)

    def _document(self) -> None:
        table: Path = ()
        self._skip(_FILLER)
        while self._at < len(self._text):
            start = self._at
            if self._text.startswith("[[", start):
                self._at += 2
                table = self._header(self._keys(), start, is_array=True)
                self._at += 2
            elif self._text[start] == "[":
                self._at += 1
                table = self._header(self._keys(), start, is_array=False)
                self._at += 1
            else:
                self._pair(table)
            self._skip(_FILLER)

    def _header(self, keys: list[str], start: int, is_array: bool) -> Path:
        path: Path = ()
        for key in keys[:-1]:
            path = self._last_of(self._note(path + (key,), start), start)
        path = self._note(path + (keys[-1],), start)
        if is_array:
            self._array_sizes[path] = self._array_sizes.get(path, 0) + 1
            return self._last_of(path, start)
        return path

    def _last_of(self, path: Path, start: int) -> Path:
        size = self._array_sizes.get(path)
        return path if size is None else self._note(path + (size - 1,), start)

    def _pair(self, table: Path) -> None:
        start = self._at
        path = table
        for key in self._keys():
            path = self._note(path + (key,), start)
        self._at += 1  # the equals sign
        self._skip(_BLANK)
        self._value(path)

    def _keys(self) -> list[str]:
        """Read a dotted key up to what follows it."""
        keys = []
        while True:
            self._skip(_BLANK)
            keys.append(self._key())
            self._skip(_BLANK)
            if not self._text.startswith(".", self._at):
                return keys
            self._at += 1

    def _key(self) -> str:
        quote = self._text[self._at]
        if quote == '"':
            token = self._skip(_BASIC)
            return str(tomllib.loads(f"key = {token}")["key"]) if "\\" in token else token[1:-1]
        if quote == "'":
            return self._skip(_LITERAL)[1:-1]
        return self._skip(_BARE_KEY)

    def _value(self, path: Path) -> None:
        match self._text[self._at]:
            case "[":
                self._array(path)
            case "{":
                self._inline_table(path)
            case '"':
                self._skip(_BASIC_LINES if self._text.startswith('"""', self._at) else _BASIC)
            case "'":
                self._skip(_LITERAL_LINES if self._text.startswith("'''", self._at) else _LITERAL)
            case _:
                self._skip(_ATOM)

    def _array(self, path: Path) -> None:
        self._at += 1
        number = 0
        while not self._ends("]"):
            element = self._note(path + (number,), self._at)
            self._value(element)
            number += 1
            self._skip_comma()

    def _inline_table(self, path: Path) -> None:
        self._at += 1
        while not self._ends("}"):
            self._pair(path)
            self._skip_comma()

    def _ends(self, bracket: str) -> bool:
        self._skip(_FILLER)
        if self._text[self._at] != bracket:
            return False
        self._at += 1
        return True

    def _skip_comma(self) -> None:
        self._skip(_FILLER)
        if self._text[self._at] == ",":
            self._at += 1

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        assert match is not None
        self._at = match.end()
        return match[0]

    def _note(self, path: Path, start: int) -> Path:
        self._lines.setdefault(path, bisect_right(self._line_starts, start))
        return path
