"""A mail of 40 MB passes through a worker that hardly grows, and arrives whole."""

from __future__ import annotations

import hashlib
import smtplib
from collections.abc import Iterator
from pathlib import Path

import pytest
from delivered import take_apart
from gateway import Gateway, running_gateway

from bench.processes import memory_bytes, reset_peak

SIZE_BYTES = 40_000_000
GROWTH_BYTES = 4_000_000


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("gateway"), {"workers": 1}) as running:
        yield running


def lines(size_bytes: int) -> Iterator[bytes]:
    """Yield a head and pieces of about 64 KB, all different, dots at some line starts; `size_bytes` in all or a bit more."""
    yield b"Subject: big\r\n\r\n"
    sent, number = 0, 0
    while sent < size_bytes:
        piece = b"".join(b"%s%09d %s\r\n" % (b"." * (n % 97 == 0), n, b"x" * 60) for n in range(number, number + 900))
        number += 900
        sent += len(piece)
        yield piece


def send(client: smtplib.SMTP, user: str, size_bytes: int) -> str:
    """Send so much in pieces; return the SHA-256 of what the Maildir must hold of it."""
    digest = hashlib.sha256()
    client.mail("a@example.com")
    client.rcpt(f"{user}@example.org")
    assert client.docmd("DATA")[0] == 354
    for piece in lines(size_bytes):
        digest.update(piece.replace(b"\r\n", b"\n"))
        client.send((b"." if piece.startswith(b".") else b"") + piece.replace(b"\n.", b"\n.."))
    client.send(b".\r\n")
    code, text = client.getreply()
    assert code == 250, text
    return digest.hexdigest()


def digest_of(path: Path) -> str:
    return hashlib.sha256(take_apart(path.read_bytes()).content).hexdigest()


def test_a_worker_hardly_grows_by_a_mail_of_40_mb(gateway: Gateway) -> None:
    (worker,) = gateway.worker_pids()
    with smtplib.SMTP(gateway.host, gateway.port, timeout=60) as client:
        client.ehlo()
        for number in range(3):  # what is loaded or allocated once is there after these
            send(client, f"warm-up-{number}", 1_000_000)
            gateway.await_mails(f"warm-up-{number}")
        reset_peak(worker)
        before = memory_bytes(worker, "VmRSS")
        digest = send(client, "big", SIZE_BYTES)
        gateway.await_mails("big")
        growth = memory_bytes(worker, "VmHWM") - before
    (path,) = gateway.mail_paths("big")
    assert digest_of(path) == digest
    assert growth < GROWTH_BYTES, f"the worker's resident set grew by {growth:,} bytes at its peak"
