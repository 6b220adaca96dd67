"""Short texts that are made anew for each mail, each in one piece."""

def join_number(value: int, digits: int, tail: str) -> str:
    """Return `value` in base 52 (the alphabet of `mail.queue_id`), so many digits wide, and `tail` behind it.

    ValueError: negative, or a tail that is not ASCII. OverflowError: it does not fit.
    """

def is_plain(text: str) -> bool:
    """Whether all of it is ASCII that prints, the blank included."""

def are_plain(octets: bytes) -> bool:
    """The same of octets."""

def make_line(head: bytes, text: str) -> bytes:
    """Return head, text and CRLF. ValueError: the text is not ASCII."""

def join_pieces(pieces: tuple[bytes, ...]) -> bytes:
    """The same as b"".join. TypeError: a piece is not bytes."""
