"""Each event in each format, word for word: other people's tools read these lines."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator

import pytest

from smtpd.log.fields import FieldShape
from smtpd.log.shape import PostfixShape, Shape, seconds
from smtpd.log.stamp import ERROR, INFO, WARNING, Stamp

AT = 1_795_491_561.75  # 2026-11-24 03:39:21 UTC
CLIENT = "unknown[192.0.2.1]"
QID = "3sX8kq2zPb00BCD"
PID = os.getpid()


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def stamp(is_syslog: bool = False) -> Stamp:
    return Stamp("postfix", "mx1", is_syslog, clock=lambda: AT)


def every_event(shape: Shape) -> list[str]:
    return [
        shape.connect(CLIENT),
        shape.client(QID, CLIENT),
        shape.message_id(QID, b"<1@example.com>"),
        shape.message_id(QID, b""),
        shape.queued(QID, b"a@example.com", 4096, 2),
        shape.queued(QID, b"", 1, 1),
        shape.delivered(
            QID,
            b"b@example.org",
            "maildir",
            0.0512,
            (0.01, 0.02, 0.0, 0.0212),
            "2.0.0",
            "sent",
            "delivered to maildir",
            "maildir",
        ),
        shape.delivered(
            QID,
            b"c@example.org",
            "mx.example.org[192.0.2.9]:25",
            12.4,
            (0.1, 12.0, 0.3, 0.0),
            "4.4.1",
            "deferred",
            "refused",
            "smtp",
        ),
        shape.removed(QID),
        shape.held(QID, "lifetime is over"),
        shape.reject(
            "", "RCPT", CLIENT, b"550 5.7.1 Relay access denied", b"a@example.com", b"b@example.net", "ESMTP", b"host.example"
        ),
        shape.reject(QID, "END-OF-MESSAGE", CLIENT, b"554 5.4.6 Too many hops", b"", None, "SMTP", b"host.example"),
        shape.reject("", "MAIL", CLIENT, b"452 4.3.1 Insufficient system storage", None, None, "ESMTP", b"host.example"),
        shape.lost_connection("DATA", CLIENT),
        shape.timeout("RCPT", CLIENT),
        shape.disconnect(CLIENT, {"ehlo": (1, 1), "mail": (1, 1), "rcpt": (0, 2), "unknown": (0, 1), "quit": (1, 1)}),
        shape.disconnect(CLIENT, {"ehlo": (1, 1), "quit": (1, 1)}),
        shape.message(INFO, "master", "4 workers", {}),
        shape.message(WARNING, "smtpd", "no descriptors", {"limit": 1024, "who": "a b"}),
        shape.message(ERROR, "spool", "shard 0003 is broken", {}),
        shape.reported(QID, "sender non-delivery notification", QID + "2"),
        shape.tls(CLIENT, "Anonymous", "TLSv1.3", "TLS_AES_256_GCM_SHA384", (256, 256), ""),
        shape.tls(CLIENT, "Trusted", "TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256", (128, 128), "mx.example.com"),
        shape.tls_failed(CLIENT, "TLS handshake: no shared cipher"),
        shape.expired(QID, b"a@example.com", "returned to sender"),
    ]


def test_postfix_lines() -> None:
    at, ends = "Nov 24 03:39:21 mx1 postfix/", f"[{PID}]: "
    assert every_event(PostfixShape(stamp())) == [
        at + "smtpd" + ends + "connect from unknown[192.0.2.1]",
        at + "smtpd" + ends + QID + ": client=unknown[192.0.2.1]",
        at + "cleanup" + ends + QID + ": message-id=<1@example.com>",
        at + "cleanup" + ends + QID + ": message-id=<>",
        at + "qmgr" + ends + QID + ": from=<a@example.com>, size=4096, nrcpt=2 (queue active)",
        at + "qmgr" + ends + QID + ": from=<>, size=1, nrcpt=1 (queue active)",
        at + "virtual" + ends + QID + ": to=<b@example.org>, relay=maildir, delay=0.05, delays=0.01/0.02/0/0.02, dsn=2.0.0, "
        "status=sent (delivered to maildir)",
        at + "smtp" + ends + QID + ": to=<c@example.org>, relay=mx.example.org[192.0.2.9]:25, delay=12, delays=0.1/12/0.3/0, "
        "dsn=4.4.1, status=deferred (refused)",
        at + "qmgr" + ends + QID + ": removed",
        at + "qmgr" + ends + QID + ": held: lifetime is over",
        at + "smtpd" + ends + "NOQUEUE: reject: RCPT from unknown[192.0.2.1]: 550 5.7.1 <b@example.net>: Relay access denied; "
        "from=<a@example.com> to=<b@example.net> proto=ESMTP helo=<host.example>",
        at + "smtpd" + ends + QID + ": reject: END-OF-MESSAGE from unknown[192.0.2.1]: 554 5.4.6 Too many hops; from=<> "
        "proto=SMTP helo=<host.example>",
        at + "smtpd" + ends + "NOQUEUE: reject: MAIL from unknown[192.0.2.1]: 452 4.3.1 Insufficient system storage; "
        "proto=ESMTP helo=<host.example>",
        at + "smtpd" + ends + "lost connection after DATA from unknown[192.0.2.1]",
        at + "smtpd" + ends + "timeout after RCPT from unknown[192.0.2.1]",
        at + "smtpd" + ends + "disconnect from unknown[192.0.2.1] ehlo=1 mail=1 rcpt=0/2 unknown=0/1 quit=1 commands=3/6",
        at + "smtpd" + ends + "disconnect from unknown[192.0.2.1] ehlo=1 quit=1 commands=2",
        at + "master" + ends + "4 workers",
        at + "smtpd" + ends + "warning: no descriptors limit=1024 who=a b",
        at + "spool" + ends + "error: shard 0003 is broken",
        at + "bounce" + ends + QID + ": sender non-delivery notification: " + QID + "2",
        at + "smtpd" + ends + "Anonymous TLS connection established from unknown[192.0.2.1]: TLSv1.3 with cipher "
        "TLS_AES_256_GCM_SHA384 (256/256 bits)",
        at + "smtpd" + ends + "Trusted TLS connection established from unknown[192.0.2.1]: TLSv1.2 with cipher "
        "ECDHE-RSA-AES128-GCM-SHA256 (128/128 bits) client-certificate mx.example.com",
        at + "smtpd" + ends + "SSL_accept error from unknown[192.0.2.1]: TLS handshake: no shared cipher",
        at + "qmgr" + ends + QID + ": from=<a@example.com>, status=expired, returned to sender",
    ]


def test_json_and_logfmt_carry_the_same_fields() -> None:
    objects = [json.loads(line) for line in every_event(FieldShape(stamp(), is_json=True, is_syslog=False))]
    texts = every_event(FieldShape(stamp(), is_json=False, is_syslog=False))
    for record, text in zip(objects, texts, strict=True):
        assert all(f"{name}=" in text for name in record)
        assert list(record)[:5] == ["time", "level", "host", "program", "pid"]
        assert (record["time"], record["host"], record["pid"]) == ("2026-11-24T03:39:21Z", "mx1", PID)


def test_json_fields() -> None:
    shape = FieldShape(stamp(), is_json=True, is_syslog=False)
    records = [json.loads(line) for line in every_event(shape)]
    common = {"time": "2026-11-24T03:39:21Z", "host": "mx1", "pid": PID}
    assert records[6] == common | {
        "level": "info",
        "program": "virtual",
        "event": "delivery",
        "queue_id": QID,
        "to": "b@example.org",
        "relay": "maildir",
        "transport": "maildir",
        "delay": 0.051,
        "delays": [0.01, 0.02, 0.0, 0.021],
        "dsn": "2.0.0",
        "status": "sent",
        "text": "delivered to maildir",
    }
    assert records[11] == common | {
        "level": "info",
        "program": "smtpd",
        "event": "reject",
        "queue_id": QID,
        "stage": "END-OF-MESSAGE",
        "client": CLIENT,
        "reply": "554 5.4.6 Too many hops",
        "from": "",
        "proto": "SMTP",
        "helo": "host.example",
    }
    assert records[-3] == common | {
        "level": "info", "program": "smtpd", "event": "tls", "client": CLIENT, "trust": "trusted", "version": "TLSv1.2",
        "cipher": "ECDHE-RSA-AES128-GCM-SHA256", "bits": 128, "algorithm_bits": 128, "client_subject": "mx.example.com",
    }  # fmt: skip
    assert (records[-1]["event"], records[-1]["from"], records[-1]["status"]) == ("expired", "a@example.com", "expired")
    assert (records[18]["level"], records[18]["limit"], records[18]["who"]) == ("warning", 1024, "a b")
    assert records[15]["rcpt_count"] == 2
    assert records[15]["rcpt_ok"] == 0
    assert records[15]["commands_count"] == 6


def test_logfmt_line() -> None:
    line = every_event(FieldShape(stamp(), is_json=False, is_syslog=False))[4]
    assert line == (
        f"time=2026-11-24T03:39:21Z level=info host=mx1 program=qmgr pid={PID} event=queued queue_id={QID} "
        "from=a@example.com size=4096 nrcpt=2"
    )


def test_syslog_headers_have_a_priority_and_no_host() -> None:
    lines = every_event(PostfixShape(stamp(is_syslog=True)))
    assert lines[0] == f"<22>Nov 24 03:39:21 postfix/smtpd[{PID}]: connect from {CLIENT}"
    assert lines[18].startswith("<20>")
    assert lines[19].startswith("<19>")


def test_a_field_of_a_message_cannot_replace_its_text() -> None:
    line = FieldShape(stamp(), is_json=True, is_syslog=False).message(
        WARNING, "smtpd", "real", {"event": "forged", "is_up": True}
    )
    record = json.loads(line)
    assert (record["event"], record["text"], record["is_up"]) == ("message", "real", "True")


def test_the_time_follows_the_clock_both_ways() -> None:
    now = [AT]
    shape = PostfixShape(Stamp("postfix", "mx1", False, clock=lambda: now[0]))
    times = []
    for step in (0.0, 0.2, 0.1, 86_400.0, -2 * 86_400.0):
        now[0] += step
        times.append(shape.connect(CLIENT)[:15])
    assert times == ["Nov 24 03:39:21", "Nov 24 03:39:21", "Nov 24 03:39:22", "Nov 25 03:39:22", "Nov 23 03:39:22"]


def test_days_below_ten_are_padded_with_a_blank() -> None:
    shape = PostfixShape(Stamp("postfix", "mx1", False, clock=lambda: 1_793_500_000.0))
    assert shape.connect(CLIENT).startswith("Nov  1 ")


@pytest.mark.parametrize(
    ("value", "text"),
    [(-1.0, "0"), (0.0, "0"), (0.004, "0"), (0.05, "0.05"), (0.5, "0.5"), (1.0, "1"), (1.234, "1.23"), (9.999, "10"),
     (10.4, "10"), (99.6, "100")],
)  # fmt: skip
def test_delays_are_written_as_postfix_does(value: float, text: str) -> None:
    assert seconds(value) == text
