"""MAIL and RCPT parameters (RFC 5321 4.1.2, 1870, 6152, 6531, 3461): octets to values, or the reply that refuses them.

Grammar only: whether the size fits or the address is wanted is decided elsewhere. Raises ParameterError.
"""

from __future__ import annotations

from collections.abc import Iterator

from smtpd.mail import envelope as env
from smtpd.mail.reply import Reply
from smtpd.proto import replies
from smtpd.proto.rules import Rules

MAX_PARAMETERS = 32  # no command has more than a handful; bounds the work on a line full of them
_ENVID_LENGTH = 100  # RFC 3461 4.4
_ORCPT_LENGTH = 500  # RFC 3461 4.2
_NOTIFY = {b"SUCCESS": env.NOTIFY_SUCCESS, b"FAILURE": env.NOTIFY_FAILURE, b"DELAY": env.NOTIFY_DELAY}


class ParameterError(Exception):
    """`reply` is what the client gets."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.text)
        self.reply = reply


class MailParameters:
    """Values of MAIL's parameters; `size_bytes` 0 when not declared."""

    __slots__ = ("body", "envid", "is_smtputf8", "ret", "size_bytes")

    def __init__(self) -> None:
        self.size_bytes = 0
        self.body = ""
        self.is_smtputf8 = False
        self.ret = ""
        self.envid = b""


def parse_mail_parameters(rest: bytes, rules: Rules) -> MailParameters:
    """Parse what follows the reverse-path."""
    values = MailParameters()
    for keyword, value in _split_parameters(rest):
        if keyword == b"SIZE" and rules.offers_size:
            if not value.isdigit() or len(value) > 20:
                raise ParameterError(replies.BAD_ARGUMENT)
            values.size_bytes = int(value)
        elif keyword == b"BODY" and rules.offers_8bitmime:
            body = value.upper()
            if body not in (b"7BIT", b"8BITMIME"):
                raise ParameterError(replies.BAD_ARGUMENT)
            values.body = body.decode()
        elif keyword == b"SMTPUTF8" and rules.offers_smtputf8:
            if value:
                raise ParameterError(replies.BAD_ARGUMENT)
            values.is_smtputf8 = True
        elif keyword == b"RET" and rules.offers_dsn:
            if value.upper() not in (b"FULL", b"HDRS"):
                raise ParameterError(replies.BAD_ARGUMENT)
            values.ret = value.upper().decode()
        elif keyword == b"ENVID" and rules.offers_dsn:
            if len(value) > _ENVID_LENGTH or not _is_xtext(value):
                raise ParameterError(replies.BAD_ARGUMENT)
            values.envid = value
        else:
            raise ParameterError(replies.UNSUPPORTED_PARAMETER)
    return values


def parse_rcpt_parameters(rest: bytes, rules: Rules) -> tuple[int, bytes]:
    """Parse what follows the forward-path; return (NOTIFY bits, ORCPT)."""
    notify = 0
    orcpt = b""
    for keyword, value in _split_parameters(rest):
        if keyword == b"NOTIFY" and rules.offers_dsn:
            notify = _parse_notify(value)
        elif keyword == b"ORCPT" and rules.offers_dsn:
            kind, separator, address = value.partition(b";")
            if not separator or not kind or len(value) > _ORCPT_LENGTH or not _is_xtext(address):
                raise ParameterError(replies.BAD_ARGUMENT)
            orcpt = value
        else:
            raise ParameterError(replies.UNSUPPORTED_PARAMETER)
    return notify, orcpt


def _split_parameters(rest: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield (keyword in upper case, value); a keyword given twice or an empty keyword is an error."""
    parts = rest.split(None, MAX_PARAMETERS)
    if len(parts) > MAX_PARAMETERS:
        raise ParameterError(replies.BAD_ARGUMENT)
    seen = set()
    for part in parts:
        keyword, separator, value = part.partition(b"=")
        keyword = keyword.upper()
        if not keyword.replace(b"-", b"").isalnum() or keyword in seen or (separator and not value):
            raise ParameterError(replies.BAD_ARGUMENT)
        seen.add(keyword)
        yield keyword, value


def _parse_notify(value: bytes) -> int:
    value = value.upper()
    if value == b"NEVER":
        return env.NOTIFY_NEVER
    bits = 0
    for word in value.split(b","):
        if word not in _NOTIFY:
            raise ParameterError(replies.BAD_ARGUMENT)
        bits |= _NOTIFY[word]
    return bits


def _is_xtext(value: bytes) -> bool:
    """xtext of RFC 3461 4: printable ASCII but "=", with "+" only before two hexadecimal digits in upper case."""
    if not all(0x21 <= octet <= 0x7E and octet != 0x3D for octet in value):
        return False
    pieces = value.split(b"+")[1:]
    return all(len(piece) >= 2 and all(c in b"0123456789ABCDEF" for c in piece[:2]) for piece in pieces)
