"""Twin of `CommandReader`, `scan_path` and `find_header`: same face, written with regular expressions over whole lines."""

from __future__ import annotations

import re

from smtpd import _parser as p

FORBIDDEN = frozenset(b"GET POST PUT HEAD OPTIONS DELETE CONNECT TRACE PATCH PRI PROXY".split())
VERBS = {name.upper().encode(): code for code, name in enumerate(p.VERB_NAMES) if name != "other"}
TLS_HELLO = b"\x16\x03"


class CommandReader:
    """Keeps the whole line, however long, and looks at it when it is complete."""

    def __init__(self, limit: int = 2048) -> None:
        self.limit = limit
        self.line = b""
        self.verb = p.VERB_NONE
        self.argument = b""
        self.word = b""
        self.flags = 0
        self.is_complete = False

    @property
    def has_partial(self) -> bool:
        return self.line != b""

    def read(self, data: bytearray, start: int, end: int) -> int:
        self.is_complete = False
        for position in range(start, end):
            self.line += data[position : position + 1]
            if self.line == TLS_HELLO:
                self._complete(p.VERB_FORBIDDEN, 0, self.line, b"")
                return position + 1
            if self.line.endswith(b"\n"):
                self._parse_line()
                return position + 1
        return end

    def _complete(self, verb: int, flags: int, word: bytes, argument: bytes) -> None:
        self.verb = verb
        self.flags = flags
        self.word = word[:32] if verb in (p.VERB_OTHER, p.VERB_FORBIDDEN) else b""
        self.argument = argument
        self.line = b""
        self.is_complete = True

    def _parse_line(self) -> None:
        flags = 0
        if len(self.line) > self.limit:
            flags |= p.LINE_TOO_LONG
        if not self.line.endswith(b"\r\n"):
            flags |= p.LINE_BARE_LF
        text = self.line.removesuffix(b"\n").removesuffix(b"\r")[: self.limit]
        if b"\r" in text:
            flags |= p.LINE_BARE_CR
        if b"\0" in text:
            flags |= p.LINE_NUL
        if re.search(rb"[\x01-\x08\x0a-\x0c\x0e-\x1f\x7f]", text):
            flags |= p.LINE_CONTROL
        if re.search(rb"[\x80-\xff]", text):
            flags |= p.LINE_8BIT
        match = re.fullmatch(rb"[ \t]*([^ \t]*)[ \t]*(.*)", text.rstrip(b" \t"), re.DOTALL)
        assert match is not None
        word, argument = match.groups()
        self._complete(find_verb(word), flags, word, argument)


def find_verb(word: bytes) -> int:
    if not word:
        return p.VERB_NONE
    if word.upper() in VERBS:
        return VERBS[word.upper()]
    if word.upper() in FORBIDDEN or re.fullmatch(rb"[!-9;-~]+:", word):
        return p.VERB_FORBIDDEN
    return p.VERB_OTHER


_ATOM = rb"[A-Za-z0-9#$&'*+/=?^_`{|}~-]+"
_LABEL = rb"(?=[^.>]{1,63}[.>])[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_PATH = rb"<((?=[^@]{1,64}@)%b(?:\.%b)*@((?=[^>]{1,255}>)%b(?:\.%b)*)|)>(?:[ \t]+(.*))?" % (_ATOM, _ATOM, _LABEL, _LABEL)


def scan_path(argument: bytes, is_recipient: bool) -> tuple[bytes, str, bytes] | None:
    keyword = rb"(?i:TO):" if is_recipient else rb"(?i:FROM):"
    match = re.fullmatch(keyword + _PATH, argument, re.DOTALL)
    if match is None or (is_recipient and not match[1]):
        return None
    return match[1], (match[2] or b"").decode().lower(), match[3] or b""


def find_header(head: bytes, name: bytes) -> bytes | None:
    lines = re.split(rb"\r?\n", head)
    for number, line in enumerate(lines):
        if not line:
            return None
        match = re.fullmatch(rb"(?i:%b)[ \t]*:(.*)" % re.escape(name), line, re.DOTALL)
        if match is None:
            continue
        value = match[1]
        for following in lines[number + 1 :]:
            if not following.startswith((b" ", b"\t")):
                break
            value += following
        return value.lstrip(b" \t")[:1000].rstrip(b" \t")
    return None
