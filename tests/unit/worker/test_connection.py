"""A connection over a real socket with a spool that answers when the test says so."""

import socket
import time

import pytest

from smtpd.errors import ShardBrokenError, SpoolFullError
from smtpd.metrics.slab import LOOP, CellIndex, Slabs
from smtpd.net.loop import Loop
from smtpd.proto.dialogue import Peer
from smtpd.proto.rules import NoChecks, Rules
from smtpd.proto.trace import DateText
from smtpd.settings import LimitsSettings
from smtpd.spool.item import SpoolItem
from smtpd.worker.account import ListenerAccount
from smtpd.worker.connection import Connection
from smtpd.worker.service import Service

MAIL = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n"


class Log:
    """Writes down what it is told."""

    def __init__(self):
        self.told = []

    def __getattr__(self, name):
        return lambda *args: self.told.append((name, *args))


class Writer:
    wants_body = True
    on_drain = None

    def __init__(self, queue_id, envelope):
        self.queue_id, self.envelope = queue_id, envelope
        self.chunks = []
        self.takes = True
        self.is_aborted = False

    def write(self, chunk):
        self.chunks.append(chunk)
        return self.takes

    def abort(self):
        self.is_aborted = True


class Spool:
    is_full = False
    keeps_mail = True

    def __init__(self):
        self.writers, self.commits, self.settled = [], [], []

    def next_queue_id(self):
        return f"ID{len(self.writers)}"

    def begin(self, queue_id, envelope):
        self.writers.append(Writer(queue_id, envelope))
        return self.writers[-1]

    def commit(self, writer, done):
        self.commits.append((writer, done))

    def settle(self, item, outcomes, due_s, is_held, done):
        self.settled.append(item)
        done(None)


class Rig:
    def __init__(self, stress_timeout=10.0, **limits):
        self.loop = Loop()
        self.spool, self.log, self.accepted = Spool(), Log(), []
        index = CellIndex()
        index.prepare(listeners=["mx"])
        slabs = Slabs(index)
        self.cells = slabs.cells(slabs.take_bank(0), LOOP)
        self.index = index
        account = ListenerAccount("mx", self.cells, index, self.log, True)
        settings = LimitsSettings(**limits)
        rules = Rules("mx.example.net", settings, NoChecks())
        self.service = Service(
            self.loop,
            settings,
            self.spool,
            account,
            lambda peer: rules,
            self.accepted.append,
            "mx.example.net",
            DateText(),
            set(),
            stress_timeout=stress_timeout,
        )
        server = socket.create_server(("127.0.0.1", 0))
        self.client = socket.create_connection(server.getsockname())
        ours, address = server.accept()
        server.close()
        ours.setblocking(False)
        self.client.setblocking(False)
        self.connection = Connection(self.service, ours.detach(), Peer(*address[:2]))
        self.connection.start()
        self.received = b""

    def turn(self, count=5):
        for _ in range(count):
            self.loop.turn(0.01)
        try:
            self.received += self.client.recv(1 << 16)
        except BlockingIOError:
            pass

    def turn_until_received(self, expected, trickle=b""):
        """Turn, sending `trickle` in each, until `expected` came."""
        give_up_at = time.monotonic() + 20
        while expected not in self.received:
            assert time.monotonic() < give_up_at, f"{expected!r} is not in {self.received!r}"
            if trickle:
                self.client.send(trickle)
            self.turn(1)

    def turn_until(self, condition):
        give_up_at = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < give_up_at, f"it has not happened; received: {self.received!r}"
            self.loop.turn(0.01)

    def say(self, octets, expected):
        """Send, and turn until `expected` came; return all that came."""
        self.received = b""
        self.client.sendall(octets)
        self.turn_until_received(expected)
        return self.received

    def send_mail(self, body=b"Subject: x\r\n\r\nhello\r\n"):
        """Up to the final dot; the spool is asked and has not answered."""
        self.say(b"EHLO client.example\r\n", b"250 ")
        self.say(MAIL, b"354")
        asked = len(self.spool.commits)
        self.client.sendall(body + b".\r\n")
        self.turn_until(lambda: len(self.spool.commits) > asked)
        return self.spool.commits[-1]

    def close(self):
        self.client.close()
        self.connection.stream.destroy()
        self.loop.close()


@pytest.fixture
def rig():
    rigs = []

    def make(**limits):
        rigs.append(Rig(**limits))
        rigs[-1].turn()
        return rigs[-1]

    yield make
    for one in rigs:
        one.close()


def item_of(writer):
    return SpoolItem(writer.queue_id, writer.envelope, 1, 1, None)


def test_250_comes_after_the_commit_and_not_before(rig):
    r = rig()
    writer, done = r.send_mail()
    r.received = b""
    r.turn()
    assert r.received == b""
    done(item_of(writer), None)
    r.turn_until_received(b"\n")
    assert r.received == b"250 2.0.0 Ok: queued as ID0\r\n"
    assert [item.queue_id for item in r.accepted] == ["ID0"]


def test_body_has_one_received_field_and_then_the_content(rig):
    r = rig()
    writer, _ = r.send_mail(b"Message-ID: <1@example.com>\r\n\r\n..dot\r\n")
    whole = b"".join(writer.chunks)
    assert whole.startswith(
        b"Received: from client.example (unknown [127.0.0.1])\r\n\tby mx.example.net (smtpd) with ESMTP id ID0\r\n"
    )
    assert whole.endswith(b"\r\nMessage-ID: <1@example.com>\r\n\r\n.dot\r\n")
    assert whole.count(b"Received:") == 1


@pytest.mark.parametrize(
    ("error", "reply"),
    [(SpoolFullError("full"), b"452 4.3.1"), (ShardBrokenError("broken"), b"451 4.3.0")],
)
def test_failed_commit_is_a_temporary_failure_and_nothing_is_passed_on(rig, error, reply):
    r = rig()
    _, done = r.send_mail()
    done(None, error)
    r.turn_until_received(reply)
    assert r.accepted == []
    assert r.say(MAIL, b"354")  # the session goes on, with a new transaction


def test_half_closed_client_still_gets_its_reply_and_its_mail_is_kept(rig):
    r = rig()
    writer, done = r.send_mail()
    r.client.shutdown(socket.SHUT_WR)
    r.received = b""
    r.turn()
    done(item_of(writer), None)
    r.turn_until_received(b"250 2.0.0")
    assert len(r.accepted) == 1


def test_client_gone_during_the_body_leaves_nothing(rig):
    r = rig()
    r.say(b"EHLO client.example\r\n", b"250 ")
    r.say(MAIL, b"354")
    r.client.sendall(b"half a mail\r\n")
    r.turn()
    r.client.close()
    r.turn_until(lambda: not r.service.connections)
    assert r.spool.writers[0].is_aborted
    assert r.spool.commits == []


def test_client_gone_after_the_commit_began_keeps_the_mail(rig):
    r = rig()
    writer, done = r.send_mail()
    r.connection.stream.destroy()
    done(item_of(writer), None)
    assert [item.queue_id for item in r.accepted] == ["ID0"]


def test_commit_that_takes_too_long_is_451_and_a_late_success_is_taken_back(rig):
    r = rig(end_of_data_timeout=0.05)
    writer, done = r.send_mail()
    r.turn_until_received(b"451 4.3.0")
    done(item_of(writer), None)
    assert r.accepted == []
    assert [item.queue_id for item in r.spool.settled] == ["ID0"]


def test_spool_that_is_behind_stops_the_reading(rig):
    r = rig()
    r.say(b"EHLO client.example\r\n", b"250 ")
    r.say(MAIL, b"354")
    writer = r.spool.writers[0]
    writer.takes = False
    r.client.sendall(b"first\r\n")
    r.turn_until(lambda: b"first\r\n" in b"".join(writer.chunks))
    before = len(writer.chunks)
    r.client.sendall(b"second\r\n")
    r.turn()
    assert len(writer.chunks) == before
    writer.takes = True
    writer.on_drain()
    r.turn_until(lambda: b"".join(writer.chunks).endswith(b"first\r\nsecond\r\n"))


def test_commands_behind_the_final_dot_wait_for_the_commit(rig):
    r = rig()
    r.say(b"EHLO client.example\r\n", b"250 ")
    r.say(MAIL, b"354")
    r.received = b""
    r.client.sendall(b"x\r\n.\r\nNOOP\r\nQUIT\r\n")
    r.turn()
    assert r.received == b""
    r.turn_until(lambda: r.spool.commits)
    writer, done = r.spool.commits[0]
    done(item_of(writer), None)
    r.turn_until_received(b"221")
    assert [line[:3] for line in r.received.splitlines()] == [b"250", b"250", b"221"]


def test_idle_client_gets_421_and_the_connection_ends(rig):
    r = rig(command_timeout=0.05)
    r.turn_until_received(b"421 4.4.2")
    assert ("timeout", "CONNECT", r.connection.client) in r.log.told


def test_command_that_trickles_has_a_deadline(rig):
    r = rig(command_deadline=0.08, command_timeout=10)
    r.turn_until_received(b"421 4.4.2", trickle=b"x")


def test_silence_within_a_mail_has_a_limit_of_its_own(rig):
    r = rig(data_timeout=0.08, command_timeout=10)
    r.say(b"EHLO client.example\r\n", b"250 ")
    r.say(MAIL, b"354")
    r.turn_until_received(b"421 4.4.2")
    assert r.spool.writers[0].is_aborted


def test_under_stress_open_idle_sessions_are_looked_at_now_and_end_sooner(rig):
    r = rig(command_timeout=3600)
    r.service.set_stress(True)  # ten seconds, which have not passed yet
    r.connection.hurry()
    assert r.connection.stream.is_open
    r.service.set_stress(False)
    r.connection.hurry()
    hurried = Rig(command_timeout=3600, stress_timeout=0.05)
    hurried.turn()
    assert hurried.service.timer_period_s > 20
    hurried.service.set_stress(True)
    hurried.connection.hurry()
    hurried.turn_until_received(b"421 4.4.2")
    hurried.close()
    assert r.connection.stream.is_open


def test_a_mail_has_so_long_and_a_second_more_for_each_so_many_octets(rig):
    r = rig(mail_deadline=0.2, minimum_data_rate=100_000_000)  # no trickle is as quick
    r.service.set_stress(True)
    r.connection.hurry()
    r.say(b"EHLO client.example\r\n", b"250 ")
    r.say(MAIL, b"354")
    r.client.sendall(b"x" * 70 + b"\r\n")
    r.turn_until_received(b"421 4.4.2", trickle=b"y")
    assert r.spool.writers[0].is_aborted


def test_octets_that_came_earn_a_mail_its_time_and_the_next_mail_begins_anew(rig):
    r = rig(mail_deadline=0.1, minimum_data_rate=1000)
    r.service.set_stress(True)
    r.connection.hurry()
    r.say(b"EHLO client.example\r\n", b"250 ")
    for _ in range(3):
        r.say(MAIL, b"354")
        r.client.sendall((b"x" * 70 + b"\r\n") * 1000)  # good for 72 s
        give_up_at = time.monotonic() + 0.3
        while time.monotonic() < give_up_at:
            r.loop.turn(0.05)
        asked = len(r.spool.commits)
        r.client.sendall(b".\r\n")
        r.turn_until(lambda asked=asked: len(r.spool.commits) > asked)
        writer, done = r.spool.commits[-1]
        done(item_of(writer), None)
        r.turn_until_received(b"250 2.0.0")


def test_without_stress_a_slow_mail_is_waited_for(rig):
    r = rig(mail_deadline=0.01)
    assert r.service.mail_deadline == 0


def test_draining_finishes_the_transaction_then_says_421(rig):
    r = rig()
    writer, done = r.send_mail()
    r.connection.drain()
    r.received = b""
    r.turn()
    assert r.received == b""
    done(item_of(writer), None)
    r.turn_until_received(b"421")
    assert [line[:3] for line in r.received.splitlines()] == [b"250", b"421"]
    assert len(r.accepted) == 1


def test_drain_between_transactions_is_421_at_once(rig):
    r = rig()
    r.say(b"EHLO client.example\r\n", b"250 ")
    r.connection.drain()
    r.received = b""
    r.turn_until_received(b"421 4.3.2")


def test_soft_errors_delay_replies_and_hard_errors_end_it(rig):
    r = rig(soft_errors=2, hard_errors=3, error_delay=0.02)
    r.say(b"EHLO client.example\r\n", b"250 ")
    r.say(b"RCPT\r\n", b"503")
    r.say(b"RCPT\r\n", b"503")
    assert r.say(b"RCPT\r\n", b"421 4.7.0")


def test_fault_of_ours_ends_one_connection_and_says_where(rig):
    r = rig()
    r.say(b"EHLO client.example\r\n", b"250 ")

    def fail():
        raise RuntimeError("no id today")

    r.spool.next_queue_id = fail
    r.client.sendall(MAIL)
    r.turn_until(lambda: not r.service.connections)
    errors = [told for told in r.log.told if told[0] == "error"]
    assert len(errors) == 1
    assert "RuntimeError: no id today" in errors[0][2]
    assert "test_connection.py" in errors[0][2]


@pytest.mark.parametrize("part", ["begin", "write", "commit"])
def test_fault_in_a_mail_that_came_in_one_read_ends_its_connection_alone(rig, part):
    r = rig()

    def break_down(*arguments):
        raise RuntimeError("broken in a test")

    if part == "write":
        r.spool.begin = lambda queue_id, envelope: type("Broken", (Writer,), {"write": break_down})(queue_id, envelope)
    else:
        setattr(r.spool, part, break_down)
    r.say(b"EHLO client.example\r\n", b"250 ")
    r.say(b"MAIL FROM:<a@example.com>\r\n", b"250 2.1.0")
    r.client.sendall(b"RCPT TO:<b@example.net>\r\nBDAT 12 LAST\r\nSubject: x\r\n" + b"NOOP\r\n" * 3)
    r.turn_until(lambda: not r.connection.stream.is_open)
    assert not r.service.connections
    (error,) = (told for told in r.log.told if told[0] == "error")
    assert "RuntimeError: broken in a test" in error[2]


def test_octets_behind_quit_do_not_cost_the_reply(rig):
    r = rig()
    r.client.setblocking(True)
    r.client.settimeout(20)
    r.client.sendall(b"QUIT\r\n" + b"x" * 200_000)
    r.client.setblocking(False)
    r.turn_until_received(b"221 2.0.0 Bye\r\n")
    r.client.settimeout(20)
    assert r.client.recv(1000) == b""  # a clean end; a reset would raise
