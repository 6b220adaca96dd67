"""What a client session waits for, one small number for each reply that is due, and which timeout applies meanwhile."""

from __future__ import annotations

GREETING = 0
HELLO = 1  # EHLO or LHLO
HELO = 2
STARTTLS = 3
MAIL = 4
RCPT = 5
DATA = 6
END = 7  # of the content, by DATA or BDAT
LONE_DOT = 8  # the end of content that is for nobody
RSET = 9
QUIT = 10
CONTENT = 11  # no reply: pieces of a mail are being given
XCLIENT = 12

TIMEOUT_KINDS = (
    "greeting", "hello", "hello", "tls", "mail", "recipient", "data", "end_of_data", "end_of_data", "quit", "quit", "block",
    "hello",
)  # fmt: skip
"""Names of `*_timeout` in DeliverySettings, by what is awaited."""
