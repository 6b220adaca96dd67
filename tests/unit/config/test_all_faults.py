"""One file with a fault of every sort: all are reported at once, each with its line, key and words."""

from __future__ import annotations

import os
import pathlib

import pytest

from smtpd.config import ConfigError, examine, load_settings
from smtpd.settings.gateway import EHLO_KEYWORDS

BAD = """\
hostnam = "x"
node = 4096
workers = "many"
user = 5
run_dir = ""
[[listener]]
adress = "0.0.0.0:25"
dsn = "yes"
[[listener]]
address = "10.0.0.1"
protocol = "LMTP"
banner = "a\\u001b[31m"
backlog = 1.5
tls = "starttls"
xclient = []
[[listener]]
address = "127.0.0.1:25"
protocol = "lmtp"
suppress = { "10.0.0.1/8" = [
  "DSN"], "10.0.0.0/8" = ["dsn"], "::" = "DSN" }
[limits]
message_size = "50 MXB"
header_size = "1 B"
command_timeout = "5 m"
data_timeout = 0
recipients = true
error_delay = inf
hop_limit = 999999999999999999999999999999999999
connection_rate = "5"
[policy]
relay_domains = ["example.org", "*", "a b",
  "example.ORG", "*.x.y", 7]
bare_newline = "normalise"
bare_newline_networks = { "10.0.0.0/8" = "no" }
postmaster = "postmaster"
trusted = "127.0.0.1"
recipients = "text:/etc/smtpd/recipients"
check = [{ name = "acess" }, { name = "access", rule = [], on_error = "fail" }]
[spool]
engine = "jetstream"
path = ["x"]
[spool.jetstream]
stream = "smtpd"
[[route]]
domains = []
transport = "maildir"
[[route]]
domains = "x"
transport = "smtp"
next_hop = []
[[route]]
domains = ["a..b"]
transport = "discard"
path = "/x"
[[route]]
transport = "dicsard"
[delivery]
retry = ["0"]
lifetime = 2020-01-01
[metrics]
address = "unix:/x"
[log]
destination = "sderr"
syslog_name = "a b"
level = "debug"
[redis]
url = ""
[smtp]
"""

SAID = [
    (1, "hostnam", 'unknown key (did you mean "hostname"?)'),
    (2, "node", "expected at most 4095, not the number 4096"),
    (3, "workers", 'expected a whole number, not the text "many"'),
    (4, "user", "expected a text in quotes, not the number 5"),
    (5, "run_dir", "the path is empty"),
    (6, "listener.address", "this key is needed"),
    (7, "listener.adress", 'unknown key (did you mean "address"?)'),
    (8, "listener.dsn", 'expected true or false, not the text "yes"'),
    (10, "listener.address", 'the port is missing: expected "address:port" or "unix:/path"'),
    (11, "listener.protocol", '"LMTP" is not one of smtp, lmtp (did you mean "lmtp"?)'),
    (12, "listener.banner", r'expected at most 200 printable ASCII characters, not "a\x1b[31m"'),
    (13, "listener.backlog", "expected a whole number, not the number 1.5"),
    (14, "listener.tls", "not supported by this version"),
    (15, "listener.xclient", "not supported by this version"),
    (17, "listener.address", "LMTP must not use port 25 (RFC 2033 5)"),
    (19, 'listener.suppress."10.0.0.1/8"', '"10.0.0.1/8" has host bits set (did you mean "10.0.0.0/8"?)'),
    (
        20,
        'listener.suppress."10.0.0.0/8"',
        f'"dsn" is not one of {", ".join(EHLO_KEYWORDS)} (did you mean "DSN"?)',
    ),
    (20, 'listener.suppress."::"', 'expected a list in [brackets], not the text "DSN"'),
    (22, "limits.message_size", 'unknown unit "MXB" (did you mean "MB"?)'),
    (23, "limits.header_size", 'expected at least 1 KiB, or 0 for no limit, not the text "1 B"'),
    (24, "limits.command_timeout", 'unknown unit "m" (did you mean "min"?)'),
    (25, "limits.data_timeout", "expected at least 1 ms, not the number 0"),
    (26, "limits.recipients", "expected a whole number, not true"),
    (27, "limits.error_delay", "expected at most 1 min, not a huge number"),
    (28, "limits.hop_limit", "expected at most 10000, not a huge number"),
    (29, "limits.connection_rate", '"5": expected a rate such as "600/min", or "0" for no limit'),
    (31, "policy.relay_domains", '"*" would relay for everybody; for any domain on loopback leave the key out'),
    (31, "policy.relay_domains", '"a b" is not a domain'),
    (32, "policy.relay_domains", '"example.org" is in the list already'),
    (32, "policy.relay_domains", '"*.x.y" is not a domain (did you mean ".x.y" for all below it?)'),
    (32, "policy.relay_domains", "expected a text in quotes, not the number 7"),
    (33, "policy.bare_newline", '"normalise" is not one of normalize, reject (did you mean "normalize"?)'),
    (34, 'policy.bare_newline_networks."10.0.0.0/8"', '"no" is not one of normalize, reject'),
    (35, "policy.postmaster", '"postmaster" is not a mailbox such as "postmaster@example.org"'),
    (36, "policy.trusted", 'expected a list in [brackets], not the text "127.0.0.1"'),
    (37, "policy.recipients", "not supported by this version"),
    (38, "policy.check.name", '"acess": there is no such check (did you mean "access"?)'),
    (38, "policy.check.rule", 'unknown key (did you mean "rules"?)'),
    (38, "policy.check.on_error", '"fail" is not one of tempfail, accept, reject (did you mean "tempfail"?)'),
    (40, "spool.engine", '"jetstream" is not supported by this version'),
    (41, "spool.path", "expected a text in quotes, not a list"),
    (42, "spool.jetstream", "not supported by this version"),
    (44, "route.path", 'transport = "maildir" needs a path'),
    (45, "route.domains", "at least one domain is needed"),
    (48, "route.domains", 'expected a list in [brackets], not the text "x"'),
    (50, "route.next_hop", 'transport = "smtp" needs a next_hop'),
    (52, "route.domains", '"a..b" is not a domain'),
    (54, "route.path", 'transport = "discard" takes no path'),
    (55, "route.domains", "this key is needed"),
    (56, "route.transport", '"dicsard" is not one of smtp, lmtp, maildir, discard (did you mean "discard"?)'),
    (58, "delivery.retry", 'expected at least 1 ms, not the text "0"'),
    (59, "delivery.lifetime", 'expected a duration ("5 min"), not the date or time 2020-01-01'),
    (61, "metrics.address", 'expected "address:port", not a unix socket'),
    (
        63,
        "log.destination",
        '"sderr" is not one of stderr, syslog, none, nor a path with a "/" (did you mean "stderr"?)',
    ),
    (64, "log.syslog_name", '"a b" is not a program name: 1 to 32 of letters, digits and "-_./"'),
    (65, "log.level", '"debug" is not one of info, warning'),
    (66, "redis", "not supported by this version"),
    (68, "smtp", "unknown key"),
]


def test_all_faults_at_once(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "smtpd.toml")
    pathlib.Path(path).write_text(BAD, encoding="utf-8")
    assert [(fault.line, fault.key, fault.text) for fault in examine(path).faults] == SAID
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    assert caught.value.exit_code == os.EX_CONFIG
    lines = str(caught.value).splitlines()
    assert len(lines) == len(SAID)
    assert lines[0] == f'{path}:1: hostnam: unknown key (did you mean "hostname"?)'
