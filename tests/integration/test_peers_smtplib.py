"""Mail from Python's smtplib arrives in the Maildir byte for byte, apart from the three added header fields."""

from __future__ import annotations

import itertools
import smtplib
import socket
from collections.abc import Iterator

import pytest
from delivered import Delivered, crlf, on_disk, take_apart
from gateway import Gateway

HEAD = b"From: a@example.com\r\nTo: b@example.org\r\nSubject: a test\r\n\r\n"
CONTENTS = {
    "plain": HEAD + b"Hello\r\n",
    "no-headers": b"just one line\r\n",
    "empty": b"",
    "empty-body": HEAD,
    "only-an-empty-line": b"\r\n",
    "dots": HEAD + b".\r\n..\r\n...\r\n.a\r\n\r\n.\r\n.. b\r\n",
    "dots-first": b".\r\n.hidden: yes\r\n",
    "eight-bit": HEAD + bytes(range(0x80, 0x100)) + b"\r\n" + "Grüße, 世界\r\n".encode(),
    "long-line": HEAD + b"x" * 16384 + b"\r\ny\r\n",
    "long-dotted-line": HEAD + b"." * 16384 + b"\r\n.\r\n",
    "control-octets": HEAD + bytes(octet for octet in range(1, 32) if octet not in b"\r\n") + b"\x7f\r\n",
    "blank-ends": HEAD + b"trailing blanks  \t \r\n \r\n\t\r\n",
    "many-empty-lines": HEAD + b"\r\n" * 5000,
    "looks-delivered": b"Return-Path: <forged@example.com>\r\nDelivered-To: forged@example.com\r\n" + HEAD + b"x\r\n",
    "mbox-from": HEAD + b"From the start\r\n>From here\r\n",
    "over-the-spill-threshold": HEAD + b"".join(b"%06d %s\r\n" % (n, b"." * (n % 70)) for n in range(6000)),
}


@pytest.fixture
def client(gateway: Gateway) -> Iterator[smtplib.SMTP]:
    with smtplib.SMTP(gateway.host, gateway.port, local_hostname="client.example.com", timeout=30) as session:
        session.ehlo()
        yield session


def send(client: smtplib.SMTP, user: str, content: bytes, sender: str = "a@example.com") -> None:
    """Send `content` (CRLF line ends) by DATA; smtplib stuffs the dots."""
    options = ["BODY=8BITMIME"] if any(octet > 127 for octet in content) else []
    assert client.sendmail(sender, [f"{user}@example.org"], content, mail_options=options) == {}


def one_mail(gateway: Gateway, user: str) -> Delivered:
    (stored,) = gateway.await_mails(user)
    return take_apart(stored)


@pytest.mark.parametrize("name", CONTENTS)
def test_arrives_byte_for_byte(gateway: Gateway, client: smtplib.SMTP, name: str) -> None:
    send(client, name, CONTENTS[name])
    mail = one_mail(gateway, name)
    expected = CONTENTS[name]
    if not expected:
        expected = b"\r\n"  # smtplib sends an empty line for nothing
    assert mail.content == on_disk(expected)
    assert mail.return_path == b"<a@example.com>"
    assert mail.delivered_to == f"{name}@example.org".encode()


@pytest.mark.parametrize("name", CONTENTS)
def test_arrives_byte_for_byte_by_chunks(gateway: Gateway, client: smtplib.SMTP, name: str) -> None:
    content, user = CONTENTS[name], f"{name}-bdat"
    client.mail("a@example.com", ["BODY=8BITMIME"])
    client.rcpt(f"{user}@example.org")
    cuts = sorted({0, len(content) // 3, content.find(b"\r\n") + 1, len(content)})  # one between CR and LF
    for start, end in itertools.pairwise(cuts):
        assert client.sock is not None
        client.sock.sendall(b"BDAT %d\r\n%s" % (end - start, content[start:end]))
        assert client.getreply()[0] == 250
    code, text = client.docmd("BDAT", "0 LAST")
    assert code == 250, text
    assert one_mail(gateway, user).content == on_disk(content)


def test_an_empty_content_arrives(gateway: Gateway, client: smtplib.SMTP) -> None:
    client.mail("a@example.com")
    client.rcpt("nothing@example.org")
    assert client.docmd("DATA")[0] == 354
    assert client.docmd(".")[0] == 250
    assert one_mail(gateway, "nothing").content == b""


def test_the_reply_names_the_queue_id_that_received_shows(gateway: Gateway, client: smtplib.SMTP) -> None:
    client.mail("a@example.com")
    client.rcpt("queue-id@example.org")
    code, text = client.data(b"x\r\n")
    assert code == 250
    mail = one_mail(gateway, "queue-id")
    assert text == b"2.0.0 Ok: queued as " + mail.queue_id
    assert b"from client.example.com (" in mail.received
    assert b"127.0.0.1" in mail.received
    assert b" by mx.example.net " in mail.received
    assert b" with ESMTP " in mail.received
    assert b"for <queue-id@example.org>" in mail.received


def test_several_recipients_get_a_copy_each_and_are_not_told_of_each_other(gateway: Gateway, client: smtplib.SMTP) -> None:
    users = ["copy-1", "copy-2", "copy-3"]
    assert client.sendmail("a@example.com", [f"{user}@example.org" for user in users], HEAD + b"x\r\n") == {}
    for user in users:
        mail = one_mail(gateway, user)
        assert mail.content == on_disk(HEAD + b"x\r\n")
        assert mail.delivered_to == f"{user}@example.org".encode()
        assert b"for <" not in mail.received


def test_a_null_reverse_path_is_kept(gateway: Gateway, client: smtplib.SMTP) -> None:
    send(client, "null", HEAD, sender="")
    assert one_mail(gateway, "null").return_path == b"<>"


def test_smtputf8_addresses_and_headers_arrive(gateway: Gateway, client: smtplib.SMTP) -> None:
    content = "From: Jürgen <jürgen@example.com>\r\nSubject: Grüße 世界\r\n\r\nüber\r\n".encode()
    options = ["SMTPUTF8", "BODY=8BITMIME"]
    assert client.sendmail("jürgen@example.com", ["dörte@utf8.example.org"], content, mail_options=options) == {}
    stored = gateway.await_any_mails(1, "utf8.example.org")
    mail = take_apart(stored[0])
    assert mail.content == on_disk(content)
    assert mail.return_path == "<jürgen@example.com>".encode()
    assert mail.delivered_to == "dörte@utf8.example.org".encode()
    assert b" with UTF8SMTP " in mail.received


def test_a_bare_line_feed_is_normalised_and_ends_nothing(gateway: Gateway, client: smtplib.SMTP) -> None:
    client.mail("a@example.com")
    client.rcpt("bare@example.org")
    assert client.docmd("DATA")[0] == 354
    client.send(b"one\ntwo\n.\nthree\r\n.\r\n")
    assert client.getreply()[0] == 250
    assert one_mail(gateway, "bare").content == b"one\ntwo\n.\nthree\n"


def test_a_mail_that_is_not_finished_leaves_nothing(gateway: Gateway) -> None:
    client = smtplib.SMTP(gateway.host, gateway.port, timeout=30)
    client.ehlo()
    client.mail("a@example.com")
    client.rcpt("unfinished@example.org")
    client.docmd("DATA")
    client.send(b"one\r\ntwo\r\n")
    assert client.sock is not None
    client.sock.shutdown(socket.SHUT_WR)
    assert client.sock.recv(4096) == b""  # closed by the gateway: it has given the mail up
    client.close()
    assert gateway.mail_paths("unfinished") == []


def test_the_dialogue_of_the_old_manual(gateway: Gateway) -> None:
    with socket.create_connection((gateway.host, gateway.port), timeout=30) as connection:
        lines = connection.makefile("rb")

        def say(command: bytes) -> bytes:
            connection.sendall(command + b"\r\n")
            return lines.readline()

        assert lines.readline().startswith(b"220 mx.example.net")
        assert say(b"HELO .").startswith(b"250 ")
        assert say(b"MAIL FROM:<old@example.com>").startswith(b"250 ")
        broken = say(b"RCPT TO:>[[D")
        assert broken.startswith(b"5")
        assert b"'>'" in broken
        assert say(b"RCPT TO:<manual@example.org>").startswith(b"250 ")
        assert say(b"DATA").startswith(b"354 ")
        assert say(b"This is a test.\r\n.").startswith(b"250 ")
        assert say(b"QUIT").startswith(b"221 ")
        lines.close()
    assert one_mail(gateway, "manual").content == b"This is a test.\n"


def test_samples_are_what_they_claim() -> None:
    for name, content in CONTENTS.items():
        assert crlf(content) == content, name  # CRLF alone ends lines: the comparison is byte for byte
