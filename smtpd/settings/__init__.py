"""The settings of every package as frozen structs: names as in the TOML file, values in octets and seconds.

A leaf. Reading a file, and saying what is wrong with it, is `smtpd.config`'s.
"""

from smtpd.settings.delivery import BounceSettings, DeliverySettings, DnsSettings, RouteSettings
from smtpd.settings.gateway import (
    LimitsSettings,
    ListenerSettings,
    LogSettings,
    MetricsSettings,
    PolicySettings,
    Settings,
    SpoolSettings,
)
from smtpd.settings.overload import OverloadSettings
from smtpd.settings.redis import RedisSettings
from smtpd.settings.tls import CertificateSettings, TlsSettings

__all__ = [
    "BounceSettings",
    "CertificateSettings",
    "DeliverySettings",
    "DnsSettings",
    "LimitsSettings",
    "ListenerSettings",
    "LogSettings",
    "MetricsSettings",
    "OverloadSettings",
    "PolicySettings",
    "RedisSettings",
    "RouteSettings",
    "Settings",
    "SpoolSettings",
    "TlsSettings",
]
