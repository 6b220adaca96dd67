"""Names of clients by DNS through the whole server: no greeting waits for DNS, later sessions know the name from the start."""

from __future__ import annotations

import smtplib
from pathlib import Path

import pytest
from delivered import take_apart
from gateway import running_gateway, wait_until
from name_server import NameServer

MAIL = b"Subject: hello\r\n\r\ntext\r\n"
CLIENT = "127.0.0.1"
REVERSE = "1.0.0.127.in-addr.arpa"


@pytest.fixture
def names():
    server = NameServer()
    yield server
    server.close()


def settings_with(names: NameServer) -> dict[str, object]:
    return {"workers": 1, "dns": {"servers": [names.address], "client_names": True, "timeout": 2.0}}


def test_verified_name_is_in_log_and_received(tmp_path: Path, names: NameServer) -> None:
    names.add(REVERSE, "PTR", "client.example.org.")
    names.add("client.example.org", "A", CLIENT)
    with running_gateway(tmp_path / "gateway", settings_with(names)) as gateway:

        def is_known() -> bool:
            with smtplib.SMTP(gateway.host, gateway.port, timeout=30, source_address=(CLIENT, 0)) as client:
                client.noop()
            return f": connect from client.example.org[{CLIENT}]" in gateway.log_text(100_000)

        wait_until("the client is known by its name", is_known, 30.0)
        with smtplib.SMTP(gateway.host, gateway.port, timeout=30, source_address=(CLIENT, 0)) as client:
            client.sendmail("s@example.com", ["alice@example.org"], MAIL)
        (mail,) = gateway.await_mails("alice")
        assert f"(client.example.org [{CLIENT}])".encode() in take_apart(mail).received
        wait_until("the log has the mail", lambda: f"client=client.example.org[{CLIENT}]" in gateway.log_text(100_000), 30.0)
        first = gateway.log_text(100_000).split("connect from ", 1)[1]
        assert first.startswith(f"unknown[{CLIENT}]")


def test_greeting_and_mail_do_not_wait_for_silent_dns(tmp_path: Path, names: NameServer) -> None:
    names.silent.add(REVERSE)
    with running_gateway(tmp_path / "gateway", settings_with(names)) as gateway:
        with smtplib.SMTP(gateway.host, gateway.port, timeout=30, source_address=(CLIENT, 0)) as client:
            client.sendmail("s@example.com", ["alice@example.org"], MAIL)
        (mail,) = gateway.await_mails("alice")
        assert f"(unknown [{CLIENT}])".encode() in take_apart(mail).received


def test_name_that_does_not_lead_back_is_not_taken(tmp_path: Path, names: NameServer) -> None:
    names.add(REVERSE, "PTR", "bank.example.")
    names.add("bank.example", "A", "192.0.2.1")
    with running_gateway(tmp_path / "gateway", settings_with(names)) as gateway:
        with smtplib.SMTP(gateway.host, gateway.port, timeout=30, source_address=(CLIENT, 0)) as client:
            client.ehlo()
            wait_until("DNS was asked", lambda: ("bank.example", "A") in names.asked, 30.0)
            client.sendmail("s@example.com", ["alice@example.org"], MAIL)
        gateway.await_mails("alice")
        assert "bank.example" not in gateway.log_text(100_000)


def test_checks_are_told_the_name(tmp_path: Path, names: NameServer) -> None:
    names.add(REVERSE, "PTR", "client.example.org.")
    names.add("client.example.org", "A", CLIENT)
    names.add("client.example.org.l.example", "A", "127.0.0.2")
    check = {"name": "dnsbl", "lists": [{"zone": "l.example", "of": "client_name"}]}
    settings = settings_with(names) | {"policy": {"trusted": [], "check": [check]}}
    with running_gateway(tmp_path / "gateway", settings) as gateway:
        with smtplib.SMTP(gateway.host, gateway.port, timeout=30, source_address=(CLIENT, 0)) as client:
            client.ehlo()

            def is_refused() -> bool:
                """Within the session that was open before the name was known."""
                client.mail("s@example.com")
                code, _ = client.rcpt("alice@example.org")
                client.rset()
                return code == 550

            wait_until("the check knows the name", is_refused, 30.0)
        text = "blocked using l.example; from=<s@example.com> to=<alice@example.org>"
        wait_until("the refusal is logged", lambda: text in gateway.log_text(100_000), 30.0)
