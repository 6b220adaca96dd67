"""What `smtpd sink` serves: settings of the ordinary server, made without a file.

Owns nothing at run time: master, workers, limits, metrics and protocol are the gateway's own, so what is measured here is what
a gateway costs before custody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from smtpd.settings import (
    CertificateSettings,
    LimitsSettings,
    ListenerSettings,
    LogSettings,
    MetricsSettings,
    OverloadSettings,
    RouteSettings,
    Settings,
    SpoolSettings,
    TlsSettings,
)

_UNLIMITED = (
    "recipients", "hop_limit", "junk_commands", "soft_errors", "hard_errors", "connections", "connections_per_client",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Target:
    """Where and how a sink listens. `message_size` in octets, 0 = no limit; `timeout_s` 0 = the gateway's own limits.

    `proxies` are networks of peers that must send a PROXY header. `tls` is listener.tls, `certificate` the files of certificate
    and key."""

    listen: tuple[str, ...]
    run_dir: str
    hostname: str
    workers: int = 1
    metrics: str = ""
    user: str = ""
    is_lmtp: bool = False
    is_dsn_offered: bool = True
    banner: str = "ESMTP"
    backlog: int = 4096
    proxies: tuple[str, ...] = ()
    message_size: int = 0
    timeout_s: float = 0.0
    is_verbose: bool = False
    log: str = "stderr"
    tls: str = "off"
    certificate: tuple[str, str] = ("", "")


def sink_settings(target: Target) -> Settings:
    """Return settings that take every mail and discard it."""
    listeners = [
        ListenerSettings(
            address=address,
            name=f"sink{n}" if n else "sink",
            protocol="lmtp" if target.is_lmtp else "smtp",
            dsn=target.is_dsn_offered,
            banner=target.banner,
            backlog=target.backlog,
            proxy_protocol=list(target.proxies),
            tls=target.tls,
        )
        for n, address in enumerate(target.listen)
    ]
    cert, key = target.certificate
    limits: dict[str, Any] = {"message_size": target.message_size, **dict.fromkeys(_UNLIMITED, 0)}
    if target.timeout_s:
        limits |= dict.fromkeys(("command_timeout", "data_timeout", "command_deadline"), target.timeout_s)
    return Settings(
        hostname=target.hostname,
        workers=target.workers,
        run_dir=target.run_dir,
        user=target.user,
        drain_timeout=5.0,
        listener=listeners,
        tls=TlsSettings(certificate=[CertificateSettings(cert=cert, key=key)] if cert else []),
        limits=LimitsSettings(**limits),
        overload=OverloadSettings(memory_high=0, sessions_high=0, loop_lag_high=0.0),  # what is measured is not to change midway
        spool=SpoolSettings(engine="discard", path=""),
        route=[RouteSettings(domains=["*"], transport="discard", name="discard")],
        metrics=MetricsSettings(address=target.metrics),
        log=LogSettings(level="info" if target.is_verbose else "warning", destination=target.log),
    )
