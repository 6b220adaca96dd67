"""Paths of MAIL and RCPT by the whole grammar of RFC 5321 4.1.2, 4.1.3 and RFC 6531 3.3, and domains in one form.

`smtpd._parser.scan_path` takes the common case; what it does not know comes here, and what is wrong is said in plain words.
Taken although the grammar has it not, as Postfix does: blanks after the colon, missing angle brackets, a dot at the end of a
domain, "_" in a domain, local parts over 64 octets (RFC 5321 4.5.3.1.1 says what must be taken, not what must be refused).
Refused: comments, control octets, and direction controls in UTF-8 local parts. Time is linear in the input.
Raises AddressError. Octets of the peer never get into its text, apart from single printable ASCII characters.
"""

from __future__ import annotations

import re
import unicodedata
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import NamedTuple

LOCAL_PART_BYTES = 256  # of a path, RFC 5321 4.5.3.1.3
DOMAIN_LENGTH = 255  # RFC 5321 4.5.3.1.2
LABEL_LENGTH = 63  # RFC 1035 2.3.4

_DOT_STRING = re.compile(rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\xff-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\xff-]+)*")
_QUOTED_STRING = re.compile(rb'"(?:[ !#-\[\]-~\x80-\xff]|\\[ -~])*"')
_QUOTED_PAIR = re.compile(rb"\\(.)")
_SOURCE_ROUTE = re.compile(rb"@[A-Za-z0-9._\x80-\xff-]+(?:,@[A-Za-z0-9._\x80-\xff-]+)*:")
_DOMAIN = re.compile(rb"\[[^\]]*\]|[A-Za-z0-9._\x80-\xff-]+")
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?")
_BLANKS = b" \t"
_UNTRUSTED = re.compile(rb"[%!@]")
_DIRECTION_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class AddressError(ValueError):
    """`kind` is "keyword" (FROM: or TO: is missing), "utf8" (not ASCII without SMTPUTF8: 553 5.6.7) or "syntax"; `text` is
    printable ASCII and says what is wrong.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind
        self.text = text


class ParsedPath(NamedTuple):
    """A path without its source route.

    `mailbox` is what was sent, without angle brackets and without a dot at the end of the domain; b"" for the null reverse-path.
    `local` is the local part as it is compared: quotes and quoted pairs undone, NFC. `domain` is as `normal_domain` makes it, ""
    for the null reverse-path and for postmaster alone. `rest` are the parameters, without the blanks before them.
    """

    mailbox: bytes
    local: bytes
    domain: str
    rest: bytes
    has_source_route: bool


def parse_path(argument: bytes, keyword: bytes, smtputf8: bool) -> ParsedPath:
    """Parse what follows MAIL or RCPT: `keyword` b"FROM" or b"TO", a colon, the path, perhaps parameters."""
    head = len(keyword) + 1
    if argument[:head].upper() != keyword + b":":
        raise AddressError("keyword", f"{keyword.decode()}: is missing")
    path = argument[head:].lstrip(_BLANKS)
    if not path:
        raise AddressError("syntax", "address is missing")
    is_bracketed = path.startswith(b"<")
    if is_bracketed and b">" not in path:
        raise AddressError("syntax", "unbalanced '<'")
    if path.startswith(b"<>"):
        if keyword != b"FROM":
            raise AddressError("syntax", "address is empty")
        return ParsedPath(b"", b"", "", _end_path(path, 1, is_bracketed), False)
    start = _skip_source_route(path, int(is_bracketed))
    has_source_route = start > int(is_bracketed)
    local_end = _skip_local_part(path, start, is_bracketed)
    local = path[start:local_end]
    if path[local_end : local_end + 1] != b"@":
        rest = _end_path(path, local_end, is_bracketed)
        if keyword != b"TO" or local.lower() != b"postmaster":
            raise AddressError("syntax", "domain is missing")
        return ParsedPath(local, local, "", rest, has_source_route)
    match = _DOMAIN.match(path, local_end + 1)
    if match is None:
        raise AddressError("syntax", _explain(path, local_end + 1, is_bracketed, "domain"))
    rest = _end_path(path, match.end(), is_bracketed)
    mailbox = path[start : match.end()].removesuffix(b".")
    if not mailbox.isascii() and not smtputf8:
        raise AddressError("utf8", "address is not ASCII")
    domain = normal_domain(_decode(match[0]))
    return ParsedPath(mailbox, _normal_local(local), domain, rest, has_source_route)


def normal_domain(text: str) -> str:
    """Return a domain in the form in which domains are compared: A-labels in lower case, no dot at the end.

    An address literal becomes "[192.0.2.1]" or "[ipv6:2001:db8::1]", in the shortest form of RFC 5952.
    """
    if text.startswith("["):
        return _normal_literal(text)
    text = text.removesuffix(".")
    if not text.isascii():
        text = _to_a_labels(text)
    if len(text) > DOMAIN_LENGTH:
        raise AddressError("syntax", f"domain is longer than {DOMAIN_LENGTH} characters")
    for label in text.split("."):
        if not label:
            raise AddressError("syntax", "domain is empty or has an empty label")
        if len(label) > LABEL_LENGTH:
            raise AddressError("syntax", f"a label of the domain is longer than {LABEL_LENGTH} characters")
        if _LABEL.fullmatch(label) is None:
            raise AddressError("syntax", "a label of the domain starts or ends with '-', or has a character that no domain has")
    return text.lower()


def has_untrusted_routing(local: bytes) -> bool:
    """Whether a local part (as in `ParsedPath.local`) could be read as a route by the store behind us: "%", "!" or "@" inside."""
    return _UNTRUSTED.search(local) is not None


def _skip_source_route(path: bytes, start: int) -> int:
    """Return the position after "@one,@two:" (RFC 5321 4.1.2: to be taken and ignored)."""
    if path[start : start + 1] != b"@":
        return start
    match = _SOURCE_ROUTE.match(path, start)
    if match is None:
        raise AddressError("syntax", "local part is missing, or the source route has no ':'")
    return match.end()


def _skip_local_part(path: bytes, start: int, is_bracketed: bool) -> int:
    """Return the position after the local part."""
    is_quoted = path[start : start + 1] == b'"'
    match = (_QUOTED_STRING if is_quoted else _DOT_STRING).match(path, start)
    if match is None:
        if is_quoted:
            raise AddressError("syntax", "quoted local part does not end, or has a control character")
        raise AddressError("syntax", _explain(path, start, is_bracketed, "local part"))
    end = match.end()
    if end - start > LOCAL_PART_BYTES:
        raise AddressError("syntax", f"local part is longer than {LOCAL_PART_BYTES} octets")
    if path[end : end + 1] not in (b"@", b">", b" ", b"\t", b""):
        raise AddressError("syntax", _explain(path, end, is_bracketed, "local part"))
    return end


def _end_path(path: bytes, end: int, is_bracketed: bool) -> bytes:
    """Check that the path ends at `end`; return what follows it."""
    if is_bracketed:
        if path[end : end + 1] != b">":
            raise AddressError("syntax", _explain(path, end, is_bracketed, "domain"))
        end += 1
        if path[end : end + 1] == b">":
            raise AddressError("syntax", "unbalanced '>'")
    rest = path[end:]
    if rest and rest[0] not in _BLANKS:
        raise AddressError("syntax", "something follows '>'" if is_bracketed else _explain(path, end, is_bracketed, "domain"))
    return rest.lstrip(_BLANKS)


def _explain(path: bytes, position: int, is_bracketed: bool, part: str) -> str:
    """Say why the octet at `position` can't be there."""
    octet = path[position : position + 1]
    if octet == b">":
        return f"{part} is missing" if is_bracketed else "unbalanced '>'"
    if octet == b"<":
        return "unbalanced '<'" if path.count(b"<") > path.count(b">") else "'<' inside the address"
    if octet in (b"(", b")"):
        return "comments are not accepted"
    if octet == b".":
        return f"{part} has a '.' at its start or end, or two in a row"
    if octet in (b" ", b"\t"):
        return "blank inside the address"
    if not octet:
        return "unbalanced '<'" if is_bracketed else f"{part} is missing"
    if octet == b"[" and part == "domain":
        return "unbalanced '['"
    if octet < b" " or octet >= b"\x7f":
        return f"control character in the {part}" if octet.isascii() else f"8-bit character after the {part}"
    return f"'{octet.decode()}' is not allowed in the {part}"


def _decode(octets: bytes) -> str:
    """Strict UTF-8: neither overlong forms nor surrogates."""
    try:
        return octets.decode()
    except UnicodeDecodeError:
        raise AddressError("syntax", "invalid UTF-8") from None


def _normal_local(local: bytes) -> bytes:
    if local.startswith(b'"'):
        local = _QUOTED_PAIR.sub(rb"\1", local[1:-1])
    if local.isascii():
        return local
    text = unicodedata.normalize("NFC", _decode(local))
    for character in text:
        if unicodedata.category(character) in ("Cc", "Zl", "Zp") or character in _DIRECTION_CONTROLS:
            raise AddressError("syntax", "control character in the local part")
    return text.encode()


def _to_a_labels(text: str) -> str:
    import idna  # a large table, and most gateways never see such a domain

    if len(text) > DOMAIN_LENGTH:
        raise AddressError("syntax", f"domain is longer than {DOMAIN_LENGTH} characters")
    try:
        return idna.encode(text, uts46=True).decode("ascii").removesuffix(".")
    except idna.IDNAError:
        raise AddressError("syntax", "not a valid internationalized domain name (RFC 5891)") from None


def _normal_literal(text: str) -> str:
    """RFC 5321 4.1.3. Other tags than IPv6 are registered for nobody."""
    content = text[1:-1]
    try:
        if not text.endswith("]"):
            raise AddressValueError
        if content[:5].lower() == "ipv6:" and "%" not in content:
            return f"[ipv6:{IPv6Address(content[5:])}]"
        return f"[{IPv4Address(content)}]"
    except AddressValueError:
        raise AddressError("syntax", "not a valid address literal, as [192.0.2.1] or [IPv6:2001:db8::1]") from None
