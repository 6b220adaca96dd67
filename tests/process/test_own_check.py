"""The example package of docs/own-checks.md: built, installed, found by its entry point, and asked by a real gateway."""

from __future__ import annotations

import smtplib
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from gateway import PROGRAM, running_gateway

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "smtpd-ask-socket"


def install(folder: Path) -> Path:
    """Install the package as pip does, without asking any index; return the folder for PYTHONPATH."""
    source = folder / "source"
    source.mkdir()
    for file in EXAMPLE.iterdir():
        if file.is_file():
            (source / file.name).write_bytes(file.read_bytes())
    root = folder / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-build-isolation", "--no-deps", "-t", root, source],
        check=True,
        timeout=100,
    )
    return root


def answer(server: socket.socket, count: int) -> None:
    for _ in range(count):
        peer, _ = server.accept()
        with peer, peer.makefile("rb") as file:
            peer.sendall(b"ok\n" if file.readline() == b"alice@example.org\n" else b"552 5.2.2 Mailbox full\n")


def test_the_example_package_is_installed_and_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len((EXAMPLE / "smtpd_ask_socket.py").read_text().splitlines()) <= 32
    monkeypatch.setenv("PYTHONPATH", str(install(tmp_path)))
    path = tmp_path / "asker"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(5)
        thread = threading.Thread(target=answer, args=(server, 3))
        thread.start()
        checks = {"policy": {"check": [{"name": "ask_socket", "path": str(path)}]}}
        with running_gateway(tmp_path, checks) as gateway, smtplib.SMTP(gateway.host, gateway.port, "x.example", 30) as smtp:
            refused = smtp.sendmail("a@example.net", ["alice@example.org", "bob@example.org"], b"Subject: x\r\n\r\ny\r\n")
            assert refused == {"bob@example.org": (552, b"5.2.2 Mailbox full")}
            gateway.await_mails("alice")
            assert gateway.metric("smtpd_policy_checks_total", check="ask_socket", result="reject") == 1
            explained = subprocess.run(
                [PROGRAM, "explain", "bob@example.org", "-c", gateway.config, "--json"],
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            assert explained.returncode == 1
            assert '"552 5.2.2 Mailbox full"' in explained.stdout
            assert '"route":"maildir-1"' in explained.stdout
        thread.join(20)
        assert not thread.is_alive()
