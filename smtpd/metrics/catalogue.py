"""Every metric by name, as data: kind, help, labels with their closed values, buckets, and how workers' values are merged.

The one list that cells, collector and docs/metrics.md are made from. Label values come from the closed sets here or from names in
the configuration (listeners, routes, checks), never from a peer. Owns no value of any metric.
"""

from __future__ import annotations

from dataclasses import dataclass

COUNTER = "counter"
GAUGE = "gauge"
HISTOGRAM = "histogram"

# Bucket bounds by ruler number; a histogram names one of these.
LATENCY = 0  # seconds: 0.5 ms to 60 s
SIZE = 1  # octets: 1 KiB to 64 MiB
DELIVERY = 2  # seconds: 10 ms to 5 d
BATCH = 3  # mails of one commit
RULERS: tuple[tuple[float, ...], ...] = (
    (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0),
    tuple(float(1024 * 4**power) for power in range(9)),
    (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 43200.0, 86400.0,
     259200.0, 432000.0),
    tuple(float(2**power) for power in range(11)),
)  # fmt: skip

# How the values of a gauge that several workers set become one.
SUM = "sum"
MAX = "max"
MIN = "min"  # of those that set it: they look at the same disk

# Sets of label values that the configuration fills.
LISTENERS = "listeners"
ROUTES = "routes"
CHECKS = "checks"


@dataclass(frozen=True, slots=True)
class Label:
    """`values` is the closed set; or `filled_by` says which names of the configuration it holds."""

    name: str
    values: tuple[str, ...] = ()
    filled_by: str = ""


@dataclass(frozen=True, slots=True)
class Metric:
    """`ruler` is a histogram's index into RULERS. `is_per_worker`: the collector adds the label `worker`, the slot's number.

    `is_masters`: the master sets it (`collector.MasterGauges`), with the labels given here; it has no cells.
    """

    name: str
    kind: str
    help: str
    labels: tuple[Label, ...] = ()
    ruler: int = -1
    merge: str = SUM
    is_per_worker: bool = False
    is_masters: bool = False


def _closed(name: str, values: str) -> Label:
    return Label(name, tuple(values.split()))


_LISTENER = Label("listener", filled_by=LISTENERS)
_ROUTE = Label("route", filled_by=ROUTES)
_CHECK = Label("check", filled_by=CHECKS)
_RESULT = _closed("result", "accepted rejected deferred discarded")
_CHECK_RESULT = _closed("result", "ok reject defer error timeout")
_DENIED = "host_limit client_limit rate pregreet dnsbl shed_memory shed_disk shed_queue proxy_header"
_ENDED = "quit client_lost idle deadline too_many_errors tls_error shutdown conduct policy"
_COMMANDS = (
    "helo ehlo lhlo mail rcpt data bdat rset noop vrfy expn help quit starttls auth xclient etrn other"  # as _parser.VERB_NAMES
)
_CODES = (
    "211 214 220 221 250 251 252 334 354 421 450 451 452 454 455 "
    "500 501 502 503 504 521 523 530 534 535 538 550 551 552 553 554 555 556 other"
)
_VIOLATIONS = "early_talker pipelining bare_lf bare_cr line_too_long forbidden_command nul"
_REFUSALS = (
    "relay_denied unknown_user sender_domain dnsbl greylist rate milter policy_service size content spf dmarc syntax other"
)

METRICS: tuple[Metric, ...] = (
    Metric("smtpd_connections_total", COUNTER, "Connections accepted", (_LISTENER,)),
    Metric("smtpd_connections_active", GAUGE, "Connections open now", (_LISTENER,)),
    Metric(
        "smtpd_connections_denied_total", COUNTER, "Connections turned away before a session began",
        (_LISTENER, _closed("reason", _DENIED)),
    ),
    Metric("smtpd_sessions_ended_total", COUNTER, "Sessions by how they ended", (_LISTENER, _closed("reason", _ENDED))),
    Metric("smtpd_commands_total", COUNTER, "Commands received; other is every unknown verb", (_closed("command", _COMMANDS),)),
    Metric("smtpd_replies_total", COUNTER, "Replies sent, by reply code", (_closed("code", _CODES),)),
    Metric(
        "smtpd_protocol_violations_total", COUNTER, "Breaches of the protocol that were noticed", (_closed("kind", _VIOLATIONS),)
    ),
    Metric(
        "smtpd_tls_handshakes_total", COUNTER, "TLS handshakes; version is none where it was not agreed on",
        (_LISTENER, _closed("mode", "starttls implicit"), _closed("version", "none 1.0 1.1 1.2 1.3"),
         _closed("result", "ok error timeout")),
    ),
    Metric("smtpd_messages_total", COUNTER, "Mails whose content was received, by what was answered", (_LISTENER, _RESULT)),
    Metric("smtpd_message_bytes_total", COUNTER, "Octets of content received, by what was answered", (_LISTENER, _RESULT)),
    Metric("smtpd_recipients_total", COUNTER, "Recipients of the mails of smtpd_messages_total", (_LISTENER, _RESULT)),
    Metric("smtpd_message_size_bytes", HISTOGRAM, "Size of accepted mails", (_LISTENER,), SIZE),
    Metric("smtpd_session_seconds", HISTOGRAM, "Duration of sessions", (_LISTENER,), LATENCY),
    Metric("smtpd_end_of_data_seconds", HISTOGRAM, "End of a mail to its reply: checks and commit", (_LISTENER,), LATENCY),
    Metric(
        "smtpd_rejections_total", COUNTER, "Refused commands and mails, 4xx and 5xx",
        (_LISTENER, _closed("stage", "connect helo mail rcpt data body"), _closed("reason", _REFUSALS)),
    ),
    Metric("smtpd_policy_checks_total", COUNTER, "Answers of policy checks", (_CHECK, _CHECK_RESULT)),
    Metric("smtpd_policy_check_seconds", HISTOGRAM, "Time to the answer of policy checks", (_CHECK, _CHECK_RESULT), LATENCY),
    Metric("smtpd_spool_commit_seconds", HISTOGRAM, "Time of a group commit to the disk", (), LATENCY),
    Metric("smtpd_spool_commit_messages", HISTOGRAM, "Mails in one group commit", (), BATCH),
    Metric("smtpd_spool_free_bytes", GAUGE, "Space that the spool can still use", merge=MIN),
    Metric("smtpd_spool_free_inodes", GAUGE, "Inodes that the spool can still use", merge=MIN),
    Metric("smtpd_queue_messages", GAUGE, "Mails in the queue", (_ROUTE, _closed("state", "active deferred held"))),
    Metric("smtpd_queue_bytes", GAUGE, "Octets of the mails in the queue", (_ROUTE, _closed("state", "active deferred held"))),
    Metric(
        "smtpd_queue_oldest_age_seconds", GAUGE, "Age of the oldest mail in the queue",
        (_ROUTE, _closed("state", "active deferred held")), merge=MAX,
    ),
    Metric(
        "smtpd_delivery_attempts_total", COUNTER, "Attempts to deliver to a recipient",
        (_ROUTE, _closed("result", "delivered deferred bounced")),
    ),
    Metric(
        "smtpd_delivery_delay_seconds", HISTOGRAM, "Time of delivered recipients by stage; total is since the mail was received",
        (_ROUTE, _closed("stage", "queue connect transmit total")), DELIVERY,
    ),
    Metric("smtpd_delivery_connections_active", GAUGE, "Connections to next hops", (_ROUTE,)),
    Metric("smtpd_delivery_unconfirmed_total", COUNTER, "Mails sent whose last reply was lost: they may arrive twice", (_ROUTE,)),
    Metric(
        "smtpd_delivery_unannounced_8bit_total", COUNTER, "Mails with 8-bit text sent to a next hop without 8BITMIME", (_ROUTE,)
    ),
    Metric("smtpd_bounces_total", COUNTER, "Reports of undeliverable mail, by the route of the mail", (_ROUTE,)),
    Metric("smtpd_worker_up", GAUGE, "1 while the worker of this slot serves", (Label("worker"),), is_masters=True),
    Metric(
        "smtpd_worker_restarts_total", COUNTER, "Workers of this slot that ended without being asked to", (Label("worker"),),
        is_masters=True,
    ),
    Metric(
        "smtpd_worker_loop_lag_seconds", HISTOGRAM, "How late a worker's timers ran", ruler=LATENCY, is_per_worker=True
    ),
    Metric("smtpd_worker_buffer_bytes", GAUGE, "Octets in connections' buffers", is_per_worker=True),
    Metric("smtpd_log_lines_dropped_total", COUNTER, "Log lines lost because their destination was stuck or gone"),
    Metric("smtpd_stress_mode", GAUGE, "1 while timeouts and error limits are tightened", merge=MAX),
    Metric("smtpd_config_last_reload_success", GAUGE, "1 when the configuration as last read took effect", is_masters=True),
    Metric(
        "smtpd_config_last_reload_timestamp_seconds", GAUGE, "When the configuration last took effect, Unix time", is_masters=True
    ),
    Metric(
        "smtpd_tls_certificate_expiry_timestamp_seconds", GAUGE, "When a certificate expires, Unix time", (Label("certificate"),),
        is_masters=True,
    ),
    Metric("smtpd_build_info", GAUGE, "Always 1; the version that runs", (Label("version"),), is_masters=True),
)  # fmt: skip

BY_NAME: dict[str, Metric] = {metric.name: metric for metric in METRICS}
