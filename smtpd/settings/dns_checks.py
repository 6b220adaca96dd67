"""Sections of the checks that ask DNS: `reverse_dns`, `helo` and `dnsbl` of [[policy.check]]; the other two have no keys."""

from typing import Annotated

import msgspec

from smtpd.settings.key import Key
from smtpd.settings.section import Section


class ReverseDnsSettings(Section, frozen=True, kw_only=True):
    """The client's address has a name."""

    confirmed: Annotated[bool, Key("The name has to lead back to the address (FCrDNS)")] = False


class HeloSettings(Section, frozen=True, kw_only=True):
    """What the client says in HELO or EHLO."""

    fully_qualified: Annotated[bool, Key("Refuse a name without a dot")] = True
    resolvable: Annotated[bool, Key("The name has to have an MX or an address")] = False
    literal: Annotated[
        str,
        Key(
            "An address literal: has to be the client's address, may be any, or is refused", choices=("match", "accept", "reject")
        ),
    ] = "match"
    own_names: Annotated[
        list[str],
        Key("Names of ours that no client may use, beside the host name", kind="hostname", example='["mx.example.net"]'),
    ] = []


class DnsListSettings(Section, frozen=True, kw_only=True):
    """A DNS list."""

    zone: Annotated[str, Key("Where the list is", kind="hostname", example='"zen.example.net"')]
    codes: Annotated[
        list[str],
        Key('Answers that count, as in "127.0.0.2", "127.0.0.[2..11]" or "127.0.0.0/24"', example='["127.0.0.[2..11]"]'),
    ] = msgspec.field(default_factory=lambda: ["127.0.0.0/24"])
    weight: Annotated[int, Key("What an entry counts; a white list's is negative", least=-1000, most=1000)] = 1
    of: Annotated[
        str,
        Key(
            "What is looked up: the client's address, its verified name, the domain of the sender, or the name in HELO",
            choices=("client", "client_name", "sender", "helo"),
        ),
    ] = "client"


class DnsblSettings(Section, frozen=True, kw_only=True):
    """DNS lists of clients and domains."""

    lists: list[DnsListSettings] = []
    reject_at: Annotated[int, Key("Sum of weights from which a client is refused with 550", least=1, most=100_000)] = 1
    defer_at: Annotated[
        int, Key("Sum of weights from which a client is put off with 450", least=1, most=100_000, zero="never")
    ] = 0
    reason: Annotated[bool, Key("Put the list's own words (TXT) into the reply")] = True
    stage: Annotated[
        str, Key("When a client is refused; at connect only its address and name are looked up", choices=("rcpt", "connect"))
    ] = "rcpt"
    unreachable: Annotated[
        str,
        Key(
            "A list that doesn't answer and could tip the scales: passed over, or a failure for on_error",
            choices=("ignore", "error"),
        ),
    ] = "ignore"
