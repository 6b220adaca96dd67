"""Names of mailboxes: <domain>/<user> as folder names that no local part and no domain can bend. Pure, no file is touched.

What stays as it is: a-z 0-9 and - _ . + = ~ (but not a dot or dash in front). Every other octet becomes %XX (two upper-case hex
digits), so "../x" is "%2E.%2Fx", "é" is "%C3%A9". Upper case would be escaped too, so that folders differ on file systems that
fold case; `mailbox_of` folds it before. The empty name is "%empty". A name whose escaped form is longer than 200 octets is
cut: every piece but the last ends in a lone "%" and holds the next one as a folder. All of it can be undone: `unescape_name`.

A local part is compared as it was meant: quotes and backslashes are taken off first (RFC 5321 4.1.2: "a\\b"@d is ab@d).
"""

from __future__ import annotations

from smtpd.mail.envelope import Recipient

PIECE_OCTETS = 200  # NAME_MAX is 255; this leaves room for what tools add to a folder's name
_EMPTY = "%empty"
_SAFE = b"abcdefghijklmnopqrstuvwxyz0123456789-_.+=~"
_ESCAPES = [chr(octet) if octet in _SAFE else f"%{octet:02X}" for octet in range(256)]
_UNSAFE_AT_START = b".-"


def escape_name(name: bytes) -> tuple[str, ...]:
    """Return the folder names, one in the other, of a user or domain; one of them unless it is very long."""
    if not name:
        return (_EMPTY,)
    if name.translate(None, _SAFE) or name[0] in _UNSAFE_AT_START or len(name) > PIECE_OCTETS:
        return _escape_unusual(name)
    return (name.decode("ascii"),)


def _escape_unusual(name: bytes) -> tuple[str, ...]:
    first = f"%{name[0]:02X}" if name[0] in _UNSAFE_AT_START else _ESCAPES[name[0]]
    pieces: list[str] = []
    piece = first
    for octet in name[1:]:
        text = _ESCAPES[octet]
        if len(piece) + len(text) > PIECE_OCTETS:
            pieces.append(piece + "%")
            piece = f"%{octet:02X}" if octet in _UNSAFE_AT_START else text
        else:
            piece += text
    pieces.append(piece)
    return tuple(pieces)


def unescape_name(pieces: tuple[str, ...]) -> bytes:
    """Return the name of `escape_name`; ValueError for what it never makes."""
    if pieces == (_EMPTY,):
        return b""
    text = ""
    for number, piece in enumerate(pieces):
        is_last = number == len(pieces) - 1
        if is_last == piece.endswith("%"):
            raise ValueError(f"not a mailbox name: {pieces!r}")
        text += piece if is_last else piece[:-1]
    name = bytearray()
    at = 0
    while at < len(text):
        if text[at] == "%":
            digits = text[at + 1 : at + 3]
            if len(digits) < 2 or digits.strip("0123456789ABCDEF"):
                raise ValueError(f"not a mailbox name: {pieces!r}")
            name.append(int(digits, 16))
            at += 3
        else:
            name += text[at].encode("ascii")
            at += 1
    if escape_name(bytes(name)) != pieces:
        raise ValueError(f"not a mailbox name: {pieces!r}")
    return bytes(name)


def local_part(path: bytes) -> bytes:
    """Return the local part of a forward-path, unquoted: b'"a b"@example.org' gives b"a b"."""
    local = path.rpartition(b"@")[0] or path
    if len(local) >= 2 and local[0] == local[-1] == 0x22:
        inner = local[1:-1]
        if b"\\" not in inner:
            return inner
        out = bytearray()
        is_escaped = False
        for octet in inner:
            if octet == 0x5C and not is_escaped:
                is_escaped = True
            else:
                out.append(octet)
                is_escaped = False
        return bytes(out)
    return local


def mailbox_of(recipient: Recipient) -> tuple[str, ...]:
    """Return the folders below the root that lead to a recipient's mailbox: domain first, then user.

    ASCII letters of the local part are folded to lower case: RFC 5321 2.4 lets the final system decide, and here, as with
    Postfix's virtual(8) and Dovecot, Alice and alice are one user.
    """
    return escape_name(recipient.domain.encode("utf-8", "surrogateescape")) + escape_name(local_part(recipient.path).lower())
