"""The embedded default: what runs without any file. Loopback only, mail for any domain, everything under
./var."""

from smtpd.settings import ListenerSettings, MetricsSettings, RouteSettings, Settings, SpoolSettings

EMBEDDED = Settings(
    run_dir="./var/run",
    listener=[ListenerSettings(address="127.0.0.1:2525")],
    spool=SpoolSettings(path="./var/spool"),
    route=[RouteSettings(domains=["*"], transport="maildir", path="./var/mail")],
    metrics=MetricsSettings(address="127.0.0.1:9025"),
)
