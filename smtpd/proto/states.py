"""The session's states and which command is answered in which: state as data.

A session is CONNECTED until HELO, EHLO or LHLO; then GREETED between transactions, MAIL after a reverse-path, RCPT with at
least one forward-path, CHUNKS between BDAT chunks, CONTENT while octets of a body are read (no command lines at all), and CLOSED.

    CONNECTED --HELO/EHLO--> GREETED --MAIL--> MAIL --RCPT--> RCPT --DATA--> CONTENT --CRLF.CRLF--> GREETED
                               ^                  (RSET, HELO, EHLO lead back)   \\--BDAT--> CONTENT <--> CHUNKS --LAST--> GREETED

ALLOWED holds the order rules of RFC 5321 4.1.4 and RFC 3030: a verb that is not listed for a state gets the reply of REFUSALS,
else 503. What a command does in a state where it is allowed is `session.py`'s.
"""

from __future__ import annotations

from smtpd import _parser as p
from smtpd.mail.reply import Reply
from smtpd.proto import replies

CONNECTED = 0
GREETED = 1
MAIL = 2
RCPT = 3
CHUNKS = 4
CONTENT = 5
CLOSED = 6
REFUSED = 7  # the greeting was 554: QUIT, and nothing else (RFC 5321 3.1)

# Why a session waits for `resume`.
PAUSED_NOT = 0
PAUSED_MAIL = 1
PAUSED_RCPT = 2
PAUSED_BODY = 3
PAUSED_DELAY = 4
PAUSED_STEP = 5  # a step of the conduct has to wait before it is taken
PAUSED_HOLD = 6  # the step was taken; what the peer sends is not read yet
PAUSED_POLICY = 7  # a check has to ask, at connect, helo, data or body

STATE_NAMES = ("CONNECT", "HELO", "MAIL", "RCPT", "BDAT", "DATA", "CLOSED", "CONNECT")

_ALWAYS = frozenset(
    {
        p.VERB_HELO, p.VERB_EHLO, p.VERB_LHLO, p.VERB_RSET, p.VERB_NOOP, p.VERB_VRFY, p.VERB_EXPN, p.VERB_HELP, p.VERB_QUIT,
        p.VERB_STARTTLS, p.VERB_XCLIENT, p.VERB_AUTH, p.VERB_ETRN, p.VERB_NONE, p.VERB_OTHER, p.VERB_FORBIDDEN,
        p.VERB_BDAT,  # its chunk has to be swallowed even where it is refused, or framing is lost
    }
)  # fmt: skip

ALLOWED: dict[int, frozenset[int]] = {
    CONNECTED: _ALWAYS,
    GREETED: _ALWAYS | {p.VERB_MAIL},
    MAIL: _ALWAYS | {p.VERB_RCPT},
    RCPT: _ALWAYS | {p.VERB_RCPT, p.VERB_DATA},
    CHUNKS: _ALWAYS,
    CONTENT: frozenset(),
    CLOSED: frozenset(),
    REFUSED: frozenset({p.VERB_QUIT, p.VERB_BDAT, p.VERB_FORBIDDEN}),
}

REFUSALS: dict[tuple[int, int], Reply] = {
    (CONNECTED, p.VERB_MAIL): replies.HELO_FIRST,
    (CONNECTED, p.VERB_RCPT): replies.HELO_FIRST,
    (CONNECTED, p.VERB_DATA): replies.HELO_FIRST,
    (GREETED, p.VERB_RCPT): replies.MAIL_FIRST,
    (GREETED, p.VERB_DATA): replies.MAIL_FIRST,
    (MAIL, p.VERB_MAIL): replies.NESTED_MAIL,
    (RCPT, p.VERB_MAIL): replies.NESTED_MAIL,
    (MAIL, p.VERB_DATA): replies.NO_VALID_RECIPIENTS,  # LMTP has its own code, RFC 2033 4.2
}


LMTP_REFUSALS: dict[tuple[int, int], Reply] = {
    (CONNECTED, p.VERB_MAIL): replies.LHLO_FIRST,
    (MAIL, p.VERB_DATA): replies.NO_VALID_RECIPIENTS_LMTP,
}


def refusal(state: int, verb: int, is_lmtp: bool) -> Reply | None:
    """Return the reply to `verb` in `state` when the order of commands forbids it, else None."""
    if verb in ALLOWED[state]:
        return None
    if is_lmtp and (state, verb) in LMTP_REFUSALS:
        return LMTP_REFUSALS[state, verb]
    return REFUSALS.get((state, verb), replies.BAD_SEQUENCE)


def refusal_table(is_lmtp: bool, is_hello_optional: bool = False) -> list[Reply | None]:
    """Return `refusal` of every state and verb at once: the entry of state * VERB_COUNT + verb."""
    table = [refusal(state, verb, is_lmtp) for state in range(REFUSED + 1) for verb in range(p.VERB_COUNT)]
    if is_hello_optional:
        table[CONNECTED * p.VERB_COUNT + p.VERB_MAIL] = None
    return table
