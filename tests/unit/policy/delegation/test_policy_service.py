"""Policy delegation: what a service is told, what its actions come to, and what happens when it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from filter_rig import BOB, CAROL, CLIENT, Letter, Peer, ask, make_check, make_question
from hypothesis import given
from hypothesis import strategies as st

from smtpd.mail import changes as c
from smtpd.mail.verdict import END_STAGE, Verdict
from smtpd.policy.check import Client, TlsFacts
from smtpd.policy.delegation.action import Redirect, carry_out
from smtpd.policy.delegation.check import PolicyServiceCheck
from smtpd.policy.delegation.wire import ANSWER_BYTES, ATTRIBUTES, PolicyWireError, make_request, parse_answer
from smtpd.proto.params import MailParameters


class Service(Peer):
    """Answers every question with `action`, or with the octets `raw`; "hang" says nothing, None closes."""

    def __init__(self, action: bytes = b"DUNNO", path: str = "") -> None:
        super().__init__(self._answer)
        self.path = path
        self.action = action
        self.raw: bytes | str | None = ""
        self.asked: list[dict[str, str]] = []

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = (await reader.readuntil(b"\n\n")).decode()
            self.asked.append(dict(line.split("=", 1) for line in request.strip().split("\n")))
            if self.raw is None:
                return
            if self.raw == "hang":
                await asyncio.Event().wait()
            writer.write(self.raw if isinstance(self.raw, bytes) and self.raw else b"action=" + self.action + b"\n\n")
            await writer.drain()


def play(service: Service, scene: Callable[[PolicyServiceCheck], Awaitable[None]], **settings: object) -> None:
    async def run() -> None:
        async with service:
            check = make_check(PolicyServiceCheck, address=service.address, **settings)
            await scene(check)
            check.close()

    asyncio.run(run())


def test_attributes_of_a_recipient_as_postfix_sends_them():
    service = Service()
    parameters = MailParameters()
    parameters.size_bytes = 1234
    client = Client(
        "192.0.2.1", 4321, "client.example.org", helo=b"helo.example.org", listener="mx",
        tls=TlsFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256, 256,
                     client_subject="client.example.org", client_issuer="Example CA"),
    )  # fmt: skip

    async def scene(check: PolicyServiceCheck) -> None:
        assert await ask(check, make_question("rcpt", client=client, parameters=parameters)) is None

    play(service, scene, policy_context="mx-in")
    (asked,) = service.asked
    assert tuple(asked) == ATTRIBUTES
    assert asked.pop("instance")
    assert {name: value for name, value in asked.items() if value} == {
        "request": "smtpd_access_policy",
        "protocol_state": "RCPT",
        "protocol_name": "ESMTP",
        "client_address": "192.0.2.1",
        "client_name": "client.example.org",
        "reverse_client_name": "client.example.org",
        "client_port": "4321",
        "server_address": "127.0.0.1",
        "server_port": "25",
        "helo_name": "helo.example.org",
        "sender": "alice@example.org",
        "recipient": "bob@example.org",
        "recipient_count": "0",
        "size": "1234",
        "ccert_subject": "client.example.org",
        "ccert_issuer": "Example CA",
        "encryption_protocol": "TLSv1.3",
        "encryption_cipher": "TLS_AES_256_GCM_SHA384",
        "encryption_keysize": "256",
        "policy_context": "mx-in",
    }


def test_state_and_recipients_of_each_stage():
    service = Service()
    stages = ["connect", "helo", "mail", "rcpt", "data", "body"]

    async def scene(check: PolicyServiceCheck) -> None:
        assert check.stages == tuple(stages)
        memory: dict[str, object] = {}
        for stage in stages[:-1]:
            await ask(check, make_question(stage, memory))
        await ask(check, make_question("body", memory, recipients=(BOB, CAROL), content=Letter(b"x" * 100)))

    play(service, scene, at=stages)
    asked = service.asked
    assert [one["protocol_state"] for one in asked] == ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "END-OF-MESSAGE"]
    assert [one["recipient"] for one in asked] == ["", "", "", "bob@example.org", "bob@example.org", ""]
    assert [one["recipient_count"] for one in asked] == ["0", "0", "0", "0", "1", "2"]
    assert asked[-1]["queue_id"] == "QID"
    assert int(asked[-1]["size"]) > 100
    assert len({one["instance"] for one in asked}) == 1


def test_each_transaction_has_its_instance_and_all_share_a_connection():
    service = Service()

    async def scene(check: PolicyServiceCheck) -> None:
        memory: dict[str, object] = {}
        for _ in range(3):
            await ask(check, make_question("rcpt", memory))
            await ask(check, make_question("rcpt", memory, recipient=CAROL))
            check.end_transaction(memory)

    play(service, scene)
    assert service.connections == 1
    assert len({one["instance"] for one in service.asked}) == 3


def test_connections_are_not_kept_where_that_is_configured():
    service = Service()

    async def scene(check: PolicyServiceCheck) -> None:
        for _ in range(2):
            await ask(check, make_question("rcpt"))

    play(service, scene, keep_connections=False)
    assert service.connections == 2


def test_kept_connection_that_the_service_has_closed_is_no_failure():
    """Closed in the very moment in which the second question comes: the service has read it, and says nothing."""
    service = Service()

    async def scene(check: PolicyServiceCheck) -> None:
        await ask(check, make_question("rcpt"))
        service.raw = None
        with pytest.raises(ConnectionError):
            await ask(check, make_question("rcpt"))

    play(service, scene)
    assert service.connections == 2  # the second one on purpose too


def test_unix_socket(tmp_path):
    service = Service(path=str(tmp_path / "policy.sock"))

    async def scene(check: PolicyServiceCheck) -> None:
        assert await ask(check, make_question("rcpt")) is None

    play(service, scene)


@pytest.mark.parametrize(
    ("action", "reply"),
    [
        (b"REJECT", b"554 5.7.1 Access denied"),
        (b"reject Go away", b"554 5.7.1 Go away"),
        (b"REJECT 5.7.23 SPF fail", b"554 5.7.23 SPF fail"),
        (b"550 5.1.1 No such user", b"550 5.1.1 No such user"),
        (b"550 No", b"550 5.7.1 No"),
        (b"451 5.7.1 Later", b"451 4.7.1 Later"),
        (b"450", b"450 4.7.1 Access denied"),
        (b"DEFER", b"450 4.7.1 Service unavailable"),
        (
            b"DEFER 4.2.0 Greylisted, see https://postgrey.example.org/",
            b"450 4.2.0 Greylisted, see https://postgrey.example.org/",
        ),
        (b"DEFER_IF_PERMIT Greylisted", b"450 4.7.1 Greylisted"),
        (b"HANGUP", b"421 4.7.1 Service unavailable"),
        (b"REJECT caf\xc3\xa9 100%", b"554 5.7.1 caf?? 100%"),
    ],
)
def test_actions_that_refuse(action, reply):
    verdict = carry_out(action)
    assert isinstance(verdict, Verdict)
    assert verdict.reply is not None
    assert verdict.reply.text == reply
    assert verdict.reply.closes == reply.startswith(b"421")
    assert verdict.reason == "policy_service"


@pytest.mark.parametrize(
    ("action", "change"),
    [
        (b"PREPEND Received-SPF: pass (x)", c.InsertHeader(0, b"Received-SPF", b"pass (x)")),
        (b"HOLD", c.Hold("held by the policy service")),
        (b"HOLD for review", c.Hold("for review")),
        (b"DISCARD spam", c.Discard("spam")),
        (b"BCC carol@example.org", c.AddRecipient(b"carol@example.org")),
    ],
)
def test_actions_that_change_the_mail(action, change):
    verdict = carry_out(action)
    assert isinstance(verdict, Verdict)
    assert verdict.changes == (change,)
    assert verdict.reply is None


def test_actions_that_object_to_nothing():
    assert carry_out(b"DUNNO") is None
    assert carry_out(b"dunno whatever") is None
    for action in (b"OK", b"RELAY", b"12345"):
        verdict = carry_out(action)
        assert isinstance(verdict, Verdict)
        assert (verdict.reply, verdict.ending) == (None, END_STAGE)
    for action in (b"WARN look at this", b"INFO", b"FILTER smtp:[127.0.0.1]:10025", b"DELAY", b"DEFER_IF_REJECT no"):
        verdict = carry_out(action)
        assert isinstance(verdict, Verdict)
        assert (verdict.reply, verdict.changes, verdict.ending) == (None, (), 0)
        assert verdict.note.startswith(action.split()[0].decode())


@pytest.mark.parametrize(
    "action", [b"", b"NONSENSE", b"check_client_access hash:/etc/x", b"PREPEND nothing", b"PREPEND", b"BCC", b"REDIRECT <>",
               b"REJECT a\rb", b"BCC <x@example.org> y", b"250 Ok", b"200"],
)  # fmt: skip
def test_what_is_no_action(action):
    with pytest.raises(PolicyWireError):
        carry_out(action)


@given(st.binary(max_size=200))
def test_any_action_is_carried_out_or_refused(action):
    try:
        verdict = carry_out(action)
    except PolicyWireError:
        return
    if isinstance(verdict, Verdict) and verdict.reply is not None:
        assert all(31 < octet < 127 for octet in verdict.reply.text)


def test_redirect_takes_the_mail_from_all_recipients():
    service = Service(b"REDIRECT <quarantine@example.org>")
    assert carry_out(service.action) == Redirect(b"quarantine@example.org")

    async def scene(check: PolicyServiceCheck) -> None:
        assert check.stages == ("rcpt", "data")
        memory: dict[str, object] = {}
        assert await ask(check, make_question("rcpt", memory)) is None
        verdict = await ask(check, make_question("data", memory, recipients=(BOB, CAROL)))
        assert verdict is not None
        assert verdict.changes == (
            c.AddRecipient(b"quarantine@example.org"),
            c.RemoveRecipient(b"bob@example.org"),
            c.RemoveRecipient(b"carol@example.org"),
        )
        check.end_transaction(memory)
        assert await ask(check, make_question("data", memory)) is None

    play(service, scene)


@given(st.dictionaries(st.sampled_from(ATTRIBUTES), st.binary(max_size=50)))
def test_no_value_can_add_an_attribute(values):
    lines = make_request(values).split(b"\n")
    assert lines[-2:] == [b"", b""]
    assert [line.split(b"=")[0].decode() for line in lines[:-2]] == list(ATTRIBUTES)


@pytest.mark.parametrize(
    ("answer", "action"),
    [(b"action=DUNNO\n\n", b"DUNNO"), (b"action = OK \n\n", b"OK"), (b"x=y\naction=REJECT a=b\n\n", b"REJECT a=b")],
)
def test_answers(answer, action):
    assert parse_answer(answer) == action


GARBAGE = [
    b"action=DUNNO\naction=REJECT\n\n", b"x=y\n\n", b"action=\n\n", b"HTTP/1.1 400 Bad Request\r\n\n\n", b"\n\n",
    b"action=DUNNO\n\naction=REJECT\n\n", b"x" * (ANSWER_BYTES + 1),
]  # fmt: skip


@pytest.mark.parametrize("octets", GARBAGE)
def test_garbage_is_an_error(octets):
    service = Service()
    service.raw = octets

    async def scene(check: PolicyServiceCheck) -> None:
        with pytest.raises(PolicyWireError):
            await ask(check, make_question("rcpt"))
        service.raw = ""
        assert await ask(check, make_question("rcpt")) is None

    play(service, scene)
    assert service.connections == 2


def test_service_that_leaves_midway():
    service = Service()

    async def answer_half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\n\n")
        writer.write(b"action=DUN")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    service._serve = answer_half

    async def scene(check: PolicyServiceCheck) -> None:
        with pytest.raises(PolicyWireError, match="breaks off"):
            await ask(check, make_question("rcpt"))

    play(service, scene)


def test_service_that_is_away():
    async def run() -> None:
        async with Service() as service:
            address = service.address
        with pytest.raises(ConnectionRefusedError):
            await ask(make_check(PolicyServiceCheck, address=address), make_question("rcpt"))

    asyncio.run(run())


def test_cancelled_question_leaves_no_connection_behind():
    service = Service()
    service.raw = "hang"

    async def scene(check: PolicyServiceCheck) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await ask(check, make_question("rcpt"))
        service.raw = ""
        assert await ask(check, make_question("rcpt")) is None

    play(service, scene)
    assert service.connections == 2


def test_client_without_reverse_name_is_unknown():
    service = Service()

    async def scene(check: PolicyServiceCheck) -> None:
        await ask(check, make_question("rcpt", client=Client("2001:db8::1", listener="other")))

    play(service, scene)
    assert service.asked[0]["client_name"] == service.asked[0]["reverse_client_name"] == "unknown"
    assert service.asked[0]["server_address"] == ""
    assert CLIENT.name != "unknown"
