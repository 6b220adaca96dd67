"""The section about too much of everything: marks of memory, connections and loop lag, and what stress mode tightens.

As in `gateway`: sizes are octets, durations seconds. Marks come in pairs: a state begins at the high one, ends below the low one.
"""

from typing import Annotated

from smtpd.settings.key import Key
from smtpd.settings.section import DAY_S, TIB, Section


class OverloadSettings(Section, frozen=True, kw_only=True):
    """When new mail is put off, and when timeouts and error limits tighten, until it is over."""

    memory_limit: Annotated[
        int,
        Key(
            "Memory that all workers together may have",
            kind="size",
            least=64 * 1024 * 1024,
            most=TIB,
            zero="the limit of the control group, if it has one",
        ),
    ] = 0
    memory_high: Annotated[
        int,
        Key(
            "Percent of memory_limit, or of a worker's RLIMIT_AS, from which on mail is put off", least=1, most=100, zero="never"
        ),
    ] = 80
    memory_low: Annotated[int, Key("Percent below which mail is taken again", least=1, most=100)] = 70
    sessions_high: Annotated[
        int,
        Key(
            "Percent of limits.connections, or of a worker's descriptors, from which on there is stress",
            least=1,
            most=100,
            zero="never",
        ),
    ] = 90
    sessions_low: Annotated[int, Key("Percent below which that is over", least=1, most=100)] = 70
    loop_lag_high: Annotated[
        float,
        Key(
            "Stress begins when a worker's timers come so late for a second", kind="duration", least=0.01, most=60.0, zero="never"
        ),
    ] = 1.0
    loop_lag_low: Annotated[
        float, Key("It is over when they have been less late than this for two seconds", kind="duration", least=0.005, most=60.0)
    ] = 0.25
    stress_timeout: Annotated[
        float,
        Key("Under stress: longest silence, and longest time for a command to arrive", kind="duration", least=0.001, most=DAY_S),
    ] = 10.0
    stress_hard_errors: Annotated[
        int,
        Key(
            "Under stress: errors since the last mail before the connection is closed",
            least=1,
            most=1_000_000,
            zero="limits.hard_errors",
        ),
    ] = 1
