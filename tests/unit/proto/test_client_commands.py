"""MAIL and RCPT with their parameters, and what is decided before anything is sent."""

from __future__ import annotations

import pytest
from client_rig import ALL, BODY, envelope_of, greeted, mail_to

from smtpd.mail import envelope as env
from smtpd.mail.envelope import Recipient
from smtpd.mail.outcome import DELIVERED, PENDING, UNDELIVERABLE
from smtpd.proto.client import events as ev
from smtpd.proto.client.commands import ascii_path, has_8bit_header
from smtpd.proto.client.transmission import Transmission

UTF8_HEADER = "Subject: ä\r\n\r\nx\r\n".encode()
UTF8_BODY = "Subject: a\r\n\r\nä\r\n".encode()


def sent(mail, *extensions):
    """Return the lines of MAIL and RCPT."""
    return greeted(b"PIPELINING", *extensions).send(mail).split(b"\r\n")[:-2]


def test_no_parameter_without_its_extension():
    mail = mail_to(body="ä\r\n".encode(), ret="FULL", envid=b"1")
    mail.envelope.body = "8BITMIME"
    mail.envelope.recipients[0] = Recipient(b"b@example.net", "example.net", env.NOTIFY_NEVER, b"rfc822;b@x.org")
    assert sent(mail) == [b"MAIL FROM:<a@example.org>", b"RCPT TO:<b@example.net>"]
    assert mail.is_8bit_unannounced


def test_all_parameters():
    mail = mail_to(ret="HDRS", envid=b"QQ+2B1", body=BODY)
    mail.envelope.body = "8BITMIME"
    notify = env.NOTIFY_SUCCESS | env.NOTIFY_DELAY
    mail.envelope.recipients[0] = Recipient(b"b@example.net", "example.net", notify, b"rfc822;b@x.org")
    assert sent(mail, *ALL) == [
        b"MAIL FROM:<a@example.org> SIZE=%d BODY=8BITMIME RET=HDRS ENVID=QQ+2B1" % len(BODY),
        b"RCPT TO:<b@example.net> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b@x.org",
    ]
    assert not mail.is_8bit_unannounced


@pytest.mark.parametrize(
    ("bits", "text"),
    [
        (0, b""),
        (env.NOTIFY_NEVER, b" NOTIFY=NEVER"),
        (env.NOTIFY_FAILURE, b" NOTIFY=FAILURE"),
        (env.NOTIFY_SUCCESS | env.NOTIFY_FAILURE | env.NOTIFY_DELAY, b" NOTIFY=SUCCESS,FAILURE,DELAY"),
    ],
)
def test_notify(bits, text):
    mail = mail_to()
    mail.envelope.recipients[0].notify = bits
    assert sent(mail, b"DSN")[1] == b"RCPT TO:<b@example.net>" + text


def test_null_reverse_path_and_bare_postmaster():
    assert sent(mail_to(b"postmaster", reverse_path=b"")) == [b"MAIL FROM:<>", b"RCPT TO:<postmaster>"]


def test_only_the_recipients_asked_for():
    envelope = envelope_of(b"b@x.org", b"c@x.org", b"d@x.org")
    mail = Transmission(envelope, [2, 0], BODY)
    assert sent(mail)[1:] == [b"RCPT TO:<d@x.org>", b"RCPT TO:<b@x.org>"]


@pytest.mark.parametrize(("limit", "is_refused"), [(b"0", False), (b"%d" % len(BODY), False), (b"%d" % (len(BODY) - 1), True)])
def test_mail_above_the_size_limit_is_not_sent(limit, is_refused):
    client = greeted(b"SIZE " + limit)
    mail = mail_to()
    assert (client.send(mail) == b"") == is_refused
    assert client.kinds() == [ev.DONE] * is_refused
    assert (mail.outcomes[0].status, mail.outcomes[0].dsn) == ((UNDELIVERABLE, "5.3.4") if is_refused else (PENDING, ""))
    assert client.session.can_send == is_refused
    assert client.session.mail_count == (not is_refused)


@pytest.mark.parametrize("path", [b"b@x.org>\r\nRCPT TO:<evil@x.org", b"b\n@x.org", b"b\r@x.org"])
@pytest.mark.parametrize("extensions", [[b"X"], [b"PIPELINING"]])
def test_line_end_in_a_path_is_not_sent(path, extensions):
    client = greeted(*extensions)
    mail = mail_to(b"c@x.org", path)
    assert client.send(mail) == b""
    assert client.kinds() == [ev.DONE]
    assert [o.dsn for o in mail.outcomes] == ["5.1.3"] * 2
    assert client.session.can_send


# --- SMTPUTF8 --------------------------------------------------------------------------------------------------------


def utf8_mail(*paths, **fields):
    return mail_to(*paths, smtputf8=True, **fields)


@pytest.mark.parametrize(
    ("mail", "is_needed"),
    [
        (lambda: utf8_mail(body=BODY), False),
        (lambda: utf8_mail(body=UTF8_BODY), False),
        (lambda: utf8_mail(body=UTF8_HEADER), True),
        (lambda: utf8_mail("ä@x.org".encode()), True),
        (lambda: utf8_mail("b@ä.org".encode()), True),
        (lambda: utf8_mail(reverse_path="ä@x.org".encode()), True),
        (lambda: mail_to(body=UTF8_HEADER), False),  # an old 8-bit header: came without, goes without
    ],
)
def test_smtputf8_is_asked_for_where_it_is_needed(mail, is_needed):
    assert sent(mail(), *ALL)[0].endswith(b" SMTPUTF8") == is_needed


@pytest.mark.parametrize("fields", [{"body": UTF8_HEADER}, {"reverse_path": "ä@x.org".encode()}, {"reverse_path": b"a@\xff.org"}])
def test_mail_that_needs_smtputf8_is_not_sent_without(fields):
    client = greeted(b"8BITMIME")
    mail = utf8_mail(**fields)
    assert client.send(mail) == b""
    assert (mail.outcomes[0].status, mail.outcomes[0].dsn) == (UNDELIVERABLE, "5.6.7")
    assert client.session.can_send


def test_domains_go_as_a_labels():
    mail = utf8_mail("b@bücher.example".encode(), reverse_path="a@Bücher.example".encode(), body=UTF8_BODY)
    assert sent(mail, b"8BITMIME") == [b"MAIL FROM:<a@xn--bcher-kva.example>", b"RCPT TO:<b@xn--bcher-kva.example>"]


def test_only_recipients_that_need_smtputf8_are_refused():
    client = greeted(b"PIPELINING")
    mail = utf8_mail(b"b@x.org", "ä@x.org".encode(), b"c@x.org")
    assert client.send(mail).count(b"RCPT") == 2
    client.hear(b"250 ok\r\n" * 3 + b"354 go\r\n")
    client.hear(b"250 ok\r\n")
    assert [o.status for o in mail.outcomes] == [DELIVERED, UNDELIVERABLE, DELIVERED]


@pytest.mark.parametrize(("head", "is_needed"), [(b"Subject: a\r\n", False), (UTF8_BODY, False), (UTF8_HEADER, True)])
def test_head_of_a_body_that_comes_in_pieces(head, is_needed):
    envelope = envelope_of(smtputf8=True)
    mail = Transmission(envelope, [0], None, 1000, head)
    assert sent(mail, *ALL)[0].endswith(b"SIZE=1000 SMTPUTF8" if is_needed else b"SIZE=1000")


@pytest.mark.parametrize(
    ("head", "is_8bit"),
    [
        (b"", False),
        ("a: ä".encode(), True),
        ("a: ä\n\nb".encode(), True),
        ("a: b\n\nä\n\n".encode(), False),
        ("\r\nä\r\n\r\n".encode(), False),
        ("\nä\r\n\r\n".encode(), False),
    ],
)
def test_8bit_header(head, is_8bit):
    assert has_8bit_header(head) == is_8bit


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("b@x.org", b"b@x.org"),
        ("b@ä.org", b"b@xn--4ca.org"),
        ("ä@x.org", None),
        ("ä", None),
        ("b@" + "ä" * 300, None),
    ],
)
def test_ascii_path(path, expected):
    assert ascii_path(path.encode()) == expected
