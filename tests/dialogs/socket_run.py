"""Real sockets as a dialog's way: to a connection on a loop in this process, or to a running `smtpd serve`."""

from __future__ import annotations

import contextlib
import functools
import re
import socket
import ssl
import time

import trustme
from dialogs.dialog import Dialog, split_replies
from dialogs.run import Mail, Server
from dialogs.session_run import limits_of, rules_of
from gateway import Gateway

from smtpd.errors import SpoolError, SpoolFullError
from smtpd.log.maillog import MailLog
from smtpd.metrics.slab import LOOP, CellIndex, Slabs
from smtpd.net.loop import Loop
from smtpd.net.tls.server import ServerTls
from smtpd.proto.dialogue import Peer
from smtpd.proto.trace import DateText
from smtpd.settings import LogSettings
from smtpd.spool.item import SpoolItem
from smtpd.worker.account import ListenerAccount
from smtpd.worker.connection import Connection
from smtpd.worker.service import Service

GIVE_UP_S = 30.0
VIOLATIONS = ("pipelining", "bare_lf", "bare_cr", "line_too_long", "forbidden_command", "nul")
_RECEIVED = re.compile(rb"\AReceived: (?:[^\r]|\r\n[ \t])*\r\n")


@functools.cache
def server_context() -> ssl.SSLContext:
    """With a certificate that nobody verifies."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("mx.example.net").configure_cert(context)
    return context


class SpoolInMemory:
    """Takes custody at once, or refuses it as the dialog's option says."""

    is_full = False
    keeps_mail = True

    def __init__(self, server: Server, option: str, wants_body: bool) -> None:
        self.server = server
        self.wants_body = wants_body
        self.option = option
        self.count = 0

    def next_queue_id(self) -> str:
        self.count += 1
        return f"QID{self.count}"

    def begin(self, queue_id, envelope):
        return WriterInMemory(self.server, queue_id, envelope, self.wants_body)

    def commit(self, writer, done) -> None:
        if self.option:
            done(None, SpoolFullError("full") if self.option == "full_at_commit" else SpoolError("broken"))
            return
        body = _RECEIVED.sub(b"", writer.body)
        assert (body != writer.body) == self.wants_body, "no Received field"
        self.server.mails.append(Mail(writer.envelope.reverse_path, [r.path for r in writer.envelope.recipients], body))
        done(SpoolItem(writer.queue_id, writer.envelope, len(writer.body), 1, None), None)


class WriterInMemory:
    on_drain = None

    def __init__(self, server, queue_id, envelope, wants_body) -> None:
        self.server, self.queue_id, self.envelope, self.wants_body = server, queue_id, envelope, wants_body
        self.body = b""

    @property
    def size_bytes(self) -> int:
        return len(self.body)

    def write(self, chunk: bytes) -> bool:
        self.body += chunk
        return True

    def abort(self) -> None:
        self.server.seen.add("abort")


class ConnectionWay:
    """One connection over TCP; client and server take turns on one thread."""

    def __init__(self, dialog: Dialog, wants_body: bool = True) -> None:
        self.server: Server | None = None
        self._known = Server(is_blind_to=frozenset({"delay"}))
        index = CellIndex()
        index.prepare(listeners=["mx"])
        slabs = Slabs(index)
        self._cells = slabs.cells(slabs.take_bank(0), LOOP)
        self._violations = {kind: index.counter("smtpd_protocol_violations_total", kind=kind) for kind in VIOLATIONS}
        log = MailLog(LogSettings(destination="none"), "mx.example.net")
        account = ListenerAccount("mx", self._cells, index, log, True)
        self._loop = Loop()
        limits, rules = limits_of(dialog), rules_of(dialog)
        option = dialog.options.get("spool", "")
        spool = SpoolInMemory(self._known, "" if option == "full" else option, wants_body)
        mode = dialog.options.get("tls")
        tls = ServerTls(mode, GIVE_UP_S, (), server_context(), ()) if mode else None
        service = Service(
            self._loop, limits, spool, account, lambda peer: rules, lambda item: None, "mx.example.net", DateText(), set(),
            introduce=lambda connection, peer: None, tls=tls,
        )  # fmt: skip
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._client: socket.socket = socket.create_connection(listener.getsockname())
            ours, address = listener.accept()
        ours.setblocking(False)
        self._client.setblocking(False)
        self._is_ended = False
        self._connection = Connection(service, ours.detach(), Peer(*address[:2]))
        self._connection.start()
        self.server = self._known

    def send(self, octets: bytes) -> None:
        rest = memoryview(octets)
        give_up_at = time.monotonic() + GIVE_UP_S
        while rest and not self._is_ended and self._connection.stream.is_open:
            assert time.monotonic() < give_up_at, "the server takes nothing more"
            try:
                rest = rest[self._client.send(rest) :]
            except BlockingIOError:
                pass
            except ConnectionError:
                self._is_ended = True
            self._loop.turn(0)

    def receive(self, awaits_reply: bool) -> bytes:
        octets = b""
        give_up_at = time.monotonic() + GIVE_UP_S
        while not self._is_ended:
            self._loop.turn(0.01 if awaits_reply else 0)
            try:
                piece = self._client.recv(1 << 16)
            except (BlockingIOError, ssl.SSLWantReadError):
                if not awaits_reply or split_replies(octets)[0]:
                    break
                assert time.monotonic() < give_up_at, "no reply"
                continue
            except ConnectionError:
                piece = b""
            self._is_ended = not piece
            octets += piece
        self._known.seen.update(kind for kind, cell in self._violations.items() if self._cells.get(cell))
        return octets

    def is_ended(self) -> bool:
        give_up_at = time.monotonic() + GIVE_UP_S
        while not self._is_ended and time.monotonic() < give_up_at:
            assert not self.receive(False)
        return self._is_ended

    def act(self, kind: str) -> None:
        if kind == "DRAIN":
            self._connection.drain()
            return
        if kind == "TLS":
            self._shake()
            return
        self._client.close()
        give_up_at = time.monotonic() + GIVE_UP_S
        while self._connection.stream.is_open:
            assert time.monotonic() < give_up_at, "the server holds on"
            self._loop.turn(0.01)
        self._is_ended = True

    def _shake(self) -> None:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        client = self._client = context.wrap_socket(self._client, do_handshake_on_connect=False)
        give_up_at = time.monotonic() + GIVE_UP_S
        while True:
            try:
                client.do_handshake()
                return
            except ssl.SSLWantReadError:
                assert time.monotonic() < give_up_at, "no handshake"
                self._loop.turn(0.01)

    def count_mails(self) -> int:
        return len(self._known.mails)

    def close(self) -> None:
        self._client.close()
        self._connection.stream.destroy()
        self._loop.close()


class GatewayWay:
    """A client of `smtpd serve`; mails are counted by its metrics."""

    def __init__(self, gateway: Gateway) -> None:
        self.server: Server | None = None
        self._gateway = gateway
        self._mails_before = self._count()
        self._client = socket.create_connection((gateway.host, gateway.port), timeout=GIVE_UP_S)
        self._is_ended = False

    def _count(self) -> int:
        return int(self._gateway.metric("smtpd_messages_total", result="accepted"))

    def send(self, octets: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            self._client.sendall(octets)

    def receive(self, awaits_reply: bool) -> bytes:
        """What is not awaited is found by the next step that awaits something: only then there is nothing to wait for."""
        octets = b""
        while awaits_reply and not self._is_ended and not split_replies(octets)[0]:
            try:
                piece = self._client.recv(1 << 16)
            except ConnectionError:
                piece = b""
            self._is_ended = not piece
            octets += piece
        return octets

    def is_ended(self) -> bool:
        if not self._is_ended:
            try:
                self._is_ended = self._client.recv(1 << 16) == b""
            except ConnectionError:
                self._is_ended = True
        return self._is_ended

    def act(self, kind: str) -> None:
        raise AssertionError(f"{kind} needs a server that the test holds in its hands")

    def count_mails(self) -> int:
        return self._count() - self._mails_before

    def close(self) -> None:
        self._client.close()
