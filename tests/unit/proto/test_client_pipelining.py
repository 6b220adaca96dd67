"""The next mail's commands behind the end of the one before (RFC 2920): two transactions under way."""

from __future__ import annotations

import pytest
from client_rig import BODY, mail_to

from smtpd.mail.outcome import DEFERRED, DELIVERED, UNDELIVERABLE
from smtpd.proto.client import events as ev

OK = b"250 2.0.0 ok\r\n"
GO = b"354 go\r\n"
COMMANDS = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\n"


def start_two(ready_client, *extensions, **rules):
    """The first mail's final reply is due, the second's commands are out."""
    client = ready_client(b"PIPELINING", *extensions, **rules)
    first, second = mail_to(), mail_to()
    client.send(first)
    assert not client.session.can_send
    client.hear(OK + OK)
    if b"CHUNKING" not in extensions:
        client.hear(GO)
    assert client.session.can_send
    sent = client.send(second)
    assert sent.startswith(COMMANDS)
    assert not client.session.can_send  # two at most
    return client, first, second


def test_two_mails_delivered(ready_client):
    client, first, second = start_two(ready_client)
    client.hear(OK)
    assert client.told == [(ev.DONE, first)]
    assert second.outcomes[0].status != DELIVERED
    client.hear(OK + OK + GO)
    client.hear(OK)
    assert client.told == [(ev.DONE, first), (ev.DONE, second)]
    assert second.outcomes[0].status == DELIVERED


def test_commands_leave_with_the_final_dot(ready_client):
    client = ready_client(b"PIPELINING")
    client.send(mail_to())
    for octets in (OK, OK):
        client.hear(octets)
    buffer = bytearray(GO)
    client.session.receive(buffer, 0, len(buffer))
    client.session.send(mail_to())
    assert client.take().endswith(b"text\r\n.\r\n" + COMMANDS + b"DATA\r\n")


def test_not_before_a_recipient_is_taken(ready_client):
    client = ready_client(b"PIPELINING", b"CHUNKING")
    client.send(mail_to())
    assert not client.session.can_send
    client.hear(OK)
    client.hear(b"550 no\r\n")
    assert not client.session.can_send  # RSET will follow


def test_refusal_of_the_first_says_nothing_about_the_second(ready_client):
    client, first, second = start_two(ready_client)
    client.hear(b"554 5.6.0 no\r\n" + OK + b"550 5.1.1 no\r\n" + GO)
    client.hear(b"554 nothing\r\n")
    assert [mail.outcomes[0].dsn for mail in (first, second)] == ["5.6.0", "5.1.1"]
    assert client.kinds() == [ev.DONE, ev.DONE]
    assert client.session.can_send


def test_mail_of_the_second_refused(ready_client):
    client, first, second = start_two(ready_client, refused_early="bounce")
    client.hear(OK + b"550 5.7.1 not you\r\n503 no\r\n503 no\r\n")
    assert [mail.outcomes[0].status for mail in (first, second)] == [DELIVERED, UNDELIVERABLE]
    assert client.session.can_send


def test_refused_bdat_before_the_second(ready_client):
    """A next hop that wants RSET first says so by 503, which is nothing against the second mail."""
    client, first, second = start_two(ready_client, b"CHUNKING", refused_early="bounce")
    client.hear(b"452 4.3.1 full\r\n")
    assert client.kinds() == [ev.DONE]
    client.hear(b"503 5.5.1 RSET first\r\n")
    assert client.kinds() == [ev.DONE, ev.CLOSED]
    assert [mail.outcomes[0].status for mail in (first, second)] == [DEFERRED, DEFERRED]
    assert second.put_off == [0]


@pytest.mark.parametrize("is_chunked", [False, True])
def test_connection_lost_with_two_under_way(ready_client, is_chunked):
    client, first, second = start_two(ready_client, *[b"CHUNKING"] * is_chunked)
    client.session.fail(0, "4.4.2", "lost")
    client.take()
    assert client.told == [(ev.DONE, first), (ev.DONE, second), (ev.CLOSED, None)]
    assert [mail.outcomes[0].text for mail in (first, second)] == ["lost", "lost"]
    assert first.put_off == []
    assert second.put_off == [0]


def test_421_to_the_first_defers_both(ready_client):
    client, first, second = start_two(ready_client)
    client.hear(b"421 4.3.2 down\r\n")
    assert client.kinds() == [ev.DONE, ev.DONE, ev.CLOSED]
    assert [mail.outcomes[0].code for mail in (first, second)] == [421, 421]
    assert second.put_off == [0]


def test_quit_waits_for_both(ready_client):
    client, _, second = start_two(ready_client)
    client.session.quit()
    assert client.take() == b""
    client.hear(OK + OK + OK + GO)
    assert client.hear(OK) == b"QUIT\r\n"
    assert second.outcomes[0].status == DELIVERED
    client.hear(b"221 bye\r\n")
    assert client.reason is None


def test_lmtp_replies_of_two_mails_are_kept_apart(ready_client):
    client = ready_client(b"PIPELINING", is_lmtp=True)
    first, second = mail_to(b"b@x.org", b"c@x.org"), mail_to(b"d@x.org", b"e@x.org")
    client.send(first)
    client.hear(OK * 3 + GO)
    client.send(second)
    client.hear(OK + b"550 5.1.1 a\r\n" + OK + b"450 b\r\n" + OK + GO)
    client.hear(b"452 c\r\n")
    assert [[o.status for o in mail.outcomes] for mail in (first, second)] == [[DELIVERED, UNDELIVERABLE], [DEFERRED, DEFERRED]]
    assert [o.text for o in second.outcomes] == ["b", "c"]


def test_bdat_of_two_mails(ready_client):
    client, first, second = start_two(ready_client, b"CHUNKING")
    assert client.sent.count(b"BDAT %d LAST\r\n" % len(BODY) + BODY) == 2
    client.hear(OK * 4)
    assert [mail.outcomes[0].status for mail in (first, second)] == [DELIVERED, DELIVERED]


@pytest.mark.parametrize("octets", [b"421 4.4.2 idle\r\n", b""])
def test_kept_connection_ends_before_its_next_mail(ready_client, octets):
    client = ready_client(b"PIPELINING")
    first, second = mail_to(), mail_to(b"b@x.org", b"c@x.org")
    client.send(first)
    client.hear(OK + OK + GO)
    client.hear(OK)
    client.send(second)
    client.hear(octets)
    client.session.fail(0, "4.4.2", "lost")
    client.take()
    assert second.put_off == [0, 1]
    assert [o.status for o in second.outcomes] == [DEFERRED, DEFERRED]


def test_mail_that_had_its_turn_is_not_put_off(ready_client):
    client, _, second = start_two(ready_client)
    client.hear(OK + OK)
    client.session.fail(0, "4.4.2", "lost")
    client.take()
    assert second.put_off == []


def test_mail_behind_the_last_reply_of_lmtp_is_put_off(ready_client):
    client, first, second = start_two(ready_client, is_lmtp=True)
    client.hear(b"421 4.3.2 down\r\n")
    assert client.told == [(ev.DONE, first), (ev.DONE, second), (ev.CLOSED, None)]
    assert first.put_off == []
    assert second.put_off == [0]
