"""XCLIENT on a running server: who may use it, and that log, Received, limits and per-network rules then go by the client."""

from __future__ import annotations

import smtplib
from pathlib import Path
from typing import Any

from gateway import Gateway, running_gateway, wait_until
from tls_files import Authority

LISTED = "127.77.0.1"  # where front ends are
STRANGERS = {"trusted": ["192.0.2.200"]}  # loopback is a client like any other


def with_front_ends(folder: Path, listener: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    probe = Gateway(folder / "unused")
    address = f"{probe.host}:{probe.port}"
    return {"listener": [{"name": "mx", "address": address, "xclient": [f"{LISTED}/32"], **(listener or {})}], **more}


def port_of(gateway: Gateway) -> int:
    return int(gateway.settings["listener"][0]["address"].rpartition(":")[2])


def connect(gateway: Gateway, source: str = LISTED) -> smtplib.SMTP:
    return smtplib.SMTP(gateway.host, port_of(gateway), "front.example.net", timeout=20, source_address=(source, 0))


def introduce(client: smtplib.SMTP, text: str) -> int:
    code, _ = client.docmd("XCLIENT", text)
    client.ehlo_resp = client.helo_resp = None
    return code


def await_log(gateway: Gateway, text: str) -> None:
    wait_until(f"a line with {text!r}", lambda: text in gateway.log_text(40000), 20)


def send_mail(client: smtplib.SMTP, user: str) -> None:
    client.sendmail("a@example.com", [f"{user}@example.org"], b"Subject: x\r\n\r\ntext\r\n")


def test_log_received_and_rates_are_the_clients(tmp_path: Path) -> None:
    settings = with_front_ends(tmp_path, policy=STRANGERS, limits={"mail_rate": "2/d"}, workers=1)
    with running_gateway(tmp_path / "gateway", settings) as gateway, connect(gateway) as client:
        client.ehlo()
        assert client.esmtp_features["xclient"] == "NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT"
        assert introduce(client, "NAME=client.example.org ADDR=192.0.2.9 HELO=hello.example.org PROTO=SMTP LOGIN=alice") == 220
        send_mail(client, "bob")
        send_mail(client, "bob")
        client.ehlo()
        assert client.mail("a@example.com")[0] == 450
        assert introduce(client, "ADDR=IPV6:2001:db8::9 NAME=[UNAVAILABLE] HELO=[UNAVAILABLE] PROTO=ESMTP") == 220
        send_mail(client, "carol")
        client.quit()
        for mail in gateway.await_mails("bob", 2):
            assert b"from hello.example.org (client.example.org [192.0.2.9])\n\tby mx.example.net (smtpd) with SMTP id" in mail
        (mail,) = gateway.await_mails("carol")
        assert b"from front.example.net (unknown [IPv6:2001:db8::9])\n\tby mx.example.net (smtpd) with ESMTP id" in mail
        await_log(gateway, f"unknown[{LISTED}] introduces client.example.org[192.0.2.9], login alice")
        await_log(gateway, "client=client.example.org[192.0.2.9]")
        await_log(gateway, "client=unknown[2001:db8::9]")
        await_log(gateway, "reject: MAIL from client.example.org[192.0.2.9]: 450 4.7.1")
        await_log(gateway, "disconnect from unknown[2001:db8::9]")
        assert "xclient=2" in gateway.log_text(40000)
        assert gateway.metric("smtpd_commands_total", command="xclient") == 2


def test_a_client_with_too_many_connections_is_turned_away_at_xclient(tmp_path: Path) -> None:
    settings = with_front_ends(tmp_path, policy=STRANGERS, limits={"connections_per_client": 2})
    with running_gateway(tmp_path / "gateway", settings) as gateway:
        first, second = connect(gateway), connect(gateway)
        assert introduce(first, "ADDR=192.0.2.9") == 220
        assert introduce(second, "ADDR=192.0.2.9") == 220
        third, fourth = connect(gateway), connect(gateway)  # the front end's own row is free again
        assert third.docmd("XCLIENT", "ADDR=192.0.2.9") == (421, b"4.7.0 Error: too many connections from your address")
        assert third.sock is not None
        assert third.sock.recv(10) == b""
        assert introduce(fourth, "ADDR=192.0.2.10") == 220
        assert introduce(second, "ADDR=192.0.2.10") == 220
        third.close()
        for client in (first, second, fourth):
            client.quit()
        assert gateway.metric("smtpd_connections_denied_total", listener="mx", reason="client_limit") == 1
        await_log(gateway, "Connection concurrency limit exceeded: unknown[192.0.2.9] for service mx")
        wait_until("nobody is connected", lambda: gateway.metric("smtpd_connections_active") == 0, 20)


def test_rules_of_a_network_are_those_of_the_clients_network(tmp_path: Path) -> None:
    listener = {"suppress": {"192.0.2.0/24": ["CHUNKING"]}}
    settings = with_front_ends(tmp_path, listener, policy={"bare_newline_networks": {"192.0.2.0/24": "reject"}})
    with running_gateway(tmp_path / "gateway", settings) as gateway, connect(gateway) as client:
        client.ehlo()
        assert client.has_extn("chunking")
        assert introduce(client, "ADDR=192.0.2.9") == 220
        client.ehlo()
        assert not client.has_extn("chunking")
        assert client.has_extn("xclient"), "the front end may name the next client"
        client.sock.sendall(b"NOOP\n")  # type: ignore[union-attr]
        assert client.getreply()[0] == 500
        assert introduce(client, "ADDR=198.51.100.9") == 220
        client.ehlo()
        assert client.has_extn("chunking")


def test_only_listed_peers_may_and_never_a_balancer_for_itself(tmp_path: Path) -> None:
    """After a PROXY header it is the client's address that decides, not the balancer's."""
    settings = with_front_ends(tmp_path, {"proxy_protocol": ["127.88.0.0/16"], "xclient": ["127.88.0.1/32", "192.0.2.0/24"]})
    with running_gateway(tmp_path / "gateway", settings) as gateway:
        with connect(gateway, "127.0.0.5") as client:
            client.ehlo()
            assert not client.has_extn("xclient")
            assert client.docmd("XCLIENT", "ADDR=192.0.2.9") == (550, b"5.7.0 Error: XCLIENT is not for you")
        for header, may in [
            (b"PROXY UNKNOWN\r\n", False),
            (b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00", False),
            (b"PROXY TCP4 198.51.100.7 192.0.2.1 5 25\r\n", False),
            (b"PROXY TCP4 192.0.2.7 192.0.2.1 5 25\r\n", True),
        ]:
            client = smtplib.SMTP(local_hostname="front.example.net", timeout=20, source_address=("127.88.0.1", 0))
            with client:
                client.sock = client._get_socket(gateway.host, port_of(gateway), 20)  # type: ignore[attr-defined]
                client.sock.sendall(header)
                assert client.getreply()[0] == 220
                client.ehlo()
                assert client.has_extn("xclient") == may, header
                assert client.docmd("XCLIENT", "ADDR=198.51.100.99")[0] == (220 if may else 550)
        await_log(gateway, "unknown[192.0.2.7] introduces unknown[198.51.100.99]")
        assert gateway.log_text(40000).count(" introduces ") == 1


RULES = ["client 192.0.2.7 reject go away", "helo bad.example reject bad name"]


def with_rules(folder: Path, listener: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    policy = {**STRANGERS, "check": [{"name": "access", "rules": RULES}]}
    return with_front_ends(folder, listener, policy=policy, workers=1, **more)


def test_who_is_introduced_is_asked_about_like_one_who_connects(tmp_path: Path) -> None:
    with running_gateway(tmp_path / "gateway", with_rules(tmp_path)) as gateway:
        with connect(gateway) as client:
            client.ehlo()
            assert client.docmd("XCLIENT", "ADDR=192.0.2.7") == (554, b"5.7.1 go away")
            assert client.docmd("MAIL", "FROM:<a@example.com>")[0] == 503
            assert client.docmd("XCLIENT", "ADDR=192.0.2.8")[0] == 503
            assert client.quit()[0] == 221
        with connect(gateway) as client:
            client.ehlo()
            assert introduce(client, "ADDR=192.0.2.8 HELO=bad.example") == 220
            assert client.docmd("EHLO", "front.example.net") == (550, b"5.7.1 bad name"), "the name is the client's"
            assert introduce(client, "HELO=good.example") == 220
            assert client.docmd("EHLO", "front.example.net")[0] == 250
            assert client.docmd("MAIL", "FROM:<a@example.com>")[0] == 250


def test_after_starttls_the_name_is_judged_anew(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = {"certificate": [authority.issue("mx", "127.0.0.1").settings]}
    with running_gateway(tmp_path / "gateway", with_rules(tmp_path, {"tls": "starttls"}, tls=tls)) as gateway:
        context = authority.client_context()
        context.check_hostname = False
        with connect(gateway) as client:
            client.ehlo()
            assert client.docmd("MAIL", "FROM:<a@example.com>")[0] == 250
            client.docmd("RSET")
            client.starttls(context=context)
            assert client.docmd("MAIL", "FROM:<a@example.com>")[0] == 503, "nothing from before counts"
            assert client.docmd("EHLO", "bad.example") == (550, b"5.7.1 bad name")
            assert client.docmd("EHLO", "good.example")[0] == 250
            assert client.docmd("MAIL", "FROM:<a@example.com>")[0] == 250
