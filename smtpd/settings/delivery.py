"""The sections about passing mail on: routes, bounces, delivery. As in `gateway`: sizes are octets, durations seconds."""

from typing import Annotated

import msgspec

from smtpd.settings.key import Key
from smtpd.settings.section import DAY_S, TIB, Section


class RouteSettings(Section, frozen=True, kw_only=True):
    """Where mail for some domains goes; the first match wins."""

    domains: Annotated[
        list[str],
        Key(
            'Domains of the recipients: "example.org", ".example.org" for all below it, "*" for the rest',
            kind="route_domain",
            example='["example.org", ".example.org"]',
        ),
    ]
    transport: Annotated[
        str,
        Key(
            "smtp and lmtp pass mail on to the next hop; maildir files it locally; discard drops it",
            choices=("smtp", "lmtp", "maildir", "discard"),
            example='"smtp"',
        ),
    ]
    name: Annotated[
        str,
        Key(
            "Name of the route in metrics and messages",
            kind="name",
            empty='the transport and the number of the route, as "maildir-1"',
            example='"store"',
        ),
    ] = ""
    path: Annotated[
        str,
        Key(
            "For maildir: the directory above <domain>/<user>/{tmp,new,cur}",
            kind="path",
            absent="needed for maildir, refused for others",
            example='"/var/mail"',
        ),
    ] = ""
    senders: Annotated[
        list[str],
        Key(
            "Take only mail whose reverse-path has one of these domains",
            kind="route_domain",
            absent="mail from anybody",
            example='["example.org"]',
        ),
    ] = []
    next_hop: Annotated[
        list[str],
        Key(
            'Where to: "host:port", "[IPv6]:port", "unix:/path", "mx:example.net", or "mx:" for each recipient\'s own MX',
            kind="next_hop",
            absent="needed for smtp and lmtp, refused for others",
            example='["10.0.0.5:24", "10.0.0.6:24"]',
        ),
    ] = []
    balance: Annotated[
        str,
        Key("Several next hops: try them in order, or spread mail over them", choices=("order", "spread")),
    ] = "order"
    tls: Annotated[
        str,
        Key(
            "TLS to the next hop by STARTTLS: never, when it is offered, or only so",
            choices=("off", "may", "require"),
        ),
    ] = "may"
    tls_verify: Annotated[
        bool, Key('With tls = "require": the certificate must be good for the next hop\'s name, or for tls_name')
    ] = True
    tls_name: Annotated[
        str,
        Key("Name that the next hop's certificate must have", kind="hostname", empty="the name in next_hop or MX"),
    ] = ""
    tls_ca: Annotated[
        str,
        Key("File of the CA certificates that count", kind="path", empty="those of the system", example='"/etc/smtpd/ca.pem"'),
    ] = ""
    connections: Annotated[int, Key("Most connections to one next hop, of the whole host", least=1, most=100_000)] = 50
    source_address: Annotated[
        str, Key("Address to connect from", kind="ip", empty="the system chooses", example='"192.0.2.1"')
    ] = ""
    always_bcc: Annotated[
        str,
        Key(
            "Mailbox that gets a copy of each mail of this route", kind="mailbox", empty="nobody", example='"journal@example.org"'
        ),
    ] = ""
    queue_limit: Annotated[
        int,
        Key(
            "Mails of this route that may wait, on the whole host, before its recipients are put off with 451",
            least=1,
            most=1_000_000_000,
            zero="no limit",
        ),
    ] = 0
    bounce: Annotated[bool, Key("Tell senders of undeliverable mail of this route; false: it is held instead")] = True


class BounceSettings(Section, frozen=True, kw_only=True):
    """Reports to senders about mail that was taken and could not be delivered (RFC 3464)."""

    enabled: Annotated[bool, Key("Send bounces; without, undeliverable mail is held and reported, not dropped")] = False
    next_hop: Annotated[
        list[str],
        Key(
            'How bounces leave: a smarthost, or "mx:" for the MX of the sender\'s domain',
            kind="next_hop",
            absent="needed when enabled",
            example='["mx:"]',
        ),
    ] = []
    tls: Annotated[
        str,
        Key("TLS to that next hop by STARTTLS: never, when it is offered, or only so", choices=("off", "may", "require")),
    ] = "may"
    connections: Annotated[int, Key("Most connections to one next hop, of the whole host", least=1, most=100_000)] = 10
    content_size: Annotated[
        int,
        Key("Largest mail that is returned whole; of larger ones only the header (RFC 3461 4.3)", kind="size", least=0, most=TIB),
    ] = 50 * 1024
    per_sender: Annotated[
        int,
        Key(
            "Most bounces to one address in an hour, for each worker; mail above that is held",
            least=1,
            most=1_000_000,
            zero="no limit",
        ),
    ] = 100
    delay_warning: Annotated[
        float,
        Key(
            "Age at which the sender is told once that a mail is late",
            kind="duration",
            least=0.001,
            most=365 * DAY_S,
            zero="never",
        ),
    ] = 0.0
    double_bounce: Annotated[
        str,
        Key(
            "Mailbox that gets undeliverable bounces",
            kind="mailbox",
            empty="they are held",
            example='"postmaster@example.org"',
        ),
    ] = ""


class DeliverySettings(Section, frozen=True, kw_only=True):
    """How often, how long and how much at once delivery is tried."""

    retry: Annotated[
        list[float],
        Key("Waiting times between attempts; the last repeats", kind="duration", least=0.001, most=30 * DAY_S),
    ] = msgspec.field(default_factory=lambda: [300.0, 600.0, 1200.0, 2400.0, 3600.0])
    lifetime: Annotated[
        float,
        Key("Age at which a mail is not tried any more", kind="duration", least=0.001, most=365 * DAY_S),
    ] = 5 * DAY_S
    memory: Annotated[
        int,
        Key(
            "Just accepted mail kept in memory until it is delivered, for each worker",
            kind="size",
            least=0,
            most=TIB,
        ),
    ] = 16 * 1024 * 1024
    concurrency: Annotated[int, Key("Mails being delivered at once, for each worker", least=1, most=100_000)] = 1000
    soft_bounce: Annotated[bool, Key("Try again after every refusal, also a final one")] = False
    refused_early: Annotated[
        str,
        Key(
            "A next hop that refuses for good (5xx) before RCPT: try again, for it may be misconfigured, or believe it",
            choices=("defer", "bounce"),
        ),
    ] = "defer"
    mails_per_connection: Annotated[
        int, Key("Mails on one connection to a next hop", least=1, most=1_000_000, zero="no limit")
    ] = 1000
    connection_idle: Annotated[
        float, Key("How long an unused connection is kept for the next mail", kind="duration", least=0.0, most=300.0)
    ] = 5.0
    connection_age: Annotated[
        float, Key("Age at which a connection is not used again", kind="duration", least=0.001, most=DAY_S)
    ] = 300.0
    retry_next_hop: Annotated[
        float,
        Key("How long a dead next hop is set aside before it is probed", kind="duration", least=0.001, most=DAY_S),
    ] = 30.0
    chunking: Annotated[bool, Key("Use CHUNKING where a next hop offers it (RFC 3030)")] = True
    connect_timeout: Annotated[
        float, Key("How long connecting to a next hop may take", kind="duration", least=0.001, most=DAY_S)
    ] = 30.0
    greeting_timeout: Annotated[float, Key("How long a next hop may take to greet", kind="duration", least=0.001, most=DAY_S)] = (
        300.0
    )
    hello_timeout: Annotated[
        float, Key("How long a next hop may take to answer EHLO, LHLO or HELO", kind="duration", least=0.001, most=DAY_S)
    ] = 300.0
    tls_timeout: Annotated[
        float, Key("How long a next hop may take to answer STARTTLS and shake hands", kind="duration", least=0.001, most=DAY_S)
    ] = 60.0
    mail_timeout: Annotated[
        float, Key("How long a next hop may take to answer MAIL", kind="duration", least=0.001, most=DAY_S)
    ] = 300.0
    recipient_timeout: Annotated[
        float, Key("How long a next hop may take to answer RCPT", kind="duration", least=0.001, most=DAY_S)
    ] = 300.0
    data_timeout: Annotated[
        float, Key("How long a next hop may take to answer DATA", kind="duration", least=0.001, most=DAY_S)
    ] = 120.0
    block_timeout: Annotated[
        float, Key("How long a next hop may take to take a part of a mail", kind="duration", least=0.001, most=DAY_S)
    ] = 180.0
    end_of_data_timeout: Annotated[
        float, Key("How long a next hop may take to answer after the whole mail", kind="duration", least=0.001, most=DAY_S)
    ] = 600.0
    quit_timeout: Annotated[
        float, Key("How long a next hop may take to answer QUIT and RSET", kind="duration", least=0.001, most=DAY_S)
    ] = 10.0


class DnsSettings(Section, frozen=True, kw_only=True):
    """How names are looked up; "mx:" and checks need the package aiodns, the extra `dns` (`make build` installs it)."""

    servers: Annotated[
        list[str],
        Key(
            'Name servers: "address", "IPv4:port" or "[IPv6]:port"',
            kind="dns_server",
            absent="those of the system",
            example='["127.0.0.1", "[::1]:5353"]',
        ),
    ] = []
    timeout: Annotated[float, Key("How long all look-ups for one next hop may take", kind="duration", least=0.1, most=300.0)] = (
        10.0
    )
    client_names: Annotated[
        bool,
        Key("Look up the names of clients for log and Received; no greeting waits for it, and only names that lead back count"),
    ] = False
    check_timeout: Annotated[float, Key("How long one question of a check may take", kind="duration", least=0.05, most=60.0)] = (
        5.0
    )
    check_queries: Annotated[int, Key("Questions of checks that one worker has under way at once", least=1, most=100_000)] = 500
    cache_answers: Annotated[int, Key("Answers that each worker keeps for its checks", least=1, most=10_000_000)] = 50_000
    negative_ttl: Annotated[
        float, Key("How long it is kept that a name or its records don't exist", kind="duration", least=0.0, most=DAY_S)
    ] = 300.0
