"""Reports as mails: what is in them, read back with the standard library, and that nothing hostile gets out of its place."""

from __future__ import annotations

import binascii
import email
import email.policy
from email.message import EmailMessage, Message
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpd.delivery.bounce import report as report_module
from smtpd.delivery.bounce.original import HEAD_BYTES, Original, head_of, quoted_printable
from smtpd.delivery.bounce.report import DELAY, FAILURE, SUCCESS, Case, Entry, make_report
from smtpd.mail.envelope import NOTIFY_NEVER, Envelope, Recipient
from smtpd.mail.outcome import DEFERRED, UNDELIVERABLE, Outcome

NOW_S = 1_700_000_000.0
MAIL = b"Received: from a\r\nSubject: hello\r\n\r\ntext of the mail\r\n"
REFUSED = Outcome(UNDELIVERABLE, 550, "5.1.1", "no such user", "mx.example.org[192.0.2.1]:25", 1, NOW_S - 60)


def entry(path: bytes = b"bob@example.org", outcome: Outcome = REFUSED, action: str = "failed", **more: Any) -> Entry:
    recipient = Recipient(path, "example.org", orcpt=more.pop("orcpt", b""))
    return Entry(recipient, outcome, action, **more)


def envelope_of(**more: Any) -> Envelope:
    return Envelope(b"s@example.com", [], "192.0.2.9", "c.example", b"c", "ESMTP", NOW_S - 3600, **more)


def make(
    kind: str = FAILURE, *entries: Entry, data: bytes | None = MAIL, to: bytes = b"s@example.com", wants_whole: bool = True,
    is_whole: bool = True, **envelope: Any,
) -> tuple[Envelope, bytes]:  # fmt: skip
    original = None if data is None else Original(data, is_whole)
    case = Case("QORIGINAL", envelope_of(**envelope), original, NOW_S + 86400)
    return make_report(
        kind, case, entries or (entry(),), to=to, wants_whole=wants_whole, hostname="mx.example.net", queue_id="QNEW",
        boundary="=_QNEW_b", now_s=NOW_S,
    )  # fmt: skip


def parse(data: bytes) -> EmailMessage:
    return email.message_from_bytes(data, policy=email.policy.SMTP)  # type: ignore[return-value]


def groups(message: Message) -> list[Message]:
    """The groups of fields of message/delivery-status."""
    return message.get_payload()[1].get_payload()  # type: ignore[union-attr,return-value,index]


def test_a_failure_report_has_three_parts() -> None:
    envelope, data = make()
    message = parse(data)
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    assert message["From"] == "Mail Delivery System <MAILER-DAEMON@mx.example.net>"
    assert message["To"] == "s@example.com"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["Message-ID"] == "<QNEW@mx.example.net>"
    assert message["Date"].datetime.timestamp() == NOW_S
    text, status, original = message.get_payload()
    assert text.get_content_type() == "text/plain"
    assert "<bob@example.org>: host mx.example.org[192.0.2.1]:25 said: 550 5.1.1" in " ".join(text.get_content().split())
    assert status.get_content_type() == "message/delivery-status"
    assert original.get_content_type() == "message/rfc822"
    assert original.get_payload()[0]["Subject"] == "hello"
    assert MAIL in data
    assert not message.defects
    assert envelope.reverse_path == b""
    assert envelope.via == "bounce"
    assert [(r.path, r.domain, r.notify) for r in envelope.recipients] == [(b"s@example.com", "example.com", NOTIFY_NEVER)]
    assert (envelope.smtputf8, envelope.body) == (False, "")


def test_the_status_part_says_what_became_of_each_recipient() -> None:
    expired = Outcome(DEFERRED, 450, "4.2.0", "try later", "mx.example.org[192.0.2.1]:25", 9, NOW_S)
    message = parse(
        make(
            FAILURE, entry(orcpt=b"rfc822;Bob+2Bx@example.org"), entry(b"late@example.org", expired, is_expired=True),
            envid=b"id+2B7",
        )[1]
    )  # fmt: skip
    mail, bob, late = groups(message)
    assert mail["Reporting-MTA"] == "dns; mx.example.net"
    assert mail["Original-Envelope-Id"] == "id+7"
    assert email.utils.parsedate_to_datetime(mail["Arrival-Date"]).timestamp() == NOW_S - 3600
    assert bob["Original-Recipient"] == "rfc822; Bob+x@example.org"
    assert bob["Final-Recipient"] == "rfc822; bob@example.org"
    assert (bob["Action"], bob["Status"], bob["Remote-MTA"]) == ("failed", "5.1.1", "dns; mx.example.org")
    assert bob["Diagnostic-Code"] == "smtp; 550 5.1.1 no such user"
    assert email.utils.parsedate_to_datetime(bob["Last-Attempt-Date"]).timestamp() == NOW_S - 60
    assert bob["Will-Retry-Until"] is None
    assert (late["Action"], late["Status"]) == ("failed", "4.4.7")
    assert late["Diagnostic-Code"] == "smtp; 450 4.2.0 try later"


def test_a_delay_warning_says_until_when_and_returns_the_header_only() -> None:
    deferred = Outcome(DEFERRED, 0, "4.4.1", "connection refused", "none", 3, NOW_S)
    message = parse(make(DELAY, entry(outcome=deferred, action="delayed"))[1])
    _, late = groups(message)
    assert (late["Action"], late["Status"], late["Diagnostic-Code"]) == ("delayed", "4.4.1", "X-smtpd; connection refused")
    assert late["Remote-MTA"] is None
    assert email.utils.parsedate_to_datetime(late["Will-Retry-Until"]).timestamp() == NOW_S + 86400
    original = message.get_payload()[2]
    assert original.get_content_type() == "text/rfc822-headers"
    assert original.get_payload() == "Received: from a\r\nSubject: hello\r\n"


@pytest.mark.parametrize("action", ["delivered", "relayed"])
def test_a_success_report_has_the_action(action: str) -> None:
    delivered = Outcome(1, 250, "2.0.0", "ok", "mx.example.org[192.0.2.1]:25", 1, NOW_S)
    _, recipient = groups(parse(make(SUCCESS, entry(outcome=delivered, action=action))[1]))
    assert (recipient["Action"], recipient["Status"]) == (action, "2.0.0")


@pytest.mark.parametrize(
    ("dsn", "action", "status"),
    [("", "failed", "5.0.0"), ("junk\r\nX: y", "failed", "5.0.0"), ("2.0.0", "failed", "5.0.0"), ("5.1.1", "delayed", "4.0.0")],
)
def test_a_strange_status_code_is_not_repeated(dsn: str, action: str, status: str) -> None:
    strange = Outcome(UNDELIVERABLE, 550, dsn, "no", "mx", 1, NOW_S)
    assert groups(parse(make(FAILURE, entry(outcome=strange, action=action))[1]))[1]["Status"] == status


@pytest.mark.parametrize(
    ("more", "kind"),
    [
        ({}, "message/rfc822"),
        ({"wants_whole": False}, "text/rfc822-headers"),
        ({"is_whole": False}, "text/rfc822-headers"),
        ({"data": b"A: b\r\n\r\n" + b"x" * 999 + b"\r\n"}, "text/rfc822-headers"),
        ({"data": b"A: b\r\n\r\n" + b"x" * 998 + b"\r\n"}, "message/rfc822"),
        ({"data": b"A: b\r\n\r\nbare\nnewline\r\n"}, "text/rfc822-headers"),
        ({"data": b"A: b\r\n\r\nbare\rreturn\r\n"}, "text/rfc822-headers"),
        ({"data": b"A: b\r\n\r\nnul\0\r\n"}, "text/rfc822-headers"),
    ],
)
def test_what_of_the_original_is_returned(more: dict[str, Any], kind: str) -> None:
    message = parse(make(**more)[1])
    assert message.get_payload()[2].get_content_type() == kind


def test_an_original_that_cannot_be_read_is_left_out() -> None:
    message = parse(make(data=None)[1])
    text, _ = message.get_payload()
    assert "could not be read" in text.get_content()


def test_an_8_bit_original_asks_for_8bitmime() -> None:
    original = "A: b\r\n\r\ncafé\r\n".encode()
    envelope, data = make(data=original)
    message = parse(data)
    assert envelope.body == "8BITMIME"
    assert message["Content-Transfer-Encoding"] == "8bit"
    assert message.get_payload()[2]["Content-Transfer-Encoding"] == "8bit"
    assert original in data


def test_8_bit_octets_in_a_returned_header_are_encoded() -> None:
    envelope, data = make(data=b"Subject: caf\xe9 \r\nX: a\nb\r\n\r\ntext\r\n", wants_whole=False)
    assert data.isascii()
    assert envelope.body == ""
    part = parse(data).get_payload()[2]
    assert part.get_payload(decode=True) == b"Subject: caf\xe9 \r\nX: a\nb\r\n"


def test_addresses_in_utf8_make_a_global_report() -> None:
    envelope, data = make(
        FAILURE, entry("jürgen@example.org".encode()), data="Subject: grüße\r\n\r\nx\r\n".encode(),
        to="søren@example.com".encode(), smtputf8=True,
    )  # fmt: skip
    assert envelope.smtputf8
    assert envelope.body == "8BITMIME"
    message = parse(data)
    assert "<søren@example.com>".encode() in data
    _, status, original = message.get_payload()
    assert status.get_content_type() == "message/global-delivery-status"
    assert "Final-Recipient: utf-8; jürgen@example.org\r\n".encode() in data
    assert original.get_content_type() == "message/global"


def test_a_utf8_header_alone_is_a_global_header() -> None:
    message = parse(make(data="Subject: grüße\r\n\r\nx\r\n".encode(), smtputf8=True, wants_whole=False)[1])
    assert message.get_payload()[2].get_content_type() == "message/global-headers"


def test_a_boundary_that_is_in_the_mail_is_not_used() -> None:
    message = parse(make(data=MAIL + b"--=_QNEW_b--\r\n")[1])
    assert len(message.get_payload()) == 3
    assert not message.defects


@pytest.mark.parametrize(
    "text",
    [
        "no\r\n\r\n--=_QNEW_b--\r\nBcc: evil@example.com",
        "no\nAction: delivered",
        "no\rStatus: 2.0.0",
        "no\u2028x\x85y\x00",
        "x" * 5000,
        "x " * 5000,
        "\U0001f600" * 800,
        " \t ",
    ],
)
def test_hostile_reply_texts_stay_in_their_field(text: str) -> None:
    hostile = Outcome(UNDELIVERABLE, 550, "5.0.0", text, "mx.example.org[\r\nX-Evil: 1]:25", 1, NOW_S)
    _, data = make(FAILURE, entry(outcome=hostile))
    check_form(data)
    message = parse(data)
    assert len(message.get_payload()) == 3
    assert message["Bcc"] is None
    mail, recipient = groups(message)
    assert set(mail.keys()) == {"Reporting-MTA", "X-Smtpd-Queue-ID", "Arrival-Date"}
    assert set(recipient.keys()) == {"Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code", "Last-Attempt-Date"}
    assert recipient["Action"] == "failed"


@pytest.mark.parametrize(
    "orcpt", [b"rfc822;a+0D+0AAction:+20delivered", b"rf\r\nc;a", b";a", b"rfc822", b"rfc822;+FF", b"rfc822;+C3+A9", b"x y;a"]
)
def test_an_orcpt_that_is_no_text_is_left_out(orcpt: bytes) -> None:
    assert groups(parse(make(FAILURE, entry(orcpt=orcpt))[1]))[1]["Original-Recipient"] is None


@pytest.mark.parametrize("envid", [b"a+0D+0AX:+20y", b"+FF", b"+C3+A9", b""])
def test_an_envid_that_is_no_text_is_left_out(envid: bytes) -> None:
    assert groups(parse(make(envid=envid)[1]))[0]["Original-Envelope-Id"] is None


def test_hostile_addresses_stay_where_they_are() -> None:
    envelope, data = make(FAILURE, entry(b'"a\r\nAction: delivered"@x'), to=b'"s\r\nBcc: evil@example.com"@example.com')
    message = parse(data)
    assert message["Bcc"] is None
    assert groups(message)[1]["Action"] == "failed"
    assert envelope.recipients[0].path == b'"s\r\nBcc: evil@example.com"@example.com'


@pytest.mark.parametrize("letter", ["x", "é", "\U00020000"])
def test_the_longest_addresses_have_room_on_a_line(letter: str) -> None:
    path = letter.encode() * (256 // len(letter.encode())) + b"@" + b"d." * 127 + b"x"
    _, data = make(FAILURE, entry(path), to=path)
    check_form(data)
    assert b"; " + path + b"\r\n" in data
    _, data = make(FAILURE, entry(path * 5), to=path * 5)
    check_form(data)


def test_the_domain_of_the_report_is_an_a_label() -> None:
    envelope, _ = make(to="x@bücher.example".encode())
    assert envelope.recipients[0].domain == "xn--bcher-kva.example"
    envelope, _ = make(to=b"x@-")
    assert envelope.recipients[0].domain == ""


def test_long_headers_are_cut_at_a_line() -> None:
    data = b"Subject: x\r\n" * 10_000
    head = head_of(data)
    assert HEAD_BYTES - 20 < len(head) <= HEAD_BYTES
    assert head.endswith(b"Subject: x\r\n")
    assert head_of(b"x" * 100) == b"x" * 100 + b"\r\n"


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_quoted_printable_gives_the_same_octets_back(data: bytes) -> None:
    encoded = quoted_printable(data)
    assert encoded.isascii()
    assert all(len(line) <= 76 for line in encoded.split(b"\r\n"))
    assert binascii.a2b_qp(encoded) == data


def check_form(data: bytes) -> None:
    lines = data.split(b"\r\n")
    assert lines[-1] == b""
    assert len(lines) - 1 == data.count(b"\r") == data.count(b"\n")
    assert max(map(len, lines)) <= 998
    assert b"\0" not in data


TEXTS = st.one_of(st.text(max_size=1500), st.text(alphabet="\r\n :-=_QNEWb\x00é", max_size=200))
OUTCOMES = st.builds(
    Outcome, st.just(UNDELIVERABLE), st.sampled_from([0, 450, 550]), TEXTS, TEXTS, TEXTS, st.just(1), st.just(NOW_S)
)


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from([FAILURE, DELAY, SUCCESS]),
    recipients=st.lists(
        st.tuples(
            st.one_of(st.binary(max_size=600), st.text(max_size=300).map(str.encode)),
            st.binary(max_size=100),
            OUTCOMES,
            st.booleans(),
        ),
        min_size=1,
        max_size=3,
    ),
    envid=st.binary(max_size=100),
    to=st.one_of(st.binary(min_size=1, max_size=600), st.just(b"s@example.com")),
    body=st.one_of(st.none(), st.binary(max_size=3000), st.just(b"x" * 3000)),
    is_smtputf8=st.booleans(),
)
def test_whatever_comes_in_a_report_is_a_mail(
    kind: str, recipients: list[Any], envid: bytes, to: bytes, body: bytes | None, is_smtputf8: bool
) -> None:
    entries = [
        Entry(Recipient(path, "x", orcpt=orcpt), outcome, "failed", expired) for path, orcpt, outcome, expired in recipients
    ]
    envelope, data = make(kind, *entries, data=body, to=to, envid=envid, smtputf8=is_smtputf8)
    check_form(data)
    header, _, content = data.partition(b"\r\n\r\n")
    if not envelope.smtputf8:
        assert header.isascii()
    if envelope.body != "8BITMIME":
        assert content.isascii()
    message = email.message_from_bytes(data)
    assert set(message.keys()) == {
        "Received", "Date", "From", "To", "Subject", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type",
        "Content-Transfer-Encoding",
    }  # fmt: skip
    parts = message.get_payload()
    assert len(parts) == (2 if body is None else 3)
    status = parts[1].get_payload()
    if parts[1].get_content_type() == "message/delivery-status":
        assert [group["Action"] for group in status[1:]] == ["failed"] * len(entries)


def test_the_date_is_made_once_a_second() -> None:
    assert report_module._date.at(NOW_S) is report_module._date.at(NOW_S + 0.5)
