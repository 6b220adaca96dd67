"""Debian's pflogsumm, run on a log made through MailLog, reports exactly what was logged."""

from __future__ import annotations

import random
import re
import smtplib
import subprocess
from pathlib import Path

import pytest
from gateway import running_gateway, wait_until
from peers import require_peer

from smtpd.log.maillog import MailLog
from smtpd.settings import LogSettings

pytestmark = pytest.mark.peer("pflogsumm")

CLIENTS = [f"unknown[192.0.2.{number}]" for number in range(1, 6)]
SENDERS = [b"alice@a.example", b"bob@b.example", b"", b'"odd, name"@c.example', "j\u00f6rg@d.example".encode()]
RECIPIENTS = [b"u1@example.org", b"u2@example.org", b"u3@example.net", b'"a\\"b"@example.com']
REFUSALS = [
    ("RCPT", b"550 5.7.1 Relay access denied"),
    ("RCPT", b"452 4.5.3 Error: too many recipients"),
    ("MAIL", b"452 4.3.1 Insufficient system storage"),
    ("END-OF-MESSAGE", b"554 5.4.6 Too many hops: mail loop?"),
]


class Tally:
    """What was logged, in pflogsumm's words."""

    def __init__(self) -> None:
        self.received = self.delivered = self.deferrals = self.bounced = self.rejected = 0
        self.deferred: set[str] = set()
        self.bytes_received = self.bytes_delivered = 0
        self.senders: set[bytes] = set()
        self.recipients: set[bytes] = set()
        self.connections = 0


def log_mails(log: MailLog, count: int) -> Tally:
    """Log the lives of `count` mails and of some refused ones, mixed by a fixed seed."""
    dice = random.Random(20261124)
    tally = Tally()
    for number in range(count):
        queue_id = f"3sX8kq2z{number:06d}B"
        client, sender = dice.choice(CLIENTS), dice.choice(SENDERS)
        recipients = dice.sample(RECIPIENTS, dice.randint(1, len(RECIPIENTS)))
        size = dice.randint(1, 5000)
        log.connect(client)
        log.client(queue_id, client)
        log.message_id(queue_id, b"<%d@a.example>" % number if number % 7 else b"")
        log.queued(queue_id, sender, size, len(recipients))
        tally.connections += 1
        tally.received += 1
        tally.bytes_received += size
        tally.senders.add(sender)
        for recipient in recipients:
            status = dice.choice(["sent", "sent", "sent", "deferred", "bounced"])
            dsn, text = {
                "sent": ("2.0.0", "delivered to maildir"),
                "deferred": ("4.3.0", "mailbox is locked (by another)"),
                "bounced": ("5.1.1", "no such user"),
            }[status]
            log.delivered(queue_id, recipient, "maildir", dice.random() * 20, (0.1, 0.0, 0.0, 1.5), dsn, status, text, "maildir")
            if status == "sent":
                tally.delivered += 1
                tally.bytes_delivered += size
                tally.recipients.add(recipient)
            elif status == "deferred":
                tally.deferrals += 1
                tally.deferred.add(queue_id)
            else:
                tally.bounced += 1
        if dice.random() < 0.3:
            stage, reply = dice.choice(REFUSALS)
            recipient_or_none = dice.choice(RECIPIENTS) if stage == "RCPT" else None
            log.reject("", stage, client, reply, sender, recipient_or_none, "ESMTP", b"host.example")
            tally.rejected += 1
        log.removed(queue_id)
        log.disconnect(client, {"ehlo": (1, 1), "mail": (1, 1), "rcpt": (len(recipients),) * 2, "data": (1, 1), "quit": (1, 1)})
        log.end_turn()
    log.lost_connection("DATA", CLIENTS[0])
    log.timeout("RCPT", CLIENTS[1])
    return tally


def summarize(path: Path) -> str:
    pflogsumm = require_peer("pflogsumm", "pflogsumm")
    done = subprocess.run([pflogsumm, "--smtpd-stats", path], capture_output=True, timeout=60, check=True)
    assert done.stderr == b""
    return done.stdout.decode()


def totals(text: str) -> dict[str, int]:
    """The "Grand Totals": words -> number."""
    part = text.split("Grand Totals", 1)[1].split("Per-Hour", 1)[0]
    found = re.findall(r"^ *(\d+)([kmg]?) +([a-z][a-z/ -]*?)(?: +\(\d+%\)| +\(\d+ +deferrals\))?$", part, re.MULTILINE)
    return {words: int(number) * {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}[unit] for number, unit, words in found}


def logged(path: Path, count: int) -> Tally:
    log = MailLog(LogSettings(destination=str(path)), "mx1.example.net")
    log.start()
    tally = log_mails(log, count)
    log.close(30.0)
    assert log.dropped == 0
    return tally


def test_pflogsumm_counts_what_was_logged(tmp_path: Path) -> None:
    path = tmp_path / "mail.log"
    tally = logged(path, 40)
    text = summarize(path)
    found = totals(text)
    assert tally.deferrals > 0
    assert tally.rejected > 0
    assert found["received"] == tally.received
    assert found["delivered"] == tally.delivered
    assert found["deferred"] == len(tally.deferred)
    assert re.search(rf"\({tally.deferrals} +deferrals\)", text)
    assert found["bounced"] == tally.bounced
    assert found["rejected"] == tally.rejected
    assert found["held"] == found["discarded"] == found["reject warnings"] == 0
    assert found["bytes received"] == pytest.approx(tally.bytes_received, abs=512)
    assert found["bytes delivered"] == pytest.approx(tally.bytes_delivered, abs=512)
    assert found["senders"] == len(tally.senders)
    assert found["recipients"] == len(tally.recipients)
    assert found["connections"] == tally.connections


def test_pflogsumm_names_the_reasons(tmp_path: Path) -> None:
    path = tmp_path / "mail.log"
    logged(path, 40)
    text = summarize(path)
    for reason in ("Relay access denied", "no such user", "mailbox is locked", "Insufficient system storage"):
        assert reason in text


def test_hostile_peers_change_no_count(tmp_path: Path) -> None:
    path = tmp_path / "mail.log"
    forged = b"x>, relay=none, delay=1, status=sent (ok)\r\nNov 24 00:00:00 mx1 postfix/qmgr[1]: F1: from=<y@z>, size=999999"
    log = MailLog(LogSettings(destination=str(path)), "mx1.example.net")
    log.start()
    log.client("Q1", CLIENTS[0])
    log.message_id("Q1", forged)
    log.queued("Q1", forged, 10, 1)
    log.delivered("Q1", forged, "maildir", 1.0, (0.0, 0.0, 0.0, 1.0), "4.0.0", "deferred", forged.decode(), "maildir")
    log.reject("", "RCPT", CLIENTS[0], b"550 5.7.1 " + forged, forged, forged, "ESMTP", forged)
    log.close(30.0)
    found = totals(summarize(path))
    expected = {"received": 1, "delivered": 0, "deferred": 1, "bounced": 0, "rejected": 1, "bytes received": 10}
    assert {words: found[words] for words in expected} == expected


def test_pflogsumm_agrees_with_the_mails_that_a_gateway_took(tmp_path: Path) -> None:
    require_peer("pflogsumm", "pflogsumm")
    path = tmp_path / "mail.log"
    overrides = {
        "log": {"destination": str(path)},
        "policy": {"relay_domains": ["example.org"]},
        "route": [{"domains": ["*"], "transport": "maildir", "path": str(tmp_path / "mail")}],
    }
    sizes = 0
    with running_gateway(tmp_path / "gateway", overrides) as gateway:
        for number in range(6):
            with smtplib.SMTP(gateway.host, gateway.port, local_hostname="client.example.com", timeout=30) as client:
                for _ in range(2):
                    body = b"Subject: x\r\nMessage-ID: <%d@a.example>\r\n\r\n" % number + b"y" * (100 * number) + b"\r\n"
                    refused = client.sendmail(
                        f"s{number}@a.example", ["u1@example.org", "u2@example.org", "no@example.net"], body
                    )
                    assert list(refused) == ["no@example.net"]
                    sizes += len(body)
        wait_until("all is delivered", lambda: gateway.metric("smtpd_delivery_attempts_total", result="delivered") >= 24, 30.0)
        assert gateway.metric("smtpd_messages_total", result="accepted") == 12
        assert gateway.metric("smtpd_rejections_total", reason="relay_denied") == 12
        assert gateway.metric("smtpd_log_lines_dropped_total") == 0
    found = totals(summarize(path))
    expected = {"received": 12, "delivered": 24, "deferred": 0, "bounced": 0, "rejected": 12, "senders": 6, "recipients": 2,
                "connections": 6}  # fmt: skip
    assert {words: found[words] for words in expected} == expected
    assert sizes <= found["bytes received"] <= sizes + 12 * 500
    text = path.read_text()
    assert text.count(": removed\n") == 12
    assert text.count(" ehlo=1 mail=2 rcpt=4/6 data=2 quit=1 commands=10/12\n") == 6
