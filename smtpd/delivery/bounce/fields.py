"""What peers said as fields of a report: nothing of theirs can end a line, start a field or leave ASCII unseen.

Every function returns text or whole lines that are safe as they are, whatever came in: reply texts, addresses, xtext of ENVID
and ORCPT. Pure; never raises. RFC 3461 4 (xtext), RFC 3464 2.2, 2.3 (fields), RFC 6533 3 (addresses in UTF-8).
"""

from __future__ import annotations

import re

from smtpd.log.escape import clean_text
from smtpd.mail.envelope import Recipient
from smtpd.mail.outcome import Outcome

FIELD_LENGTH = 78  # RFC 5322 2.1.1: what a line should have; whole words only
LINE_LENGTH = 900  # well below 998 octets (RFC 5321 4.5.3.1.6)
_TEXT_LENGTH = 1000
_XTEXT = re.compile(rb"\+([0-9A-F]{2})")
_ADDRESS_TYPE = re.compile(rb"[A-Za-z0-9-]{1,40}")
_STATUS = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}")
_RELAY_HOST = re.compile(r"([A-Za-z0-9._-]{1,255})\[")


def fold(name: str, text: str) -> bytes:
    """Return an unstructured field with its CRLF: `text` escaped to printable ASCII, blanks as one, folded between words."""
    words = [word[at : at + LINE_LENGTH] for word in ascii_text(text).split() for at in range(0, len(word), LINE_LENGTH)]
    lines = []
    line = name + ":"
    for number, word in enumerate(words):
        if number and len(line) + 1 + len(word) > FIELD_LENGTH:
            lines.append(line)
            line = ""
        line += " " + word
    lines.append(line)
    return "\r\n".join(lines).encode("ascii") + b"\r\n"


def ascii_text(text: str, limit: int = _TEXT_LENGTH) -> str:
    """Return the text as printable ASCII of at most `limit` characters; all else as backslash escapes."""
    return clean_text(text, limit).encode("ascii", "backslashreplace").decode("ascii")[:limit]


def address_text(path: bytes) -> str:
    """Return a mailbox as printable text, UTF-8 where it is that; octets that are no text as escapes."""
    text = clean_text(path.decode("utf-8", "backslashreplace"), LINE_LENGTH)
    return text.encode()[:LINE_LENGTH].decode("utf-8", "ignore")


def _address_field(name: str, kind: str, address: str) -> bytes:
    return f"{name}: {kind}; {address}\r\n".encode()


def final_recipient(recipient: Recipient) -> bytes:
    """Return the field Final-Recipient; not ASCII if the address isn't (type utf-8, RFC 6533 3)."""
    address = address_text(recipient.path)
    return _address_field("Final-Recipient", "rfc822" if address.isascii() else "utf-8", address)


def original_recipient(recipient: Recipient) -> bytes:
    """Return the field Original-Recipient from ORCPT, or nothing if there is none that can be told."""
    kind, _, xtext = recipient.orcpt.partition(b";")
    if not xtext or _ADDRESS_TYPE.fullmatch(kind) is None:
        return b""
    address = decode_xtext(xtext)
    if not address or (not address.isascii() and kind.lower() != b"utf-8"):
        return b""
    return _address_field("Original-Recipient", kind.decode("ascii"), address)


def decode_xtext(xtext: bytes) -> str:
    """Return what xtext stands for, "" when that is not printable text."""
    try:
        text = _XTEXT.sub(lambda found: bytes((int(found[1], 16),)), xtext).decode("utf-8")
    except UnicodeDecodeError:
        return ""
    return text if text.isprintable() and len(text.encode()) <= LINE_LENGTH else ""


def status_code(outcome: Outcome, classes: str, default: str) -> str:
    """Return the enhanced status code, or `default` if it isn't one or of none of `classes` ("45")."""
    dsn = outcome.dsn
    return dsn if _STATUS.fullmatch(dsn) and dsn[0] in classes else default


def remote_mta(outcome: Outcome) -> bytes:
    """Return the field Remote-MTA, or nothing when no other host gave the answer."""
    found = _RELAY_HOST.match(outcome.relay) if outcome.code else None
    return f"Remote-MTA: dns; {found[1]}\r\n".encode("ascii") if found else b""


def diagnostic(outcome: Outcome) -> bytes:
    """Return the field Diagnostic-Code (RFC 3464 2.3.6), or nothing if nothing was said."""
    if not outcome.text:
        return b""
    if not outcome.code:
        return fold("Diagnostic-Code", f"X-smtpd; {outcome.text}")
    return fold("Diagnostic-Code", "smtp; " + reply_text(outcome))


def reply_text(outcome: Outcome) -> str:
    """Return what a next hop said with code and status code in front, as it stood in its reply."""
    text = outcome.text
    if not outcome.code or text.startswith(str(outcome.code)):
        return text
    is_coded = text.startswith(outcome.dsn) if outcome.dsn else True
    return f"{outcome.code} {text}" if is_coded else f"{outcome.code} {outcome.dsn} {text}"
