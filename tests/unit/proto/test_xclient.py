"""XCLIENT: what its attributes make of a client, what outlasts it, and a connect stage that is asked anew."""

from __future__ import annotations

import pytest
from conducted import HELLO, LIMITS, Script
from hypothesis import given
from hypothesis import strategies as st

from smtpd import _parser as p
from smtpd.mail.verdict import Verdict
from smtpd.proto import events as ev
from smtpd.proto import replies
from smtpd.proto.conduct import LATER, Step
from smtpd.proto.content import make_envelope
from smtpd.proto.dialogue import Peer
from smtpd.proto.rules import NoChecks, Rules
from smtpd.proto.session import Session
from smtpd.proto.xclient import XclientError, read_client

FRONT = Peer("127.0.0.1", 4711, "front.example.net")
RULES = Rules("mx.example.net", LIMITS, NoChecks(), offers_xclient=True)


def facts_of(peer: Peer) -> tuple[object, ...]:
    facts = peer.introduction
    assert facts is not None
    return facts.helo, facts.protocol, facts.login, facts.destination_address, facts.destination_port


def test_all_attributes() -> None:
    peer = read_client(
        b"NAME=client.example.org ADDR=192.0.2.9 PORT=12 PROTO=smtp HELO=a+20b LOGIN=alice+40example.org+C3+A4"
        b" DESTADDR=IPv6:2001:DB8::1 DESTPORT=25",
        FRONT,
    )
    assert (peer.name, peer.address, peer.port) == ("client.example.org", "192.0.2.9", 12)
    assert facts_of(peer) == (b"a b", "SMTP", "alice@example.orgä", "2001:db8::1", 25)
    assert not peer.is_balancer
    assert not peer.is_trusted
    assert peer.row == -1


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (b"IPV6:2001:DB8:0::9", "2001:db8::9"),
        (b"ipv6:::ffff:192.0.2.9", "192.0.2.9"),
        (b"2001:db8::9", "2001:db8::9"),
        (b"::ffff:c000:209", "192.0.2.9"),
        (b"[unavailable]", ""),
        (b"192+2E0.2.9", "192.0.2.9"),
    ],
)
def test_addresses(text: bytes, address: str) -> None:
    assert read_client(b"ADDR=" + text, FRONT).address == address


def test_what_is_not_named_stays_and_a_name_belongs_to_its_address() -> None:
    named = read_client(b"NAME=client.example.org HELO=hello.example.org PORT=12", FRONT)
    assert (named.address, named.name, named.port) == ("127.0.0.1", "client.example.org", 12)
    moved = read_client(b"ADDR=192.0.2.9", named)
    assert (moved.address, moved.name, moved.port) == ("192.0.2.9", "unknown", 12)
    assert facts_of(moved)[0] == b"hello.example.org"
    assert facts_of(named)[0] == b"hello.example.org", "the one before is changed"
    assert read_client(b"HELO=[UNAVAILABLE] LOGIN=x", moved).introduction is not moved.introduction


def test_a_name_that_is_not_known_and_one_that_can_not_be_known_now() -> None:
    known, unknown, failing = (read_client(b"NAME=" + name, FRONT) for name in (b"a.example", b"[unavailable]", b"[TempUnavail]"))
    assert [peer.name for peer in (known, unknown, failing)] == ["a.example", "unknown", "unknown"]
    assert [peer.introduction.is_name_failing for peer in (known, unknown, failing) if peer.introduction] == [False, False, True]
    assert [peer.introduction.is_named for peer in (known, unknown, failing) if peer.introduction] == [True, True, True]


def test_a_client_of_unknown_address_is_not_shown_as_a_unix_socket() -> None:
    assert read_client(b"ADDR=[UNAVAILABLE]", FRONT).label == "unknown[unknown]"
    assert Peer("").label == "unknown[unix]"


@given(st.binary(max_size=60))
def test_any_octets_are_a_client_or_an_error(octets: bytes) -> None:
    for argument in (octets, b"LOGIN=" + octets, b"HELO=" + b"".join(b"+%02X" % octet for octet in octets)):
        try:
            peer = read_client(argument, FRONT)
        except XclientError as error:
            replies.bad_attribute(error.text)  # raises on what is no ASCII
            continue
        assert peer.introduction is not None
        assert peer.introduction.login.isprintable()
        assert all(0x20 <= octet < 0x7F for octet in peer.introduction.helo)


class Driven:
    """A session whose driver lets in whom XCLIENT names."""

    def __init__(self, conduct: Script | None = None) -> None:
        self.session = Session(RULES, FRONT)
        self.conduct = conduct
        self.ended = ""
        self.asked: list[int] = []
        self.session.start()
        self.output = self.session.take_output()

    def send(self, octets: bytes) -> bytes:
        session = self.session
        position = 0
        while position < len(octets):
            position = session.receive(bytearray(octets), position, len(octets))
            if not self.settle():
                break
        return session.take_output()

    def settle(self) -> bool:
        session = self.session
        while session.events:
            event = session.events.pop(0)
            if event.kind == ev.CLIENT:
                session.begin_client(event.token, event.data, RULES, self.conduct, None)
            elif event.kind == ev.ASK:
                self.asked.append(event.token)
            elif event.kind == ev.CLOSE:
                self.ended = event.data
        return not session.paused


def envelope_of(session: Session) -> tuple[bytes, str, str, str, int]:
    assert session.transaction is not None
    envelope = make_envelope(session, session.transaction)
    return envelope.helo, envelope.protocol, envelope.client_address, envelope.client_name, envelope.client_port


def test_helo_and_protocol_of_the_client_count_and_not_those_of_the_front_end() -> None:
    driven = Driven()
    driven.session.is_tls = True
    driven.send(HELLO)
    assert driven.send(b"XCLIENT ADDR=192.0.2.9 PORT=12 PROTO=SMTP HELO=theirs.example.org\r\n").startswith(
        b"220 mx.example.net "
    )
    assert b"250-PIPELINING" in driven.send(HELLO), "the front end itself has extensions"
    driven.send(b"MAIL FROM:<>\r\n")
    assert envelope_of(driven.session) == (b"theirs.example.org", "SMTPS", "192.0.2.9", "unknown", 12)
    driven.send(b"RSET\r\n")
    driven.send(b"XCLIENT HELO=[UNAVAILABLE] PROTO=ESMTP\r\n")
    driven.send(b"HELO front.example.net\r\n")
    driven.send(b"MAIL FROM:<>\r\n")
    assert envelope_of(driven.session)[:2] == (b"front.example.net", "ESMTPS")


def test_the_connect_stage_is_asked_anew_and_may_take_its_time() -> None:
    script = Script({(ev.STAGE_CONNECT, p.VERB_XCLIENT): LATER})
    driven = Driven(script)
    assert driven.send(b"XCLIENT ADDR=192.0.2.9\r\n" + HELLO) == b""
    assert script.asked == [(ev.STAGE_CONNECT, p.VERB_XCLIENT, b"")]
    (token,) = driven.asked
    driven.session.resume(token, None)
    assert driven.session.take_output().startswith(b"220 ")
    assert driven.session.tally.at(driven.session.tally.count - 1) == p.VERB_XCLIENT * 1000 + 220


def test_a_client_that_is_not_wanted_is_refused_at_xclient() -> None:
    driven = Driven(Script({(ev.STAGE_CONNECT, p.VERB_XCLIENT): LATER}))
    driven.send(b"XCLIENT ADDR=192.0.2.9\r\n")
    driven.session.resume(driven.asked[0], Verdict(replies.TOO_MANY_CONNECTIONS, "rate"))
    assert driven.session.take_output() == replies.TOO_MANY_CONNECTIONS.wire
    driven.settle()
    assert driven.ended == "conduct"
    assert driven.session.tally.at(driven.session.tally.count - 1) == p.VERB_XCLIENT * 1000 + 421


def test_a_step_at_connect_speaks_at_xclient_too() -> None:
    driven = Driven(Script({(ev.STAGE_CONNECT, p.VERB_XCLIENT): Step(replies.HOST_BUSY)}))
    assert driven.send(b"XCLIENT ADDR=192.0.2.9\r\n") == replies.HOST_BUSY.wire


def test_late_and_double_answers_begin_nothing() -> None:
    session = Session(RULES, FRONT)
    session.start()
    session.take_output()
    session.receive(bytearray(b"XCLIENT ADDR=192.0.2.9\r\nNOOP\r\n"), 0, 30)
    (event,) = session.events
    assert event.kind == ev.CLIENT
    session.resume(event.token - 1, None)
    session.begin_client(event.token + 1, event.data, RULES, None, None)
    assert session.peer is FRONT
    session.begin_client(event.token, event.data, RULES, None, None)
    session.begin_client(event.token, FRONT, RULES, None, None)
    assert session.peer is event.data
    assert session.take_output().count(b"220 ") == 1
