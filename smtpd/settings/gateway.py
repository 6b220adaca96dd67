"""Every section of the configuration file as a struct; the defaults here are the documented ones.

Sizes are octets, durations seconds. Addresses are strings as written ("127.0.0.1:2525", "[::1]:25",
"unix:/path"). What `smtpd.config` returns is complete: host name, postmaster and the names of listeners and
routes are filled in.
"""

from typing import Annotated

import msgspec

from smtpd.settings.delivery import BounceSettings, DeliverySettings, DnsSettings, RouteSettings
from smtpd.settings.key import Key
from smtpd.settings.policy import CheckSettings, OverrideSettings
from smtpd.settings.section import DAY_S, TIB, Section

EHLO_KEYWORDS = (
    "PIPELINING",
    "SIZE",
    "8BITMIME",
    "SMTPUTF8",
    "ENHANCEDSTATUSCODES",
    "CHUNKING",
    "LIMITS",
    "DSN",
)


class ListenerSettings(Section, frozen=True, kw_only=True):
    """An address on which mail is taken; at least one is needed."""

    address: Annotated[
        str,
        Key(
            'Where to listen: "IPv4:port", "[IPv6]:port" or "unix:/path"; port 0 takes a free one',
            kind="address",
            example='"0.0.0.0:25"',
        ),
    ]
    name: Annotated[
        str,
        Key("Name of the listener in metrics and messages", kind="name", empty="the address", example='"mx"'),
    ] = ""
    protocol: Annotated[
        str,
        Key("SMTP, or LMTP with one reply for each recipient (RFC 2033)", choices=("smtp", "lmtp")),
    ] = "smtp"
    banner: Annotated[str, Key("What follows the host name in the greeting", kind="line")] = "ESMTP"
    dsn: Annotated[bool, Key("Offer DSN, requests for delivery reports (RFC 3461)")] = False
    suppress: Annotated[
        dict[str, list[str]],
        Key(
            "EHLO keywords not offered to a network",
            kind="network",
            choices=EHLO_KEYWORDS,
            example='{ "192.0.2.0/24" = ["CHUNKING"] }',
        ),
    ] = {}
    proxy_protocol: Annotated[
        list[str],
        Key(
            "Networks of front ends that must send a PROXY header, version 1 or 2, before anything else",
            kind="network",
            example='["10.0.0.0/8"]',
        ),
    ] = []
    exempt: Annotated[
        list[str],
        Key(
            "Networks whose clients the limits for one client don't hold for on this listener, beside policy.trusted",
            kind="network",
            example='["192.0.2.0/24"]',
        ),
    ] = []
    backlog: Annotated[int, Key("Connections that may wait to be accepted, for each worker", least=1, most=1 << 20)] = 4096


class LimitsSettings(Section, frozen=True, kw_only=True):
    """What a client may send, and how long it may take."""

    message_size: Annotated[int, Key("Largest mail, announced as SIZE", kind="size", least=1024, most=TIB, zero="no limit")] = (
        50 * 1024 * 1024
    )
    line_length: Annotated[
        int,
        Key(
            "Longest text line of a mail without its CRLF (RFC 5322 2.1.1 allows 998)",
            kind="size",
            least=998,
            most=TIB,
            zero="no limit",
        ),
    ] = 0
    command_length: Annotated[
        int,
        Key("Longest command line with its CRLF (RFC 5321 4.5.3.1.4)", kind="size", least=512, most=65536),
    ] = 2048
    header_size: Annotated[int, Key("Largest header of a mail", kind="size", least=1024, most=TIB, zero="no limit")] = 1024 * 1024
    recipients: Annotated[
        int,
        Key("Recipients of one mail, announced as LIMITS RCPTMAX", least=1, most=1_000_000, zero="no limit"),
    ] = 1000
    mails_per_connection: Annotated[
        int,
        Key("Mails on one connection, announced as LIMITS MAILMAX", least=1, most=1_000_000, zero="no limit"),
    ] = 0
    hop_limit: Annotated[
        int,
        Key("Received fields in a mail before it is taken for a loop", least=1, most=10_000, zero="no limit"),
    ] = 100
    connections: Annotated[int, Key("Connections of the whole host", least=1, most=10_000_000, zero="no limit")] = 20_000
    connections_per_client: Annotated[
        int, Key("Connections of one client: an IPv4 address or an IPv6 /64", least=1, most=1_000_000, zero="no limit")
    ] = 50
    connection_rate: Annotated[str, Key('Connections of one client in a time, as in "600/min"; "0" = no limit', kind="rate")] = (
        "0"
    )
    mail_rate: Annotated[str, Key('Mails of one client in a time, as in "1000/h"; "0" = no limit', kind="rate")] = "0"
    recipient_rate: Annotated[
        str, Key('Recipients that one client names in a time, as in "5000/h"; "0" = no limit', kind="rate")
    ] = "0"
    soft_errors: Annotated[
        int,
        Key(
            "Errors since the last mail before each reply is delayed",
            least=1,
            most=1_000_000,
            zero="no delay",
        ),
    ] = 10
    hard_errors: Annotated[
        int,
        Key(
            "Errors since the last mail before the connection is closed",
            least=1,
            most=1_000_000,
            zero="no limit",
        ),
    ] = 20
    junk_commands: Annotated[
        int,
        Key(
            "NOOP, RSET, VRFY and unknown commands since the last mail before the connection is closed",
            least=1,
            most=1_000_000,
            zero="no limit",
        ),
    ] = 100
    error_delay: Annotated[float, Key("Delay of each reply past soft_errors", kind="duration", least=0.0, most=60.0)] = 1.0
    command_timeout: Annotated[float, Key("Longest silence between commands", kind="duration", least=0.001, most=DAY_S)] = 300.0
    data_timeout: Annotated[float, Key("Longest silence within a mail", kind="duration", least=0.001, most=DAY_S)] = 180.0
    command_deadline: Annotated[
        float, Key("Longest time for one command to arrive", kind="duration", least=0.001, most=DAY_S)
    ] = 300.0
    end_of_data_timeout: Annotated[
        float,
        Key(
            "Longest time for checks and storing after a mail; clients wait 10 min (RFC 5321 4.5.3.2.6)",
            kind="duration",
            least=0.001,
            most=540.0,
        ),
    ] = 100.0


class PolicySettings(Section, frozen=True, kw_only=True):
    """Who gets in."""

    relay_domains: Annotated[
        list[str] | None,
        Key(
            'Domains whose mail is taken, ".example.org" for all below one; others get 550 5.7.1',
            kind="domain",
            absent="any domain, which is allowed only while all listeners are on loopback",
            example='["example.org", ".example.org"]',
        ),
    ] = None
    bare_newline: Annotated[
        str,
        Key(
            "Bare CR or LF in a mail: stored as CRLF and space, or refused; neither ever ends a mail",
            choices=("normalize", "reject"),
        ),
    ] = "normalize"
    bare_newline_networks: Annotated[
        dict[str, str],
        Key(
            "The same for a network, the narrowest one wins",
            kind="network",
            choices=("normalize", "reject"),
            example='{ "192.0.2.0/24" = "reject" }',
        ),
    ] = {}
    postmaster: Annotated[
        str,
        Key(
            'Where mail for a bare "postmaster" goes (RFC 5321 4.5.1)',
            kind="mailbox",
            empty="postmaster at the host name",
            example='"postmaster@example.org"',
        ),
    ] = ""
    allow_untrusted_routing: Annotated[
        bool, Key('Take recipients with "%", "!" or "@" in the local part; the store may reinterpret them')
    ] = False
    trusted: Annotated[
        list[str], Key("Networks whose clients the limits for one client don't hold for, on any listener", kind="network")
    ] = msgspec.field(default_factory=lambda: ["127.0.0.0/8", "::1"])
    footer: Annotated[
        str,
        Key(
            "Put behind each refusal, with {session} {client} {hostname} {time} filled in; a line break begins a line of its own",
            kind="footer",
            empty="nothing",
            example='"; contact postmaster@example.org, session {session}"',
        ),
    ] = ""
    check: list[CheckSettings] = []
    override: list[OverrideSettings] = []


class SpoolSettings(Section, frozen=True, kw_only=True):
    """Where accepted mail is kept until it is delivered."""

    engine: Annotated[
        str,
        Key(
            "sqlite keeps mail on disk; discard forgets it at once, for measuring",
            choices=("sqlite", "discard"),
        ),
    ] = "sqlite"
    path: Annotated[str, Key("Directory of the spool", kind="path")] = "./var/spool"
    spill_threshold: Annotated[
        int,
        Key(
            "Larger mails are written to a file of their own as they arrive",
            kind="size",
            least=4096,
            most=TIB,
        ),
    ] = 128 * 1024
    free_bytes: Annotated[int, Key("Free space below which mail is refused with 452", kind="size", least=0, most=TIB)] = (
        64 * 1024 * 1024
    )
    free_inodes: Annotated[int, Key("Free inodes below which mail is refused with 452", least=0, most=1 << 40)] = 1000


class MetricsSettings(Section, frozen=True, kw_only=True):
    """The HTTP server of /metrics, /healthz, /readyz and /status."""

    address: Annotated[
        str,
        Key('Where to listen: "IPv4:port" or "[IPv6]:port"', kind="http_address", empty="no HTTP server"),
    ] = "127.0.0.1:9025"


class LogSettings(Section, frozen=True, kw_only=True):
    """What is logged, and where to."""

    format: Annotated[
        str,
        Key(
            "Shape of the lines; postfix is what pflogsumm and fail2ban know",
            choices=("postfix", "logfmt", "json"),
        ),
    ] = "postfix"
    destination: Annotated[
        str,
        Key(
            '"stderr", "syslog", "none", or the path of a file, which is opened anew on USR1',
            kind="log_destination",
        ),
    ] = "stderr"
    syslog_name: Annotated[str, Key('Program name in the lines, as in "postfix/smtpd[123]"', kind="syslog_name")] = "postfix"
    level: Annotated[
        str,
        Key("warning leaves out the lines of each mail and connection", choices=("info", "warning")),
    ] = "info"


class Settings(Section, frozen=True, kw_only=True):
    """The whole file: keys of the machine and the process."""

    hostname: Annotated[
        str,
        Key(
            "Name of this host in the greeting and in Received",
            kind="hostname",
            empty="the machine's",
            example='"mx1.example.net"',
        ),
    ] = ""
    node: Annotated[int, Key("Number of this host in queue ids; unique in a fleet", least=0, most=4095)] = 1
    workers: Annotated[int, Key("Processes that take and deliver mail", least=1, most=256, zero="one for each core")] = 0
    user: Annotated[
        str,
        Key(
            "User to become after binding, when started as root",
            kind="user",
            empty="stay who started it",
            example='"smtpd"',
        ),
    ] = ""
    run_dir: Annotated[str, Key("Directory of the pid file and the control sockets", kind="path")] = "./var/run"
    drain_timeout: Annotated[
        float,
        Key(
            "Time for sessions to finish their mail on a graceful stop",
            kind="duration",
            least=0.0,
            most=DAY_S,
        ),
    ] = 30.0
    heartbeat_timeout: Annotated[
        float,
        Key("A worker that stands still this long is replaced", kind="duration", least=1.0, most=DAY_S),
    ] = 30.0
    listener: list[ListenerSettings] = []
    limits: LimitsSettings = LimitsSettings()
    policy: PolicySettings = PolicySettings()
    spool: SpoolSettings = SpoolSettings()
    route: list[RouteSettings] = []
    bounce: BounceSettings = BounceSettings()
    delivery: DeliverySettings = DeliverySettings()
    dns: DnsSettings = DnsSettings()
    metrics: MetricsSettings = MetricsSettings()
    log: LogSettings = LogSettings()
