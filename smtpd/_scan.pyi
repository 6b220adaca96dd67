"""Paths and header fields of common form. `_parser` hands the functions on; import them from there."""

from typing import final

@final
class PathScan:
    """`scan_path` without a tuple: one object for any number of arguments, what it found is kept until the next `read`."""

    mailbox: bytes
    rest: bytes  # parameters without leading blanks
    def read(self, argument: bytes, is_recipient: bool) -> bool:
        """Return whether the argument has the common form."""
    def domain(self) -> str:
        """Return the domain in lower case; the same object for the same domain twice in a row."""

def scan_path(argument: bytes, is_recipient: bool) -> tuple[bytes, str, bytes] | None:
    """The common form of a MAIL or RCPT argument: b"FROM:<local@domain> PARAMS" / b"TO:<local@domain> PARAMS".

    Returns (mailbox, domain in lower case, parameters without leading blanks) when the local part is an ASCII
    dot-atom of at most 64 octets without "%", "!" and the domain consists of LDH labels (no IDN, no literal, no
    trailing dot, at most 255 octets); (b"", "", parameters) for FROM:<>. None for everything else:
    mail/address.py then parses by the whole grammar and says what is wrong.
    """

def find_header(head: bytes, name: bytes) -> bytes | None:
    """The value of the first header field `name` (lower case, no colon) in the header section at the start of `head`.

    Unfolded (line ends removed), blanks around it stripped, at most 1,000 octets; None when there is none.
    """
