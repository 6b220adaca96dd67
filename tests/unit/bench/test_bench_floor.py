"""The C floor server: it speaks enough SMTP for a generator, whole or in pieces, and ends with its parent's word."""

from __future__ import annotations

import shutil
import smtplib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.servers import Floor

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler (cc)")


@pytest.fixture(scope="module")
def floor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Floor]:
    server = Floor(tmp_path_factory.mktemp("floor"))
    server.start()
    yield server
    server.stop()


def test_takes_mail_from_smtplib(floor: Floor) -> None:
    with smtplib.SMTP(floor.host, floor.port, timeout=10) as client:
        for body in ("x\r\n" * 50_000, "", ".\r\n..\r\n"):
            assert client.sendmail("a@example.com", ["b@example.org"], body) == {}
        assert client.docmd("BOGUS")[0] == 500


def test_any_split_of_the_dialogue_gives_the_same_replies(floor: Floor) -> None:
    commands = [b"EHLO x\r\n", b"MAIL FROM:<>\r\n", b"RCPT TO:<b@c>\r\n", b"DATA\r\n", b"a\r\n.\r\n", b"DATA\r\n", b".\r\n"]
    codes = [b"250", b"250", b"250", b"354", b"250", b"354", b"250"]
    with socket.create_connection((floor.host, floor.port), timeout=10) as client:
        replies = client.makefile("rb")
        assert replies.readline().startswith(b"220")
        for command, code in zip(commands, codes, strict=True):
            for octet in command:
                client.sendall(bytes([octet]))
            while (line := replies.readline())[3:4] == b"-":
                assert line.startswith(code)
            assert line.startswith(code), command
        client.sendall(b"QUIT\r\n")
        assert replies.readline().startswith(b"221")
        assert replies.read() == b""
        replies.close()


def test_ends_on_term(tmp_path: Path) -> None:
    server = Floor(tmp_path)
    server.start()
    server.stop()
    assert not Path(f"/proc/{server.pid}").exists()
