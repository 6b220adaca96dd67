"""always_bcc through the whole server: the client sees nothing of it, by SMTP or LMTP."""

from __future__ import annotations

import smtplib
from pathlib import Path

from delivered import take_apart
from gateway import free_port, own_loopback_address, running_gateway

MAIL = b"Subject: hello\r\n\r\ntext\r\n"


def test_the_copy_is_delivered_and_the_client_does_not_see_it(tmp_path: Path) -> None:
    host = own_loopback_address()
    smtp, lmtp = free_port(host), free_port(host)
    settings = {
        "workers": 1,
        "listener": [
            {"name": "mx", "address": f"{host}:{smtp}"},
            {"name": "local", "address": f"{host}:{lmtp}", "protocol": "lmtp"},
        ],
        "route": [
            {
                "domains": ["*"],
                "transport": "maildir",
                "path": str(tmp_path / "gateway" / "mail"),
                "always_bcc": "journal@example.org",
            },
        ],
    }
    with running_gateway(tmp_path / "gateway", settings) as gateway:
        with smtplib.SMTP(host, smtp, timeout=30) as client:
            assert client.sendmail("s@example.com", ["alice@example.org"], MAIL) == {}
        (alice,) = gateway.await_mails("alice")
        (journal,) = gateway.await_mails("journal")
        first, copy = take_apart(alice), take_apart(journal)
        assert copy.delivered_to == b"journal@example.org"
        assert copy.content == first.content
        assert copy.received == first.received
        assert b"for <alice@example.org>" in first.received
        with smtplib.LMTP(host, lmtp, timeout=30) as client:
            client.ehlo_or_helo_if_needed()
            client.mail("s@example.com")
            client.rcpt("bob@example.org")
            client.rcpt("carol@example.org")
            code, text = client.data(MAIL)  # one reply for each recipient that the client named, no more
            assert code == 250
            assert b"bob@example.org" in text
            code, text = client.getreply()
            assert (code, b"carol@example.org" in text) == (250, True)
            assert client.noop()[0] == 250
        gateway.await_mails("bob")
        gateway.await_mails("carol")
        assert len(gateway.await_mails("journal", 2)) == 2
