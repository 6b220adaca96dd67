"""Every section of the configuration file as a struct; the defaults here are the documented ones.

Sizes are octets, durations seconds. Addresses are strings as written ("127.0.0.1:2525", "[::1]:25", "unix:/path").
"""

from __future__ import annotations

import msgspec


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every section."""


class ListenerSettings(Section):
    """[[listener]]"""

    address: str
    name: str = ""  # default: the address
    protocol: str = "smtp"  # smtp | lmtp
    banner: str = "ESMTP"  # what follows the host name in the greeting
    dsn: bool = False  # offer DSN (RFC 3461)
    suppress: dict[str, list[str]] = {}  # network -> EHLO keywords not offered to it
    backlog: int = 4096


class LimitsSettings(Section):
    """[limits]; 0 = no limit"""

    message_size: int = 50 * 1024 * 1024
    line_length: int = 0
    command_length: int = 2048
    header_size: int = 1024 * 1024
    recipients: int = 1000
    mails_per_connection: int = 0  # LIMITS MAILMAX
    hop_limit: int = 100
    soft_errors: int = 10
    hard_errors: int = 20
    junk_commands: int = 100
    error_delay: float = 1.0
    command_timeout: float = 300.0
    data_timeout: float = 180.0
    command_deadline: float = 300.0  # one command may take this long to arrive
    end_of_data_timeout: float = 100.0  # checks and commit together


class PolicySettings(Section):
    """[policy]; `relay_domains` None = any domain is taken (the embedded default on loopback)"""

    relay_domains: list[str] | None = None
    bare_newline: str = "normalize"  # normalize | reject
    bare_newline_networks: dict[str, str] = {}  # network -> normalize | reject
    postmaster: str = ""  # where a bare postmaster goes; "" = postmaster@hostname
    allow_untrusted_routing: bool = False
    trusted: list[str] = ["127.0.0.0/8", "::1"]


class SpoolSettings(Section):
    """[spool]"""

    engine: str = "sqlite"  # sqlite | discard
    path: str = "./var/spool"
    spill_threshold: int = 128 * 1024
    free_bytes: int = 64 * 1024 * 1024  # below this much free space: 452
    free_inodes: int = 1000


class RouteSettings(Section):
    """[[route]]; first match wins"""

    domains: list[str]
    transport: str  # maildir | discard
    name: str = ""  # label in metrics; default: the transport and the route's number
    path: str = ""  # maildir: <path>/<domain>/<user>/{tmp,new,cur}


class DeliverySettings(Section):
    """[delivery]"""

    retry: list[float] = [300.0, 600.0, 1200.0, 2400.0, 3600.0]  # the last repeats
    lifetime: float = 5 * 86400.0
    memory: int = 16 * 1024 * 1024  # bodies of just committed mails kept in memory for delivery, per worker
    concurrency: int = 200  # mails being delivered at once, per worker


class MetricsSettings(Section):
    """[metrics]"""

    address: str = "127.0.0.1:9025"  # "" = no exporter


class LogSettings(Section):
    """[log]"""

    format: str = "postfix"  # postfix | logfmt | json
    destination: str = "stderr"  # stderr | syslog | none | a file
    syslog_name: str = "postfix"
    level: str = "info"  # info | warning: warning leaves out the lines of each mail and connection


class Settings(Section):
    """The whole file"""

    hostname: str = ""  # default: the machine's
    node: int = 1
    workers: int = 0
    user: str = ""
    run_dir: str = "./var/run"
    drain_timeout: float = 30.0  # graceful stop: sessions get this long to finish their transaction
    heartbeat_timeout: float = 30.0  # a worker whose loop stands still this long is replaced
    listener: list[ListenerSettings] = []
    limits: LimitsSettings = LimitsSettings()
    policy: PolicySettings = PolicySettings()
    spool: SpoolSettings = SpoolSettings()
    route: list[RouteSettings] = []
    delivery: DeliverySettings = DeliverySettings()
    metrics: MetricsSettings = MetricsSettings()
    log: LogSettings = LogSettings()
