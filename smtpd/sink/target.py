"""What `smtpd sink` serves: settings of the ordinary server, made without a file.

Owns nothing at run time: master, workers, limits, metrics and protocol are the gateway's own, so what is measured here is what
a gateway costs before custody.
"""

from __future__ import annotations

from smtpd.settings import (
    LimitsSettings,
    ListenerSettings,
    LogSettings,
    MetricsSettings,
    RouteSettings,
    Settings,
    SpoolSettings,
)


def sink_settings(
    listen: tuple[str, ...], workers: int, metrics: str, run_dir: str, hostname: str, is_verbose: bool, message_size: int
) -> Settings:
    """Return settings that take every mail on `listen` and discard it. `message_size` in octets, 0 = no limit."""
    return Settings(
        hostname=hostname,
        workers=workers,
        run_dir=run_dir,
        drain_timeout=5.0,
        listener=[ListenerSettings(address=address, name=f"sink{n}" if n else "sink") for n, address in enumerate(listen)],
        limits=LimitsSettings(
            message_size=message_size,
            recipients=0,
            junk_commands=0,
            soft_errors=0,
            hard_errors=0,
            connections=0,
            connections_per_client=0,
        ),
        spool=SpoolSettings(engine="discard", path=""),
        route=[RouteSettings(domains=["*"], transport="discard", name="discard")],
        metrics=MetricsSettings(address=metrics),
        log=LogSettings(level="info" if is_verbose else "warning"),
    )
