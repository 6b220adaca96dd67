"""Every reply of the server, by name. Owns the texts; says nothing about when they are sent (`session.py`).

Each reply after EHLO carries an enhanced status code (RFC 2034, RFC 3463); 220, 354 and the EHLO list do not. Texts are ours
and constant but for the functions at the end, whose arguments are octets that were checked to be printable ASCII.
"""

from __future__ import annotations

from smtpd._text import make_line
from smtpd.mail.reply import Reply, make_success

# --- success ---------------------------------------------------------------------------------------------------------
OK = Reply(b"250 2.0.0 Ok")
SENDER_OK = Reply(b"250 2.1.0 Ok")
RECIPIENT_OK = Reply(b"250 2.1.5 Ok")
START_DATA = Reply(b"354 End data with <CR><LF>.<CR><LF>")
START_TLS = Reply(b"220 2.0.0 Ready to start TLS")
GOODBYE = Reply(b"221 2.0.0 Bye", closes=True)
HELP = Reply(b"214 2.0.0 See RFC 5321")
CANNOT_VERIFY = Reply(b"252 2.0.0 Send some mail, I will try my best")

# --- syntax and order ------------------------------------------------------------------------------------------------
UNKNOWN_COMMAND = Reply(b"500 5.5.2 Error: command not recognized")
LINE_TOO_LONG = Reply(b"500 5.5.2 Error: line too long")
BAD_OCTETS = Reply(b"500 5.5.2 Error: NUL, bare CR or control character in command line")
BARE_LF_COMMAND = Reply(b"500 5.5.2 Error: command line must end in CRLF")
BAD_ARGUMENT = Reply(b"501 5.5.4 Syntax error in argument")
NO_ARGUMENT_ALLOWED = Reply(b"501 5.5.4 Syntax error: no argument allowed")
HELO_SYNTAX = Reply(b"501 5.5.4 Syntax: HELO hostname")
EHLO_SYNTAX = Reply(b"501 5.5.4 Syntax: EHLO hostname")
LHLO_SYNTAX = Reply(b"501 5.5.4 Syntax: LHLO hostname")
MAIL_SYNTAX = Reply(b"501 5.5.4 Syntax: MAIL FROM:<address> [parameters]")
RCPT_SYNTAX = Reply(b"501 5.5.4 Syntax: RCPT TO:<address> [parameters]")
NOT_IMPLEMENTED = Reply(b"502 5.5.1 Error: command not implemented")
BAD_SEQUENCE = Reply(b"503 5.5.1 Error: bad sequence of commands")
HELO_FIRST = Reply(b"503 5.5.1 Error: send HELO/EHLO first")
LHLO_FIRST = Reply(b"503 5.5.1 Error: send LHLO first")
MAIL_FIRST = Reply(b"503 5.5.1 Error: need MAIL command")
NESTED_MAIL = Reply(b"503 5.5.1 Error: nested MAIL command")
NO_VALID_RECIPIENTS = Reply(b"554 5.5.1 Error: no valid recipients")
NO_VALID_RECIPIENTS_LMTP = Reply(b"503 5.5.1 Error: no valid recipients")
USE_LHLO = Reply(b"500 5.5.2 Error: this is LMTP, use LHLO")
USE_EHLO = Reply(b"500 5.5.2 Error: this is not LMTP, use EHLO")
TLS_FIRST = Reply(b"530 5.7.0 Must issue a STARTTLS command first")
TLS_ACTIVE = Reply(b"503 5.5.1 Error: TLS is active already")
TLS_NOT_AVAILABLE = Reply(b"454 4.7.0 TLS not available")
XCLIENT_REFUSED = Reply(b"550 5.7.0 Error: XCLIENT is not for you")
BAD_CHUNK_SIZE = Reply(b"521 5.5.4 Syntax: BDAT size [LAST]", closes=True)
FORBIDDEN_COMMAND = Reply(b"521 5.7.0 Error: this is an SMTP server", closes=True)
PIPELINING_REFUSED = Reply(b"554 5.5.0 Error: commands sent before the reply that they depend on", closes=True)

# --- addresses and parameters ----------------------------------------------------------------------------------------
NEEDS_SMTPUTF8 = Reply(b"553 5.6.7 Address is not ASCII: SMTPUTF8 required")
UNSUPPORTED_PARAMETER = Reply(b"555 5.5.4 Unsupported parameter")
TOO_MANY_RECIPIENTS = Reply(b"452 4.5.3 Error: too many recipients")
TOO_MANY_MAILS = Reply(b"452 4.5.3 Error: too many mails in this session")

# --- policy ----------------------------------------------------------------------------------------------------------
RELAY_DENIED = Reply(b"550 5.7.1 Relay access denied")
UNTRUSTED_ROUTING = Reply(b"550 5.7.1 Address routing in the local part is not accepted here")
NO_ROUTE = Reply(b"550 5.4.4 No route for this domain")

MAIL_RATE_EXCEEDED = Reply(b"450 4.7.1 Error: too much mail from your address")
RECIPIENT_RATE_EXCEEDED = Reply(b"450 4.7.1 Error: too many recipients from your address")
UNKNOWN_CLIENT = Reply(b"451 4.3.0 Error: the front end did not say who you are")

# --- content and custody ---------------------------------------------------------------------------------------------
TOO_BIG = Reply(b"552 5.3.4 Message size exceeds limit")
TOO_BIG_CLOSING = Reply(b"552 5.3.4 Chunk size far over the limit", closes=True)
HEADER_TOO_BIG = Reply(b"552 5.3.4 Message header too large")
TOO_MANY_HOPS = Reply(b"554 5.4.6 Too many hops: mail loop?")
TEXT_LINE_TOO_LONG = Reply(b"554 5.6.0 Text line too long")
BARE_NEWLINE = Reply(b"550 5.5.2 Content has a bare CR or LF")
SPOOL_FULL = Reply(b"452 4.3.1 Insufficient system storage")
SPOOL_FAILED = Reply(b"451 4.3.0 Error: queue file write error")
QUEUE_FULL = Reply(b"451 4.3.0 Error: too much mail waits for this domain already")
END_OF_DATA_TIMEOUT = Reply(b"451 4.3.0 Error: processing takes too long")

_QUEUED = b"250 2.0.0 Ok: queued as "

# --- ends of the connection ------------------------------------------------------------------------------------------
HOST_BUSY = Reply(b"421 4.3.2 All server ports are busy", closes=True)
OVERLOADED = Reply(b"421 4.3.2 Error: system overloaded, try again later", closes=True)
TOO_MANY_CONNECTIONS = Reply(b"421 4.7.0 Error: too many connections from your address", closes=True)
TIMEOUT = Reply(b"421 4.4.2 Error: timeout exceeded", closes=True)
SHUTTING_DOWN = Reply(b"421 4.3.2 Service shutting down", closes=True)
TOO_MANY_ERRORS = Reply(b"421 4.7.0 Error: too many errors", closes=True)
TOO_MUCH_JUNK = Reply(b"421 4.7.0 Error: too many commands without a mail", closes=True)


def queued(queue_id: str) -> Reply:
    """The promise: custody is durable."""
    return make_success(250, make_line(_QUEUED, queue_id))


def queued_for(queue_id: str, mailbox: bytes) -> Reply:
    """The same for one recipient (LMTP, RFC 2033)."""
    return Reply(b"250 2.1.5 <" + mailbox + b"> Ok: queued as " + queue_id.encode())


def chunk_taken(size_bytes: int) -> Reply:
    """A BDAT chunk that is not the last (RFC 3030)."""
    return Reply(b"250 2.0.0 Ok: %d octets received" % size_bytes)


def bad_attribute(why: str) -> Reply:
    """Of XCLIENT."""
    return Reply(b"501 5.5.4 Bad XCLIENT attribute: " + why.encode("ascii"))


def bad_reverse_path(why: str) -> Reply:
    return Reply(b"501 5.1.7 Bad sender address syntax: " + why.encode("ascii", "replace"))


def bad_forward_path(why: str) -> Reply:
    return Reply(b"553 5.1.3 Bad recipient address syntax: " + why.encode("ascii", "replace"))
