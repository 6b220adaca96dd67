"""Other protocols on our port, and commands sent too early: refused, closed and counted, in whatever state they come."""

from __future__ import annotations

import pytest
from conducted import CONTENT, DATA, HELLO, LIMITS, MAIL, RCPT

from smtpd.proto import events as ev
from smtpd.proto.dialogue import Peer
from smtpd.proto.rules import NoChecks, Rules
from smtpd.proto.session import Session

RULES = Rules("mx.example.net", LIMITS, NoChecks())
FORBIDDEN = [
    b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\n", b"HEAD / HTTP/1.0\r\n", b"PUT /x HTTP/1.1\r\n", b"DELETE /x HTTP/1.1\r\n",
    b"OPTIONS * HTTP/1.1\r\n", b"TRACE / HTTP/1.1\r\n", b"PATCH / HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n", b"get /\r\n",
    b"CONNECT mx.example.net:25 HTTP/1.1\r\n", b"Host: mx.example.net\r\n", b"User-Agent: x\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 5 25\r\n", b"PROXY UNKNOWN\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
]  # fmt: skip
STATES = {
    "connected": [],
    "greeted": [HELLO],
    "mail": [HELLO, MAIL],
    "rcpt": [HELLO, MAIL, RCPT],
    "chunks": [HELLO, MAIL, RCPT, b"BDAT 1\r\nx"],
}
EARLY = {
    "ehlo": ([], HELLO + MAIL), "helo": ([], b"HELO client.example\r\nMAIL"), "ehlo again": ([HELLO], HELLO + b"NOOP\r\n"),
    "data": ([HELLO, MAIL, RCPT], DATA + CONTENT), "an octet": ([HELLO, MAIL, RCPT], DATA + b"x"),
    "starttls": ([HELLO], b"STARTTLS\r\nEHLO client.example\r\n"), "a hello of TLS": ([HELLO], b"STARTTLS\r\n\x16\x03\x01"),
}  # fmt: skip


def play(*turns: bytes) -> tuple[list[bytes], list[str], list[str]]:
    """Return the last lines of the replies, the violations and why the session ended."""
    session = Session(RULES, Peer("192.0.2.7"))
    session.start()
    output = session.take_output()
    for octets in turns:
        data = bytearray(octets)
        session.receive(data, 0, len(data))
        output += session.take_output()
    lines = [line for line in output.split(b"\r\n")[1:] if line and line[3:4] == b" "]
    violations = [event.data for event in session.events if event.kind == ev.VIOLATION]
    return lines, violations, [event.data for event in session.events if event.kind == ev.CLOSE]


@pytest.mark.parametrize("before", STATES.values(), ids=STATES.keys())
@pytest.mark.parametrize("octets", FORBIDDEN)
def test_other_protocols_are_turned_away_at_their_first_line(octets: bytes, before: list[bytes]) -> None:
    lines, violations, ended = play(*before, octets, MAIL)
    assert lines[len(before) :] == [b"521 5.7.0 Error: this is an SMTP server"]
    assert (violations, len(ended)) == (["forbidden_command"], 1)


@pytest.mark.parametrize(("before", "octets"), EARLY.values(), ids=EARLY.keys())
def test_what_comes_before_the_reply_that_it_depends_on_is_refused(before: list[bytes], octets: bytes) -> None:
    lines, violations, ended = play(*before, octets, MAIL)
    assert lines[len(before) :] == [b"554 5.5.0 Error: commands sent before the reply that they depend on"]
    assert (violations, len(ended)) == (["pipelining"], 1)


def test_the_second_version_of_a_proxy_header_ends_the_session_of_who_is_not_listed() -> None:
    """Its signature has a NUL and the word QUIT: what a plain server makes of it ends the session as well."""
    lines, violations, ended = play(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c" + bytes(12) + MAIL)
    assert [line[:3] for line in lines] == [b"500", b"500", b"500", b"221"]
    assert "nul" in violations
    assert ended == ["quit"]
