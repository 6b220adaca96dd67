"""Postfix's smtp-sink as a next hop that refuses, hangs up or delays at each command, then as a friendly one.

Whatever may be tried again is deferred and arrives once when the sink is friendly; what is refused for good is undeliverable and
held. Nothing is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet
from gateway import Gateway, running_gateway, wait_until
from peer_next_hops import SinkHop, server_folder, sink_hop
from relayed_mail import (
    Attempted,
    assert_each_once,
    attempts,
    await_attempt,
    await_removed,
    log_of,
    relay_settings,
    sample_mails,
    send_mails,
)

MAILS = 7
TIMEOUTS = {"data_timeout": 2.5, "quit_timeout": 1.0}


def cases(ordinary: list[str], others: list[str]) -> list[ParameterSet]:
    """Options of smtp-sink, written as on a command line; the others are left to the long run."""
    short = [pytest.param(text.split(), id=text or "none") for text in ordinary]
    return short + [pytest.param(text.split(), id=text, marks=pytest.mark.full) for text in others]


SOFT = cases(
    ["-r CONNECT", "-r RCPT", "-r .", "-r MAIL,RCPT,DATA"],
    ["-r EHLO,HELO", "-r MAIL", "-r DATA", "-e -r HELO"],
)
HARD_EARLY = cases(["-f CONNECT", "-f EHLO,HELO"], ["-f MAIL", "-e -f HELO"])
HARD = cases(["-f RCPT", "-f ."], ["-f DATA", "-e -f RCPT"])
BROKEN = cases(
    ["-q CONNECT", "-q MAIL", "-q DATA", "-Q RCPT", "-Q ."],
    ["-q EHLO", "-q RCPT", "-q .", "-Q CONNECT", "-Q EHLO", "-Q MAIL", "-Q DATA", "-p -q RCPT", "-p -q DATA", "-e -q DATA"]
    + ["-p -Q DATA", "-p -q ."],
)
LATE = cases(["-p -w 4"], [])
FRIENDLY = cases(["", "-p", "-e", "-f EHLO"], ["-N", "-P", "-E", "-p -w 1"])


@pytest.fixture(scope="module")
def sink() -> Iterator[SinkHop]:
    with server_folder() as folder:
        sink = SinkHop(folder)
        try:
            yield sink
        finally:
            sink.stop()


@pytest.fixture(scope="module")
def gateway(sink: SinkHop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("gateway"), relay_settings(sink.next_hop, **TIMEOUTS)) as running:
        yield running


def own_attempts(gateway: Gateway, user: str) -> list[Attempted]:
    return [line for line in attempts(gateway) if line.to == user]


def send_to_unfriendly(gateway: Gateway, sink: SinkHop, options: list[str]) -> tuple[str, dict[str, bytes]]:
    """Start the sink with these options and send some mail; return the recipient and what was sent."""
    user = f"box-{len(attempts(gateway))}@example.org"
    mails = sample_mails(MAILS)
    sink.start(*options)
    sink.clear()
    send_mails(gateway, mails, [user], connections=2)
    return user, mails


def befriend_and_compare(gateway: Gateway, sink: SinkHop, user: str, mails: dict[str, bytes], *options: str) -> None:
    """Replace the sink by a friendly one: everything arrives now, each mail once."""
    sink.stop()
    assert [line for line in own_attempts(gateway, user) if line.status == "sent"] == []
    sink.clear()
    sink.start(*options)
    await_attempt(gateway, "sent", user, len(mails))
    assert_each_once(sink.dumps(), mails)


@pytest.mark.parametrize("options", SOFT + HARD_EARLY + BROKEN + LATE)
def test_deferred_mail_arrives_once_when_the_next_hop_is_friendly(gateway: Gateway, sink: SinkHop, options: list[str]) -> None:
    user, mails = send_to_unfriendly(gateway, sink, options)
    wait_until(
        "each mail was deferred",
        lambda: len({line.queue_id for line in own_attempts(gateway, user) if line.status == "deferred"}) == len(mails),
        30,
    )
    assert {line.status for line in own_attempts(gateway, user)} == {"deferred"}
    befriend_and_compare(gateway, sink, user, mails)


@pytest.mark.parametrize("options", HARD)
def test_what_is_refused_for_good_is_held(gateway: Gateway, sink: SinkHop, options: list[str]) -> None:
    held = gateway.metric("smtpd_queue_messages", state="held")
    user, mails = send_to_unfriendly(gateway, sink, options)
    lines = await_attempt(gateway, "bounced", user, len(mails))
    assert len({line.queue_id for line in lines}) == len(lines) == len(mails)
    assert {line.status for line in own_attempts(gateway, user)} <= {"bounced", "deferred"}  # while the sink was not there yet
    assert {line.dsn for line in lines} == {"5.3.0"}
    assert [line.text for line in lines if not line.text.endswith("said: 500 5.3.0 Error: command failed")] == []
    wait_until("they are held", lambda: gateway.metric("smtpd_queue_messages", state="held") == held + len(mails), 30)


@pytest.mark.parametrize("options", FRIENDLY)
def test_mail_arrives_whatever_is_offered(gateway: Gateway, sink: SinkHop, options: list[str]) -> None:
    user, mails = send_to_unfriendly(gateway, sink, options)
    await_attempt(gateway, "sent", user, len(mails))
    assert_each_once(sink.dumps(), mails)


def test_a_lost_last_reply_is_counted_and_told(gateway: Gateway, sink: SinkHop) -> None:
    def counted() -> float:
        return gateway.metric("smtpd_delivery_unconfirmed_total", route="out")

    def told() -> int:
        return log_of(gateway).count("it may be delivered twice")

    wait_until("what was counted before is told, and the other way round", lambda: counted() == told(), 30)
    counted_before, told_before = counted(), told()
    user, mails = send_to_unfriendly(gateway, sink, ["-q", "."])
    wait_until("some are counted", lambda: counted() >= counted_before + 2, 30)
    befriend_and_compare(gateway, sink, user, mails)
    wait_until("as many are counted as told", lambda: counted() - counted_before == told() - told_before, 30)


def test_mail_with_8_bit_text_goes_where_8bitmime_is_not_offered_and_is_counted(gateway: Gateway, sink: SinkHop) -> None:
    before = gateway.metric("smtpd_delivery_unannounced_8bit_total", route="out")
    user, mails = send_to_unfriendly(gateway, sink, ["-8"])
    await_attempt(gateway, "sent", user, len(mails))
    assert_each_once(sink.dumps(), mails)
    wait_until("it is counted", lambda: gateway.metric("smtpd_delivery_unannounced_8bit_total", route="out") > before, 30)


@pytest.mark.parametrize("options", cases(["-r .", "-r RCPT", "-q ."], ["-r LHLO", "-q RCPT", "-Q DATA", "-f LHLO"]))
def test_lmtp_deferred(lmtp_gateway: tuple[Gateway, SinkHop], options: list[str]) -> None:
    gateway, sink = lmtp_gateway
    user, mails = send_to_unfriendly(gateway, sink, ["-L", *options])
    await_attempt(gateway, "deferred", user, len(mails))
    befriend_and_compare(gateway, sink, user, mails, "-L")


@pytest.mark.parametrize("options", cases(["-f ."], ["-f RCPT"]))
def test_lmtp_refused(lmtp_gateway: tuple[Gateway, SinkHop], options: list[str]) -> None:
    gateway, sink = lmtp_gateway
    user, mails = send_to_unfriendly(gateway, sink, ["-L", *options])
    await_attempt(gateway, "bounced", user, len(mails))
    assert {line.status for line in own_attempts(gateway, user)} <= {"bounced", "deferred"}


@pytest.fixture(scope="module")
def lmtp_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, SinkHop]]:
    with sink_hop("-L") as sink:
        settings = relay_settings(sink.next_hop, "lmtp", **TIMEOUTS)
        with running_gateway(tmp_path_factory.mktemp("lmtp"), settings) as running:
            yield running, sink


@pytest.mark.full
@pytest.mark.timeout(300)
@pytest.mark.parametrize("options", cases(["", "-L"], []))
def test_3000_mails(tmp_path: Path, options: list[str]) -> None:
    mails = sample_mails(3000)
    with sink_hop(*options) as sink:
        settings = relay_settings(sink.next_hop, "lmtp" if "-L" in options else "smtp")
        with running_gateway(tmp_path, settings) as gateway:
            send_mails(gateway, mails)
            await_removed(gateway, len(mails), 200.0)
        assert_each_once(sink.dumps(), mails)
