"""`smtpd transcript` beside a real server: sessions that are open and sessions that come, never the mail itself."""

import json
import signal
import smtplib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway import PROGRAM, Gateway, running_gateway, wait_until


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    with running_gateway(tmp_path) as server:
        yield server


def test_a_client_is_watched_from_its_next_reply_on_or_from_its_start(gateway: Gateway, tmp_path: Path) -> None:
    shown_path = tmp_path / "shown"
    command = [str(PROGRAM), "transcript", "-c", str(gateway.config), "--json", "--client", f"{gateway.host}/32"]
    early = smtplib.SMTP(gateway.host, gateway.port, "early.example", source_address=(gateway.host, 0), timeout=20)
    early.ehlo()
    with shown_path.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE) as watcher:

        def shown() -> list[str]:
            lines = shown_path.read_bytes().split(b"\n")[:-1]
            return [f"{line['who']}: {line['text']}" for line in map(json.loads, lines)]

        def is_seen() -> bool:
            early.noop()
            return "C: noop" in shown()

        wait_until("the open session is shown", is_seen, 30)
        with smtplib.SMTP(gateway.host, gateway.port, "late.example", source_address=(gateway.host, 0), timeout=20) as late:
            late.sendmail("s@example.com", ["a@example.org"], "Subject: x\r\n\r\nthe secret text\r\n")
        early.quit()
        wait_until("both have ended", lambda: shown().count(": (closed)") == 2, 30)
        watcher.send_signal(signal.SIGINT)
        assert watcher.wait(30) == 0
        assert watcher.stderr is not None
        assert watcher.stderr.read() == b""
    text = shown()
    assert "C: ehlo late.example" in text
    assert any(line.startswith("S: 220 ") for line in text)
    assert any(line.startswith("S: 250 2.0.0 Ok: queued as ") for line in text)
    assert any(line.endswith(" octets of content)") for line in text)
    assert not any("secret" in line or "Subject" in line for line in text)


def test_a_next_hop_is_watched(gateway: Gateway, tmp_path: Path) -> None:
    shown_path = tmp_path / "shown"
    route = {"domains": ["*"], "transport": "smtp", "next_hop": [f"{gateway.host}:{gateway.port}"]}
    with running_gateway(tmp_path / "relay", {"route": [route]}) as relay:
        command = [str(PROGRAM), "transcript", "-c", str(relay.config), "--json", "--next-hop", gateway.host]

        def shown() -> list[str]:
            lines = shown_path.read_bytes().split(b"\n")[:-1]
            return [f"{line['who']}: {line['text']}" for line in map(json.loads, lines)]

        def is_seen() -> bool:
            with smtplib.SMTP(relay.host, relay.port, "client.example", timeout=20) as smtp:
                smtp.sendmail("s@example.com", ["a@example.org"], "Subject: x\r\n\r\nthe secret text\r\n")
            lines = shown()
            return any("MAIL FROM" in line for line in lines) and any("octets of content" in line for line in lines)

        with shown_path.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE) as watcher:
            wait_until("a mail is shown", is_seen, 30)
            watcher.send_signal(signal.SIGINT)
            assert watcher.wait(30) == 0
            assert watcher.stderr is not None
            assert watcher.stderr.read() == b""
        text = shown()
        assert "C: MAIL FROM:<s@example.com>" in [line.partition(" SIZE=")[0].partition(" BODY=")[0] for line in text]
        assert any(line.endswith(" octets of content)") for line in text)
        assert not any("secret" in line or "Subject" in line for line in text)


def test_without_a_server_or_a_choice_it_says_so(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(PROGRAM), "transcript", "-c", str(gateway.config), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    done = run("--client", "192.0.2.1")
    assert (done.returncode, done.stderr) == (69, "smtpd: no worker is running\n")
    assert run().returncode == 64
    assert run("--client", "nonsense").returncode == 64
