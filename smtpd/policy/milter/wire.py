"""Octets of the milter protocol, version 6: commands to a filter, and what it answers.

A packet is a length of four octets, a letter, and the payload. Owns the letters, the making of commands and the reading of
answers; knows no order of events (`session.py`) and no socket. What comes from the filter is bounded and checked here: raises
WireError for a length, a letter or a payload that can't be. Source: libmilter's mfdef.h and Postfix's milter8.c.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple

VERSION = 6
OLDEST_VERSION = 2
CHUNK_BYTES = 65535  # of body in one packet
ANSWER_BYTES = 1 << 20  # longest packet of a filter that is read
ITEM_BYTES = 65535  # longest header field, address or argument that is told or taken

# Commands.
ABORT = b"A"
BODY = b"B"
CONNECT = b"C"
MACRO = b"D"
END_OF_BODY = b"E"
HELO = b"H"
QUIT_NEW_CONNECTION = b"K"
HEADER = b"L"
MAIL = b"M"
END_OF_HEADER = b"N"
NEGOTIATE = b"O"
QUIT = b"Q"
RCPT = b"R"
DATA = b"T"
UNKNOWN = b"U"

# Answers.
ADD_RECIPIENT = b"+"
DELETE_RECIPIENT = b"-"
ADD_RECIPIENT_WITH = b"2"
SHUTDOWN = b"4"
ACCEPT = b"a"
REPLACE_BODY = b"b"
CONTINUE = b"c"
DISCARD = b"d"
CHANGE_SENDER = b"e"
CONNECTION_FAILURE = b"f"
ADD_HEADER = b"h"
INSERT_HEADER = b"i"
SET_MACROS = b"l"
CHANGE_HEADER = b"m"
PROGRESS = b"p"
QUARANTINE = b"q"
REJECT = b"r"
SKIP = b"s"
TEMPFAIL = b"t"
REPLY_CODE = b"y"

CHANGES = frozenset(
    (ADD_RECIPIENT, DELETE_RECIPIENT, ADD_RECIPIENT_WITH, REPLACE_BODY, CHANGE_SENDER, ADD_HEADER, INSERT_HEADER, CHANGE_HEADER,
     QUARANTINE)
)  # fmt: skip
VERDICTS = frozenset(
    (ACCEPT, CONTINUE, DISCARD, REJECT, TEMPFAIL, REPLY_CODE, SKIP, CONNECTION_FAILURE, SHUTDOWN)
)  # fmt: skip
_EMPTY = frozenset((ACCEPT, CONTINUE, DISCARD, REJECT, TEMPFAIL, SKIP, CONNECTION_FAILURE, SHUTDOWN, PROGRESS))
_ANSWERS = CHANGES | VERDICTS | {NEGOTIATE, PROGRESS, SET_MACROS}

_LENGTH = struct.Struct("!I")
_NUMBERS = struct.Struct("!III")


class WireError(ValueError):
    """The filter sent what the protocol doesn't have; the text says what, and holds no octet of it."""


class Packet(NamedTuple):
    """One packet: its letter and its payload."""

    letter: bytes
    payload: bytes


class HeaderChange(NamedTuple):
    """Of ADD_HEADER (`position` 0), INSERT_HEADER and CHANGE_HEADER (which of that name, from 1). An empty value of
    CHANGE_HEADER deletes."""

    position: int
    name: bytes
    value: bytes


class Path(NamedTuple):
    """An address as the filter wrote it, and its ESMTP arguments."""

    address: bytes
    arguments: bytes


class Offer(NamedTuple):
    """What one side of a negotiation says; `macros` are names by stage number."""

    version: int
    actions: int
    steps: int
    macros: dict[int, list[bytes]]


def make_packet(letter: bytes, payload: bytes = b"") -> bytes:
    """Return the octets of one packet."""
    return _LENGTH.pack(len(payload) + 1) + letter + payload


def make_strings(letter: bytes, *texts: bytes) -> bytes:
    """Return a packet of texts, each ended by NUL; a NUL within one is left out."""
    return make_packet(letter, b"".join(_clean(text) + b"\0" for text in texts))


def make_macros(command: bytes, macros: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the packet that tells macros before `command`; b"" when there are none."""
    texts = b"".join(_clean(name) + b"\0" + _clean(value) + b"\0" for name, value in macros)
    return make_packet(MACRO, command + texts) if texts else b""


def make_offer(offer: Offer) -> bytes:
    """Return the packet that opens a negotiation, or answers one."""
    lists = b"".join(_LENGTH.pack(stage) + b" ".join(names) + b"\0" for stage, names in sorted(offer.macros.items()))
    return make_packet(NEGOTIATE, _NUMBERS.pack(offer.version, offer.actions, offer.steps) + lists)


def make_connect(name: bytes, address: str, port: int) -> bytes:
    """Return the packet that tells of a client; `address` "" is a unix socket without a name."""
    if not address:
        return make_packet(CONNECT, _clean(name) + b"\0L" + struct.pack("!H", 0) + b"local\0")
    ip = ip_address(address)
    family = b"6" if isinstance(ip, IPv6Address) else b"4"
    return make_packet(CONNECT, _clean(name) + b"\0" + family + struct.pack("!H", port) + address.encode() + b"\0")


class PacketReader:
    """Cuts what arrives into packets of at most `limit` octets; whatever way the stream is cut, the packets are the same."""

    __slots__ = ("_buffer", "_limit")

    def __init__(self, limit: int = ANSWER_BYTES) -> None:
        self._buffer = bytearray()
        self._limit = limit

    @property
    def is_empty(self) -> bool:
        """Nothing of an unfinished packet is here."""
        return not self._buffer

    def feed(self, data: bytes) -> None:
        """Append what arrived."""
        self._buffer += data

    def packets(self) -> Iterator[Packet]:
        """Yield what is whole; raises WireError."""
        while (packet := self.next_packet()) is not None:
            yield packet

    def next_packet(self) -> Packet | None:
        """Return the next packet if it is whole; raises WireError."""
        buffer = self._buffer
        if len(buffer) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(buffer)
        if not 0 < length <= self._limit:
            raise WireError(f"a packet of {length} octets")
        end = _LENGTH.size + length
        if len(buffer) < end:
            return None
        packet = Packet(bytes(buffer[4:5]), bytes(buffer[5:end]))
        del buffer[:end]
        return packet


def check_answer(packet: Packet) -> None:
    """Raise WireError unless the letter is one that filters send, with a payload that it may have."""
    if packet.letter not in _ANSWERS:
        raise WireError(f"an unknown answer, number {packet.letter[0]}")
    if packet.letter in _EMPTY and packet.payload:
        raise WireError(f"a payload where answer {packet.letter.decode()!r} has none")


def parse_offer(packet: Packet) -> Offer:
    """Read the answer to a negotiation; raises WireError."""
    if packet.letter != NEGOTIATE or len(packet.payload) < _NUMBERS.size:
        raise WireError("no answer to the negotiation")
    version, actions, steps = _NUMBERS.unpack_from(packet.payload)
    return Offer(version, actions, steps, _parse_macro_lists(packet.payload[_NUMBERS.size :]))


def _parse_macro_lists(rest: bytes) -> dict[int, list[bytes]]:
    lists: dict[int, list[bytes]] = {}
    while rest:
        stage_octets, (names, nul, rest) = rest[:4], rest[4:].partition(b"\0")
        if len(stage_octets) < 4 or not nul:
            raise WireError("a list of macros without its end")
        # commas and blanks both part names, as libmilter's own examples do
        lists[_LENGTH.unpack(stage_octets)[0]] = names.replace(b",", b" ").split()
    return lists


def parse_header_change(packet: Packet) -> HeaderChange:
    """Read ADD_HEADER, INSERT_HEADER or CHANGE_HEADER; raises WireError."""
    payload = packet.payload
    position = 0
    if packet.letter != ADD_HEADER:
        if len(payload) < _LENGTH.size:
            raise WireError("a header change without its position")
        (position,) = _LENGTH.unpack_from(payload)
        payload = payload[_LENGTH.size :]
    name, value = _split(payload, 2)
    if not name or not all(33 <= octet <= 126 and octet != 0x3A for octet in name):
        raise WireError("a header field without a proper name")
    return HeaderChange(position, name, value)


def parse_path(packet: Packet) -> Path:
    """Read an address and its arguments; raises WireError."""
    texts = _split(packet.payload, 1 if packet.letter in (ADD_RECIPIENT, DELETE_RECIPIENT) else 2, may_lack_last=True)
    return Path(texts[0], texts[1] if len(texts) > 1 else b"")


def parse_text(packet: Packet) -> bytes:
    """Read one text (of QUARANTINE and REPLY_CODE); raises WireError."""
    return _split(packet.payload, 1)[0]


def _split(payload: bytes, count: int, *, may_lack_last: bool = False) -> list[bytes]:
    if not payload.endswith(b"\0"):
        raise WireError("a text without its end")
    texts = payload[:-1].split(b"\0")
    if len(texts) != count and not (may_lack_last and len(texts) == count - 1):
        raise WireError(f"{len(texts)} texts where {count} belong")
    if any(len(text) > ITEM_BYTES for text in texts):
        raise WireError(f"a text of more than {ITEM_BYTES} octets")
    return texts


def _clean(text: bytes) -> bytes:
    return text.replace(b"\0", b"") if b"\0" in text else text
