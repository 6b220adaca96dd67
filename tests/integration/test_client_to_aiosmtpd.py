"""The client session over a socket to another implementation's server: SMTP and LMTP, pipelined or not, refusals within."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiosmtpd.controller import UnixSocketController
from aiosmtpd.lmtp import LMTP
from aiosmtpd.smtp import SMTP
from client_rig import BODY, mail_to

from smtpd.mail.outcome import DELIVERED, UNDELIVERABLE
from smtpd.proto.client import events as ev
from smtpd.proto.client.rules import ClientRules
from smtpd.proto.client.session import ClientSession

TIMEOUT_S = 20.0


class Handler:
    """Takes all mail but that for `unknown@`."""

    def __init__(self) -> None:
        self.mails: list[tuple[list[str], bytes]] = []

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("unknown@"):
            return "550 5.1.1 No such user here"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server, session, envelope):
        self.mails.append((envelope.rcpt_tos, envelope.original_content))
        return "250 2.0.0 Taken"


class LmtpHandler(Handler):
    async def handle_DATA(self, server, session, envelope):
        self.mails.append((envelope.rcpt_tos, envelope.original_content))
        return "\r\n".join("250 2.1.5 Taken" if "full" not in path else "552 5.2.2 Full" for path in envelope.rcpt_tos)


class Server(UnixSocketController):
    is_lmtp = False

    def factory(self) -> SMTP:
        return (LMTP if self.is_lmtp else SMTP)(self.handler, hostname="mx.example.net", enable_SMTPUTF8=True)


class LmtpServer(Server):
    is_lmtp = True


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    yield from run(Server(Handler(), tmp_path / "socket"))


@pytest.fixture
def lmtp_server(tmp_path: Path) -> Iterator[Server]:
    yield from run(LmtpServer(LmtpHandler(), tmp_path / "socket"))


def run(server: Server) -> Iterator[Server]:
    server.start()
    try:
        yield server
    finally:
        server.stop()


class Driver:
    """A blocking one."""

    def __init__(self, server: Server, **rules: object) -> None:
        self.session = ClientSession(ClientRules(b"out.example.org", **rules))  # type: ignore[arg-type]
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(TIMEOUT_S)
        self.socket.connect(server.unix_socket)
        self.wait_for(ev.READY)

    def wait_for(self, kind: int) -> None:
        while True:
            if output := self.session.take_output():
                self.socket.sendall(output)
            while event := self.session.next_event():
                if event.kind == kind:
                    return
                assert event.kind != ev.CLOSED, event
            octets = self.socket.recv(65536)
            assert octets, "connection was closed"
            self.session.receive(bytearray(octets), 0, len(octets))

    def end(self) -> None:
        self.session.quit()
        self.wait_for(ev.CLOSED)
        self.socket.close()


@pytest.mark.parametrize("uses_pipelining", [True, False])
def test_mails_are_taken(server, uses_pipelining):
    driver = Driver(server, uses_pipelining=uses_pipelining)
    mails = [mail_to(b"b@example.net", b"unknown@example.net"), mail_to(b"unknown@example.net"), mail_to(smtputf8=True)]
    driver.session.send(mails[0])
    driver.wait_for(ev.DONE)
    driver.session.send(mails[1])
    driver.wait_for(ev.DONE)
    driver.wait_for(ev.READY)  # after RSET
    driver.session.send(mails[2])
    driver.wait_for(ev.DONE)
    driver.end()
    assert [[outcome.status for outcome in mail.outcomes] for mail in mails] == [
        [DELIVERED, UNDELIVERABLE], [UNDELIVERABLE], [DELIVERED]
    ]  # fmt: skip
    assert [(o.code, o.dsn, o.text) for o in mails[0].outcomes] == [
        (250, "2.0.0", "Taken"), (550, "5.1.1", "No such user here")
    ]  # fmt: skip
    assert server.handler.mails == [(["b@example.net"], BODY)] * 2


def test_lmtp_mails_are_taken(lmtp_server):
    driver = Driver(lmtp_server, is_lmtp=True)
    mail = mail_to(b"b@example.net", b"unknown@example.net", b"full@example.net", b"c@example.net", body=None)
    driver.session.send(mail)
    driver.wait_for(ev.WANTS_BODY)
    for start in range(0, len(BODY), 7):
        driver.session.feed(BODY[start : start + 7], start + 7 >= len(BODY))
    driver.wait_for(ev.DONE)
    driver.end()
    assert [outcome.status for outcome in mail.outcomes] == [DELIVERED, UNDELIVERABLE, UNDELIVERABLE, DELIVERED]
    assert [outcome.dsn for outcome in mail.outcomes] == ["2.1.5", "5.1.1", "5.2.2", "2.1.5"]
    assert lmtp_server.handler.mails == [(["b@example.net", "full@example.net", "c@example.net"], BODY)]
