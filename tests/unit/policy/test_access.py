"""Access lists: the narrowest pattern wins, what each action comes to, and what is said of a bad rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from smtpd.errors import StartupError
from smtpd.mail.changes import Discard, Hold
from smtpd.mail.envelope import Recipient
from smtpd.mail.verdict import END_ALL, END_STAGE, Verdict
from smtpd.policy.access import AccessCheck, AccessSettings, parse_rule
from smtpd.policy.check import Client, Question
from smtpd.settings import Settings


class Host:
    name = "access"


def make(*rules: str, file: str = "") -> AccessCheck:
    return AccessCheck(AccessSettings(rules=list(rules), file=file), cast(Any, Host()))


def client(check: AccessCheck, address: str, helo: bytes = b"") -> Verdict | None:
    return check.ask(Question("connect", Client(address, helo=helo)))


def sender(check: AccessCheck, path: bytes) -> Verdict | None:
    return check.ask(Question("mail", Client("192.0.2.1"), reverse_path=path))


def text(verdict: Verdict | None) -> bytes:
    return b"" if verdict is None or verdict.reply is None else verdict.reply.text


def test_the_narrowest_network_wins() -> None:
    check = make(
        "client 192.0.2.0/24 reject", "client 192.0.2.7 pass", "client 2001:db8::/32 tempfail", "client 0.0.0.0/0 accept"
    )
    assert text(client(check, "192.0.2.9")) == b"554 5.7.1 Client host rejected: Access denied"
    assert client(check, "192.0.2.7") is None
    assert text(client(check, "::ffff:192.0.2.9")).startswith(b"554")
    assert text(client(check, "2001:db8::1")) == b"450 4.7.1 Client host deferred: Access denied"
    accepted = client(check, "198.51.100.1")
    assert accepted is not None
    assert accepted.ending == END_STAGE
    assert client(check, "2001:db9::1") is None
    assert client(check, "") is None
    assert check.stages == ("connect",)


def test_addresses_before_domains_before_parents() -> None:
    check = make("sender alice@bad.example pass", "sender bad.example reject", "sender .bad.example tempfail", "sender <> hold")
    assert sender(check, b"ALICE@bad.example") is None
    assert text(sender(check, b"bob@BAD.example")).startswith(b"550 5.7.1 Sender address rejected")
    assert text(sender(check, b"bob@a.b.bad.example")).startswith(b"450 ")
    assert sender(check, b"bob@verybad.example") is None
    held = sender(check, b"")
    assert held is not None
    assert held.changes == (Hold("access list"),)


def test_helo_and_recipient() -> None:
    check = make(
        "helo .dyn.example exempt", "recipient list@example.org discard too old", "recipient example.org reject 551 5.1.6 Moved"
    )
    exempt = check.ask(Question("helo", Client("192.0.2.1", helo=b"a.DYN.example")))
    assert exempt is not None
    assert exempt.ending == END_ALL
    ask = lambda path: check.ask(Question("rcpt", Client("192.0.2.1"), recipient=Recipient(path, "example.org")))  # noqa: E731
    dropped = ask(b"list@example.org")
    assert dropped is not None
    assert dropped.changes == (Discard("too old"),)
    assert text(ask(b"eve@example.org")) == b"551 5.1.6 Moved"
    assert check.stages == ("helo", "rcpt")


@pytest.mark.parametrize(
    "rule",
    [
        "client reject",
        "client 300.1.1.1 reject",
        "host a reject",
        "sender a..b reject",
        "helo a@b reject",
        "recipient <> reject",
        "sender a refuse",
    ],
)
def test_a_bad_rule_is_named(rule: str) -> None:
    with pytest.raises(ValueError, match=rule[:5]):
        parse_rule(rule)
    assert [key for key, _ in AccessCheck.find_faults(AccessSettings(rules=[rule]), Settings())] == ["rules"]


def test_a_file_is_read_with_its_faults_by_line(tmp_path: Path) -> None:
    path = tmp_path / "rules"
    path.write_text("# comment\n\nsender bad.example reject\nsender bad.example pass\nsender x\n")
    faults = list(AccessCheck.find_faults(AccessSettings(file=str(path)), Settings()))
    assert [fault.split(": ")[0] for _, fault in faults] == [f"{path}:4", f"{path}:5"]
    with pytest.raises(StartupError, match="expected a kind"):
        make(file=str(path))
    path.write_text("sender bad.example reject\n")
    assert text(sender(make(file=str(path)), b"a@bad.example")).startswith(b"550")
    with pytest.raises(StartupError, match="No such file"):
        make(file=str(tmp_path / "missing"))
    assert [key for key, _ in AccessCheck.find_faults(AccessSettings(), Settings())] == ["rules"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("450 Not now", b"450 4.7.1 Not now"),
        ("5.1.1 Gone", b"550 5.1.1 Gone"),
        ("421 5.7.0 x", b"421 4.7.0 x"),
        ("Nö\x01", b"550 5.7.1 N??"),
    ],
)
def test_a_text_becomes_a_reply_that_may_stand_on_the_wire(given: str, said: bytes) -> None:
    assert text(parse_rule(f"sender a.example reject {given}")[2]) == said
