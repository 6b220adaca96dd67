"""XCLIENT: a listed front end says for whom it speaks, and the session begins anew with that client.

Owns the grammar of the command and of its attributes, and what of them outlives it (`Introduction`). Never asks the limits and
knows no listed networks: `rules.offers_xclient` says whether the peer may, the driver lets the new client in (ev.CLIENT). Values
are xtext (RFC 3461 4); what they decode to is checked as if it had come in the clear. Source: XCLIENT_README of Postfix.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable

from smtpd._parser import CommandReader
from smtpd.mail.reply import Reply
from smtpd.proto import events as ev
from smtpd.proto import replies
from smtpd.proto.dialogue import Dialogue, Peer
from smtpd.proto.events import Event
from smtpd.proto.states import PAUSED_CLIENT

UNAVAILABLE, FAILING = "[UNAVAILABLE]", "[TEMPUNAVAIL]"
UNKNOWN = "unknown"
_NAME_LENGTH = 255
_LOGIN_LENGTH = 255
_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*")
_NUMERIC = re.compile(r"[0-9.]+")
_XTEXT = re.compile(rb"(?:[!-*,-<>-~]|\+[0-9A-Fa-f]{2})+")
_ENCODED = re.compile(rb"\+([0-9A-Fa-f]{2})")
_PROTOCOLS = ("SMTP", "ESMTP", "LMTP")


class XclientError(ValueError):
    """An attribute that is none; `text` is ours, without any octet of the peer."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class Introduction:
    """What a front end has said beside address, port and name; "" and 0 for what it has not.

    `helo` and `protocol` ("SMTP", "ESMTP", "LMTP") stand for what the front end itself says after EHLO. `login` is the user
    that it has let in; nothing follows from it here. `is_name_failing`: the client's name could not be looked up for now.
    """

    __slots__ = ("destination_address", "destination_port", "helo", "is_name_failing", "is_named", "login", "protocol")

    def __init__(self) -> None:
        self.helo = b""
        self.protocol = ""
        self.login = ""
        self.destination_address = ""
        self.destination_port = 0
        self.is_named = False  # NAME has come, be it only to say that there is none: nobody else needs to look
        self.is_name_failing = False

    def copy(self) -> Introduction:
        other = Introduction()
        for name in self.__slots__:
            setattr(other, name, getattr(self, name))
        return other


class _Draft:
    """The client as it stands after the attributes read so far: what is not named stays as it was."""

    def __init__(self, peer: Peer) -> None:
        self.address, self.port, self.name = peer.address, peer.port, peer.name
        self.facts = Introduction() if peer.introduction is None else peer.introduction.copy()

    def set_name(self, text: str) -> None:
        is_known = text not in (UNAVAILABLE, FAILING)
        if is_known and (len(text) > _NAME_LENGTH or not _HOST_NAME.fullmatch(text) or _NUMERIC.fullmatch(text)):
            raise XclientError("NAME is no host name")
        self.name = text if is_known else UNKNOWN
        self.facts.is_named = True
        self.facts.is_name_failing = text == FAILING

    def set_address(self, text: str) -> None:
        self.address = _address(text, "ADDR")

    def set_port(self, text: str) -> None:
        self.port = _port(text, "PORT")

    def set_protocol(self, text: str) -> None:
        word = text.upper()
        if word != UNAVAILABLE and word not in _PROTOCOLS:
            raise XclientError("PROTO is neither SMTP nor ESMTP")
        self.facts.protocol = "" if word == UNAVAILABLE else word

    def set_helo(self, text: str) -> None:
        if text == UNAVAILABLE:
            self.facts.helo = b""
            return
        if len(text) > _NAME_LENGTH or not text.isascii():
            raise XclientError("HELO is no name")
        self.facts.helo = text.encode()

    def set_login(self, text: str) -> None:
        if len(text) > _LOGIN_LENGTH:
            raise XclientError("LOGIN is too long")
        self.facts.login = "" if text == UNAVAILABLE else text

    def set_destination_address(self, text: str) -> None:
        self.facts.destination_address = _address(text, "DESTADDR")

    def set_destination_port(self, text: str) -> None:
        self.facts.destination_port = _port(text, "DESTPORT")


_SETTERS: dict[bytes, Callable[[_Draft, str], None]] = {
    b"NAME": _Draft.set_name,
    b"ADDR": _Draft.set_address,
    b"PORT": _Draft.set_port,
    b"PROTO": _Draft.set_protocol,
    b"HELO": _Draft.set_helo,
    b"LOGIN": _Draft.set_login,
    b"DESTADDR": _Draft.set_destination_address,
    b"DESTPORT": _Draft.set_destination_port,
}


def on_xclient(session: Dialogue, reader: CommandReader) -> Reply | None:
    """Ask the driver to let in the client that is named; it answers by `Session.begin_client`."""
    if not session.rules.offers_xclient:
        return replies.XCLIENT_REFUSED
    try:
        peer = read_client(reader.argument, session.peer)
    except XclientError as error:
        return replies.bad_attribute(error.text)
    session.token += 1
    session.paused = PAUSED_CLIENT
    session.events.append(Event(ev.CLIENT, peer, session.token))
    return None


def read_client(argument: bytes, before: Peer) -> Peer:
    """Return the client that the attributes make of the one before; raises XclientError."""
    words = argument.split()
    if not words:
        raise XclientError("attribute=value expected")
    draft = _Draft(before)
    is_named = False
    for word in words:
        key, separator, value = word.partition(b"=")
        setter = _SETTERS.get(key.upper())
        if not separator:
            raise XclientError("attribute=value expected")
        if setter is None:
            raise XclientError("unknown name")
        setter(draft, _decode(value))
        is_named = is_named or setter is _Draft.set_name
    if draft.address != before.address and not is_named:  # the name was the other one's
        draft.name, draft.facts.is_named, draft.facts.is_name_failing = UNKNOWN, False, False
    peer = Peer(draft.address, draft.port, draft.name)
    peer.introduction = draft.facts
    return peer


def apply_introduction(session: Dialogue) -> None:
    """After HELO: the client's own words count, not those of the front end that speaks for it."""
    facts = session.peer.introduction
    if facts is not None:
        session.helo = facts.helo or session.helo
        if facts.protocol:
            session.is_extended = facts.protocol != "SMTP"


def _decode(value: bytes) -> str:
    """Return what an xtext says; the two words for what is not known in upper case."""
    if _XTEXT.fullmatch(value) is None:
        raise XclientError("a value that is no xtext")
    octets = _ENCODED.sub(lambda match: bytes.fromhex(match[1].decode()), value)
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        raise XclientError("a value that is no text") from None
    if not text.isprintable():
        raise XclientError("a value with control characters")
    return text.upper() if text.upper() in (UNAVAILABLE, FAILING) else text


def _address(text: str, key: str) -> str:
    """Return an address in its shortest form, mapped IPv4 as IPv4; "" when it is not known."""
    if text == UNAVAILABLE:
        return ""
    has_prefix = text[:5].upper() == "IPV6:"
    try:
        found = ipaddress.IPv6Address(text[5:]) if has_prefix else ipaddress.ip_address(text)
    except ValueError:
        raise XclientError(f"{key} is no address") from None
    if isinstance(found, ipaddress.IPv6Address):
        if found.scope_id is not None:
            raise XclientError(f"{key} is no address")
        return str(found.ipv4_mapped or found)
    return str(found)


def _port(text: str, key: str) -> int:
    if text == UNAVAILABLE:
        return 0
    if not (text.isascii() and text.isdigit()) or len(text) > 5 or int(text) > 65535:
        raise XclientError(f"{key} is no port")
    return int(text)
