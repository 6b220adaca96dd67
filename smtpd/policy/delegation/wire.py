"""Octets of the policy delegation protocol: a request of name=value lines, and an answer that names one action.

Owns the making of requests and the reading of answers, which is bounded; no socket. Raises PolicyWireError for an answer that is
none. Source: Postfix 3.7, SMTPD_POLICY_README and attr_clnt(3).
"""

from __future__ import annotations

from collections.abc import Mapping

ANSWER_BYTES = 16 * 1024
VALUE_BYTES = 8 * 1024

# In Postfix's order; those that a gateway without SASL can't know are told empty, as Postfix does.
ATTRIBUTES = (
    "request", "protocol_state", "protocol_name", "client_address", "client_name", "client_port", "reverse_client_name",
    "server_address", "server_port", "helo_name", "sender", "recipient", "recipient_count", "queue_id", "instance", "size",
    "etrn_domain", "stress", "sasl_method", "sasl_username", "sasl_sender", "ccert_subject", "ccert_issuer", "ccert_fingerprint",
    "ccert_pubkey_fingerprint", "encryption_protocol", "encryption_cipher", "encryption_keysize", "policy_context",
)  # fmt: skip
_DEFAULTS = {"request": b"smtpd_access_policy", "recipient_count": b"0", "size": b"0", "encryption_keysize": b"0"}
_LINE_ENDS = bytes.maketrans(b"\r\n\0", b"???")


class PolicyWireError(ValueError):
    """The service sent what is no answer; the text says what, and holds no octet of it."""


def make_request(values: Mapping[str, bytes]) -> bytes:
    """Return a request; what would break a line is replaced, so no client can add an attribute."""
    lines = [b"%b=%b\n" % (name.encode(), _clean(values.get(name, _DEFAULTS.get(name, b"")))) for name in ATTRIBUTES]
    return b"".join(lines) + b"\n"


def parse_answer(text: bytes) -> bytes:
    """Return the action of an answer, which ends with an empty line; attributes beside it are passed over, as Postfix does."""
    if not text.endswith(b"\n\n"):
        raise PolicyWireError("an answer without its end")
    action: bytes | None = None
    for line in text[:-2].split(b"\n"):
        name, equals, value = line.partition(b"=")
        if not equals or not name.strip():
            raise PolicyWireError("a line that is no attribute")
        if name.strip() == b"action":
            if action is not None:
                raise PolicyWireError("more than one action")
            action = value.strip()
    if not action:
        raise PolicyWireError("no action")
    return action


def _clean(value: bytes) -> bytes:
    return value[:VALUE_BYTES].translate(_LINE_ENDS)
