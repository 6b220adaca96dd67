"""What the control socket speaks: requests, filters, entries."""

import json
import sqlite3
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from queue_rig import deferred, delivered, envelope_of

from smtpd.control.wire import Filter, Line, decode_line, decode_request, encode_line, entry_of
from smtpd.mail.outcome import Outcome
from smtpd.mail.text import text_of
from smtpd.spool.query import Found, QueuedMail

NOW_S = 1_700_000_000.0


def make_mail(
    sender: bytes = b"s@Example.COM",
    *paths: bytes,
    state: str = "deferred",
    outcomes: list[Outcome] | None = None,
    age_s: float = 100.0,
    attempts: int = 1,
) -> QueuedMail:
    envelope = envelope_of(sender, *(paths or (b"a@example.org", b"b@sub.example.net")), received_at_s=NOW_S - age_s)
    return QueuedMail(7, "Q7", state, 1234, attempts, NOW_S + 60, envelope, outcomes, "Q7")


@pytest.mark.parametrize(
    ("wanted", "is_match"),
    [
        (Filter(), True),
        (Filter(state="deferred"), True),
        (Filter(state="held"), False),
        (Filter(older_s=99), True),
        (Filter(older_s=101), False),
        (Filter(sender="s@example.com"), True),
        (Filter(sender="S@example.com"), False),
        (Filter(sender=""), False),
        (Filter(domain="example.org"), True),
        (Filter(domain="Sub.Example.Net"), True),
        (Filter(domain="example.net"), False),
        (Filter(domain=".example.net"), True),
        (Filter(domain=".example.org"), False),
        (Filter(domain="example.org", state="held"), False),
    ],
)
def test_all_that_is_set_must_hold(wanted: Filter, is_match: bool) -> None:
    assert wanted.matches(make_mail(), NOW_S) is is_match


def test_the_null_sender_can_be_asked_for() -> None:
    assert Filter(sender="").matches(make_mail(b""), NOW_S)


def test_recipients_that_are_done_count_for_no_domain() -> None:
    mail = make_mail(outcomes=[delivered(), deferred()])
    assert not Filter(domain="example.org").matches(mail, NOW_S)
    assert Filter(domain="sub.example.net").matches(mail, NOW_S)


def test_a_listing_has_the_fields_of_postqueue() -> None:
    entry = entry_of(make_mail(outcomes=[delivered(), deferred()]), 3, is_full=False)
    assert msgspec.to_builtins(entry) == {
        "queue_name": "deferred",
        "queue_id": "Q7",
        "arrival_time": int(NOW_S - 100),
        "message_size": 1234,
        "sender": "s@Example.COM",
        "recipients": [{"address": "b@sub.example.net", "delay_reason": "disk full"}],
        "attempts": 1,
        "next_attempt_time": NOW_S + 60,
    }


def test_show_tells_everything() -> None:
    shown = msgspec.to_builtins(entry_of(make_mail(b"", state="held", outcomes=[delivered(), deferred()]), 3, is_full=True))
    assert shown["queue_name"] == "hold"
    assert shown["sender"] == "MAILER-DAEMON"
    assert shown["shard"] == 3
    assert shown["helo"] == "helo.example"
    assert [recipient["status"] for recipient in shown["recipients"]] == ["sent", "deferred"]
    assert shown["recipients"][1]["dsn"] == "4.3.1"


@given(st.binary(max_size=60))
def test_any_octets_survive_as_json(octets: bytes) -> None:
    entry = entry_of(make_mail(octets, octets + b"@x"), 0, is_full=True)
    line = encode_line(Line(mail=entry))
    assert line.count(b"\n") == 1
    assert decode_line(line).mail == entry
    assert json.loads(line)["mail"]["sender"] == (text_of(octets) or "MAILER-DAEMON")


@pytest.mark.parametrize(
    "line",
    [
        b"", b"x", b"[]", b"null", b"{}", b'{"do":1}', b'{"do":"delete"}', b'{"do":"list","more":1}', b"\xff",
        b'{"do":"list","filter":{"state":"lost"}}', b'{"do":"list","filter":{"older_s":"x"}}', b"[" * 50_000,
        b'{"do":"list","filter":{"sql":"x"}}', b'{"do":"list","filter":[]}',
    ],
)  # fmt: skip
def test_what_is_no_request_is_refused(line: bytes) -> None:
    with pytest.raises((msgspec.MsgspecError, RecursionError, UnicodeDecodeError)):
        decode_request(line)


def test_requests_come_back() -> None:
    request = decode_request(b'{"do":"list","filter":{"domain":"example.org","sender":"","older_s":60}}')
    assert request.filter == Filter("example.org", "", 60.0)
    assert decode_request(encode_line(request)) == request


def test_pages_end_where_they_are_full(monkeypatch: pytest.MonkeyPatch) -> None:
    from smtpd.control import answer

    rows = [make_mail() for _ in range(answer.PAGE_MAILS)]
    rows = [
        QueuedMail(number + 1, *(getattr(mail, name) for name in mail.__struct_fields__[1:])) for number, mail in enumerate(rows)
    ]

    def find_page(connection: Any, after_row: int, narrowing: Any, limit: int) -> Found:
        mails = rows[after_row : after_row + limit]
        return Found(mails, after_row + len(mails), len(mails) < limit)

    monkeypatch.setattr(answer, "find_page", find_page)
    monkeypatch.setattr(answer, "_PAGE_BYTES", 1000)
    connection = sqlite3.connect(":memory:")
    seen = after_row = pages = 0
    while True:
        page = answer.list_answer(connection, 0, Filter(), NOW_S, after_row)
        assert len(page.data) < 2000
        pages += 1
        seen += page.data.count(b"\n")
        after_row = page.last_row
        if page.is_last:
            break
    connection.close()
    assert seen == len(rows)
    assert pages > 5
