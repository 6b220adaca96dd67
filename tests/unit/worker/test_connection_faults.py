"""Faults of ours outside of a read: at the greeting, after a pause, on the timer. They end one connection and nothing else."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from smtpd import _parser as p
from smtpd.errors import SpoolError
from smtpd.mail.envelope import Envelope
from smtpd.metrics.slab import LOOP, CellIndex, Slabs
from smtpd.net.loop import Loop
from smtpd.proto import events as ev
from smtpd.proto.conduct import Conduct, Step
from smtpd.proto.dialogue import Dialogue, Peer
from smtpd.proto.rules import NoChecks, Rules
from smtpd.proto.trace import DateText
from smtpd.settings import LimitsSettings
from smtpd.spool.discard import DiscardSpool
from smtpd.spool.item import SpoolItem
from smtpd.worker.account import ListenerAccount
from smtpd.worker.connection import Connection
from smtpd.worker.service import Service

GIVE_UP_S = 20.0


class Log:
    """Keeps what it is told as errors."""

    def __init__(self) -> None:
        self.errors: list[str] = []

    def error(self, program: str, text: str) -> None:
        self.errors.append(text)

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments: None


class LateWriter:
    wants_body = True
    on_drain = None

    def __init__(self, queue_id: str, envelope: Envelope) -> None:
        self.queue_id, self.envelope = queue_id, envelope

    def write(self, chunk: bytes) -> bool:
        return True

    def abort(self) -> None:
        raise AssertionError("nobody aborts it")


class LateSpool(DiscardSpool):
    """Takes custody when the test says so."""

    keeps_mail = True

    def __init__(self) -> None:
        super().__init__(1, 0)
        self.commits: list[tuple[LateWriter, Callable[[SpoolItem | None, SpoolError | None], None]]] = []

    def begin(self, queue_id: str, envelope: Envelope) -> Any:
        return LateWriter(queue_id, envelope)

    def commit(self, writer: Any, done: Any, kept: Any = None) -> None:
        self.commits.append((writer, done))


class FailingConduct:
    """Waits at DATA and BDAT, fails at one stage."""

    def __init__(self, failing: str) -> None:
        self._failing = failing
        self.is_ended = False

    def at_stage(self, session: Dialogue, stage: str, verb: int, argument: bytes) -> Step | None:
        if stage == self._failing:
            raise RuntimeError("broken in a test")
        return Step(delay_s=0.01) if stage == ev.STAGE_DATA else None

    def begin_body(self, writer: object) -> None:
        pass

    def end(self) -> None:
        self.is_ended = True


class FailingTap:
    """Sees what is sent, and fails at some of it."""

    def __init__(self, failing: bytes) -> None:
        self._failing = failing

    def received(self, data: bytes) -> None:
        pass

    def sent(self, data: bytes) -> None:
        if self._failing in data:
            raise RuntimeError("broken in a test")

    def closed(self) -> None:
        if self._failing == b"(closed)":
            raise RuntimeError("broken in a test")


class House:
    """A loop that serves connections over socket pairs."""

    def __init__(self, conduct: Conduct | None = None, **limits: Any) -> None:
        self.loop, self.log, self.spool = Loop(), Log(), LateSpool()
        self.accepted: list[SpoolItem] = []
        self.sockets: list[socket.socket] = []
        index = CellIndex()
        index.prepare(listeners=["mx"])
        slabs = Slabs(index)
        settings = LimitsSettings(**limits)
        rules = Rules("mx.example.net", settings, NoChecks())
        self.cells = slabs.cells(slabs.take_bank(0), LOOP)
        self.index = index
        account = ListenerAccount("mx", self.cells, index, self.log, True)  # type: ignore[arg-type]
        self.left: list[int] = []
        self.service = Service(
            self.loop, settings, self.spool, account, lambda peer: rules, self.accepted.append, "mx.example.net", DateText(),
            set(), self.left.append, None if conduct is None else lambda peer: conduct,
        )  # fmt: skip

    def connect(self, tap: FailingTap | None = None) -> tuple[Connection, socket.socket]:
        client, ours = socket.socketpair()
        client.setblocking(False)
        ours.setblocking(False)
        self.sockets.append(client)
        connection = Connection(self.service, ours.detach(), Peer("192.0.2.1", 1))
        connection.tap = tap
        connection.start()
        return connection, client

    def turn_until(self, condition: Callable[[], object]) -> None:
        give_up_at = time.monotonic() + GIVE_UP_S
        while not condition():
            assert time.monotonic() < give_up_at, "it has not happened"
            self.loop.turn(0.01)

    def await_reply(self, client: socket.socket, expected: bytes) -> None:
        received = b""

        def has_come() -> bool:
            nonlocal received
            try:
                received += client.recv(1 << 16)
            except BlockingIOError:
                return False
            return expected in received

        self.turn_until(has_come)

    def begin_mail(self, client: socket.socket, content: bytes = b"BDAT 0 LAST\r\n") -> None:
        """Up to the end of the content, whose reply is left to be read."""
        self.await_reply(client, b"220 ")
        client.sendall(b"EHLO client.example\r\n")
        self.await_reply(client, b"250 ")
        client.sendall(b"MAIL FROM:<alice@example.org>\r\nRCPT TO:<bob@example.org>\r\n")
        self.await_reply(client, b"250 2.1.5")
        client.sendall(content)

    def check_one_failed(self) -> None:
        """One fault was told, with its place; what the connection held was given back."""
        (told,) = self.log.errors
        assert "RuntimeError: broken in a test" in told
        assert "test_connection_faults.py" in told
        assert len(self.left) == 1

    def close(self) -> None:
        for connection in list(self.service.connections):
            connection.stream.destroy()
        for client in self.sockets:
            client.close()
        self.loop.close()


@pytest.fixture
def house() -> Iterator[Callable[..., House]]:
    houses: list[House] = []

    def make(conduct: Conduct | None = None, **limits: Any) -> House:
        houses.append(House(conduct, **limits))
        return houses[-1]

    yield make
    for one in houses:
        one.close()


def test_conduct_that_fails_at_the_greeting_ends_its_connection_alone(house: Callable[..., House]) -> None:
    conduct = FailingConduct(ev.STAGE_CONNECT)
    h = house(conduct)
    connection, client = h.connect()
    assert not connection.stream.is_open
    assert not h.service.connections
    assert conduct.is_ended
    assert client.recv(100) == b""
    h.check_one_failed()


def test_conduct_that_fails_after_a_pause_ends_its_connection_alone(house: Callable[..., House]) -> None:
    conduct = FailingConduct(ev.STAGE_BODY)
    h = house(conduct)
    connection, client = h.connect()
    h.spool.begin = lambda queue_id, envelope: Abortable(queue_id, envelope)  # type: ignore[method-assign]
    h.begin_mail(client)
    h.turn_until(lambda: not connection.stream.is_open)
    assert h.spool.commits == []
    assert conduct.is_ended
    h.check_one_failed()


class Abortable(LateWriter):
    def abort(self) -> None:
        pass


def test_fault_at_the_reply_to_a_mail_in_custody_does_not_stop_the_mail(house: Callable[..., House]) -> None:
    h = house()
    connection, client = h.connect(FailingTap(b"queued as"))
    _, other = h.connect()
    h.begin_mail(client)
    h.turn_until(lambda: h.spool.commits)
    writer, done = h.spool.commits[0]
    item = SpoolItem(writer.queue_id, writer.envelope, 1, 1, None)
    done(item, None)
    assert h.accepted == [item]
    assert not connection.stream.is_open
    h.check_one_failed()
    h.begin_mail(other)
    h.turn_until(lambda: len(h.spool.commits) == 2)


def test_a_descriptor_that_cannot_be_watched_ends_its_connection_alone(house: Callable[..., House], tmp_path: Path) -> None:
    """As when epoll has no room left (ENOSPC, ENOMEM); of a plain file it says EPERM."""
    h = house()
    other, client = h.connect()
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT, 0o600)
    connection = Connection(h.service, fd, Peer("192.0.2.1", 1))
    connection.start()
    assert not connection.stream.is_open
    assert ["epoll_ctl failed" in text for text in h.log.errors] == [True]
    assert len(h.left) == 1
    h.await_reply(client, b"220 ")
    assert other.stream.is_open


def test_fault_on_the_timer_ends_its_connection_alone(house: Callable[..., House]) -> None:
    h = house(command_timeout=0.02)
    connection, _ = h.connect(FailingTap(b"421 4.4.2"))
    h.turn_until(lambda: not connection.stream.is_open)
    h.check_one_failed()


@pytest.mark.parametrize("how", ["drain", "stop"])
def test_fault_while_the_worker_ends_keeps_no_other_session_from_its_end(house: Callable[..., House], how: str) -> None:
    h = house()
    broken, _ = h.connect(FailingTap(b"421 4.3.2"))
    other, client = h.connect()
    for connection in (broken, other):
        getattr(connection, how)()
    assert not broken.stream.is_open
    h.check_one_failed()
    h.await_reply(client, b"421 4.3.2")


def test_fault_at_the_end_of_a_connection_is_told_and_the_rest_of_the_end_is_done(house: Callable[..., House]) -> None:
    conduct = FailingConduct("")
    h = house(conduct)
    connection, client = h.connect(FailingTap(b"(closed)"))
    _, other = h.connect()
    client.close()
    h.turn_until(lambda: not connection.stream.is_open)
    assert conduct.is_ended
    assert len(h.service.connections) == 1
    h.check_one_failed()
    h.await_reply(other, b"220 ")


def test_replies_of_more_kinds_than_the_account_remembers_are_counted_all_the_same(house: Callable[..., House]) -> None:
    """A scenario of a sink may answer each command by any code."""
    h = house()
    connection, client = h.connect()
    codes = range(400, 600)
    for verb in (p.VERB_NOOP, p.VERB_RSET):
        for code in codes:
            connection.session.tally.add(verb * 1000 + code)
    client.close()
    h.turn_until(lambda: not connection.stream.is_open)
    assert h.log.errors == []
    commands = [h.index.counter("smtpd_commands_total", command=name) for name in ("noop", "rset")]
    assert [h.cells.get(cell) for cell in commands] == [len(codes), len(codes)]
