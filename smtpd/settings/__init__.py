"""The settings of every package as frozen structs: names as in the TOML file, values in octets and seconds.

A leaf. Reading a file, and saying what is wrong with it, is `smtpd.config`'s.
"""

from smtpd.settings.gateway import (
    BounceSettings,
    DeliverySettings,
    LimitsSettings,
    ListenerSettings,
    LogSettings,
    MetricsSettings,
    PolicySettings,
    RouteSettings,
    Settings,
    SpoolSettings,
)

__all__ = [
    "BounceSettings",
    "DeliverySettings",
    "LimitsSettings",
    "ListenerSettings",
    "LogSettings",
    "MetricsSettings",
    "PolicySettings",
    "RouteSettings",
    "Settings",
    "SpoolSettings",
]
