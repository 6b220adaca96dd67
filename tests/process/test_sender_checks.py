"""Checks that ask DNS, greylisting and authentication through the whole server: replies, log, metrics, the mail that arrives."""

from __future__ import annotations

import os
import signal
import smtplib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from gateway import Gateway, running_gateway, wait_until
from name_server import NameServer

MAIL = b"From: alice@example.org\r\nTo: bob@example.net\r\nSubject: hello\r\n\r\ntext\r\n"
FORGED = b"Authentication-Results: mx.example.net; dmarc=pass header.from=example.com\r\n"


@pytest.fixture
def names() -> Iterator[NameServer]:
    server = NameServer()
    server.add("example.org", "MX", "10 mail.example.org.")
    server.add("example.org", "TXT", '"v=spf1 ip4:127.0.0.0/8 -all"')
    server.add("_dmarc.example.org", "TXT", '"v=DMARC1; p=reject"')
    server.add("null.example", "MX", "0 .")
    server.add("forged.example", "A", "127.0.0.1")
    server.add("forged.example", "TXT", '"v=spf1 -all"')
    yield server
    server.close()


def settings_with(names: NameServer, *checks: dict[str, Any]) -> dict[str, Any]:
    return {
        "workers": 1,
        "dns": {"servers": [names.address], "timeout": 1.2, "check_timeout": 2.0},
        "policy": {"trusted": [], "check": list(checks)},
    }


def connect(gateway: Gateway, source: str = "127.0.0.1") -> smtplib.SMTP:
    client = smtplib.SMTP(gateway.host, gateway.port, timeout=30, source_address=(source, 0))
    client.ehlo("client.example.org")
    return client


def say(gateway: Gateway, sender: str, recipient: str = "bob@example.net", source: str = "127.0.0.1") -> str:
    """The first reply that refuses, "" if none does; without a mail."""
    with connect(gateway, source) as client:
        for code, text in (client.mail(sender), client.rcpt(recipient)):
            if code >= 400:
                return f"{code} {text.decode()}"
    return ""


def test_domains_names_and_lists(tmp_path: Path, names: NameServer) -> None:
    names.add("1.0.0.127.in-addr.arpa", "PTR", "client.example.org.")
    names.add("2.0.0.127.in-addr.arpa", "PTR", "client.example.org.")
    names.add("2.0.0.127.l.example", "A", "127.0.0.2")
    names.add("2.0.0.127.l.example", "TXT", '"seen in a trap"')
    checks = (
        {"name": "sender_domain"}, {"name": "reverse_dns"}, {"name": "helo"},
        {"name": "dnsbl", "lists": [{"zone": "l.example", "codes": ["127.0.0.[2..11]"], "weight": 2}], "reject_at": 2},
    )  # fmt: skip
    with running_gateway(tmp_path / "gateway", settings_with(names, *checks)) as gateway:
        assert say(gateway, "alice@example.org") == ""
        assert say(gateway, "alice@null.example").startswith("550 5.7.27 ")
        assert say(gateway, "alice@absent.example").startswith("550 5.1.8 ")
        assert say(gateway, "alice@example.org", source="127.0.0.3").startswith("550 5.7.25 ")
        listed = say(gateway, "alice@example.org", source="127.0.0.2")
        assert listed == "550 5.7.1 Service unavailable; client [127.0.0.2] blocked using l.example; seen in a trap"
        assert say(gateway, "alice@example.org", "postmaster@example.net", source="127.0.0.2") == ""

        def is_logged() -> bool:
            return "blocked using l.example; seen in a trap; from=<alice@example.org> to=<bob@example.net>" in gateway.log_text(
                100_000
            )

        wait_until("the refusal is in the log", is_logged, 30.0)
        assert gateway.metric("smtpd_rejections_total", reason="dnsbl") == 1
        assert gateway.metric("smtpd_policy_checks_total", check="dnsbl", result="reject") == 1
        assert gateway.metric("smtpd_rejections_total", reason="sender_domain") == 2


@pytest.mark.parametrize(("on_error", "reply"), [("tempfail", "451 4.7.1 "), ("accept", ""), ("reject", "550 5.7.1 ")])
def test_lists_that_fail_by_on_error(tmp_path: Path, names: NameServer, on_error: str, reply: str) -> None:
    names.silent.add("1.0.0.127.l.example")
    check = {"name": "dnsbl", "lists": [{"zone": "l.example"}], "unreachable": "error", "on_error": on_error}
    with running_gateway(tmp_path / "gateway", settings_with(names, check)) as gateway:
        assert say(gateway, "alice@example.org").startswith(reply)
        assert bool(say(gateway, "alice@example.org")) == bool(reply)
        assert gateway.metric("smtpd_policy_checks_total", check="dnsbl", result="error") == 2


def test_greylist_puts_off_survives_a_restart_and_is_counted(tmp_path: Path, names: NameServer) -> None:
    check = {"name": "greylist", "delay": "1 s"}
    settings = settings_with(names, check)
    with running_gateway(tmp_path / "gateway", settings) as gateway:
        assert say(gateway, "alice@example.org").startswith("450 4.7.1 Greylisted, please try again in 1 seconds")
        assert gateway.metric("smtpd_rejections_total", reason="greylist") == 1
    with running_gateway(tmp_path / "gateway", settings) as gateway:
        wait_until("the second try is late enough", lambda: say(gateway, "alice@example.org") == "", 30.0)
        assert say(gateway, "carol@example.org").startswith("450 4.7.1 ")


@pytest.mark.parametrize(("on_error", "reply"), [("tempfail", "451 4.7.1 "), ("accept", ""), ("reject", "550 5.7.1 ")])
def test_greylist_whose_file_fails_by_on_error(tmp_path: Path, names: NameServer, on_error: str, reply: str) -> None:
    (tmp_path / "file").touch()
    check = {"name": "greylist", "path": str(tmp_path / "file" / "x"), "on_error": on_error}
    with running_gateway(tmp_path / "gateway", settings_with(names, check)) as gateway:
        assert say(gateway, "alice@example.org").startswith(reply)
        assert gateway.metric("smtpd_policy_checks_total", check="greylist", result="error") == 1


def sign(mail: bytes, names: NameServer) -> bytes:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    text = "v=DKIM1; k=rsa; p=" + b"".join(public.splitlines()[1:-1]).decode()
    names.add("s1._domainkey.example.org", "TXT", " ".join(f'"{text[i : i + 200]}"' for i in range(0, len(text), 200)))
    return dkim.sign(mail, b"s1", b"example.org", private, include_headers=[b"from", b"subject"]) + mail


def test_authentication_is_noted_and_forgery_removed_or_refused(tmp_path: Path, names: NameServer) -> None:
    check = {"name": "auth", "spf": "reject", "dmarc": "reject"}
    with running_gateway(tmp_path / "gateway", settings_with(names, check)) as gateway:
        with connect(gateway) as client:
            client.sendmail("alice@example.org", ["bob@example.net"], FORGED + sign(MAIL, names))
        (stored,) = gateway.await_mails("bob", domain="example.net")
        assert stored.count(b"Authentication-Results:") == 1
        assert b"header.from=example.com" not in stored
        unfolded = stored.replace(b"\r\n\t", b" ").replace(b"\n\t", b" ")
        assert (
            b"Authentication-Results: mx.example.net; spf=pass smtp.mailfrom=alice@example.org; dkim=pass header.d=exa"
            in unfolded
        )
        assert b"dmarc=pass header.from=example.org" in unfolded
        assert stored.rstrip().endswith(b"text")
        assert say(gateway, "x@forged.example").startswith("550 5.7.23 ")
        with connect(gateway) as client, pytest.raises(smtplib.SMTPDataError) as refused:
            client.sendmail("", ["bob@example.net"], MAIL)
        assert refused.value.smtp_code == 550
        assert refused.value.smtp_error.startswith(b"5.7.26 ")
        assert gateway.metric("smtpd_rejections_total", reason="dmarc") == 1
        assert gateway.metric("smtpd_rejections_total", reason="spf") == 1


def verifiers_of(gateway: Gateway) -> list[int]:
    """The processes that verify signatures for the gateway's workers."""
    found = []
    for worker in gateway.worker_pids():
        for children in Path(f"/proc/{worker}/task").glob("*/children"):
            for pid in map(int, children.read_text().split()):
                if b"smtpd.policy.auth.verifier" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
    return found


def send(gateway: Gateway, mail: bytes) -> str:
    """The reply to the end of a mail."""
    with connect(gateway) as client:
        client.mail("alice@example.org")
        client.rcpt("bob@example.net")
        code, text = client.data(mail)
    return f"{code} {text.decode()}"


@pytest.mark.full
@pytest.mark.parametrize(("on_error", "reply"), [("tempfail", "451 4.7.1 "), ("accept", "250 2.0.0 "), ("reject", "550 5.7.1 ")])
def test_verifying_process_that_hangs_by_on_error(tmp_path: Path, names: NameServer, on_error: str, reply: str) -> None:
    mail = sign(MAIL, names)
    check = {"name": "auth", "on_error": on_error, "timeout": "5 s"}
    with running_gateway(tmp_path / "gateway", settings_with(names, check)) as gateway:
        assert send(gateway, mail).startswith("250 ")
        [verifier] = verifiers_of(gateway)
        os.kill(verifier, signal.SIGSTOP)
        assert send(gateway, mail).startswith(reply)
        assert gateway.metric("smtpd_policy_checks_total", check="auth", result="timeout") == 1
        assert send(gateway, mail).startswith("250 ")
        [successor] = verifiers_of(gateway)
        assert successor != verifier


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.full
def test_verifying_process_ends_with_its_worker(tmp_path: Path, names: NameServer) -> None:
    mail = sign(MAIL, names)
    with running_gateway(tmp_path / "gateway", settings_with(names, {"name": "auth"})) as gateway:
        assert send(gateway, mail).startswith("250 ")
        [verifier] = verifiers_of(gateway)
        [worker] = gateway.worker_pids()
        os.kill(worker, signal.SIGKILL)
        wait_until("the verifier is gone", lambda: not is_running(verifier), 30.0)
        wait_until("another worker serves", lambda: gateway.worker_pids() not in ([], [worker]), 30.0)
        assert send(gateway, mail).startswith("250 ")
