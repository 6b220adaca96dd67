"""Section of the check `greylist` of [[policy.check]]."""

from typing import Annotated

from smtpd.settings.key import Key
from smtpd.settings.section import DAY_S, Section


class GreylistSettings(Section, frozen=True, kw_only=True):
    """Who comes for the first time is put off, and taken when he comes again."""

    delay: Annotated[float, Key("Earliest second try that is taken", kind="duration", least=1.0, most=DAY_S)] = 300.0
    retry_window: Annotated[float, Key("Latest second try that counts as one", kind="duration", least=60.0, most=60 * DAY_S)] = (
        2 * DAY_S
    )
    lifetime: Annotated[
        float, Key("How long a sender is remembered after its last mail", kind="duration", least=60.0, most=366 * DAY_S)
    ] = 35 * DAY_S
    known_after: Annotated[
        int,
        Key("Mails passed after which a network or domain isn't put off any more", least=1, most=1_000_000, zero="never"),
    ] = 5
    spf: Annotated[bool, Key("Know a sender whose SPF passes by its domain, wherever it comes from (needs the extra `auth`)")] = (
        False
    )
    ipv4_prefix: Annotated[int, Key("Length of the network that stands for an IPv4 client", least=8, most=32)] = 24
    ipv6_prefix: Annotated[int, Key("Length of the network that stands for an IPv6 client", least=16, most=128)] = 64
    path: Annotated[
        str,
        Key("File of the local store, shared by the workers", kind="path", empty="greylist.sqlite in the directory of the spool"),
    ] = ""
    redis: Annotated[bool, Key("Share what is known through [redis], where that is set; locally while Redis is away")] = True
