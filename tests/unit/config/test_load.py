"""Loading a file: what is taken, and every fault and warning with its line, key and words."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from smtpd.config import ConfigError, embedded_default, examine, load, load_settings
from smtpd.config.complete import machine_name
from smtpd.settings import Settings

Write = Callable[[str | bytes], str]

GOOD = """\
hostname = "mx.example.org"

[[listener]]
name = "mx"
address = "0.0.0.0:25"

[policy]
relay_domains = ["example.org"]
postmaster = "postmaster@example.org"

[spool]
path = "/var/spool/smtpd"

[[route]]
domains = ["example.org"]
transport = "maildir"
path = "/var/mail"
"""


@pytest.fixture
def write(tmp_path: pathlib.Path) -> Write:
    def write_file(text: str | bytes) -> str:
        path = tmp_path / "smtpd.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write_file


def faults_of(path: str) -> list[tuple[int, str, str]]:
    return [(fault.line, fault.key, fault.text) for fault in examine(path).faults]


def warnings_of(path: str) -> list[tuple[int, str, str]]:
    examined = examine(path)
    assert examined.faults == []
    return [(warning.line, warning.key, warning.text) for warning in examined.warnings]


def test_a_good_file(write: Write) -> None:
    examined = examine(write(GOOD))
    assert (examined.faults, examined.warnings) == ([], [])
    settings = load_settings(write(GOOD))
    assert settings == examined.settings
    assert settings.listener[0].name == "mx"
    assert settings.route[0].name == "maildir-1"
    assert settings.policy.relay_domains == ["example.org"]
    assert settings.limits == Settings().limits


def test_values_come_in_octets_and_seconds_and_normal_forms(write: Write) -> None:
    settings = load_settings(
        write(
            GOOD.replace('"example.org"]', '"Bücher.Example.", ".EXAMPLE.net"]').replace("[spool]", "[spool]\nfree_bytes = 7")
            + '[limits]\nmessage_size = "2 MiB"\ncommand_timeout = 90\nerror_delay = 0.5\nline_length = "0"\n'
            + '[delivery]\nretry = ["1 min", 90, "1 h 30 min"]\n'
        )
    )
    assert settings.policy.relay_domains == ["xn--bcher-kva.example", ".example.net"]
    assert settings.route[0].domains == ["xn--bcher-kva.example", ".example.net"]
    assert settings.limits.message_size == 2 << 20
    assert settings.limits.command_timeout == 90.0
    assert settings.limits.error_delay == 0.5
    assert settings.limits.line_length == 0
    assert settings.spool.free_bytes == 7
    assert settings.delivery.retry == [60.0, 90.0, 5400.0]
    assert type(settings.limits.command_timeout) is float


def test_tables_may_be_written_inline_or_dotted(write: Write) -> None:
    settings = load_settings(
        write(
            'listener = [{ address = "127.0.0.1:0", suppress = { "10.0.0.0/8" = ["DSN"] } }]\n'
            'route = [{ domains = ["*"], transport = "discard" }]\n'
            'limits.recipients = 5\nspool = { engine = "discard" }\n'
        )
    )
    assert settings.listener[0].suppress == {"10.0.0.0/8": ["DSN"]}
    assert settings.limits.recipients == 5
    assert settings.spool.engine == "discard"


def with_line(anchor: str, added: str) -> str:
    """The good file with a line after the one that starts with `anchor`."""
    assert anchor in GOOD
    return re.sub(f"(?m)^({re.escape(anchor)}.*)$", lambda m: m[1] + "\n" + added, GOOD, count=1)


LISTENER = '[[listener]]\naddress = "{}"\n'
ROUTE = '[[route]]\ndomains = ["{}"]\ntransport = "discard"\n'


@pytest.mark.parametrize(
    ("text", "line", "key", "said"),
    [
        (GOOD + LISTENER.format("0.0.0.0:25"), 19, "listener.address", '"0.0.0.0:25" has a listener already'),
        (GOOD + "[overload]\nmemory_high = 50\nmemory_low = 50\n", 20, "overload.memory_low", "not below memory_high"),
        (GOOD + '[overload]\nloop_lag_low = "2 s"\n', 19, "overload.loop_lag_low", "not below loop_lag_high"),
        (
            GOOD + LISTENER.format("[0::1]:25") + LISTENER.format("[::1]:25"),
            21,
            "listener.address",
            '"[::1]:25" has a listener already',
        ),
        (
            GOOD + LISTENER.format("unix:/a") + LISTENER.format("unix:/a"),
            21,
            "listener.address",
            '"unix:/a" has a listener already',
        ),
        (
            GOOD + LISTENER.format("0.0.0.0:26") + 'name = "mx"\n',
            20,
            "listener.name",
            '"mx" is the name of another listener',
        ),
        (
            GOOD + LISTENER.format("127.0.0.1:9025"),
            1,
            "metrics.address",
            '"127.0.0.1:9025" is the address of a listener',
        ),
        (
            GOOD.replace('relay_domains = ["example.org"]', ""),
            5,
            "listener.address",
            '"0.0.0.0:25" is not loopback and policy.relay_domains is absent: an open relay for everybody who can reach it',
        ),
        (
            GOOD + ROUTE.format("a.example") + 'name = "maildir-1"\n',
            21,
            "route.name",
            '"maildir-1" is the name of another route',
        ),
        (re.sub(r"(?s)\[\[listener.*\n\n(?=\[policy)", "", GOOD), 1, "listener", "at least one [[listener]] is needed"),
        (GOOD.replace("[[route]]", "[route]"), 14, "route", "expected a table in double brackets, [[route]], not a table"),
        ("spool = 1\n" + GOOD.replace("[spool]\npath =", "#"), 1, "spool", "expected a table [spool], not the number 1"),
        ("listener = [1]\n", 1, "listener", "expected a table, not the number 1"),
        ("listener = 1\n", 1, "listener", "expected an array of tables, [[listener]], not the number 1"),
        (GOOD + "[delivery]\nretry = []\n", 19, "delivery.retry", "at least one waiting time is needed"),
        (
            GOOD + '[limits]\nsoft_errors = "' + "x" * 500 + '"\n',
            19,
            "limits.soft_errors",
            'expected a whole number, not the text "' + "x" * 80 + '…"',
        ),
        (with_line('path = "/var/spool', "lifetime = 5"), 13, "spool.lifetime", "unknown key"),
        (with_line("[policy]", '"a b\\n" = 5'), 8, 'policy."a b\\n"', "unknown key"),
    ],
)
def test_one_fault(write: Write, text: str, line: int, key: str, said: str) -> None:
    assert faults_of(write(text)) == [(line, key, said)]


def test_port_0_and_wildcards_may_repeat(write: Write) -> None:
    listeners = LISTENER.format("127.0.0.1:0") + 'name = "a"\n' + LISTENER.format("127.0.0.1:0") + LISTENER.format("[::]:25")
    assert faults_of(write(GOOD + listeners)) == []


def test_any_domain_is_for_loopback_and_unix_sockets(write: Write) -> None:
    local = GOOD.replace('relay_domains = ["example.org"]', "")
    for address in ("127.0.0.1:25", "[::1]:25", "unix:/run/lmtp"):
        assert faults_of(write(local.replace("0.0.0.0:25", address))) == []
    for address in ("0.0.0.0:25", "[::]:25", "192.0.2.1:25", "[fe80::1]:25"):
        assert len(faults_of(write(local.replace("0.0.0.0:25", address)))) == 1


@pytest.mark.parametrize(
    ("text", "line", "key", "said"),
    [
        (
            GOOD.replace('relay_domains = ["example.org"]', 'relay_domains = ["example.org",\n"a.example"]'),
            9,
            "policy.relay_domains",
            'mail for "a.example" is refused with 550 5.4.4, no route',
        ),
        (
            GOOD[: GOOD.index("[[route]]")],
            1,
            "route",
            "there is no [[route]]: all mail is refused with 550 5.4.4, no route",
        ),
        (
            GOOD.replace('postmaster = "postmaster@example.org"', ""),
            7,
            "policy.postmaster",
            'no route for "postmaster@mx.example.org": its mail is taken and stays queued',
        ),
        (
            GOOD + ROUTE.format("example.org"),
            19,
            "route.domains",
            '"example.org" is never reached: route "maildir-1" takes it',
        ),
        (
            GOOD + ROUTE.format("*") + ROUTE.format("b.example"),
            22,
            "route.domains",
            '"b.example" is never reached: route "discard-2" takes it',
        ),
        (
            GOOD.replace('address = "0.0.0.0:25"', 'address = "0.0.0.0:25"\nxclient = ["10.0.0.0/8", "0.0.0.0/0"]'),
            6,
            "listener.xclient",
            "any client may say that it is another one",
        ),
        (
            GOOD.replace('"/var/spool/smtpd"', '"spool"'),
            12,
            "spool.path",
            '"spool" depends on the directory where smtpd is started',
        ),
        (
            'user = "no such user"\n' + GOOD,
            1,
            "user",
            '"no such user" is not a user of this machine',
        ),
        (
            GOOD + "[limits]\nsoft_errors = 21\n",
            19,
            "limits.soft_errors",
            "never reached: the connection is closed at hard_errors = 20",
        ),
        (
            GOOD + "[limits]\nrecipients = 50\n",
            19,
            "limits.recipients",
            "clients may expect 100 at least (RFC 5321 4.5.3.1.8)",
        ),
        (
            GOOD + '[limits]\nmessage_size = "1 MB"\n',
            18,
            "limits.header_size",
            "never reached: it is larger than message_size",
        ),
        (
            GOOD + '[delivery]\nlifetime = "1 min"\n',
            19,
            "delivery.lifetime",
            "shorter than the first waiting time: no mail is tried twice",
        ),
    ],
)
def test_one_warning(write: Write, text: str, line: int, key: str, said: str) -> None:
    assert warnings_of(write(text)) == [(line, key, said)]


def test_a_spool_that_forgets_everything_is_no_open_relay(write: Write) -> None:
    text = GOOD.replace('relay_domains = ["example.org"]', "").replace("[spool]", '[spool]\nengine = "discard"')
    assert warnings_of(write(text)) == [
        (
            5,
            "listener.address",
            '"0.0.0.0:25" is not loopback and policy.relay_domains is absent: mail for any domain is taken, and forgotten',
        )
    ]


@pytest.mark.parametrize(
    "bad",
    [
        "[limits]\nhard_errors = true\nsoft_errors = 30\n",
        '[limits]\nmessage_size = "2 KiB"\nheader_size = true\n',
        '[delivery]\nretry = "1 h"\nlifetime = "1 s"\n',
    ],
)
def test_what_is_bad_by_itself_is_not_compared(write: Write, bad: str) -> None:
    examined = examine(write(GOOD + bad))
    assert len(examined.faults) == 1
    assert examined.warnings == []


def test_any_domain_without_a_route_for_the_rest_is_a_warning(write: Write) -> None:
    text = GOOD.replace('relay_domains = ["example.org"]', "").replace("0.0.0.0", "127.0.0.1")
    assert warnings_of(write(text)) == [
        (14, "route", 'no route takes "*": mail for other domains is refused with 550 5.4.4, no route')
    ]


@pytest.mark.parametrize(
    ("relay", "route", "is_routed"),
    [
        ("a.example.org", "a.example.org", True),
        ("a.example.org", ".example.org", True),
        ("b.a.example.org", ".example.org", True),
        (".a.example.org", ".example.org", True),
        (".example.org", ".example.org", True),
        ("example.org", ".example.org", False),
        (".example.org", "a.example.org", False),
        ("badexample.org", ".example.org", False),
        ("x.org", "*", True),
    ],
)
def test_which_relay_domains_have_a_route(write: Write, relay: str, route: str, is_routed: bool) -> None:
    text = GOOD.replace("postmaster@example.org", "postmaster@pm.example")
    text = text.replace('\ndomains = ["example.org"]', f'\ndomains = ["{route}", "pm.example"]')
    text = text.replace('relay_domains = ["example.org"]', f'relay_domains = ["{relay}"]')
    assert [key for _, key, _ in warnings_of(write(text))] == ([] if is_routed else ["policy.relay_domains"])


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a = 1\nb =\n", 2, "not TOML: invalid value (column 4)"),
        ("a = 1\na = 2\n", 2, "not TOML: cannot overwrite a value (column 6)"),
        ("[x]\n[x]\n", 2, "not TOML: cannot declare ('x',) twice (column 3)"),
        ('a = "x\n', 1, "not TOML: illegal character '\\n' (column 7)"),
        ('x = 1\na = """x\n\n', 3, "not TOML: unterminated string (at the end of the file)"),
        (b"a = 1\nb = '\xff'\n", 2, "not UTF-8: byte 0xff"),
        (b"\xff\xfea\0", 1, "not UTF-8: byte 0xff"),
        ("a = " + "[" * 20_000, 0, "lists or tables are nested too deeply"),
        (b"\0" * (9 << 20), 0, "larger than 8 MiB, this is no configuration file"),
    ],
)
def test_not_toml(write: Write, text: str | bytes, line: int, said: str) -> None:
    assert faults_of(write(text)) == [(line, "", said)]


def test_a_number_of_thousands_of_digits(write: Write) -> None:
    ((line, key, said),) = faults_of(write("node = " + "9" * 5000))
    assert (line, key) == (0, "")
    assert said.startswith("not TOML: Exceeds the limit")


def test_a_byte_order_mark_and_crlf_are_taken(write: Write) -> None:
    text = GOOD.replace("\n", "\r\n") + "nonsense = 1\r\n"
    assert faults_of(write(b"\xef\xbb\xbf" + text.encode())) == [(18, "route.nonsense", "unknown key")]


def test_files_that_cannot_be_read(tmp_path: pathlib.Path) -> None:
    missing = str(tmp_path / "no\x1bfile")
    assert faults_of(missing) == [(0, "", "can't be read: No such file or directory")]
    with pytest.raises(ConfigError, match=r"no\\x1bfile: can't be read"):
        load_settings(missing)
    assert faults_of(str(tmp_path)) == [(0, "", "can't be read: Is a directory")]
    assert faults_of("a\0b") == [(0, "", "can't be read: embedded null byte")]


def test_an_unreadable_file(write: Write) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    path = write(GOOD)
    os.chmod(path, 0)
    assert faults_of(path) == [(0, "", "can't be read: Permission denied")]


def test_without_a_path_the_default_file_or_the_embedded_default(
    write: Write,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(load, "DEFAULT_PATH", str(tmp_path / "missing" / "smtpd.toml"))
    assert load_settings(None) == embedded_default()
    assert examine(None).file == ""
    monkeypatch.setattr(load, "DEFAULT_PATH", write(GOOD))
    assert load_settings(None).hostname == "mx.example.org"
    monkeypatch.setattr(load, "DEFAULT_PATH", write("x"))
    with pytest.raises(ConfigError):
        load_settings(None)


def test_the_embedded_default() -> None:
    settings = embedded_default()
    assert [listener.address for listener in settings.listener] == ["127.0.0.1:2525"]
    assert settings.policy.relay_domains is None
    assert (settings.spool.path, settings.run_dir) == ("./var/spool", "./var/run")
    assert [(route.domains, route.path) for route in settings.route] == [(["*"], "./var/mail")]
    assert settings.metrics.address == "127.0.0.1:9025"
    assert settings.hostname
    assert settings.policy.postmaster == f"postmaster@{settings.hostname}"


def test_a_machine_whose_name_is_no_host_name(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.uname", lambda: SimpleNamespace(nodename="my_box"))
    assert machine_name() == ""
    text = GOOD.replace('hostname = "mx.example.org"', "")
    assert warnings_of(write(text)) == [(1, "hostname", 'the machine\'s own name is no host name: "localhost" is used')]
    assert load_settings(write(text)).hostname == "localhost"


def test_name_servers_in_normal_form(write: Write) -> None:
    settings = load_settings(write(GOOD + '[dns]\nservers = ["127.0.0.1", "2001:DB8::1", "[::1]:5353", "10.0.0.1:53"]\n'))
    assert settings.dns.servers == ["127.0.0.1", "2001:db8::1", "[::1]:5353", "10.0.0.1:53"]
    for server in ("dns.example", "10.0.0.1:0", "10.0.0.1:x", "unix:/x", ""):
        text = f'"{server}" is not "address", "IPv4:port" or "[IPv6]:port"'
        assert [fault[2] for fault in faults_of(write(GOOD + f'[dns]\nservers = ["{server}"]\n'))] == [text]


def test_mx_without_the_package_that_looks_it_up(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    route = GOOD.replace('transport = "maildir"\npath = "/var/mail"', 'transport = "smtp"\nnext_hop = ["mx:"]')
    assert faults_of(write(route)) == []
    monkeypatch.setattr("smtpd.config.crosscheck.find_missing", lambda: "it is missing")
    assert faults_of(write(route)) == [(17, "route.next_hop", '"mx:" can\'t be looked up: it is missing')]
    bounce = GOOD + '[bounce]\nenabled = true\nnext_hop = ["mx:"]\n'
    assert faults_of(write(bounce)) == [(20, "bounce.next_hop", '"mx:" can\'t be looked up: it is missing')]


def test_names_of_certificates_that_nobody_checks_are_warned_of(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "smtpd.toml"
    path.write_text(
        '[[listener]]\naddress = "127.0.0.1:0"\n'
        '[[route]]\ndomains = ["*"]\ntransport = "smtp"\nnext_hop = ["192.0.2.1:25"]\ntls_name = "mx.example.org"\n',
        encoding="utf-8",
    )
    examined = examine(str(path))
    assert examined.faults == []
    assert [warning.text for warning in examined.warnings if warning.key == "route.tls_name"] == [
        'has no effect without tls = "require" (tls = "may" takes any certificate)'
    ]


def test_a_file_of_ca_certificates_that_cannot_be_used_is_a_fault(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "smtpd.toml"
    path.write_text(
        '[[listener]]\naddress = "127.0.0.1:0"\n[[route]]\ndomains = ["*"]\ntransport = "smtp"\n'
        f'next_hop = ["192.0.2.1:25"]\ntls = "require"\ntls_ca = "{tmp_path}/none.pem"\n',
        encoding="utf-8",
    )
    (fault,) = examine(str(path)).faults
    assert (fault.line, fault.key, fault.text) == (8, "route.tls_ca", f"{tmp_path}/none.pem: No such file or directory")


@pytest.mark.parametrize("hop", ["localhost:2625", "mx.example.org:2625", "127.0.0.1:2625"])
def test_a_next_hop_that_is_this_gateway_by_name_is_a_fault(tmp_path: pathlib.Path, hop: str) -> None:
    path = tmp_path / "smtpd.toml"
    path.write_text(
        'hostname = "mx.example.org"\n[[listener]]\naddress = "127.0.0.1:2625"\n[[listener]]\naddress = "0.0.0.0:2625"\n'
        '[policy]\nrelay_domains = ["example.org"]\n'
        f'[[route]]\ndomains = ["*"]\ntransport = "smtp"\nnext_hop = ["{hop}"]\n',
        encoding="utf-8",
    )
    assert [fault.key for fault in examine(str(path)).faults] == ["route.next_hop"]
