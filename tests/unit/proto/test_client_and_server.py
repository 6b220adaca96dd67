"""The client session and our own server's session back to back in memory."""

from __future__ import annotations

import itertools

import pytest
from client_rig import BODY, NextHop, connected, converse, mail_to

from smtpd.mail.outcome import DEFERRED, DELIVERED, UNDELIVERABLE
from smtpd.proto import replies
from smtpd.proto.client import events as ev

WAYS = [frozenset(words) for count in range(3) for words in itertools.combinations(("PIPELINING", "CHUNKING"), count)]


@pytest.fixture(params=[False, True], ids=["smtp", "lmtp"])
def is_lmtp(request):
    return request.param


@pytest.mark.parametrize("suppressed", WAYS, ids=lambda words: "without " + (" ".join(sorted(words)) or "nothing"))
def test_mails_arrive_whole(is_lmtp, suppressed):
    hop = NextHop(is_lmtp, suppressed)
    client = connected(hop, is_lmtp=is_lmtp)
    bodies = [BODY, b"", b".\r\n", b"a\n.\n\rb", b"x" * 5000 + b"\r\n" + b"." * 100 + b"\r\n.\r\n"]
    for body in bodies:
        mail = mail_to(b"b@example.net", b"c@example.net", body=body)
        converse(client, hop, client.send(mail))
        assert client.kinds() == [ev.DONE]
        assert [(o.status, o.code, o.passes_dsn) for o in mail.outcomes] == [(DELIVERED, 250, True)] * 2
        assert "queued as QID" in mail.outcomes[0].text
    assert [body for _, body in hop.mails] == [BODY, b"", b".\r\n", b"a\r\n.\r\n b\r\n", bodies[-1]]
    assert [[r.path for r in envelope.recipients] for envelope, _ in hop.mails] == [[b"b@example.net", b"c@example.net"]] * 5
    client.session.quit()
    converse(client, hop, client.take())
    assert client.kinds() == [ev.CLOSED]
    assert client.reason is None


def test_pieces_arrive_whole(is_lmtp):
    hop = NextHop(is_lmtp)
    client = connected(hop, is_lmtp=is_lmtp)
    mail = mail_to(body=None)
    converse(client, hop, client.send(mail))
    assert client.kinds() == [ev.WANTS_BODY]
    for start in range(0, len(BODY), 3):
        client.session.feed(BODY[start : start + 3], start + 3 >= len(BODY))
        converse(client, hop, client.take())
    assert client.kinds() == [ev.DONE]
    assert hop.mails[0][1] == BODY


@pytest.mark.parametrize("suppressed", WAYS, ids=lambda words: "without " + (" ".join(sorted(words)) or "nothing"))
def test_a_refused_mail_does_not_harm_the_next(is_lmtp, suppressed):
    hop = NextHop(is_lmtp, suppressed)
    hop.refusals = {1: replies.TOO_MANY_HOPS, 2: replies.SPOOL_FULL}
    client = connected(hop, is_lmtp=is_lmtp)
    mails = [mail_to(), mail_to(), mail_to()]
    for mail in mails:
        converse(client, hop, client.send(mail))
    assert [mail.outcomes[0].status for mail in mails] == [UNDELIVERABLE, DEFERRED, DELIVERED]
    assert [mail.outcomes[0].dsn for mail in mails[:2]] == ["5.4.6", "4.3.1"]


def test_recipients_beyond_the_limit_are_put_off(is_lmtp):
    hop = NextHop(is_lmtp, recipients=2)
    client = connected(hop, is_lmtp=is_lmtp)
    mail = mail_to(b"b@example.net", b"c@example.net", b"d@example.net")
    converse(client, hop, client.send(mail))
    assert [o.status for o in mail.outcomes] == [DELIVERED, DELIVERED, DEFERRED]
    assert mail.put_off == [2]
