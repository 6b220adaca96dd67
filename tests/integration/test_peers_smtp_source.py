"""Postfix's smtp-source: thousands of mails over many sessions, each arrives once and byte for byte."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from delivered import Delivered, crlf, on_disk, take_apart
from gateway import Gateway
from peers import require_peer

GENERATED = re.compile(
    rb"From: <a@example\.com>\nTo: <bulk@example\.org>\nDate: [^\n]+\nMessage-Id: <([0-9a-f.]+)@client\.example\.com>\n\n"
    rb"((?:\d*X+\n)+)"
)


def run_source(gateway: Gateway, *options: str) -> None:
    program = require_peer("postfix", "smtp-source")
    command = [program, "-M", "client.example.com", "-f", "a@example.com", *options, f"{gateway.host}:{gateway.port}"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert result.returncode == 0, result.stderr + gateway.log_text()


def mails(gateway: Gateway, user: str, count: int) -> list[Delivered]:
    return [take_apart(stored) for stored in gateway.await_mails(user, count, timeout_s=60)]


def test_2000_mails_of_50_sessions_arrive_once_each(gateway: Gateway) -> None:
    run_source(gateway, "-d", "-s", "50", "-m", "2000", "-l", "4096", "-t", "bulk@example.org")
    arrived = mails(gateway, "bulk", 2000)
    parts = [GENERATED.fullmatch(mail.content) for mail in arrived]
    assert all(parts)
    assert len({part[1] for part in parts if part}) == 2000
    bodies = {part[2] for part in parts if part}
    assert len(bodies) == 1  # the same in each, nothing lost in any
    assert 4096 <= len(crlf(bodies.pop())) < 4096 + 80
    assert len({mail.queue_id for mail in arrived}) == 2000


def test_a_given_mail_arrives_byte_for_byte_over_a_connection_each(gateway: Gateway, tmp_path: Path) -> None:
    content = b"X-Sample: yes\n\n.\n..\n.dot\n" + b"y" * 2000 + b"\n" + bytes(range(0xA0, 0x100)) + b"\nlast\n"
    (tmp_path / "mail").write_bytes(content)
    run_source(gateway, "-s", "20", "-m", "200", "-F", str(tmp_path / "mail"), "-t", "given@example.org")
    expected = on_disk(crlf(content)) + b"\n"  # smtp-source ends a file with an empty line of its own
    assert {mail.content for mail in mails(gateway, "given", 200)} == {expected}


def test_many_recipients_get_a_copy_each(gateway: Gateway) -> None:
    run_source(gateway, "-s", "2", "-m", "2", "-r", "30", "-t", "many@example.org")
    for user in ["many", *(f"{number}many" for number in range(2, 31))]:  # as smtp-source counts them
        pair = mails(gateway, user, 2)
        assert len({mail.queue_id for mail in pair}) == 2


def test_lmtp_is_another_protocol(gateway: Gateway) -> None:
    program = require_peer("postfix", "smtp-source")
    command = [program, "-L", "-m", "1", "-f", "a@example.com", "-t", "lmtp@example.org", f"{gateway.host}:{gateway.port}"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode != 0
    assert gateway.mail_paths("lmtp") == []
