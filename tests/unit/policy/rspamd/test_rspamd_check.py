"""rspamd over HTTP: what it is sent, what its answers come to, connections that are kept, and what happens when it fails."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import h11
import pytest
from filter_rig import BOB, CAROL, Letter, Peer, ask, make_check, make_question
from hypothesis import given
from hypothesis import strategies as st

from smtpd.mail import changes as c
from smtpd.mail.verdict import Verdict
from smtpd.policy.check import Client, TlsFacts
from smtpd.policy.rspamd.answer import RspamdError, judge, parse_answer
from smtpd.policy.rspamd.check import RspamdCheck
from smtpd.policy.rspamd.http import HttpError

HEADER = b"Subject: x\r\nX-Spam: No\r\nX-Old: 1\r\nx-old : 2\r\nX-Old-Not: 3\r\n"


class Scanner(Peer):
    """Answers each request with `answer` as JSON, or with the octets `raw`; "hang" says nothing, None closes."""

    def __init__(self, path: str = "", **answer: Any) -> None:
        super().__init__(self._answer)
        self.path = path
        self.answer = answer or {"action": "no action"}
        self.raw: bytes | str | None = ""
        self.requests: list[tuple[h11.Request, bytes]] = []

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        protocol = h11.Connection(h11.SERVER)
        while True:
            request, body = await self._read(protocol, reader)
            self.requests.append((request, body))
            if self.raw is None:
                return
            if self.raw == "hang":
                await asyncio.Event().wait()
            if isinstance(self.raw, bytes):
                writer.write(self.raw)
                await writer.drain()
                writer.close()
                await writer.wait_closed()
                return
            text = json.dumps(self.answer).encode()
            response = h11.Response(status_code=200, headers=[("Content-Length", str(len(text)))])
            for event in (response, h11.Data(text), h11.EndOfMessage()):
                writer.write(protocol.send(event) or b"")
            await writer.drain()
            protocol.start_next_cycle()

    async def _read(self, protocol: h11.Connection, reader: asyncio.StreamReader) -> tuple[h11.Request, bytes]:
        request, body = None, b""
        while True:
            event = protocol.next_event()
            if event is h11.NEED_DATA:
                data = await reader.read(65536)
                if not data:
                    raise ConnectionResetError
                protocol.receive_data(data)
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            else:
                assert request is not None
                assert isinstance(event, h11.EndOfMessage)
                return request, body


def play(scanner: Scanner, scene: Callable[[RspamdCheck], Awaitable[None]], **settings: object) -> None:
    async def run() -> None:
        async with scanner:
            check = make_check(RspamdCheck, address=scanner.address, **settings)
            await scene(check)
            check.close()
            await asyncio.sleep(0)

    asyncio.run(run())


def test_request_as_rspamd_knows_it():
    scanner = Scanner()
    client = Client(
        "2001:db8::1", 4321, "client.example.org", helo=b"h\xc3\xa9lo\r\nX: y", listener="mx", tls=TlsFacts("TLSv1.3", "AES")
    )
    letter = Letter(b"line\r\n" * 50_000, piece=7000)

    async def scene(check: RspamdCheck) -> None:
        question = make_question("body", client=client, recipients=(BOB, CAROL), content=letter)
        assert await ask(check, question) is None

    play(scanner, scene, password="secret", settings_id="strict")
    ((request, body),) = scanner.requests
    assert (request.method, request.target) == (b"POST", b"/checkv2")
    assert body == letter.header + b"\r\n" + letter.octets
    assert [(name, value) for name, value in request.headers if name not in (b"host", b"content-length", b"user-agent")] == [
        (b"pass", b"all"),
        (b"mta-name", b"mx.example.net"),
        (b"mta-tag", b"RspamdCheck"),
        (b"queue-id", b"QID"),
        (b"from", b"<alice@example.org>"),
        (b"helo", b"h\xc3\xa9lo??X: y"),
        (b"hostname", b"client.example.org"),
        (b"rcpt", b"<bob@example.org>"),
        (b"rcpt", b"<carol@example.org>"),
        (b"ip", b"2001:db8::1"),
        (b"tls-version", b"TLSv1.3"),
        (b"tls-cipher", b"AES"),
        (b"password", b"secret"),
        (b"settings-id", b"strict"),
    ]


def test_connection_is_kept_and_one_that_was_closed_meanwhile_is_no_failure():
    scanner = Scanner()

    async def scene(check: RspamdCheck) -> None:
        for _ in range(3):
            assert await ask(check, make_question("body")) is None
        assert scanner.connections == 1
        scanner.raw = None
        with pytest.raises(ConnectionError):  # the kept one, then a new one: both closed
            await ask(check, make_question("body"))
        assert scanner.connections == 2

    play(scanner, scene)


def test_unix_socket_and_large_mails(tmp_path):
    scanner = Scanner(path=str(tmp_path / "rspamd.sock"))

    async def scene(check: RspamdCheck) -> None:
        assert await ask(check, make_question("body")) is None
        assert await ask(check, make_question("body", content=Letter(b"x" * 3000))) is None

    play(scanner, scene, max_size=2048)
    assert len(scanner.requests) == 1


def verdict_of(answer: dict[str, Any], **options: Any) -> Verdict | None:
    return judge(parse_answer(json.dumps(answer).encode()), HEADER, **options)


@pytest.mark.parametrize(
    ("answer", "reply", "reason"),
    [
        ({"action": "reject"}, b"554 5.7.1 Spam message rejected", "content"),
        ({"action": "reject", "messages": {"smtp_message": "Gtube\r\npattern"}}, b"554 5.7.1 Gtube pattern", "content"),
        ({"action": "soft reject"}, b"451 4.7.1 Try again later", "content"),
        ({"action": "soft reject", "messages": {"smtp_message": "Try\u00e9"}}, b"451 4.7.1 Try?", "content"),
    ],
)
def test_actions_that_refuse(answer, reply, reason):
    verdict = verdict_of(answer)
    assert verdict is not None
    assert verdict.reply is not None
    assert (verdict.reply.text, verdict.reason) == (reply, reason)


def test_greylist_alone_is_taken_unless_configured():
    assert verdict_of({"action": "greylist"}) is None
    verdict = verdict_of({"action": "greylist"}, defers_greylist=True)
    assert verdict is not None
    assert verdict.reply is not None
    assert (verdict.reply.code, verdict.reason) == (450, "greylist")


@pytest.mark.parametrize(
    ("answer", "changes"),
    [
        ({"action": "no action"}, ()),
        ({"action": "add header"}, (c.ChangeHeader(b"X-Spam", 1, b"Yes"),)),
        ({"action": "rewrite subject", "subject": "*** SPAM *** x"}, (c.ChangeHeader(b"Subject", 1, b"*** SPAM *** x"),)),
        ({"action": "quarantine"}, (c.Hold("rspamd: quarantine"),)),
        ({"action": "discard"}, (c.Discard("rspamd discard 0.00/0.00"),)),
        (
            {"action": "no action", "milter": {"remove_headers": {"X-Old": 0}}},
            (c.ChangeHeader(b"X-Old", 2, None), c.ChangeHeader(b"X-Old", 1, None)),
        ),
        ({"action": "no action", "milter": {"remove_headers": {"X-Old": 1}}}, (c.ChangeHeader(b"X-Old", 1, None),)),
        ({"action": "no action", "milter": {"remove_headers": {"X-Old": -1}}}, (c.ChangeHeader(b"X-Old", 2, None),)),
        ({"action": "no action", "milter": {"remove_headers": {"X-None": 0, "X-Old": 7}}}, ()),
        (
            {"action": "no action", "milter": {"add_headers": {"X-A": "1", "X-B": {"value": "2", "order": 0}}}},
            (c.AddHeader(b"X-A", b"1"), c.InsertHeader(0, b"X-B", b"2")),
        ),
        (
            {"action": "no action", "milter": {"add_headers": {"X-A": [{"value": "1", "order": 3}, {"value": "a\nb"}]}}},
            (c.InsertHeader(2, b"X-A", b"1"), c.AddHeader(b"X-A", b"a\r\n\tb")),
        ),
        (
            {"action": "no action", "dkim-signature": "v=1; a=rsa-sha256;\r\n\tb=x"},
            (c.InsertHeader(0, b"DKIM-Signature", b"v=1; a=rsa-sha256;\r\n\tb=x"),),
        ),
    ],
)
def test_changes(answer, changes):
    verdict = verdict_of(answer)
    assert (() if verdict is None else verdict.changes) == changes


def test_note_says_score_and_symbols():
    verdict = verdict_of(
        {"action": "add header", "score": 7.5, "required_score": 15, "symbols": {"GTUBE": {}, "EVIL\n": {}}}, spam_header=""
    )
    assert verdict is None  # nothing to change: no verdict either
    verdict = verdict_of({"action": "add header", "score": 7.5, "required_score": 15, "symbols": {"GTUBE": {}, "EVIL\n": {}}})
    assert verdict is not None
    assert verdict.note == "rspamd add header 7.50/15.00 (GTUBE)"


@pytest.mark.parametrize(
    "answer",
    [
        {"action": "dance"},
        {"action": ""},
        {"error": "no such file"},
        {"action": "no action", "milter": {"add_headers": {"X A": "1"}}},
        {"action": "no action", "milter": {"add_headers": {"X-A": 1}}},
        {"action": "no action", "milter": {"add_headers": {"X-A": {"order": 1}}}},
        {"action": "no action", "milter": {"add_headers": {"X-A": {"value": "1", "order": "x"}}}},
        {"action": "no action", "milter": {"add_headers": {"X-A": ["1"] * 300}}},
        {"action": "no action", "milter": {"remove_headers": {"X-A": "x"}}},
        {"action": "no action", "milter": []},
        {"action": ["reject"]},
        {"action": "no action", "score": "high"},
    ],
)
def test_answers_that_rspamd_does_not_give(answer):
    with pytest.raises(RspamdError):
        verdict_of(answer)


@given(st.binary(max_size=100))
def test_any_octets_are_read_or_refused(octets):
    with pytest.raises(RspamdError):
        parse_answer(octets)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)


@given(JSON, JSON)
def test_any_json_is_carried_out_or_refused(added, removed):
    answer = {"action": "no action", "milter": {"add_headers": added, "remove_headers": removed}}
    try:
        verdict_of(answer)
    except RspamdError:
        pass


GARBAGE = [
    b"garbage\r\n\r\n",
    b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 Ok\r\nContent-Length: 7\r\n\r\ngarbage",
    b"HTTP/1.1 200 Ok\r\nContent-Length: 100\r\n\r\n{}",
    b"HTTP/1.1 200 Ok\r\nContent-Length: 9999999\r\n\r\n" + b"x" * 5_000_000,
]


@pytest.mark.parametrize("octets", GARBAGE)
def test_garbage_is_an_error(octets):
    scanner = Scanner()
    scanner.raw = octets

    async def scene(check: RspamdCheck) -> None:
        with pytest.raises((HttpError, RspamdError)):
            await ask(check, make_question("body"))
        scanner.raw = ""
        assert await ask(check, make_question("body")) is None

    play(scanner, scene)
    assert scanner.connections == 2


def test_rspamd_that_leaves_midway():
    scanner = Scanner()
    scanner.raw = None

    async def scene(check: RspamdCheck) -> None:
        with pytest.raises(ConnectionError):
            await ask(check, make_question("body"))

    play(scanner, scene)


def test_rspamd_that_is_away():
    async def run() -> None:
        async with Scanner() as scanner:
            address = scanner.address
        with pytest.raises(ConnectionRefusedError):
            await ask(make_check(RspamdCheck, address=address), make_question("body"))

    asyncio.run(run())


def test_cancelled_question_leaves_no_connection_behind():
    scanner = Scanner()
    scanner.raw = "hang"

    async def scene(check: RspamdCheck) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await ask(check, make_question("body"))
        scanner.raw = ""
        assert await ask(check, make_question("body")) is None

    play(scanner, scene)
    assert scanner.connections == 2
