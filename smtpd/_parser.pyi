"""Bytes from the network to commands and bodies. Reports what it saw (bare LF, NUL, too long); policy decides elsewhere.

Every scanner reads `data[start:end]` of a bytearray in place, never looks at a byte twice, and copies only what has to
outlive the call. Any split of the input gives the same results (tests/fuzz, tests/oracle). A range outside the buffer is a
ValueError.
"""

from typing import final

from smtpd._scan import find_header as find_header
from smtpd._scan import scan_path as scan_path

# Verbs, as `CommandReader.verb`. Matching is case-insensitive and whole-word. OTHER is a word that is no known verb;
# FORBIDDEN is one that only another protocol would send (GET, POST, PUT, HEAD, OPTIONS, DELETE, CONNECT, TRACE, PATCH, PRI,
# "User-Agent:"-like header words ending in ":", and a TLS handshake: 0x16 0x03 where a line begins; that has no line end to wait
# for, so it is complete, without flags, after these two octets).
VERB_NONE: int  # an empty line
VERB_OTHER: int
VERB_FORBIDDEN: int
VERB_HELO: int
VERB_EHLO: int
VERB_LHLO: int
VERB_MAIL: int
VERB_RCPT: int
VERB_DATA: int
VERB_BDAT: int
VERB_RSET: int
VERB_NOOP: int
VERB_VRFY: int
VERB_EXPN: int
VERB_HELP: int
VERB_QUIT: int
VERB_STARTTLS: int
VERB_AUTH: int
VERB_XCLIENT: int
VERB_ETRN: int
VERB_COUNT: int
VERB_NAMES: tuple[str, ...]  # lower case, by code; "other" for NONE, OTHER and FORBIDDEN

LINE_BARE_LF: int  # the line was ended by LF without CR
LINE_BARE_CR: int  # a CR that LF does not follow is inside
LINE_NUL: int
LINE_CONTROL: int  # another control octet (0x01-0x1f except TAB, or 0x7f)
LINE_8BIT: int  # an octet >= 0x80
LINE_TOO_LONG: int  # over the limit: verb, argument and the other flags are of its first `limit` octets, the rest was skipped

@final
class CommandReader:
    """One connection's command lines. `limit` counts octets with the line end (RFC 5321 4.5.3.1.4: 512; we take 2,048).

    After `read` returned, `is_complete` says whether a command is in `verb`, `argument`, `flags`; if not, all of
    the input was taken, and the partial line is kept as an owned copy of at most `limit` octets. Blanks (space, tab)
    around the line and between verb and argument are dropped.
    """

    verb: int
    argument: bytes  # what follows the verb, without the blanks around it; b"" when nothing does
    word: bytes  # the verb as sent, at most 32 octets of it; b"" unless OTHER or FORBIDDEN
    flags: int
    is_complete: bool
    has_partial: bool  # octets of an unfinished line are kept
    def __init__(self, limit: int = 2048) -> None: ...
    def read(self, data: bytearray, start: int, end: int) -> int:
        """Take octets up to the end of one line; return the position after the last one taken."""

@final
class BodyDecoder:
    """One transaction's content: DATA (dot-unstuffing, ends only at CRLF.CRLF) or BDAT chunks (ends by count).

    Bare LF becomes CRLF and bare CR a space, in both, counted; neither ever ends DATA. After a bare LF no dot is
    taken off, and a line of one dot there is content. In DATA a dot after CRLF is taken off unless CRLF follows it.
    A CR at the end of the input is held back until the next octet is seen, and a dot after CRLF likewise. BDAT
    content that does not end in CRLF gets one at `finish`. Counters cover the whole transaction; sizes are octets
    after decoding, without what is held back.
    """

    is_done: bool  # DATA: the end was seen; BDAT: the current chunk is complete
    is_keeping: bool  # False: count and find the end, but return b"" (draining over a limit, or a body that nobody wants)
    chunk: bytes  # decoded octets of the last `take`
    size_bytes: int
    raw_bytes: int  # octets taken from the wire
    bare_lf_count: int
    bare_cr_count: int
    nul_count: int
    long_line_count: int  # text lines over 998 octets (RFC 5321 4.5.3.1.6)
    longest_line_bytes: int  # without CRLF
    received_count: int  # header fields named Received, any case, blanks before the colon allowed
    header_bytes: int  # size of the header section so far, or whole when is_in_header is False; without the empty line
    is_in_header: bool  # no empty line yet
    has_8bit: bool
    def start_data(self) -> None:
        """Content by DATA follows; `is_done` becomes False."""
    def start_chunk(self, size_bytes: int) -> None:
        """A BDAT chunk of so many octets follows (0 is complete at once); line and header state go on over chunks. ValueError
        for a negative size.
        """
    def take(self, data: bytearray, start: int, end: int) -> int:
        """Return the position after the last octet taken; `chunk` has the decoded octets. Takes nothing after the end."""
    def feed(self, data: bytearray, start: int, end: int) -> tuple[int, bytes]:
        """The same, with the decoded octets of this call."""
    def finish(self) -> bytes:
        """After the last BDAT chunk: what is held back, and CRLF if the content is not empty and does not end in it."""
