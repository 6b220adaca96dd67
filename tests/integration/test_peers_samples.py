"""The sample mails of CPython's own email tests pass through the gateway byte for byte: odd MIME, odd headers, odd ends."""

from __future__ import annotations

import importlib.util
import smtplib
from pathlib import Path

import pytest
from delivered import crlf, on_disk, take_apart
from gateway import Gateway


def sample_paths() -> list[Path]:
    """Return the msg_*.txt of the running Python; empty when it was installed without its tests."""
    spec = importlib.util.find_spec("test")
    roots = list(spec.submodule_search_locations or []) if spec else []
    return sorted(path for root in roots for path in Path(root, "test_email", "data").glob("msg_*.txt"))


SAMPLES = sample_paths()


def test_this_python_has_the_samples() -> None:
    assert len(SAMPLES) > 40


@pytest.fixture(scope="module")
def sent(gateway: Gateway) -> Gateway:
    """The gateway after all samples were sent over one connection, each to a mailbox of its own."""
    with smtplib.SMTP(gateway.host, gateway.port, timeout=30) as client:
        client.ehlo()
        for path in SAMPLES:
            user, content = path.stem, crlf(path.read_bytes())
            assert client.sendmail("a@example.com", [f"{user}@example.org"], content, ["BODY=8BITMIME"]) == {}
    return gateway


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_arrives_byte_for_byte(sent: Gateway, path: Path) -> None:
    (stored,) = sent.await_mails(path.stem)
    assert take_apart(stored).content == on_disk(crlf(path.read_bytes()))
