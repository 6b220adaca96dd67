"""Mails for tests that relay through a real Gateway into a real next hop, and what must come out there.

Each mail carries its number in X-Mail-Id, so that every arrived one can be held against the sent one octet by octet: whatever
stands before that field was added on the way. Line ends are the receiver's own, content is compared with bare line feeds.
"""

from __future__ import annotations

import random
import re
import smtplib
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway import Gateway, wait_until

SENDER = "a@example.com"
RECIPIENT = "box@example.org"
DEFERRAL_RETRY_S = 0.3
_START = re.compile(rb"^X-Mail-Id: (\S+)\r?\n", re.MULTILINE)
_DELIVERY = re.compile(r" (\w+): to=<([^>]*)>, relay=(.*?), delay=.*?, dsn=([\d.]*), status=(\w+) \((.*)\)$", re.MULTILINE)
_REMOVED = re.compile(r": (?:removed|held: .*)$", re.MULTILINE)
_EIGHT_BIT = bytes(range(0xA0, 0x100))


def relay_settings(next_hop: str | list[str], transport: str = "smtp", **delivery: Any) -> dict[str, Any]:
    """Settings of a Gateway that passes all mail on, and tries again soon; `delivery` replaces keys of that section."""
    hops = [next_hop] if isinstance(next_hop, str) else next_hop
    quick = {"retry": [DEFERRAL_RETRY_S], "retry_next_hop": 0.2, "quit_timeout": 2.0}
    return {
        "route": [{"domains": ["*"], "transport": transport, "name": "out", "next_hop": hops, "tls": "off"}],
        "delivery": {**quick, **delivery},
    }


def sample_mails(count: int, seed: int = 1) -> dict[str, bytes]:
    """Return id -> content with CRLF line ends: of many sizes, with dots, 8-bit text, empty lines at the end, empty bodies."""
    chance = random.Random(seed)
    kinds = [_no_body, _dots, _eight_bit, _empty_lines, _text, _text, _long_text]
    return {f"m{n}": b"X-Mail-Id: m%d\r\nSubject: sample\r\n\r\n" % n + kinds[n % len(kinds)](chance) for n in range(count)}


def _no_body(chance: random.Random) -> bytes:
    return b""


def _dots(chance: random.Random) -> bytes:
    return b"".join(chance.choice([b".", b"..", b"...", b".x", b". ", b"x."]) + b"\r\n" for _ in range(30)) + b".\r\n"


def _eight_bit(chance: random.Random) -> bytes:
    return b"".join(b"%d " % n + _EIGHT_BIT + b"\r\n" for n in range(chance.randrange(1, 20)))


def _empty_lines(chance: random.Random) -> bytes:
    return b"\r\n" * chance.randrange(1, 50) + b"text\r\n" + b"\r\n" * chance.randrange(1, 5)


def _text(chance: random.Random) -> bytes:
    return b"".join(b"%016x\r\n" % chance.getrandbits(64) * 3 for _ in range(chance.randrange(1, 80)))


def _long_text(chance: random.Random) -> bytes:
    return b"".join(b"%016x" % chance.getrandbits(64) * 50 + b"\r\n" for _ in range(chance.randrange(1, 250)))  # to 200 KB


def send_mails(
    gateway: Gateway, mails: Mapping[str, bytes], recipients: Iterable[str] = (RECIPIENT,), connections: int = 4
) -> None:
    """Send all of them over so many connections; smtplib's exceptions when one is refused."""
    paths = list(recipients)

    def send_some(ids: list[str]) -> None:
        with smtplib.SMTP(gateway.host, gateway.port, "client.example", timeout=30) as client:
            for mail_id in ids:
                client.sendmail(SENDER, paths, mails[mail_id], ["BODY=8BITMIME"])

    ids = list(mails)
    with ThreadPoolExecutor(connections) as pool:
        list(pool.map(send_some, (ids[n::connections] for n in range(connections))))


def mail_id_of(stored: bytes) -> str:
    """Return the number of an arrived mail; AssertionError without one."""
    found = _START.search(stored)
    assert found, stored[:500]
    return found[1].decode()


def content_of(stored: bytes) -> bytes:
    """Return an arrived mail without what was added before it on the way, with bare line feeds."""
    found = _START.search(stored)
    assert found, stored[:500]
    return stored[found.start() :].replace(b"\r\n", b"\n")


def assert_each_once(arrived: Iterable[bytes], mails: Mapping[str, bytes]) -> None:
    """Each mail has arrived exactly once and as it was sent; AssertionError naming the first few that did not."""
    counts: Counter[str] = Counter()
    changed = []
    for stored in arrived:
        mail_id = mail_id_of(stored)
        counts[mail_id] += 1
        if content_of(stored) != mails[mail_id].replace(b"\r\n", b"\n"):
            changed.append(mail_id)
    lost = [mail_id for mail_id in mails if not counts[mail_id]]
    twice = [mail_id for mail_id, count in counts.items() if count > 1]
    assert {"lost": lost[:9], "twice": twice[:9], "changed": changed[:9]} == {"lost": [], "twice": [], "changed": []}


def await_removed(gateway: Gateway, count: int, timeout_s: float = 100.0) -> None:
    """Return when so many mails have left the queue for good (removed or held); AssertionError with the end of the log."""
    with gateway.stderr.open(encoding="utf-8", errors="replace") as log:
        removed, rest = 0, ""

        def is_done() -> bool:
            nonlocal removed, rest
            lines, end, rest = (rest + log.read()).rpartition("\n")
            removed += len(_REMOVED.findall(lines + end))
            return removed >= count

        try:
            wait_until(f"{count} mails have left the queue", is_done, timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{gateway.log_text()}") from None


def log_of(gateway: Gateway) -> str:
    """Return all that the server has logged so far."""
    return gateway.stderr.read_text(encoding="utf-8", errors="replace")


@dataclass(frozen=True, slots=True)
class Attempted:
    """One line of the log about a recipient."""

    queue_id: str
    to: str
    relay: str
    dsn: str
    status: str
    text: str


def attempts(gateway: Gateway) -> list[Attempted]:
    """Return what the log tells of deliveries so far."""
    return [Attempted(*found) for found in _DELIVERY.findall(log_of(gateway))]


def await_attempt(gateway: Gateway, status: str, to: str = "", count: int = 1, timeout_s: float = 30.0) -> list[Attempted]:
    """Return the attempts with that status (and recipient) once there are so many."""

    def found() -> list[Attempted]:
        lines = [line for line in attempts(gateway) if line.status == status and (not to or line.to == to)]
        return lines if len(lines) >= count else []

    try:
        return wait_until(f"{count} attempts that are {status}", found, timeout_s)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{gateway.log_text()}") from None


def maildir_contents(folder: Path) -> list[bytes]:
    """Return all mails of all Maildirs below a folder."""
    return [path.read_bytes() for path in folder.rglob("new/*")]
