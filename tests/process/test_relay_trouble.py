"""The whole server between two next hops, one of them bad: the other's mail goes on, memory stays bounded, and what was taken is
delivered when the bad one is mended."""

from __future__ import annotations

import contextlib
import smtplib
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import next_hop
import pytest
from gateway import Gateway, free_port, wait_until
from mounts import mounted
from next_hop import NextHop

MAILS = 150
BODY_BYTES = 30_000
GROWTH_BYTES = 40 << 20  # what a worker may grow by; the bodies alone would be less only if they were kept out of memory
WAYS: dict[str, tuple[str, next_hop.Action]] = {
    "greets-never": ("greeting", next_hop.hang),
    "421": ("greeting", b"421 4.3.2 Down\r\n"),
    "garbage": ("hello", next_hop.garbage),
    "flood": ("mail", next_hop.flood),
    "reset-at-data": ("data", next_hop.reset),
    "reads-never": ("content", next_hop.sit),
    "silent-after-dot": ("end", next_hop.hang),
    "refuses-for-now": ("rcpt", b"450 4.2.0 Later\r\n"),
}


def settings_for(good: str, bad: str, **delivery: Any) -> dict[str, Any]:
    timeouts = ("connect", "greeting", "hello", "mail", "recipient", "data", "block", "quit")
    return {
        "workers": 1,
        "route": [
            {"name": "good", "domains": ["good.example"], "transport": "smtp", "next_hop": [good], "tls": "off"},
            {"name": "bad", "domains": ["bad.example"], "transport": "smtp", "next_hop": [bad], "tls": "off"},
        ],
        "delivery": {
            "retry": ["300ms"], "retry_next_hop": "200ms", "memory": "1MiB", **{f"{name}_timeout": "1s" for name in timeouts},
            "end_of_data_timeout": "20s",  # the good next hop is never to be taken for silent: its mail would come twice
            **delivery,
        },
    }  # fmt: skip


def send_mails(gateway: Gateway, first: int, count: int, domains: tuple[str, ...] = ("good.example", "bad.example")) -> None:
    """Hand in mails with a number in each, by turns for each of the domains."""
    with smtplib.SMTP(gateway.host, gateway.port, "client.example", timeout=20) as smtp:
        for number in range(first, first + count):
            for domain in domains:
                text = f"Subject: {number}\r\n\r\n" + "x" * 70 + "\r\n"
                text += ("y" * 70 + "\r\n") * ((BODY_BYTES - len(text)) // 72)
                smtp.sendmail("a@example.com", [f"u{number}@{domain}"], text)


def arrived(hop: NextHop) -> Counter[bytes]:
    return Counter(path for mail in list(hop.mails) for path in mail.recipients)


def rss_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"{pid} has no memory")


def fill_up(path: Path) -> None:
    """Write until the disk takes no more."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass


@pytest.fixture
def good() -> Iterator[NextHop]:
    with NextHop() as hop:
        yield hop


@pytest.fixture
def bad() -> Iterator[NextHop]:
    with NextHop() as hop:
        yield hop


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Any]:
    started: list[Gateway] = []

    def start(settings: dict[str, Any]) -> Gateway:
        gateway = Gateway(tmp_path / "gateway", settings)
        started.append(gateway)
        gateway.start()
        return gateway

    yield start
    for gateway in started:
        if gateway.process is not None:
            gateway.kill()


@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=() if way in ("421", "reads-never") else pytest.mark.full) for way in WAYS]
)
def test_a_bad_next_hop_holds_up_no_other_and_gets_its_mail_when_it_is_mended(
    run: Any, good: NextHop, bad: NextHop, way: str
) -> None:
    stage, behaviour = WAYS[way]
    bad.on[stage] = behaviour
    gateway = run(settings_for(good.name, bad.name, **({"end_of_data_timeout": "3s"} if stage == "end" else {})))
    send_mails(gateway, 0, 10, ("good.example",))
    wait_until("the first mails have arrived", lambda: len(good.mails) == 10, 20)
    (pid,) = gateway.worker_pids()
    before = rss_bytes(pid)
    send_mails(gateway, 10, MAILS)
    wait_until("the other route's mail has arrived", lambda: len(good.mails) == MAILS + 10, 20)
    assert rss_bytes(pid) - before < GROWTH_BYTES
    assert not [mail for mail in bad.mails if stage != "end"]
    bad.mend()
    wanted = {b"u%d@bad.example" % number for number in range(10, MAILS + 10)}
    wait_until("all of its mail has arrived", lambda: set(arrived(bad)) >= wanted, 30)
    gateway.await_empty_queue()
    assert set(arrived(bad)) == wanted
    assert all(len(mail.body) >= BODY_BYTES - 200 for mail in bad.mails)
    assert max(arrived(good).values()) == 1
    if stage != "end":  # there the next hop had it, and we couldn't know
        assert max(arrived(bad).values()) == 1
    assert rss_bytes(pid) - before < GROWTH_BYTES
    assert gateway.stop() == 0


@pytest.mark.full
def test_a_next_hop_that_is_down_and_comes_back(run: Any, good: NextHop) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        port = unheard.getsockname()[1]
        gateway = run(settings_for(good.name, f"127.0.0.1:{port}"))
        send_mails(gateway, 0, 50)
        wait_until("the other route's mail has arrived", lambda: len(good.mails) == 50, 20)
        assert gateway.metric("smtpd_delivery_attempts_total", route="bad", result="delivered") == 0
        with NextHop(bound=unheard) as mended:
            wait_until("all of its mail has arrived", lambda: len(arrived(mended)) == 50, 30)
            gateway.await_empty_queue()
            assert max(arrived(mended).values()) == 1
            assert gateway.metric("smtpd_delivery_attempts_total", route="bad", result="delivered") == 50
            assert gateway.stop() == 0


def test_mail_for_a_bad_next_hop_outlives_a_crash(run: Any, good: NextHop, bad: NextHop) -> None:
    bad.on["mail"] = next_hop.hang
    gateway = run(settings_for(good.name, bad.name, mail_timeout="1min"))
    send_mails(gateway, 0, 30)
    wait_until("the bad next hop is being tried", lambda: bad.count("mail") > 0, 20)
    gateway.kill()
    bad.mend()
    gateway.start()
    wait_until("all mail has arrived", lambda: len(arrived(bad)) == 30 and len(arrived(good)) == 30, 30)
    gateway.await_empty_queue()
    assert gateway.stop() == 0


def test_a_stop_does_not_wait_for_a_next_hop_that_hangs(run: Any, good: NextHop, bad: NextHop) -> None:
    bad.on["mail"] = next_hop.hang
    gateway = run(settings_for(good.name, bad.name, mail_timeout="10min"))
    send_mails(gateway, 0, 5)
    wait_until("the bad next hop is being tried", lambda: bad.count("mail") > 0, 20)
    assert gateway.stop() == 0
    bad.mend()
    gateway.start()
    wait_until("its mail has arrived", lambda: len(arrived(bad)) == 5, 30)
    assert gateway.stop() == 0


def test_a_disk_that_fills_while_mail_leaves_costs_no_mail_and_repeats_none(
    run: Any, good: NextHop, bad: NextHop, tmp_path: Path
) -> None:
    gate = threading.Event()
    bad.on["end"] = lambda talk: gate.wait(60) and None
    with mounted("none", tmp_path / "disk", "-t", "tmpfs", "-o", "size=24m") as disk:
        settings = settings_for(good.name, bad.name)
        settings["spool"] = {"path": str(disk / "spool"), "free_bytes": 0, "free_inodes": 0}
        gateway = run(settings)
        send_mails(gateway, 0, 40)
        wait_until("the other route's mail has arrived", lambda: len(good.mails) == 40, 20)
        wait_until("the slow one has some", lambda: bad.count("end") > 0, 20)
        filler = disk / "filler"
        fill_up(filler)
        gate.set()
        wait_until("the slow one's mail has arrived", lambda: len(arrived(bad)) == 40, 30)
        filler.unlink()
        gateway.await_empty_queue()
        assert gateway.stop() == 0
        assert max(arrived(good).values()) == 1
        assert max(arrived(bad).values()) == 1


def test_mail_by_mx_waits_while_dns_is_down_and_holds_up_nothing(run: Any, good: NextHop) -> None:
    settings = settings_for(good.name, "mx:")
    settings["route"][1]["domains"] = ["*"]
    settings["dns"] = {"servers": [f"127.0.0.1:{free_port('127.0.0.1')}"], "timeout": "500ms"}
    gateway = run(settings)
    for number in range(20):
        send_mails(gateway, number, 1, ("good.example", f"d{number}.example"))
    wait_until("the other route's mail has arrived", lambda: len(good.mails) == 20, 20)
    wait_until("each was tried", lambda: gateway.metric("smtpd_queue_messages", route="bad", state="deferred") == 20, 30)
    wait_until("the log says why", lambda: "dsn=4.4.3, status=deferred" in gateway.log_text(100_000), 30)
    assert gateway.stop() == 0
