"""Reads `*.dialog` files: one session as a manual would show it, each line a step.

    # a comment                     why this dialog is here
    @ recipients = 2                an option of the server (see `session_run.py`), before the first step
    S: 250 2.1.0                    one reply is due, and it starts so; "..." at the end of the pattern says nothing
    HAS: SIZE 1000                  that reply has a line with just this text behind its code
    NOT: CHUNKING                   that reply has no line that starts so behind its code
    C: MAIL FROM:<>                 the client sends a line and CRLF
    RAW: "x\\n" * 3 + "\\r\\n"        the client sends these octets (literals, "*" and "+"; \\xff is one octet)
    END:                            the server ends the connection, and sends nothing more
    GONE:                           the client ends it
    TIME: / DRAIN:                  a deadline of the client passes / the server drains
    TLS:                            client and server shake hands; what follows is encrypted
    MAILS: 1                        so many mails are in custody now
    BODY: "octets"                  the content of the last one
    FROM: a@example.com             its reverse-path, TO: its forward-paths, separated by blanks
    SEEN: bare_lf                   the session reported this violation, or "delay", "abort" (of a body)

C and RAW that follow each other are sent together. Each S consumes one reply; a reply that no S awaits is an error.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).parent
KINDS = frozenset(["S", "HAS", "NOT", "C", "RAW", "END", "GONE", "TIME", "DRAIN", "TLS", "MAILS", "BODY", "FROM", "TO", "SEEN"])
_STEP = re.compile(r"([A-Z]+):(?: (.*))?")
_OPTION = re.compile(r"@ (\w+) = (.+)")


@dataclass(frozen=True)
class Step:
    """`octets` is what C and RAW send and what BODY awaits; `text` is what stood behind the colon."""

    line: int
    kind: str
    text: str
    octets: bytes = b""


@dataclass(frozen=True)
class Dialog:
    name: str
    options: dict[str, str] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()


class DialogError(ValueError):
    """A line that is no step."""


def parse_octets(text: str) -> bytes:
    """Return the value of literals joined by "*" and "+"."""

    def value_of(node: ast.expr) -> bytes | int:
        match node:
            case ast.Constant(value=str() as literal):
                return literal.encode("latin-1")
            case ast.Constant(value=int() as number):
                return number
            case ast.BinOp(left=left, op=ast.Mult(), right=right):
                octets, count = value_of(left), value_of(right)
                if isinstance(octets, bytes) and isinstance(count, int):
                    return octets * count
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                one, other = value_of(left), value_of(right)
                if isinstance(one, bytes) and isinstance(other, bytes):
                    return one + other
        raise DialogError(f"not octets: {text}")

    octets = value_of(ast.parse(text.strip(), mode="eval").body)
    if not isinstance(octets, bytes):
        raise DialogError(f"not octets: {text}")
    return octets


def parse_dialog(name: str, text: str) -> Dialog:
    """Return the dialog of a file's text; DialogError names the line that is wrong."""
    options: dict[str, str] = {}
    steps: list[Step] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if (option := _OPTION.fullmatch(line)) is not None and not steps:
            options[option[1]] = option[2].strip()
            continue
        match = _STEP.fullmatch(line)
        if match is None or match[1] not in KINDS:
            raise DialogError(f"{name}:{number}: no step: {line}")
        kind, rest = match[1], match[2] or ""
        octets = b""
        if kind == "C":
            octets = rest.encode() + b"\r\n"
        elif kind in ("RAW", "BODY"):
            octets = parse_octets(rest)
        steps.append(Step(number, kind, rest, octets))
    return Dialog(name, options, tuple(steps))


def read_dialogs() -> list[Dialog]:
    """Return all dialogs of this folder."""
    return [parse_dialog(path.stem, path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.dialog"))]


def matches(step: Step, reply: bytes) -> bool:
    """Whether a reply is what an S step awaits."""
    return reply.startswith(step.text.removesuffix("...").encode())


def split_replies(octets: bytes) -> tuple[list[bytes], bytes]:
    """Return the complete replies, each with its line ends, and the octets behind them."""
    replies: list[bytes] = []
    reply = b""
    lines = octets.split(b"\r\n")
    for line in lines[:-1]:
        reply += line + b"\r\n"
        assert re.match(rb"[2-5][0-9][0-9][ -]", line), f"no reply line: {line!r}"
        if line[3:4] == b" ":
            replies.append(reply)
            reply = b""
    return replies, reply + lines[-1]
