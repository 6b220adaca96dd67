"""Follows an SMTP or LMTP dialogue from its octets, in both directions, to show its lines but never the mail itself. Sans-IO.

Content, and what might be content, is counted; credentials of AUTH are hidden. Lines come as text, what isn't UTF-8 as \\xNN.
"""

from __future__ import annotations

from smtpd.mail.text import text_of

_LINE_MAX_BYTES = 4096  # longer ones are shown in part, what comes behind it never
_LINES, _MAYBE, _CONTENT, _CHUNK = range(4)  # what the client's octets are
_END = b"\r\n.\r\n"


class Follower:
    """`is_begun`: the dialogue went on before, so what the client sends is hidden until the server has replied."""

    __slots__ = ("_command", "_is_cut", "_left", "_mode", "_octets", "_owed", "_reply", "_secret", "_tail")

    def __init__(self, *, is_begun: bool = False) -> None:
        self._command = b""
        self._is_cut = False  # up to the next LF all belongs to a line of the client that was too long
        self._reply = b""
        self._mode = _MAYBE if is_begun else _LINES
        self._owed = 1 if is_begun else 0  # replies that the client waits for
        self._octets = 0  # of content, not shown yet
        self._left = 0  # of a chunk
        self._tail = b"\r\n"
        self._secret = False  # the next line of the client answers a challenge

    def from_client(self, data: bytes) -> list[str]:
        """Return what there is to show of octets that the client sent."""
        shown: list[str] = []
        while data:
            if self._mode == _LINES:
                data = self._take_line(data, shown)
            elif self._mode == _CHUNK:
                taken = min(len(data), self._left)
                self._octets += taken
                self._left -= taken
                data = data[taken:]
                if not self._left:
                    self._end_content(shown)
            else:
                data = self._take_content(data, shown)
        return shown

    def from_server(self, data: bytes) -> list[str]:
        """Return what there is to show of octets that the server sent."""
        shown: list[str] = []
        *lines, self._reply = (self._reply + data).split(b"\n")
        for line in lines:
            if line[3:4] != b"-":
                self._note_reply(line[:3], shown)
            shown.append(_text(line))
        if len(self._reply) > _LINE_MAX_BYTES:
            shown.append(_text(self._reply))
            self._reply = b""
        return shown

    def _take_line(self, data: bytes, shown: list[str]) -> bytes:
        line, newline, rest = data.partition(b"\n")
        if self._is_cut:
            self._octets += len(line)
            if newline:
                self._end_cut(shown)
            return rest
        self._command += line
        if not newline and len(self._command) <= _LINE_MAX_BYTES:
            return b""
        command, self._command = self._command, b""
        self._is_cut = not newline
        if newline:
            self._owed += 1
        if self._secret:
            self._secret = False
            shown.append("(hidden)")
            return rest
        words = command.split()
        verb = words[0].upper() if words else b""
        if verb == b"AUTH":
            shown.append(_text(b" ".join(words[:2]) + (b" (hidden)" if len(words) > 2 else b"")))
            return rest
        shown.append(_text(command))
        if verb == b"DATA" and newline:
            self._mode, self._tail = _MAYBE, b"\r\n"
        elif verb == b"BDAT" and newline and len(words) > 1 and words[1].isdigit() and len(words[1]) < 20:
            self._left = int(words[1])
            if self._left:
                self._mode = _CHUNK
        return rest

    def _end_cut(self, shown: list[str]) -> None:
        """Whatever that line meant, content may follow: what comes is hidden until the server has replied."""
        shown.append(f"({self._octets} octets more, not shown)")
        self._octets = 0
        self._is_cut = False
        self._owed += 1
        self._mode, self._tail = _MAYBE, b"\r\n"

    def _take_content(self, data: bytes, shown: list[str]) -> bytes:
        joined = self._tail + data
        at = joined.find(_END)
        if at < 0:
            self._octets += len(data)
            self._tail = joined[-4:]
            return b""
        taken = at + len(_END) - len(self._tail)
        self._octets += taken
        self._owed += 1
        self._end_content(shown)
        return data[taken:]

    def _end_content(self, shown: list[str], what: str = "of content") -> None:
        if self._octets:
            shown.append(f"({self._octets} octets {what})")
        self._octets = 0
        self._mode = _LINES

    def _note_reply(self, code: bytes, shown: list[str]) -> None:
        self._owed = max(0, self._owed - 1)
        if code == b"354":
            if self._mode == _LINES:
                self._tail = b"\r\n"
            self._mode = _CONTENT
        elif code == b"334":
            self._secret = True
        elif self._mode == _MAYBE and not self._owed:
            self._end_content(shown, "not shown")  # it was none after all


def _text(line: bytes) -> str:
    return text_of(line.removesuffix(b"\r")[:_LINE_MAX_BYTES])
