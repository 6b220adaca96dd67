"""What `smtpd serve` tells a newcomer, and the frame of the command."""

import shlex
import subprocess
import sys

import pytest

from smtpd.cli.serve import find_route, guide
from smtpd.settings import PolicySettings, RouteSettings, Settings


def maildir(*domains: str, path: str = "./var/mail") -> RouteSettings:
    return RouteSettings(domains=list(domains), transport="maildir", path=path)


def test_the_guide_says_where_how_and_whereto() -> None:
    text = guide(Settings(route=[maildir("*")]), "", ["127.0.0.1:2525"], "127.0.0.1:9025")
    assert "127.0.0.1:2525" in text
    assert "./var/mail/example.org/you/new/" in text
    assert "http://127.0.0.1:9025/metrics" in text
    command = next(line.strip() for line in text.splitlines() if "smtplib" in line)
    program, flag, code = shlex.split(command)
    assert (program, flag) == ("python3", "-c")
    compile(code, "guide", "exec")


def test_the_guide_uses_a_domain_that_is_taken_and_its_route() -> None:
    settings = Settings(
        policy=PolicySettings(relay_domains=["a.example.net"]),
        route=[maildir("other.example", path="/wrong"), maildir(".example.net", path="/right")],
    )
    text = guide(settings, "x.toml", ["[::1]:25"], "")
    assert "you@a.example.net" in text
    assert 'SMTP("::1", 25)' in text
    assert "/right/a.example.net/you/new/" in text
    assert "Metrics" not in text


def test_without_a_tcp_listener_there_is_no_smtplib_line() -> None:
    assert "smtplib" not in guide(Settings(), "x.toml", ["unix:/run/x.sock"], "")


@pytest.mark.parametrize(
    ("domain", "path"), [("a.org", "1"), ("b.a.org", "2"), ("c.b.a.org", "2"), ("org", "3"), ("xa.org", "3")]
)
def test_the_first_route_that_matches_counts(domain: str, path: str) -> None:
    routes = [maildir("a.org", path="1"), maildir(".a.org", path="2"), maildir("*", path="3")]
    route = find_route(routes, domain)
    assert route is not None
    assert route.path == path


def test_help_names_every_command_without_importing_them() -> None:
    code = (
        "import sys\nfrom smtpd.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted(name for name in sys.modules if name.startswith('smtpd.')))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    for command in ("serve", "check", "config", "queue", "sink"):
        assert f"  {command} " in ended.stdout
    expected = ["smtpd.cli", "smtpd.cli.main", "smtpd.compiled", "smtpd.errors", "smtpd.log", "smtpd.log.descriptors"]
    assert ended.stdout.splitlines()[-1] == str(expected)
