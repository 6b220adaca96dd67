"""`smtpd load` against other people's servers, and against our own sink: SMTP, LMTP, TLS."""

from __future__ import annotations

import json
import os
import re
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiosmtpd.controller import Controller
from gateway import free_port, own_loopback_address
from peer_next_hops import dovecot_store, sink_hop

from bench.processes import await_greeting, end


def load(*arguments: str, code: int = 0) -> dict[str, Any]:
    command = [sys.executable, "-m", "smtpd", "load", "--json", "-", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert result.returncode == code, result.stderr
    report: dict[str, Any] = json.loads(result.stdout)
    return report


# --- smtp-sink --------------------------------------------------------------------------------------------------------


@pytest.mark.peer("postfix")
@pytest.mark.parametrize("options", [("-d",), ("--no-pipelining",)])
def test_smtp_sink_takes_each_mail_once(options: tuple[str, ...]) -> None:
    with sink_hop() as sink:
        report = load("-s", "5", "-m", "60", "-t", "r{n}@example.org", "--size", "lognormal:2KiB", *options, sink.next_hop)
        assert report["mails"]["accepted"] == 60
        assert report["latency_ms"]["connect"]["count"] == (5 if "-d" in options else 60)
        ids = [re.search(rb"Message-ID: <(\d+)\.", dump) for dump in sink.dumps()]
    assert sorted(int(found[1]) for found in ids if found) == list(range(60))


@pytest.mark.peer("postfix")
def test_smtp_sink_without_esmtp_and_with_refusals() -> None:
    with sink_hop("-8", "-e") as sink:  # no EHLO, no 8BITMIME
        assert load("-m", "3", sink.next_hop)["mails"]["accepted"] == 3
        sink.start("-f", "rcpt")  # hard refusals
        report = load("-m", "3", "-s", "1", sink.next_hop, code=1)
        assert report["errors"] == {"rcpt 500": 3}


# --- aiosmtpd, TLS ----------------------------------------------------------------------------------------------------


class Keeper:
    def __init__(self) -> None:
        self.contents: list[bytes] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.contents.append(envelope.original_content)
        return "250 2.0.0 Ok"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ssl.SSLContext]:
    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("mx.example.org").configure_cert(context)
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return str(path), context


def test_starttls_with_and_without_a_look_at_the_certificate(authority: tuple[str, ssl.SSLContext]) -> None:
    ca_file, context = authority
    keeper = Keeper()
    host = own_loopback_address()
    controller = Controller(keeper, host, free_port(host), tls_context=context, require_starttls=True)
    controller.start()
    try:
        target = f"{host}:{controller.port}"
        report = load("--tls", "-m", "4", "-s", "2", "-d", "-l", "100000", target)
        assert report["latency_ms"]["tls"]["count"] == 2
        assert report["latency_ms"]["hello"]["count"] == 4
        good = ("--tls", "--tls-verify", "--tls-ca", ca_file)
        assert load(*good, "--tls-name", "mx.example.org", target)["mails"]["accepted"] == 1
        assert load(*good, target, code=69)["errors"] == {"tls failed": 1}
    finally:
        controller.stop()
    assert len(keeper.contents) == 5


def test_implicit_tls(authority: tuple[str, ssl.SSLContext]) -> None:
    keeper = Keeper()
    host = own_loopback_address()
    controller = Controller(keeper, host, free_port(host), ssl_context=authority[1])
    controller.start()
    try:
        report = load("--tls-implicit", "-m", "3", f"{host}:{controller.port}")
    finally:
        controller.stop()
    assert report["mails"]["accepted"] == report["latency_ms"]["tls"]["count"] == report["latency_ms"]["greeting"]["count"] == 3


# --- Dovecot ----------------------------------------------------------------------------------------------------------


@pytest.mark.peer("dovecot-lmtpd")
def test_lmtp_into_dovecot() -> None:
    with dovecot_store("u1@example.org", "u2@example.org") as store:
        report = load("-L", "-d", "-s", "2", "-m", "6", "-r", "2", "-t", "u{1-2}@example.org", f"unix:{store.socket}")
        assert report["recipients"] == {"accepted": 12, "failed": 0}
        assert [len(store.mailbox(f"u{n}@example.org")) for n in (1, 2)] == [6, 6]
        report = load("-L", "-m", "1", "-t", "nobody@example.org", f"{store.host}:{store.port}", code=1)
        assert list(report["errors"]) == ["rcpt 550"]


# --- our own ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [("--bdat",), ("--rate", "200", "--poisson")])
def test_our_sink(options: tuple[str, ...], tmp_path: Path) -> None:
    host = own_loopback_address()
    port = free_port(host)
    command = [sys.executable, "-m", "smtpd", "sink", "--listen", f"{host}:{port}"]
    with (tmp_path / "sink.log").open("wb") as log:
        sink = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ)
        try:
            await_greeting(host, port, lambda: sink.poll() is None)
            report = load("-d", "-s", "4", "-m", "100", "--workers", "2", *options, f"{host}:{port}")
        finally:
            end(sink)
    assert report["mails"]["accepted"] == report["latency_ms"]["end_of_data"]["count"] == 100
    assert report["errors"] == {}
