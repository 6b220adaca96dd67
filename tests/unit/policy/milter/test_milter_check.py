"""The check "milter": what it tells of a session by the questions it gets, and what its verdicts say."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from filter_rig import BOB, CAROL, CLIENT, ask, make_check, make_question
from kilter.protocol import messages as km
from milter_rig import Milter

from smtpd.mail import changes as c
from smtpd.mail import envelope as env
from smtpd.mail.envelope import Recipient
from smtpd.policy.check import Client, TlsFacts
from smtpd.policy.milter.check import MilterCheck
from smtpd.policy.milter.wire import WireError
from smtpd.proto.params import MailParameters

NO_ANSWERS = 0x80 | 0xFF000


def play(milter: Milter, scene: Callable[[MilterCheck], Awaitable[None]], **settings: Any) -> None:
    async def run() -> None:
        await milter.start()
        check = make_check(MilterCheck, address=f"inet:{milter.address}", **settings)
        try:
            await scene(check)
        finally:
            check.close()
            await milter.stop()
            await asyncio.sleep(0)

    asyncio.run(run())


async def mail(check: MilterCheck, memory: dict[str, Any], **facts: Any) -> list[Any]:
    """Ask at all stages from mail to body; the verdicts."""
    verdicts = [await ask(check, make_question(stage, memory, **facts)) for stage in ("mail", "rcpt", "data", "body")]
    check.end_transaction(memory)
    return verdicts


def macros(milter: Milter, letter: str) -> dict[str, str]:
    """The last ones told before a command."""
    return dict([macro for macro in milter.of(km.Macro) if chr(macro.stage) == letter][-1].macros)


def test_session_with_macros_as_postfix_sends_them():
    milter = Milter()
    client = Client("2001:db8::1", 4321, "client.example.org", helo=b"helo.example.org", listener="mx",
                    tls=TlsFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256, 256,
                                 client_subject="client.example.org", client_issuer="Example CA"))  # fmt: skip
    parameters = MailParameters()
    parameters.size_bytes, parameters.body, parameters.is_smtputf8, parameters.ret, parameters.envid = (
        7,
        "8BITMIME",
        True,
        "HDRS",
        b"e",
    )
    bob = Recipient(b"bob@example.org", "example.org", env.NOTIFY_SUCCESS | env.NOTIFY_DELAY, b"rfc822;bob")

    async def scene(check: MilterCheck) -> None:
        memory: dict[str, Any] = {}
        for stage in ("connect", "helo"):
            assert await ask(check, make_question(stage, memory, client=client)) is None
        facts = {"client": client, "parameters": parameters}
        await ask(check, make_question("mail", memory, **facts))
        await ask(check, make_question("rcpt", memory, recipient=bob, **facts))
        await ask(check, make_question("body", memory, recipients=(bob,), **facts))
        check.end_session(memory)

    play(milter, scene)
    assert milter.of(km.Connect)[0].hostname == "client.example.org"
    assert milter.of(km.EnvelopeFrom) == [
        km.EnvelopeFrom(b"<alice@example.org>", [b"SIZE=7", b"BODY=8BITMIME", b"SMTPUTF8", b"RET=HDRS", b"ENVID=e"])
    ]
    assert milter.of(km.EnvelopeRecipient) == [
        km.EnvelopeRecipient(b"<bob@example.org>", [b"NOTIFY=SUCCESS,DELAY", b"ORCPT=rfc822;bob"])
    ]
    assert macros(milter, "C") == {
        "j": "mx.example.net", "{daemon_name}": "mx", "{daemon_addr}": "127.0.0.1", "{daemon_port}": "25", "v": "smtpd",
        "_": "client.example.org [IPv6:2001:db8::1]", "{client_name}": "client.example.org", "{client_addr}": "2001:db8::1",
        "{client_port}": "4321", "{client_ptr}": "client.example.org", "{client_resolve}": "OK", "{client_connections}": "0",
    }  # fmt: skip
    assert macros(milter, "H") == {
        "{tls_version}": "TLSv1.3", "{cipher}": "TLS_AES_256_GCM_SHA384", "{cipher_bits}": "256",
        "{cert_subject}": "client.example.org", "{cert_issuer}": "Example CA",
    }  # fmt: skip
    assert macros(milter, "M") == {
        "{mail_addr}": "alice@example.org", "{mail_host}": "example.org", "{mail_mailer}": "smtp", "{client_addr}": "2001:db8::1",
        "{client_name}": "client.example.org",
    }  # fmt: skip
    assert macros(milter, "R") == {"{rcpt_addr}": "bob@example.org", "{rcpt_host}": "example.org", "{rcpt_mailer}": "smtp"}
    assert macros(milter, "E") == {"i": "QID"}


@pytest.mark.parametrize(
    ("client", "name"),
    [
        (Client("192.0.2.1", listener="mx"), "[192.0.2.1]"),
        (Client("", listener="mx"), "localhost"),
    ],
)
def test_client_without_a_name(client, name):
    milter = Milter()

    async def scene(check: MilterCheck) -> None:
        await ask(check, make_question("connect", client=client))

    play(milter, scene)
    assert milter.of(km.Connect)[0].hostname == name


def test_filter_that_answers_nothing_is_not_asked_before_the_end():
    milter = Milter(steps=NO_ANSWERS)

    async def scene(check: MilterCheck) -> None:
        memory: dict[str, Any] = {}
        await ask(check, make_question("connect", memory))  # what it wants isn't known yet
        for _ in range(2):
            for stage in ("mail", "rcpt", "data"):
                assert check.ask(make_question(stage, memory)) is None
            assert await ask(check, make_question("body", memory)) is None
            check.end_transaction(memory)

    play(milter, scene)
    assert milter.connections == 1
    assert milter.names().count("EndOfMessage") == 2


def test_verdicts_of_a_mail():
    milter = Milter()
    milter.answers[km.EndOfMessage] = [km.AddHeader("X-A", b"1"), km.Continue()]

    async def scene(check: MilterCheck) -> None:
        memory: dict[str, Any] = {}
        *before, verdict = await mail(check, memory)
        assert before == [None, None, None]
        assert (verdict.reply, verdict.changes) == (None, (c.AddHeader(b"X-A", b"1"),))
        milter.answers[km.EndOfMessage] = [km.AddHeader("X-A", b"1"), km.Discard()]
        assert (await mail(check, memory))[-1].changes == (c.Discard("milter"),)
        milter.answers[km.EndOfMessage] = [km.AddHeader("X-A", b"1"), km.Reject()]
        refusal = (await mail(check, memory))[-1]
        assert (refusal.reply.text, refusal.reason, refusal.changes) == (b"550 5.7.1 Command rejected", "milter", ())
        milter.raw[km.EndOfMessage] = b"\0\0\0\1f"
        shutdown = (await mail(check, memory))[-1]
        assert shutdown.reply.code == 421
        assert shutdown.reply.closes

    play(milter, scene)


def test_discard_before_the_content():
    milter = Milter()
    milter.answers[km.EnvelopeFrom] = [km.Discard()]

    async def scene(check: MilterCheck) -> None:
        verdicts = await mail(check, {})
        assert verdicts[0].changes == (c.Discard("milter"),)
        assert verdicts[1:3] == [None, None]

    play(milter, scene)
    assert not milter.of(km.EndOfMessage)


def test_recipients_are_those_that_were_taken():
    milter = Milter(steps=NO_ANSWERS)

    async def scene(check: MilterCheck) -> None:
        memory: dict[str, Any] = {}
        await ask(check, make_question("mail", memory))
        await ask(check, make_question("rcpt", memory, recipient=BOB))
        await ask(check, make_question("rcpt", memory, recipient=CAROL, recipients=()))
        await ask(check, make_question("body", memory, recipients=(CAROL,)))

    play(milter, scene)
    assert [bytes(told.recipient) for told in milter.of(km.EnvelopeRecipient)] == [b"<carol@example.org>"]


def test_failure_holds_for_the_transaction_and_not_for_the_next():
    milter = Milter()
    milter.raw[km.EnvelopeFrom] = None

    async def scene(check: MilterCheck) -> None:
        memory: dict[str, Any] = {}
        for stage in ("mail", "rcpt", "data", "body"):
            with pytest.raises(ConnectionError):
                await ask(check, make_question(stage, memory))
        assert milter.connections == 1
        check.end_transaction(memory)
        milter.raw.clear()
        assert (await mail(check, memory))[-1] is None

    play(milter, scene)


def test_silence_that_the_pipeline_ends_is_a_failure_too():
    milter = Milter()
    milter.raw[km.EnvelopeFrom] = "hang"

    async def scene(check: MilterCheck) -> None:
        memory: dict[str, Any] = {}
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await ask(check, make_question("mail", memory))
        with pytest.raises(TimeoutError, match="took too long"):
            await ask(check, make_question("rcpt", memory))
        check.end_session(memory)

    play(milter, scene)


def test_a_second_helo_replaces_the_first():
    milter = Milter()

    other = Client("192.0.2.1", helo=b"other.example.org", listener="mx")

    async def scene(check: MilterCheck) -> None:
        memory: dict[str, Any] = {}
        await ask(check, make_question("helo", memory))
        await ask(check, make_question("helo", memory, client=other))
        await mail(check, memory, client=other)

    play(milter, scene)
    assert milter.names().startswith("Negotiate Connect Helo Helo EnvelopeFrom")
    assert milter.of(km.Helo) == [km.Helo("client.example.org"), km.Helo("other.example.org")]


def test_new_body_is_bounded_by_the_largest_mail():
    milter = Milter()
    milter.answers[km.EndOfMessage] = [km.ReplaceBody(b"x" * 600)] * 4 + [km.Continue()]

    async def scene(check: MilterCheck) -> None:
        with pytest.raises(WireError, match="more than 2048"):
            await mail(check, {})

    play(milter, scene, message_size=2048)


def test_configured_macros_and_daemon_name():
    milter = Milter()

    async def scene(check: MilterCheck) -> None:
        await ask(check, make_question("connect", client=CLIENT))

    play(milter, scene, daemon_name="edge", connect_macros=["{daemon_name}"])
    assert macros(milter, "C") == {"{daemon_name}": "edge"}
