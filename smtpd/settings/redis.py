"""Section [redis]: what a fleet of gateways shares."""

from typing import Annotated

from smtpd.settings.key import Key
from smtpd.settings.section import Section


class RedisSettings(Section, frozen=True, kw_only=True):
    """A Redis or Valkey server through which gateways share greylists (the extra `redis`)."""

    url: Annotated[
        str,
        Key(
            "Where it is; a password in it makes this file a secret",
            kind="redis_url",
            empty="nothing is shared with other hosts",
            example='"redis://192.0.2.9:6379/0"',
        ),
    ] = ""
    prefix: Annotated[str, Key("What all our keys begin with", kind="name")] = "smtpd"
    timeout: Annotated[
        float, Key("Longest wait for an answer, before we go on alone", kind="duration", least=0.01, most=10.0)
    ] = 0.5
    retry: Annotated[float, Key("How long it is left alone after it failed", kind="duration", least=0.1, most=3600.0)] = 5.0
    connections: Annotated[int, Key("Connections of one worker", least=1, most=1000)] = 10
