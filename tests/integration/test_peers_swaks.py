"""swaks, the tester's tool: what it sends arrives byte for byte, with and without pipelining, and its refusals are told."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from delivered import crlf, on_disk, take_apart
from gateway import Gateway, running_gateway
from peers import require_peer

CONTENT = b"Date: Mon, 01 Jan 2024 00:00:00 +0000\nFrom: a@example.com\nSubject: swaks\n\n.dot\n..\n\nlast line\n"


def run_swaks(gateway: Gateway, *options: str) -> subprocess.CompletedProcess[str]:
    program = require_peer("swaks", "swaks")
    server = ["--server", gateway.host, "--port", str(gateway.port), "--ehlo", "client.example.com", "--timeout", "30"]
    command = [program, *server, "--from", "a@example.com", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("option", ["", "--pipeline"])
def test_arrives_byte_for_byte(gateway: Gateway, tmp_path: Path, option: str) -> None:
    user = f"swaks{option}"
    (tmp_path / "mail").write_bytes(CONTENT.removesuffix(b"\n"))  # swaks adds a line end, whatever is there
    extra = [option] if option else []
    result = run_swaks(gateway, "--to", f"{user}@example.org", "--data", f"@{tmp_path}/mail", *extra)
    assert result.returncode == 0, result.stdout
    (stored,) = gateway.await_mails(user)
    mail = take_apart(stored)
    assert mail.content == on_disk(crlf(CONTENT))
    assert b"from client.example.com (" in mail.received
    assert mail.queue_id.decode() in result.stdout


def test_its_own_mail_with_an_attachment_arrives(gateway: Gateway, tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(bytes(range(256)) * 40)
    result = run_swaks(gateway, "--to", "attached@example.org", "--attach", f"@{tmp_path}/data.bin")
    assert result.returncode == 0, result.stdout
    (stored,) = gateway.await_mails("attached")
    assert b"data.bin" in take_apart(stored).content


def test_a_refused_recipient_is_told_and_the_other_served(gateway: Gateway) -> None:
    result = run_swaks(gateway, "--to", "bad..dots@example.org,good@example.org", "--body", "one recipient is bad")
    assert "<** 553 5.1.3" in result.stdout
    assert result.returncode == 0, result.stdout
    assert len(gateway.await_mails("good")) == 1


def test_names_the_client_by_xclient(tmp_path: Path) -> None:
    probe = Gateway(tmp_path / "unused")
    listener = {"name": "mx", "address": f"{probe.host}:{probe.port}", "xclient": ["127.0.0.0/8"]}
    with running_gateway(tmp_path / "gateway", {"listener": [listener]}) as gateway:
        gateway.port = probe.port
        options = ["--xclient-name", "client.example.org", "--xclient-addr", "192.0.2.9", "--xclient-helo", "two words"]
        separate = [
            "--xclient-delim",
            "--xclient-port",
            "4711",
            "--xclient-proto",
            "SMTP",
            "--xclient-login",
            "alice@example.org",
        ]
        result = run_swaks(gateway, "--to", "named@example.org", "--xclient-optional-strict", *options, *separate)
        assert result.returncode == 0, result.stdout
        assert result.stdout.count("~> XCLIENT ") + result.stdout.count("-> XCLIENT ") == 2
        (stored,) = gateway.await_mails("named")
        assert take_apart(stored).received.startswith(b"from two?words (client.example.org [192.0.2.9])")
        refused = run_swaks(gateway, "--to", "named@example.org", "--xclient", "ADDR=nowhere")
        assert "501 5.5.4 Bad XCLIENT attribute: ADDR is no address" in refused.stdout
