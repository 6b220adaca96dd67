"""Filters of a real gateway: what they change is stored, what they refuse is refused, and what happens when they fail."""

from __future__ import annotations

import asyncio
import smtplib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filter_rig import Peer
from gateway import Gateway, free_port, running_gateway, wait_until
from kilter.protocol import messages as km
from milter_rig import Milter, backstage, running_milter

MAIL = b"Subject: x\r\nX-Old: gone\r\nTo: bob@example.org\r\n\r\nHello\r\n"
NO_ANSWERS = 0x80 | 0xFF000  # of the milter protocol: whatever comes before the end of the mail
HELD = "the filter holds it"


def policy(*checks: dict[str, Any]) -> dict[str, Any]:
    return {"workers": 1, "policy": {"check": list(checks)}}


def client(gateway: Gateway, address: str = "127.0.0.1") -> smtplib.SMTP:
    return smtplib.SMTP(gateway.host, gateway.port, "client.example.org", timeout=60, source_address=(address, 0))


def send(gateway: Gateway, *recipients: str, content: bytes = MAIL, address: str = "127.0.0.1") -> tuple[int, bytes]:
    """Send a mail as far as it gets; the last reply before QUIT."""
    with client(gateway, address) as smtp:
        smtp.ehlo()
        reply = smtp.mail("alice@example.net")
        for recipient in recipients:
            if reply[0] == 250:
                reply = smtp.rcpt(recipient)
        if reply[0] == 250:
            reply = smtp.docmd("DATA")
        if reply[0] == 354:
            smtp.send(content + b".\r\n")
            reply = smtp.getreply()
        return reply


def test_milters_change_a_mail_one_after_another(tmp_path: Path) -> None:
    first, second = Milter(steps=NO_ANSWERS), Milter()
    first.answers[km.EndOfMessage] = [
        km.AddHeader("X-First", b"1"),
        km.ChangeHeader(1, "X-Old", b""),
        km.InsertHeader(1, "X-Top", b"top\n\tfolded"),
        km.ReplaceBody(b"new "),
        km.ReplaceBody(b"body\r\n"),
        km.Continue(),
    ]
    second.answers[km.EndOfMessage] = [
        km.ChangeHeader(1, "Subject", b"changed"),
        km.ChangeSender("<eve@example.net>"),
        km.AddRecipient("<carol@example.org>"),
        km.RemoveRecipient("<bob@example.org>"),
        km.Accept(),
    ]
    with running_milter(first), running_milter(second, path=str(tmp_path / "second.sock")):
        checks = policy(
            {"name": "milter", "label": "one", "address": f"inet:{first.address}"},
            {"name": "milter", "label": "two", "address": f"unix:{tmp_path}/second.sock"},
        )
        with running_gateway(tmp_path / "gateway", checks) as gateway:
            code, text = send(gateway, "bob@example.org", "dave@example.org")
            assert code == 250, text
            (mail,) = gateway.await_mails("carol")
            gateway.await_mails("dave")
            assert not gateway.mail_paths("bob")
    head, _, body = mail.partition(b"\n\n")
    assert body == b"new body\n"
    lines = head.split(b"\n")
    assert lines[0] == b"Return-Path: <eve@example.net>"
    top = lines.index(b"X-Top: top")
    assert lines[top + 1] == b"\tfolded"
    assert lines[top + 2].startswith(b"Received: ")
    assert lines[-3:] == [b"Subject: changed", b"To: bob@example.org", b"X-First: 1"]
    assert b"X-Old" not in head
    told = [(message.name, bytes(message.value)) for message in second.of(km.Header)]
    assert told == [("X-Top", b"top\n\tfolded"), ("Subject", b"x"), ("To", b"bob@example.org"), ("X-First", b"1")]
    assert b"".join(bytes(message.content) for message in second.of(km.Body)) == b"new body\r\n"
    assert not any(message.name == "Received" for message in first.of(km.Header))
    (queue_id,) = {macro.macros["i"] for macro in first.of(km.Macro) if chr(macro.stage) == "E"}
    assert queue_id.encode() in text


def test_milter_refuses_live_and_holds(tmp_path: Path) -> None:
    milter = Milter(steps=0x400)
    milter.answers[km.EnvelopeRecipient] = lambda message: (
        [km.ReplyCode(b"550-5.1.1 Nobody\r\n550 5.1.1 here\0")] if b"nobody" in bytes(message.recipient) else [km.Continue()]
    )
    milter.answers[km.Body] = [km.Skip()]
    milter.answers[km.EndOfMessage] = [km.Quarantine(HELD), km.Continue()]
    big = MAIL + b"0123456789abcdef\r\n" * 30_000  # through a spill file
    with running_milter(milter), running_gateway(tmp_path, policy({"name": "milter", "address": milter.address})) as gateway:
        with client(gateway) as smtp:
            smtp.ehlo()
            smtp.mail("alice@example.net")
            assert smtp.rcpt("nobody@example.org") == (550, b"5.1.1 Nobody\n5.1.1 here")
            assert smtp.rcpt("bob@example.org")[0] == 250
            assert smtp.data(big)[0] == 250
            milter.answers[km.EndOfMessage] = [km.Discard()]
            assert smtp.sendmail("alice@example.net", ["bob@example.org"], MAIL) == {}
            milter.answers[km.EndOfMessage] = [km.ReplyCode(b"421 4.3.2 Going down\0")]
            smtp.mail("alice@example.net")
            smtp.rcpt("bob@example.org")
            assert smtp.data(MAIL)[0] == 421
        (held,) = wait_until("the mail is held", gateway.queue, 20)
        assert held.queue_name == "hold"
        wait_until("the log says why", lambda: HELD in gateway.log_text(20000), 20)
        assert not gateway.mail_paths("bob")
        assert gateway.metric("smtpd_rejections_total", stage="rcpt", reason="milter") == 1
    assert milter.connections == 1
    assert len(milter.of(km.Body)) == 2 + 1  # one piece of each mail, whatever its size


# --- failures ------------------------------------------------------------------------------------------------------------


class Failing(Peer):
    """A peer that says `octets` once it has heard a line or a packet, then closes, or with "hang" says nothing more."""

    def __init__(self, octets: bytes, *, hangs: bool = False) -> None:
        super().__init__(self._fail)
        self._octets = octets
        self._hangs = hangs

    async def _fail(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(self._octets)
        await writer.drain()
        if self._hangs:
            await asyncio.Event().wait()
        writer.close()
        await writer.wait_closed()


ON_ERROR = {"tempfail": (451, b"4.7.1"), "accept": (250, b"2.0.0"), "reject": (550, b"5.7.1")}
FAILURES: dict[str, dict[str, Failing | None]] = {
    "milter": {
        "down": None,
        "hangs": Failing(b"", hangs=True),
        "garbage": Failing(b"HTTP/1.1 400 Bad Request\r\n\r\n", hangs=True),
        "midway": Failing(b"\0\0\0\x0dO\0\0\0\6\0\0\1\xff\0\0\0\0\0\0"),  # agrees, says half of a length, and is gone
    },
    "policy_service": {
        "down": None,
        "hangs": Failing(b"", hangs=True),
        "garbage": Failing(b"220 mail.example.org ESMTP\r\n\n\n", hangs=True),
        "midway": Failing(b"action=DUN"),
    },
    "rspamd": {
        "down": None,
        "hangs": Failing(b"", hangs=True),
        "garbage": Failing(b"\0\1\2\3\r\n\r\n", hangs=True),
        "midway": Failing(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"),
    },
}


@pytest.mark.parametrize("name", FAILURES)
def test_filter_that_fails_is_its_on_error(tmp_path: Path, name: str) -> None:
    """Each failure with each `on_error`, told apart by the client's address."""
    with backstage() as run:
        checks, cases = [], []
        for way, peer in FAILURES[name].items():
            if peer is not None:
                run(peer.__aenter__())
            for on_error in ON_ERROR:
                address = f"127.0.7.{len(cases) + 1}"
                nobody = f"127.0.0.1:{free_port('127.0.0.1')}"
                own = {"name": name, "label": f"{way}-{on_error}", "on_error": on_error, "networks": [address]}
                own |= {"connect_timeout": "200 ms"} if name == "milter" and way == "hangs" else {"timeout": "300 ms"}
                checks.append({**own, "address": nobody if peer is None else peer.address})
                cases.append((way, on_error, address))
        with running_gateway(tmp_path, policy(*checks)) as gateway:
            for way, on_error, address in cases:
                code, text = send(gateway, "bob@example.org", address=address)
                assert (code, text[:5]) == ON_ERROR[on_error], (way, on_error)
                result = "timeout" if way == "hangs" else "error"
                counted = gateway.metric("smtpd_policy_checks_total", check=f"{way}-{on_error}", result=result)
                assert counted >= 1, (way, on_error)
            gateway.await_mails("bob", count=len(FAILURES[name]))
        for peer in FAILURES[name].values():
            if peer is not None:
                run(peer.__aexit__())


# --- many at once --------------------------------------------------------------------------------------------------------

IN_FLIGHT = 200


class Gate:
    """Where peers wait: `count` have come, and all go on when it is opened."""

    def __init__(self) -> None:
        self.count = 0
        self._is_open = asyncio.Event()

    async def wait(self) -> None:
        self.count += 1
        await self._is_open.wait()

    async def open(self) -> None:
        self._is_open.set()


class WaitingMilter(Milter):
    """Answers the end of a mail when the gate is open."""

    def __init__(self, gate: Gate) -> None:
        super().__init__(steps=NO_ANSWERS)
        self._gate = gate

    async def _answer(self, protocol: Any, message: km.Message, writer: asyncio.StreamWriter) -> bool:
        if isinstance(message, km.EndOfMessage):
            await self._gate.wait()
        return await super()._answer(protocol, message, writer)


def waiting_peer(gate: Gate, end: bytes, answer: bytes) -> Peer:
    """Answers what ends with `end` when the gate is open."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(end)
        await gate.wait()
        writer.write(answer)
        await writer.drain()

    return Peer(serve)


def make_waiting(name: str, gate: Gate) -> tuple[Any, Any, Callable[[], str]]:
    """Start, stop and address of a peer that waits."""
    if name == "milter":
        milter = WaitingMilter(gate)
        return milter.start, milter.stop, lambda: milter.address
    if name == "rspamd":
        text = b'{"action": "no action"}'
        peer = waiting_peer(gate, b"Hello\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text) + text)
    else:
        peer = waiting_peer(gate, b"\n\n", b"action=DUNNO\n\n")
    return peer.__aenter__, peer.__aexit__, lambda: peer.address


@pytest.fixture
def sockets() -> Iterator[list[socket.socket]]:
    opened: list[socket.socket] = []
    yield opened
    for sock in opened:
        sock.close()


@pytest.mark.parametrize(
    "name", ["milter", pytest.param("rspamd", marks=pytest.mark.full), pytest.param("policy_service", marks=pytest.mark.full)]
)
def test_two_hundred_wait_for_a_filter_and_others_are_served(tmp_path: Path, name: str, sockets: list[socket.socket]) -> None:
    gate = Gate()
    start, stop, address = make_waiting(name, gate)
    with backstage() as run:
        run(start())
        check = {"name": name, "address": address(), "timeout": "100 s", "except_networks": ["127.0.7.7"]}
        check |= {"at": ["body"]} if name == "policy_service" else {}
        overrides = {**policy(check), "limits": {"connections_per_client": 0}}
        with running_gateway(tmp_path, overrides) as gateway:
            for _ in range(IN_FLIGHT):
                sock = socket.create_connection((gateway.host, gateway.port), 60)
                sockets.append(sock)
                dialogue(sock, b"EHLO client.example.org\r\n", 1)
                dialogue(sock, b"MAIL FROM:<alice@example.net>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\n", 3)
                sock.sendall(MAIL + b".\r\n")
            wait_until(f"{IN_FLIGHT} wait", lambda: gate.count == IN_FLIGHT, 60)
            assert send(gateway, "carol@example.org", address="127.0.7.7")[0] == 250
            gateway.await_mails("carol")
            assert gate.count == IN_FLIGHT
            run(gate.open())
            for sock in sockets:
                assert sock.recv(1000).startswith(b"250 2.0.0 Ok: queued")
            gateway.await_mails("bob", count=IN_FLIGHT)
        run(stop())


def dialogue(sock: socket.socket, commands: bytes, replies: int) -> None:
    """Say commands and read as many good replies; the greeting may stand before them."""
    with sock.makefile("rb") as file:
        if commands.startswith(b"EHLO"):
            assert file.readline().startswith(b"220 ")
        sock.sendall(commands)
        for _ in range(replies):
            while (line := file.readline())[3:4] == b"-":
                pass
            assert line[:1] in (b"2", b"3"), line
