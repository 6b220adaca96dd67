"""From the greeting to READY: EHLO, HELO, LHLO, STARTTLS, refusals, and what is awaited meanwhile."""

from __future__ import annotations

import pytest
from client_rig import RELAY, mail_to

from smtpd.mail.outcome import DEFERRED, UNDELIVERABLE
from smtpd.proto.client import events as ev
from smtpd.proto.client import extensions as ext

GREETING = b"220 mx.example.net ESMTP\r\n"
OFFER = b"250-mx.example.net\r\n250-PIPELINING\r\n250 STARTTLS\r\n"


def test_greeting_and_ehlo(new_client):
    client = new_client()
    assert client.take() == b""
    assert client.session.timeout_kind == "greeting"
    assert not client.session.can_send
    assert client.hear(b"220-mx.example.net ESMTP\r\n220 no UCE\r\n") == b"EHLO out.example.org\r\n"
    assert client.session.timeout_kind == "hello"
    assert client.session.peer_name == b"mx.example.net"
    assert client.hear(b"250-mx.example.net hi\r\n250-size 1000\r\n250-X-OTHER\r\n250 LIMITS rcptmax=5 MAILMAX=7 X=1\r\n") == b""
    assert client.kinds() == [ev.READY]
    assert client.session.timeout_kind == ""
    assert client.session.can_send
    extensions = client.session.extensions
    assert extensions.flags == ext.SIZE | ext.LIMITS
    assert (extensions.size_limit, extensions.recipient_limit, extensions.mail_limit) == (1000, 5, 7)


@pytest.mark.parametrize(
    "line", [b"SIZE", b"SIZE x", b"SIZE -1", b"SIZE " + b"9" * 100, b"LIMITS RCPTMAX= MAILMAX=x =", b" ", b""]
)
def test_nonsense_in_offers_is_no_limit(ready_client, line):
    extensions = ready_client(line, b"DSN").session.extensions
    assert (extensions.size_limit, extensions.recipient_limit, extensions.mail_limit) == (0, 0, 0)
    assert extensions.flags & ext.DSN


@pytest.mark.parametrize("refusal", [b"500 what?\r\n", b"502-5.5.1 no\r\n502 5.5.1 not here\r\n", b"550 no\r\n"])
def test_helo_where_ehlo_is_unknown(new_client, refusal):
    client = new_client()
    client.hear(GREETING)
    assert client.hear(refusal) == b"HELO out.example.org\r\n"
    assert client.session.timeout_kind == "hello"
    client.hear(b"250 PIPELINING\r\n")
    assert client.kinds() == [ev.READY]
    assert client.session.extensions.flags == 0


def test_lmtp_says_lhlo_and_never_helo(new_client):
    client = new_client(is_lmtp=True)
    assert client.hear(GREETING) == b"LHLO out.example.org\r\n"
    assert client.hear(b"500 5.5.2 what?\r\n") == b"QUIT\r\n"
    assert client.kinds() == [ev.CLOSED]
    assert client.reason.status == DEFERRED


@pytest.mark.parametrize(("word", "status", "dsn"), [("defer", DEFERRED, "4.7.1"), ("bounce", UNDELIVERABLE, "5.7.1")])
@pytest.mark.parametrize("before", [[], [GREETING, b"500 what?\r\n"]])
def test_refusal_for_good_before_mail(new_client, word, status, dsn, before):
    client = new_client(refused_early=word)
    for octets in before:
        client.hear(octets)
    assert client.hear(b"554-5.7.1 go\r\n554 5.7.1 away \xff\r\n") == b"QUIT\r\n"
    assert client.kinds() == [ev.CLOSED]
    reason = client.reason
    assert (reason.status, reason.code, reason.dsn, reason.text, reason.relay) == (status, 554, dsn, "go away \\xff", RELAY)


@pytest.mark.parametrize("octets", [b"421 busy\r\n", b"450 busy\r\n"])
@pytest.mark.parametrize("before", [[], [GREETING]])
def test_refusal_for_now(new_client, octets, before):
    client = new_client(refused_early="bounce")
    for earlier in before:
        client.hear(earlier)
    client.hear(octets)
    assert client.kinds() == [ev.CLOSED]
    assert (client.reason.status, client.reason.code, client.reason.dsn) == (DEFERRED, int(octets[:3]), "4.0.0")


@pytest.mark.parametrize(
    "octets", [b"354 go\r\n", b"SSH-2.0-x\r\n", b"220 a\r\n250 b\r\n", b"220-a\r\n250 b\r\n", b"\x16\x03\r\n"]
)
def test_nonsense_for_a_greeting(new_client, octets):
    client = new_client(refused_early="bounce")
    assert client.hear(octets) == b""
    assert client.kinds() == [ev.CLOSED]
    assert (client.reason.status, client.reason.code, client.reason.dsn) == (DEFERRED, 0, "4.5.0")


def test_starttls(new_client):
    client = new_client()
    client.hear(GREETING)
    assert client.hear(OFFER) == b"STARTTLS\r\n"
    assert client.session.timeout_kind == "tls"
    assert client.hear(b"220 go\r\n") == b""
    assert client.kinds() == [ev.START_TLS]
    assert client.session.timeout_kind == "tls"
    assert not client.session.can_send
    client.session.tls_started()
    assert client.session.is_tls
    assert client.session.extensions.flags == 0
    assert client.take() == b"EHLO out.example.org\r\n"
    client.hear(b"250-mx\r\n250-DSN\r\n250 STARTTLS\r\n")
    assert client.kinds() == [ev.READY]
    assert client.session.extensions.flags == ext.DSN | ext.STARTTLS


def test_tls_off_does_not_ask_for_it(new_client):
    client = new_client(tls="off")
    client.hear(GREETING)
    assert client.hear(OFFER) == b""
    assert client.kinds() == [ev.READY]


@pytest.mark.parametrize("refusal", [b"454 4.7.0 no\r\n", b"502 no\r\n"])
def test_starttls_refused(new_client, refusal):
    client = new_client(tls="may")
    client.hear(GREETING)
    client.hear(OFFER)
    assert client.hear(refusal) == b""
    assert client.kinds() == [ev.READY]
    assert client.session.extensions.flags & ext.PIPELINING
    client = new_client(tls="require", refused_early="bounce")
    client.hear(GREETING)
    client.hear(OFFER)
    assert client.hear(refusal) == b"QUIT\r\n"
    assert client.kinds() == [ev.CLOSED]
    assert (client.reason.status, client.reason.code, client.reason.dsn) == (DEFERRED, int(refusal[:3]), "4.7.5")


@pytest.mark.parametrize("answers", [[b"250 mx\r\n"], [b"250-mx\r\n250 DSN\r\n"], [b"502 what?\r\n", b"250 mx\r\n"]])
def test_required_tls_that_is_not_offered(new_client, answers):
    client = new_client(tls="require", refused_early="bounce")
    client.hear(GREETING)
    for octets in answers:
        last = client.hear(octets)
    assert last == b"QUIT\r\n"
    assert client.kinds() == [ev.CLOSED]
    assert (client.reason.status, client.reason.code, client.reason.dsn) == (DEFERRED, 0, "4.7.4")


@pytest.mark.parametrize("behind", [b"2", b"250-evil\r\n250 AUTH\r\n", b"\n", b"\x16\x03\x03"])
@pytest.mark.parametrize("tls", ["may", "require"])
def test_octets_behind_the_reply_to_starttls_are_an_attack(new_client, behind, tls):
    client = new_client(tls=tls)
    client.hear(GREETING)
    client.hear(OFFER)
    assert client.hear(b"220 go\r\n" + behind) == b""
    assert client.kinds() in ([ev.CLOSED], [ev.START_TLS, ev.CLOSED])  # octet by octet the reply is whole before
    assert (client.reason.status, client.reason.dsn) == (DEFERRED, "4.5.0")
    client.session.tls_started()
    assert not client.session.is_tls
    assert client.take() == b""


def test_reply_to_starttls_that_comes_with_the_offer_is_an_attack(new_client):
    client = new_client()
    client.hear(GREETING)
    client.hear(OFFER + b"220 go\r\n")
    assert client.kinds() == [ev.CLOSED]


def test_handshake_that_fails(new_client):
    client = new_client(tls="require")
    client.hear(GREETING)
    client.hear(OFFER)
    client.hear(b"220 go\r\n")
    client.kinds()
    client.session.fail(0, "4.7.5", "certificate has expired")
    client.take()
    assert client.kinds() == [ev.CLOSED]
    assert (client.reason.status, client.reason.dsn, client.reason.text) == (DEFERRED, "4.7.5", "certificate has expired")


def test_quit_before_ready_closes_at_once(new_client):
    client = new_client()
    client.hear(GREETING)
    client.session.quit()
    assert client.take() == b""
    assert client.kinds() == [ev.CLOSED]
    assert client.reason is None


def test_quit(ready_client):
    client = ready_client(b"SIZE")
    client.session.quit()
    assert client.take() == b"QUIT\r\n"
    assert client.session.timeout_kind == "quit"
    assert not client.session.can_send
    client.hear(b"500 never\r\n")
    assert client.kinds() == [ev.CLOSED]
    assert client.reason is None


def test_loss_after_quit_is_no_failure(ready_client):
    client = ready_client(b"SIZE")
    client.session.quit()
    client.take()
    client.session.fail(0, "4.4.2", "lost")
    client.take()
    assert client.kinds() == [ev.CLOSED]
    assert client.reason is None


def test_idle_next_hop_that_closes(ready_client):
    client = ready_client(b"SIZE")
    client.hear(b"421 4.4.2 idle\r\n")
    assert client.kinds() == [ev.CLOSED]
    assert (client.reason.status, client.reason.code, client.reason.text) == (DEFERRED, 421, "idle")
    assert not client.session.can_send
    with pytest.raises(RuntimeError):
        client.session.send(mail_to())


def test_nothing_happens_after_the_end(ready_client):
    client = ready_client(b"SIZE")
    client.session.fail(0, "4.4.2", "lost")
    client.session.fail(0, "4.4.2", "lost")
    client.session.quit()
    client.session.feed(b"x", True)
    assert client.hear(b"250 ok\r\nnonsense\r\n") == b""
    assert client.kinds() == [ev.CLOSED]
