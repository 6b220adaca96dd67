"""Bounces through two whole servers: a gateway, and behind it a store that takes mail for example.com and refuses the rest."""

from __future__ import annotations

import email
import smtplib
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from gateway import Gateway, wait_until

MAIL = b"From: s@example.com\r\nSubject: hello\r\n\r\nthe text\r\n"


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[Gateway, Gateway]]:
    store = Gateway(tmp_path / "store", {"workers": 1, "policy": {"relay_domains": ["example.com"]}})
    next_hop = [f"{store.host}:{store.port}"]
    settings: dict[str, Any] = {
        "workers": 1,
        "route": [{"domains": ["*"], "transport": "smtp", "next_hop": next_hop, "tls": "off"}],
        "bounce": {"enabled": True, "next_hop": next_hop, "tls": "off"},
    }
    gateway = Gateway(tmp_path / "gateway", settings)
    gateway.settings["listener"][0]["dsn"] = True
    gateway.write_config()
    started = []
    try:
        for server in (store, gateway):
            server.start()
            started.append(server)
        yield gateway, store
    finally:
        codes = [server.stop() for server in reversed(started)]
    assert codes == [0, 0]


def send(gateway: Gateway, recipients: list[str], options: list[str]) -> None:
    with smtplib.SMTP(gateway.host, gateway.port, timeout=30) as client:
        assert client.sendmail("s@example.com", recipients, MAIL, rcpt_options=options) == {}


def report_of(stored: bytes) -> tuple[Message, list[Message]]:
    """Return the report and its groups of fields, one for each recipient."""
    message = email.message_from_bytes(stored)
    assert message.get_content_type() == "multipart/report"
    return message, message.get_payload()[1].get_payload()[1:]  # type: ignore[union-attr,index,return-value]


def test_what_the_store_refuses_comes_back_to_the_sender(servers: tuple[Gateway, Gateway]) -> None:
    gateway, store = servers
    send(gateway, ["nobody@example.org", "friend@example.com"], [])
    (stored,) = store.await_mails("s", domain="example.com")
    message, (group,) = report_of(stored)
    assert stored.startswith(b"Return-Path: <>\n")
    assert message["To"] == "<s@example.com>"
    assert group["Final-Recipient"] == "rfc822; nobody@example.org"
    assert (group["Action"], group["Status"]) == ("failed", "5.7.1")
    assert group["Diagnostic-Code"].startswith("smtp; 550 5.7.1 ")
    assert group["Remote-MTA"].startswith("dns; ")
    assert b"the text" in stored
    store.await_mails("friend", domain="example.com")
    gateway.await_empty_queue()
    assert gateway.metric("smtpd_bounces_total") == 1
    wait_until("the log says so", lambda: "sender non-delivery notification: " in gateway.log_text(20_000), 30.0)


def test_success_is_told_when_the_store_tells_nothing(servers: tuple[Gateway, Gateway]) -> None:
    gateway, store = servers
    send(gateway, ["friend@example.com"], ["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;Friend+2B1@example.com"])
    (stored,) = store.await_mails("s", domain="example.com")
    _, (group,) = report_of(stored)
    assert group["Original-Recipient"] == "rfc822; Friend+1@example.com"
    assert (group["Action"], group["Status"][0]) == ("relayed", "2")
    assert b"the text" not in stored
    assert gateway.metric("smtpd_bounces_total") == 0


def test_who_wants_no_report_gets_none(servers: tuple[Gateway, Gateway]) -> None:
    gateway, store = servers
    send(gateway, ["nobody@example.org"], ["NOTIFY=NEVER"])
    wait_until("the mail is gone", lambda: "removed" in gateway.log_text(20_000), 30.0)
    assert "status=bounced" in gateway.log_text(20_000)
    gateway.await_empty_queue()
    assert store.mail_paths("s", "example.com") == []
