"""The envelope: reverse-path, recipients and how the mail came in. Encoded as one msgpack blob in the spool.

Never holds the body. Fields are only ever appended (`array_like`), so older shards stay readable.
"""

from __future__ import annotations

import msgspec

NOTIFY_NEVER = 1
NOTIFY_SUCCESS = 2
NOTIFY_FAILURE = 4
NOTIFY_DELAY = 8


class Recipient(msgspec.Struct, array_like=True):
    """One forward-path as it was accepted.

    `path` is the mailbox as wire bytes, source route stripped, without angle brackets (b"alice@example.org",
    b"postmaster" without a domain). `domain` is the A-label in lower case ("" for a bare postmaster, "[...]" for a
    literal). `notify` is a bit set of NOTIFY_*, 0 when the parameter was absent; `orcpt` is the xtext as given (RFC 3461).
    """

    path: bytes
    domain: str
    notify: int = 0
    orcpt: bytes = b""


class Envelope(msgspec.Struct, array_like=True):
    """One transaction. `reverse_path` is b"" for the null reverse-path.

    `received_at_s` is Unix time in seconds; `protocol` is the "with" keyword of RFC 3848 ("ESMTP"); `body` is "", "7BIT" or
    "8BITMIME"; `ret` is "", "FULL" or "HDRS"; `envid` is the xtext as given; `client_address` is without brackets.
    `via` is "" for mail that takes its recipients' routes, "bounce" for what leaves by [bounce].
    """

    reverse_path: bytes
    recipients: list[Recipient]
    client_address: str
    client_name: str
    helo: bytes
    protocol: str
    received_at_s: float
    listener: str = ""
    client_port: int = 0
    smtputf8: bool = False
    body: str = ""
    ret: str = ""
    envid: bytes = b""
    via: str = ""


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Envelope)


def encode_envelope(envelope: Envelope) -> bytes:
    """Return the envelope as msgpack bytes."""
    return _ENCODER.encode(envelope)


def decode_envelope(blob: bytes) -> Envelope:
    """Return the envelope of `encode_envelope`; raises msgspec.DecodeError or ValidationError on damage."""
    return _DECODER.decode(blob)
