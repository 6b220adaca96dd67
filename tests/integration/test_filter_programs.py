"""Our checks and the real programs: rspamd by milter and by HTTP, OpenDKIM, postgrey, policyd-spf."""

from __future__ import annotations

import asyncio
import smtplib
from collections.abc import Iterator
from typing import Any

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from filter_peers import GTUBE, running_opendkim, running_policyd_spf, running_postgrey, running_rspamd
from filter_rig import BOB, CAROL, Letter, ask, make_check, make_question
from gateway import running_gateway, wait_until
from name_server import NameServer

from smtpd.mail import changes as c
from smtpd.mail.verdict import Verdict
from smtpd.policy.check import Check, Client
from smtpd.policy.delegation.check import PolicyServiceCheck
from smtpd.policy.milter.check import MilterCheck
from smtpd.policy.rspamd.check import RspamdCheck

HEADER = (
    b"From: Alice <alice@example.org>\r\nTo: bob@example.org\r\nSubject: x\r\nX-Gone: now\r\nMessage-ID: <1@example.org>\r\n"
    b"Date: Tue, 1 Jul 2025 10:00:00 +0000\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n"
)
TOLD = b"192.0.2.1 client.example.org alice@example.org bob@example.org,carol@example.org QID"


@pytest.fixture(scope="module")
def rspamd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    with running_rspamd(tmp_path_factory.mktemp("rspamd")) as addresses:
        yield addresses


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="module")
def opendkim(tmp_path_factory: pytest.TempPathFactory, key: rsa.RSAPrivateKey) -> Iterator[str]:
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    with running_opendkim(tmp_path_factory.mktemp("opendkim"), public) as address:
        yield address


def pass_mails(check: Check, *letters: Letter, **facts: Any) -> list[Verdict | None]:
    """Ask about mails of one session, to Bob and Carol; the verdicts on their content."""

    async def run() -> list[Verdict | None]:
        memory: dict[str, Any] = {}
        verdicts = []
        early = [stage for stage in check.stages if stage != "body"]
        for stage in early[:2]:
            assert await ask(check, make_question(stage, memory, **facts)) is None
        for letter in letters:
            if early:
                await ask(check, make_question("mail", memory, **facts))
                await ask(check, make_question("rcpt", memory, **facts))
                await ask(check, make_question("rcpt", memory, recipient=CAROL, recipients=(BOB,), **facts))
            question = make_question("body", memory, recipients=(BOB, CAROL), content=letter, **facts)
            verdicts.append(await ask(check, question))
            check.end_transaction(memory)
        check.end_session(memory)
        check.close()
        await asyncio.sleep(0)
        return verdicts

    return asyncio.run(run())


def letter(text: str = "Hello") -> Letter:
    return Letter(text.encode() + b"\r\n", HEADER)


def has_header(verdict: Verdict | None, name: bytes, value: bytes | None) -> bool:
    """Whether the verdict adds, changes or (None) deletes such a field."""
    assert verdict is not None
    return any(
        isinstance(change, c.AddHeader | c.InsertHeader | c.ChangeHeader) and (change.name, change.value) == (name, value)
        for change in verdict.changes
    )


@pytest.mark.peer("rspamd")
@pytest.mark.parametrize("kind", ["http", "milter"])
def test_rspamd(rspamd, kind):
    http, milter = rspamd
    check = make_check(RspamdCheck, address=http) if kind == "http" else make_check(MilterCheck, address=milter)
    good, bad, marked, rewritten = pass_mails(
        check, letter(), letter(GTUBE["reject"]), letter(GTUBE["add header"]), letter(GTUBE["rewrite subject"])
    )
    assert good is not None
    assert good.reply is None
    assert has_header(good, b"X-Told", TOLD)
    assert has_header(good, b"X-Gone", None)
    assert bad is not None
    assert bad.reply is not None
    assert bad.reply.text == b"554 5.7.1 Gtube pattern"
    assert has_header(marked, b"X-Spam", b"Yes")
    assert has_header(rewritten, b"Subject", b"*** SPAM *** x")


@pytest.mark.peer("rspamd")
@pytest.mark.parametrize("kind", ["http", "milter"])
def test_rspamd_and_a_large_mail(rspamd, kind):
    http, milter = rspamd
    check = make_check(RspamdCheck, address=http) if kind == "http" else make_check(MilterCheck, address=milter)
    (verdict,) = pass_mails(
        check, Letter(b"A line of seventy octets or so, as mails have them by the thousand.\r\n" * 30_000, HEADER)
    )
    assert has_header(verdict, b"X-Told", TOLD)


@pytest.mark.peer("rspamd")
def test_rspamd_milter_connection_for_several_sessions(rspamd):
    check = make_check(MilterCheck, address=rspamd[1], reuse_connections=True)

    async def run() -> None:
        for _ in range(3):
            memory: dict[str, Any] = {}
            verdict = await ask(check, make_question("body", memory, recipients=(BOB, CAROL), content=letter()))
            assert has_header(verdict, b"X-Told", TOLD)
            check.end_session(memory)
        assert len(check.client.kept) == 1
        check.close()
        await asyncio.sleep(0)

    asyncio.run(run())


@pytest.mark.peer("opendkim")
def test_opendkim_verifies_what_was_signed(opendkim, key):
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    body = b"Hello\r\n\r\nworld\r\n"
    signature = dkim.sign(HEADER + b"\r\n" + body, b"s", b"example.org", private, include_headers=[b"From", b"Subject"])
    signed = signature.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") + HEADER
    good, bad, unsigned = pass_mails(
        make_check(MilterCheck, address=f"inet:{opendkim}"),
        Letter(body, signed, piece=5),
        Letter(body + b"more\r\n", signed),
        Letter(body, HEADER),
    )
    (result,) = results(good)
    assert b"mx.example.net; \r\n" not in result
    assert b"dkim=pass" in result
    assert b"header.d=example.org" in result
    assert bad is not None
    assert bad.reply is not None
    assert bad.reply.code == 550
    (result,) = results(unsigned)
    assert b"dkim=none" in result


def results(verdict: Verdict | None) -> list[bytes]:
    """Values of the Authentication-Results that a verdict inserts above all."""
    assert verdict is not None
    assert verdict.reply is None
    return [
        change.value
        for change in verdict.changes
        if isinstance(change, c.InsertHeader) and change.name == b"Authentication-Results" and change.index == 0
    ]


@pytest.mark.peer("postgrey")
def test_postgrey_defers_first_and_takes_later(tmp_path):
    with running_postgrey(tmp_path / "postgrey") as address:

        async def ask_once() -> Verdict | None:
            check = make_check(PolicyServiceCheck, address=f"inet:{address}")
            try:
                return await ask(check, make_question("rcpt"))
            finally:
                check.close()
                await asyncio.sleep(0)

        first = asyncio.run(ask_once())
        assert first is not None
        assert first.reply is not None
        assert first.reply.text.startswith(b"450 4.2.0 Greylisted")
        taken = wait_until("postgrey lets it pass", lambda: passed(asyncio.run(ask_once())), 30)
        assert taken.changes == () or isinstance(taken.changes[0], c.InsertHeader)


def passed(verdict: Verdict | None) -> Verdict | None:
    """The verdict of DUNNO or PREPEND, None while it defers."""
    if verdict is None:
        return Verdict()
    return None if verdict.reply is not None else verdict


@pytest.mark.peer("postfix-policyd-spf-python")
def test_policyd_spf(tmp_path):
    names = NameServer()
    names.add("example.org", "TXT", '"v=spf1 ip4:192.0.2.1 -all"')
    names.add("client.example.org", "A", "192.0.2.1")
    try:
        with running_policyd_spf(tmp_path / "spf", names.address) as address:
            check = make_check(PolicyServiceCheck, address=address)

            async def run() -> tuple[Verdict | None, Verdict | None]:
                good = await ask(check, make_question("rcpt"))
                other = Client("198.51.100.7", 1, helo=b"client.example.org", listener="mx")
                bad = await ask(check, make_question("rcpt", client=other))
                check.close()
                await asyncio.sleep(0)
                return good, bad

            good, bad = asyncio.run(run())
    finally:
        names.close()
    assert good is not None
    (change,) = good.changes
    assert isinstance(change, c.InsertHeader)
    assert change.name == b"Received-SPF"
    assert change.value.startswith(b"Pass")
    assert bad is not None
    assert bad.reply is not None
    assert bad.reply.text.startswith(b"550 5.7.23 ")


@pytest.mark.peer("rspamd")
@pytest.mark.peer("opendkim")
@pytest.mark.peer("postgrey")
@pytest.mark.peer("postfix-policyd-spf-python")
def test_all_of_them_in_front_of_a_mailbox(tmp_path, rspamd, opendkim, key):
    """policyd-spf and postgrey at RCPT, then OpenDKIM by milter and rspamd by HTTP on the content."""
    names = NameServer()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    body = b"Hello\r\n"
    signature = dkim.sign(HEADER + b"\r\n" + body, b"s", b"example.org", private, include_headers=[b"From", b"Subject"])
    mail = signature.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") + HEADER + b"\r\n" + body
    try:
        with running_postgrey(tmp_path / "postgrey") as postgrey, running_policyd_spf(tmp_path / "spf", names.address) as spf:
            checks = [
                {"name": "policy_service", "label": "spf", "address": spf},
                {"name": "policy_service", "label": "postgrey", "address": f"inet:{postgrey}"},
                {"name": "milter", "label": "opendkim", "address": f"inet:{opendkim}"},
                {"name": "rspamd", "address": rspamd[0]},
            ]
            with running_gateway(tmp_path / "gateway", {"policy": {"check": checks}}) as gateway:

                def send(content: bytes) -> int:
                    with smtplib.SMTP(gateway.host, gateway.port, "client.example.org", timeout=30) as smtp:
                        try:
                            smtp.sendmail("alice@example.org", ["bob@example.org"], content)
                        except smtplib.SMTPRecipientsRefused as refused:
                            (reply,) = refused.recipients.values()
                            return reply[0]
                        except smtplib.SMTPDataError as refused:
                            return refused.smtp_code
                        return 250

                assert send(mail) == 450
                wait_until("postgrey lets it pass", lambda: send(mail) == 250, 30)
                assert send(mail + b"more\r\n") == 550
                assert send(mail.replace(body, GTUBE["reject"].encode() + b"\r\n").replace(b"DKIM-Signature", b"X-Was")) == 554
                (stored,) = gateway.await_mails("bob")
    finally:
        names.close()
    head = stored.partition(b"\n\n")[0]
    assert b"\nX-Comment: SPF check N/A for local connections" in head
    assert b"\nX-Greylist: delayed" in head
    assert b"\nAuthentication-Results: mx.example.net;" in head
    assert b"dkim=pass" in head
    assert b"\nX-Told: 127." in head
    assert b"X-Gone" not in head
