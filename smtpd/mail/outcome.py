"""What an attempt made of one recipient. Stored with the mail when it isn't 'all done at once'."""

from __future__ import annotations

import msgspec

PENDING = 0
DELIVERED = 1
DEFERRED = 2
UNDELIVERABLE = 3

STATUS_NAMES = ("pending", "sent", "deferred", "bounced")  # by code, in Postfix's words for `status=`


class Outcome(msgspec.Struct, array_like=True):
    """One recipient's state after its last attempt.

    `status` is PENDING, DELIVERED, DEFERRED or UNDELIVERABLE; `code` the reply code of the next hop or 0; `dsn` the enhanced
    status code ("2.0.0"); `text` what was said, peer bytes already decoded and not yet escaped; `relay` who said it
    ("maildir", "mx.example.org[192.0.2.1]:25"); `attempts` how often this recipient was tried; `at_s` Unix time of the last try;
    `passes_dsn` whether the next hop took the request for a success report over (RFC 3461); `is_reported` that the sender was
    told, or need not be, so that nothing is left to do; `is_warned` that the sender was told that the mail is late.
    """

    status: int = PENDING
    code: int = 0
    dsn: str = ""
    text: str = ""
    relay: str = ""
    attempts: int = 0
    at_s: float = 0.0
    passes_dsn: bool = False
    is_reported: bool = False
    is_warned: bool = False

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do for this recipient: delivered, or undeliverable and reported."""
        return self.status == DELIVERED or (self.status == UNDELIVERABLE and self.is_reported)


def soften(outcomes: list[Outcome]) -> list[Outcome]:
    """Return the outcomes with every refusal for good as one for now (delivery.soft_bounce); those given stay as they are."""
    return [_softened(outcome) if outcome.status == UNDELIVERABLE else outcome for outcome in outcomes]


def _softened(outcome: Outcome) -> Outcome:
    code = outcome.code - 100 if 500 <= outcome.code < 600 else outcome.code
    dsn = "4" + outcome.dsn[1:] if outcome.dsn.startswith("5") else outcome.dsn
    return msgspec.structs.replace(outcome, status=DEFERRED, code=code, dsn=dsn)


def describe(outcome: Outcome) -> str:
    """Return what was said as logs and lists show it: the next hop's words with their codes, and whose they are if it refused."""
    if not outcome.code:
        return outcome.text
    said = f"{outcome.code} {outcome.dsn} {outcome.text}"
    return said if outcome.status == DELIVERED else f"host {outcome.relay} said: {said}"


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(list[Outcome])


def encode_outcomes(outcomes: list[Outcome]) -> bytes:
    """Return the outcomes, one for each recipient of the envelope in its order, as msgpack bytes."""
    return _ENCODER.encode(outcomes)


def decode_outcomes(blob: bytes) -> list[Outcome]:
    """Return the list of `encode_outcomes`; raises msgspec.DecodeError or ValidationError on damage."""
    return _DECODER.decode(blob)
