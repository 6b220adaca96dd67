"""Makes octets and texts from outside fit for one line of a log, in every format: printable, no line ends, bounded.

UTF-8 stays readable. Octets that are not UTF-8 become \\xNN, unprintable characters (control, bidi marks, line separators)
their Python escapes. What is cut off is marked by "...".
"""

from __future__ import annotations

from smtpd._text import are_plain, is_plain

ADDRESS_LIMIT = 300  # characters; RFC 5321 4.5.3.1.3 has 256 octets for a path
TEXT_LIMIT = 600
_ADDRESS_LIMIT = ADDRESS_LIMIT  # in a C variable of the module


def clean_bytes(data: bytes, limit: int = ADDRESS_LIMIT) -> str:
    """Return the octets as printable text of at most `limit` characters (and the mark)."""
    if len(data) <= limit and are_plain(data):
        return data.decode("ascii")
    return _escape(data[: 4 * limit].decode("utf-8", "backslashreplace"), limit)


def clean_text(text: str, limit: int = TEXT_LIMIT) -> str:
    """Return the text made printable, of at most `limit` characters (and the mark)."""
    if len(text) <= limit and (is_plain(text) or text.isprintable()):
        return text
    return _escape(text, limit)


def _escape(text: str, limit: int) -> str:
    kept = text[: limit + 1]
    if not kept.isprintable():
        kept = "".join(
            character if character.isprintable() else character.encode("unicode_escape").decode("ascii") for character in kept
        )
    return kept if len(kept) <= limit else kept[:limit] + "..."


def in_brackets(data: bytes) -> str:
    """Return an address for Postfix's `<…>`: brackets inside it can't end it."""
    text = clean_bytes(data, _ADDRESS_LIMIT)
    if "<" in text or ">" in text:
        return text.replace("<", "\\x3c").replace(">", "\\x3e")
    return text
