"""Postfix as the next hop, with PIPELINING and CHUNKING: each mail arrives once and byte for byte, a big one without growth."""

from __future__ import annotations

import hashlib
import re
import smtplib
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway import running_gateway
from peer_next_hops import PostfixReceiver, postfix_receiver
from relayed_mail import assert_each_once, attempts, await_removed, content_of, relay_settings, sample_mails, send_mails

from bench.processes import memory_bytes, reset_peak

EXTENSIONS = ("PIPELINING", "CHUNKING", "8BITMIME", "SMTPUTF8", "DSN")
BY_BDAT = re.compile(r"250 2.0.0 Ok: \d+ bytes queued as ")
BY_DATA = re.compile(r"250 2.0.0 Ok: queued as ")
BIG_BYTES = 40_000_000
GROWTH_BYTES = 4_000_000


@pytest.fixture(scope="module")
def receiver() -> Iterator[PostfixReceiver]:
    with postfix_receiver() as running:
        yield running


@pytest.fixture(autouse=True)
def _no_mail(receiver: PostfixReceiver) -> None:
    receiver.clear()


def relay_and_compare(receiver: PostfixReceiver, folder: Path, count: int, **delivery: object) -> list[str]:
    """Relay so many sample mails and hold them against what arrived; return the texts of the replies."""
    mails = sample_mails(count)
    with running_gateway(folder, relay_settings(receiver.next_hop, **delivery)) as gateway:
        send_mails(gateway, mails)
        await_removed(gateway, count)
        lines = attempts(gateway)
    assert [line for line in lines if line.status != "sent"] == []
    assert len(lines) == count
    assert_each_once(receiver.await_arrived(count), mails)
    return [line.text for line in lines]


def test_it_offers_what_this_is_about(receiver: PostfixReceiver) -> None:
    with smtplib.SMTP(receiver.host, receiver.port, "client.example", timeout=30) as client:
        client.ehlo()
        assert [name for name in EXTENSIONS if not client.has_extn(name)] == []


def test_200_mails_by_bdat(receiver: PostfixReceiver, tmp_path: Path) -> None:
    replies = relay_and_compare(receiver, tmp_path, 200)
    assert sum(1 for text in replies if BY_BDAT.match(text)) >= 180  # those too big for memory go by DATA
    assert [text for text in replies if not BY_BDAT.match(text) and not BY_DATA.match(text)] == []


def test_100_mails_by_data(receiver: PostfixReceiver, tmp_path: Path) -> None:
    replies = relay_and_compare(receiver, tmp_path, 100, chunking=False)
    assert [text for text in replies if not BY_DATA.match(text)] == []


@pytest.mark.full
@pytest.mark.timeout(300)
def test_3000_mails(receiver: PostfixReceiver, tmp_path: Path) -> None:
    relay_and_compare(receiver, tmp_path, 3000)


def big_mail(size_bytes: int, number: int) -> bytes:
    lines = b"".join(b"%s%09d %s\r\n" % (b"." * (n % 97 == 0), n, b"x" * 60) for n in range(size_bytes // 72))
    return b"X-Mail-Id: big-%d\r\nSubject: big\r\n\r\n" % number + lines


def test_a_worker_hardly_grows_by_a_mail_of_40_mb(receiver: PostfixReceiver, tmp_path: Path) -> None:
    mails = [big_mail(1_000_000, number) for number in range(3)] + [big_mail(BIG_BYTES, 3)]
    settings = {**relay_settings(receiver.next_hop), "workers": 1}
    with running_gateway(tmp_path, settings) as gateway:
        (worker,) = gateway.worker_pids()
        for number, mail in enumerate(mails):  # the first ones for what is loaded or allocated once
            reset_peak(worker)
            before = memory_bytes(worker, "VmRSS")
            with smtplib.SMTP(gateway.host, gateway.port, "client.example", timeout=60) as client:
                client.sendmail("a@example.com", ["box@example.org"], mail)
            await_removed(gateway, number + 1)
            growth = memory_bytes(worker, "VmHWM") - before
    arrived = receiver.await_arrived(len(mails))
    digests = {hashlib.sha256(content_of(stored)).hexdigest() for stored in arrived}
    assert digests == {hashlib.sha256(mail.replace(b"\r\n", b"\n")).hexdigest() for mail in mails}
    assert growth < GROWTH_BYTES, f"the worker's resident set grew by {growth:,} bytes at its peak"
