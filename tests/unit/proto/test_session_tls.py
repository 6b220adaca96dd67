"""The session around a handshake: what is waited for, what is forgotten, and a drain or an end meanwhile."""

from __future__ import annotations

import pytest

from smtpd.mail.tls_facts import TlsFacts
from smtpd.proto import events as ev
from smtpd.proto import replies
from smtpd.proto.dialogue import Peer
from smtpd.proto.rules import NoChecks, Rules
from smtpd.proto.session import Session
from smtpd.settings import LimitsSettings

FACTS = TlsFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256, 256)


@pytest.fixture
def session() -> Session:
    session = Session(Rules("mx.example.net", LimitsSettings(), NoChecks(), tls="starttls"), Peer("192.0.2.1"))
    session.start()
    session.take_output()
    return session


def say(session: Session, text: str) -> bytes:
    octets = bytearray(text.encode() + b"\r\n")
    assert session.receive(octets, 0, len(octets)) == len(octets)
    return session.take_output()


def kinds(session: Session) -> list[int]:
    found = [event.kind for event in session.events]
    session.events.clear()
    return found


def test_nothing_is_read_until_the_hands_are_shaken(session: Session) -> None:
    say(session, "EHLO a.example")
    assert say(session, "STARTTLS").startswith(b"220 2.0.0")
    assert kinds(session) == [ev.START_TLS]
    injected = bytearray(b"MAIL FROM:<>\r\n")
    assert session.receive(injected, 0, len(injected)) == 0
    session.resume(session.token)  # an answer to something else
    assert session.paused
    session.tls_started(FACTS)
    assert (session.is_tls, session.tls, session.helo, session.is_extended) == (True, FACTS, b"", False)
    assert say(session, "MAIL FROM:<>").startswith(b"503 5.5.1")
    session.tls_started(TlsFacts("x", "x"))  # nobody asked
    assert session.tls is FACTS


def test_a_drain_meanwhile_waits_for_the_handshake(session: Session) -> None:
    say(session, "EHLO a.example")
    say(session, "STARTTLS")
    kinds(session)
    session.drain()
    assert session.take_output() == b""
    session.tls_started(FACTS)
    assert session.take_output() == replies.SHUTTING_DOWN.wire
    assert kinds(session) == [ev.CLOSE]


def test_with_implicit_tls_a_drain_is_told_behind_the_greeting() -> None:
    session = Session(Rules("mx.example.net", LimitsSettings(), NoChecks(), tls="implicit"), Peer("192.0.2.1"))
    session.expect_tls()
    session.drain()
    assert session.take_output() == b""
    session.tls_started(FACTS, is_first=True)
    assert session.take_output() == b"220 mx.example.net ESMTP\r\n" + replies.SHUTTING_DOWN.wire


def test_a_failed_handshake_ends_the_session_without_a_word(session: Session) -> None:
    say(session, "STARTTLS")
    kinds(session)
    session.abort(None, "tls_error")
    assert session.take_output() == b""
    assert [(event.kind, event.data) for event in session.events] == [(ev.CLOSE, "tls_error")]
    session.tls_started(FACTS)
    assert not session.is_tls


def test_starttls_after_too_many_errors_is_no_way_out() -> None:
    rules = Rules("mx.example.net", LimitsSettings(hard_errors=2, soft_errors=0), NoChecks(), tls="starttls")
    session = Session(rules, Peer("192.0.2.1"))
    session.start()
    session.take_output()
    say(session, "STARTTLS x")
    assert say(session, "STARTTLS x").endswith(replies.TOO_MANY_ERRORS.wire)
