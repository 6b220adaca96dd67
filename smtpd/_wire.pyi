"""The next hop's side of the wire: its reply lines in, content out. Reports what it saw; the client session decides.

Both classes depend on the octets alone and never on how these were cut into pieces. A range outside the buffer is a ValueError.
"""

from typing import final

LINE_LIMIT: int  # octets of one reply line with its end (RFC 5321 4.5.3.1.5 has 512)
LINE_COUNT: int  # lines of one reply

@final
class ReplyReader:
    """One connection's replies (RFC 5321 4.2), each of at most `limit_bytes` and LINE_COUNT lines.

    `read` takes octets up to the end of one reply. Then `is_complete`, and `code`, `dsn` and `lines` are those of this reply.
    If not, all input was taken and what is unfinished was kept. A bare LF ends a line as CRLF does; blanks at the end of a line
    are dropped, and a line may end after its code. What is no reply sets `error`: from then on the octets mean nothing any
    more, and `read` takes them all without looking.
    """

    code: int  # 200 to 599
    dsn: str  # enhanced status code (RFC 3463) of the first line where its class is the code's, else ""
    lines: list[bytes]  # text of each line without the code, and without the enhanced status code where it is `dsn`
    is_complete: bool
    has_partial: bool  # an unfinished reply is kept
    error: str  # "", or what is wrong, to be read by people
    def __init__(self, limit_bytes: int = 65536) -> None: ...
    def read(self, data: bytearray, start: int, end: int) -> int:
        """Take octets up to the end of one reply; return the position after the last one taken."""

@final
class BodyEncoder:
    """One transaction's content on its way out. What leaves has no bare CR and no bare LF, and ends in CRLF if it isn't empty.

    A bare LF becomes CRLF and a bare CR a space, as `_parser.BodyDecoder` does it. With `is_stuffing` (DATA) a dot at the
    start of a line is doubled, so the content can't end before the final dot (RFC 5321 4.5.2). The final dot is not added. A CR
    at the end of a piece is held back until the next octet is seen.
    """

    def __init__(self, is_stuffing: bool) -> None: ...
    def feed(self, data: bytes) -> bytes:
        """Return `data` as it leaves: the very same object where nothing has to be changed."""
    def finish(self) -> bytes:
        """What is held back, and CRLF where the content needs one at its end."""
