"""aiosmtpd as the next hop: SMTPUTF8 and 8BITMIME where it offers them, what happens where it doesn't, STARTTLS."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from gateway import Gateway, free_port, own_loopback_address, running_gateway
from relayed_mail import assert_each_once, await_attempt, await_removed, relay_settings, sample_mails, send_mails

UTF8_BOX = "büro@example.org"
PLAIN_BOX = "box@example.org"


@dataclass
class Keeper:
    """A handler that keeps what it is given; `is_tls` tells of each mail whether it came encrypted."""

    mails: list[bytes] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    options: list[list[str]] = field(default_factory=list)
    is_tls: list[bool] = field(default_factory=list)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        self.mails.append(envelope.content)
        self.recipients += envelope.rcpt_tos
        self.options.append(list(envelope.mail_options))
        self.is_tls.append(session.ssl is not None)
        return "250 2.0.0 kept"


@contextmanager
def keeping(**options: object) -> Iterator[tuple[Keeper, str]]:
    """A running aiosmtpd: its Keeper and the next_hop; `options` are those of its SMTP class."""
    keeper = Keeper()
    host = own_loopback_address()
    controller = Controller(keeper, host, free_port(host), **{"enable_SMTPUTF8": False, **options})
    controller.start()
    try:
        yield keeper, f"{host}:{controller.port}"
    finally:
        controller.stop()


def send_utf8(gateway: Gateway, recipient: str, content: bytes) -> None:
    with smtplib.SMTP(gateway.host, gateway.port, "client.example", timeout=30) as client:
        client.ehlo()
        client.command_encoding = "utf-8"
        assert client.docmd("MAIL", "FROM:<a@example.com> SMTPUTF8 BODY=8BITMIME")[0] == 250
        assert client.docmd("RCPT", f"TO:<{recipient}>")[0] == 250
        assert client.data(content)[0] == 250


@pytest.mark.parametrize("count", [50, pytest.param(3000, marks=[pytest.mark.full, pytest.mark.timeout(300)])])
def test_mails_arrive_once_each(tmp_path: Path, count: int) -> None:
    mails = sample_mails(count)
    with keeping() as (keeper, next_hop), running_gateway(tmp_path, relay_settings(next_hop)) as gateway:
        send_mails(gateway, mails)
        await_removed(gateway, len(mails))
    assert_each_once(keeper.mails, mails)
    assert all("BODY=8BITMIME" in options for options in keeper.options)


def test_smtputf8_goes_on_where_it_is_offered(tmp_path: Path) -> None:
    with keeping(enable_SMTPUTF8=True) as (keeper, next_hop), running_gateway(tmp_path, relay_settings(next_hop)) as gateway:
        send_utf8(gateway, UTF8_BOX, "X-Mail-Id: u\r\nSubject: Grüße\r\n\r\nText\r\n".encode())
        await_removed(gateway, 1)
    assert keeper.recipients == [UTF8_BOX]
    assert "SMTPUTF8" in keeper.options[0]
    assert_each_once(keeper.mails, {"u": "X-Mail-Id: u\r\nSubject: Grüße\r\n\r\nText\r\n".encode()})


def test_only_mail_that_needs_smtputf8_is_undeliverable_where_it_is_not_offered(tmp_path: Path) -> None:
    plain = b"X-Mail-Id: p\r\nSubject: plain\r\n\r\nText\r\n"
    with keeping() as (keeper, next_hop), running_gateway(tmp_path, relay_settings(next_hop)) as gateway:
        send_utf8(gateway, UTF8_BOX, plain)  # the address
        send_utf8(gateway, "header@example.org", "X-Mail-Id: h\r\nSubject: Grüße\r\n\r\nText\r\n".encode())
        send_utf8(gateway, PLAIN_BOX, plain)  # said to be, but nothing in it is
        refused = await_attempt(gateway, "bounced", count=2)
        await_attempt(gateway, "sent", PLAIN_BOX)
        await_removed(gateway, 3)
    assert [(line.dsn, "SMTPUTF8" in line.text) for line in refused] == [("5.6.7", True)] * 2
    assert keeper.recipients == [PLAIN_BOX]
    assert "SMTPUTF8" not in keeper.options[0]
    assert_each_once(keeper.mails, {"p": plain})


@pytest.mark.parametrize("tls", ["may", "require"])
def test_starttls(tmp_path: Path, tls: str) -> None:
    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("hop.example.net").configure_cert(context)
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    mails = sample_mails(50)
    with keeping(tls_context=context, require_starttls=True) as (keeper, next_hop):
        settings = relay_settings(next_hop)
        settings["route"][0].update(tls=tls, tls_ca=str(tmp_path / "ca.pem"), tls_name="hop.example.net")
        with running_gateway(tmp_path / "gateway", settings) as gateway:
            send_mails(gateway, mails)
            await_removed(gateway, len(mails))
    assert keeper.is_tls == [True] * len(mails)
    assert_each_once(keeper.mails, mails)


def test_a_certificate_of_another_name_is_refused_where_tls_is_required(tmp_path: Path) -> None:
    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("other.example.net").configure_cert(context)
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with keeping(tls_context=context) as (keeper, next_hop):
        settings = relay_settings(next_hop)
        settings["route"][0].update(tls="require", tls_ca=str(tmp_path / "ca.pem"), tls_name="hop.example.net")
        with running_gateway(tmp_path / "gateway", settings) as gateway:
            send_mails(gateway, sample_mails(1))
            await_attempt(gateway, "deferred")
    assert keeper.mails == []
