"""What a next hop can do wrong, at each stage of a connection: a deferral with its reason, and nothing left behind."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import next_hop
import pytest
from next_hop import NextHop
from relay_rig import BODY, PATIENCE_S, RelayRig

from smtpd.mail.outcome import DEFERRED, DELIVERED, UNDELIVERABLE
from smtpd.spool.item import Body

# The stages before the content, each with the settings that limit it and the words for it.
STAGES = {
    "greeting": ("greeting_timeout", "the greeting"),
    "hello": ("hello_timeout", "the reply to EHLO"),
    "mail": ("mail_timeout", "the reply to MAIL FROM"),
    "rcpt": ("recipient_timeout", "the reply to RCPT TO"),
    "data": ("data_timeout", "the reply to DATA"),
    "end": ("end_of_data_timeout", "the reply to the end of the message"),
}
SHORT_S = 0.1


@pytest.fixture
def rig() -> Iterator[RelayRig]:
    rig = RelayRig()
    yield rig
    rig.close()


@pytest.fixture
def hop() -> Iterator[NextHop]:
    with NextHop() as hop:
        yield hop


@pytest.fixture(params=[True, False], ids=["pipelining", "one-by-one"])
def either_hop(request: pytest.FixtureRequest) -> Iterator[NextHop]:
    with NextHop() as hop:
        if not request.param:
            hop.extensions.remove(b"PIPELINING")
        yield hop


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


# --- no connection ---------------------------------------------------------------------------------------------------


def test_a_next_hop_that_refuses_connections_is_set_aside_and_not_asked_again(rig: RelayRig) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        name = f"127.0.0.1:{unheard.getsockname()[1]}"
        transport = rig.make(name)
        first = rig.send(transport)
        rig.await_done(first)
        assert (first.outcome.status, first.outcome.dsn) == (DEFERRED, "4.4.1")
        assert "Connection refused" in first.outcome.text
        second = rig.send(transport)
        assert second.is_done  # without a try
        assert second.outcome.text.startswith("next hop set aside for a while: connect to")
        assert rig.connections(name) == 0
        assert len(rig.warnings) == 1


def test_a_next_hop_that_does_not_take_the_connection_costs_the_connect_timeout(rig: RelayRig) -> None:
    with next_hop.full_backlog() as name:
        sent = rig.send(rig.make(name, connect_timeout=SHORT_S))
        rig.await_done(sent)
        assert sent.outcome.dsn == "4.4.1"
        assert "timed out" in sent.outcome.text
        assert rig.connections(name) == 0


def test_a_host_without_free_descriptors_does_not_blame_the_next_hop(
    rig: RelayRig, hop: NextHop, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport = rig.make(hop.name)
    monkeypatch.setattr("smtpd._io.start_connect", lambda *_: (-1, 24))
    sent = rig.send(transport)
    rig.await_done(sent)
    assert "Too many open files" in sent.outcome.text
    monkeypatch.undo()
    again = rig.send(transport)
    rig.await_done(again)
    assert again.statuses == [DELIVERED]


# --- silence ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("behaviour", [next_hop.hang, next_hop.sit, next_hop.trickle], ids=["hang", "sit", "trickle"])
def test_silence_at_any_stage_ends_with_the_timeout_of_that_stage(
    rig: RelayRig, either_hop: NextHop, stage: str, behaviour: next_hop.Action
) -> None:
    setting, words = STAGES[stage]
    before = descriptors()
    either_hop.on[stage] = behaviour
    transport = rig.make(either_hop.name, **{setting: SHORT_S})
    sent = rig.send(transport)
    rig.await_done(sent)
    assert sent.outcome.status == DEFERRED
    assert sent.outcome.dsn == "4.4.2"
    assert sent.outcome.text == f"timed out while waiting for {words}"
    rig.await_closed(transport)
    assert rig.connections(either_hop.name) == 0
    assert transport.unconfirmed == (1 if stage == "end" else 0)
    either_hop.close()
    rig.run_until(lambda: descriptors() <= before)


def test_silence_after_quit_holds_the_connection_no_longer_than_its_timeout(rig: RelayRig, hop: NextHop) -> None:
    hop.on["quit"] = next_hop.hang
    transport = rig.make(hop.name, quit_timeout=SHORT_S, mails_per_connection=1)
    sent = rig.send(transport)
    rig.await_done(sent)
    assert sent.statuses == [DELIVERED]
    rig.await_closed(transport)
    assert rig.connections(hop.name) == 0
    assert rig.warnings == []


def test_a_slow_but_living_next_hop_gets_the_full_time_for_each_reply(rig: RelayRig, hop: NextHop) -> None:
    """Eight replies to RCPT, each in good time, all together not."""

    def dawdle(talk: next_hop.Conversation) -> None:
        hop.is_over.wait(0.2)

    hop.on["rcpt"] = [dawdle] * 8
    transport = rig.make(hop.name, recipient_timeout=1.5)
    sent = rig.send(transport, *(b"u%d@example.net" % number for number in range(8)))
    rig.await_done(sent)
    assert sent.statuses == [DELIVERED] * 8


# --- nonsense --------------------------------------------------------------------------------------------------------


NONSENSE: dict[str, next_hop.Action] = {
    "garbage": next_hop.garbage, "endless": next_hop.endless, "endless-line": next_hop.endless_line, "flood": next_hop.flood,
    "999": b"999 no such code\r\n", "354": b"354 not now\r\n",
}  # fmt: skip


@pytest.mark.parametrize(
    ("stage", "kind"), [(stage, kind) for stage in STAGES for kind in NONSENSE if (stage, kind) != ("data", "354")]
)
def test_nonsense_at_any_stage_defers_and_ends_the_connection(rig: RelayRig, hop: NextHop, stage: str, kind: str) -> None:
    behaviour = NONSENSE[kind]
    hop.on[stage] = behaviour
    transport = rig.make(hop.name, block_timeout=5.0)
    sent = rig.send(transport)
    rig.await_done(sent)
    taken = [DELIVERED] if behaviour is next_hop.flood and stage == "end" else [DEFERRED]
    assert sent.statuses == taken
    assert len(sent.outcome.text) <= 1100
    rig.await_closed(transport)
    assert rig.connections(hop.name) == 0


def test_a_final_reply_before_the_content_was_asked_for_is_not_believed(rig: RelayRig, hop: NextHop) -> None:
    hop.on["data"] = b"354 Go on\r\n250 2.0.0 I know it already\r\n"
    transport = rig.make(hop.name)
    sent = rig.send(transport)
    rig.await_done(sent)
    assert sent.statuses == [DEFERRED]


# --- the connection breaks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [*STAGES, "content"])
@pytest.mark.parametrize("behaviour", [next_hop.close, next_hop.reset], ids=["close", "reset"])
def test_a_connection_that_breaks_at_any_stage_defers(
    rig: RelayRig, either_hop: NextHop, stage: str, behaviour: Callable[[next_hop.Conversation], None]
) -> None:
    is_connected = threading.Event()  # here too: else it would be the connect that fails

    def behave(talk: next_hop.Conversation) -> None:
        is_connected.wait(PATIENCE_S)
        behaviour(talk)

    either_hop.on[stage] = behave
    transport = rig.make(either_hop.name)
    sent = rig.send(transport)
    rig.await_connected(transport)
    is_connected.set()
    rig.await_done(sent)
    assert (sent.outcome.status, sent.outcome.dsn) == (DEFERRED, "4.4.2")
    assert "lost connection" in sent.outcome.text
    rig.await_closed(transport)
    assert rig.connections(either_hop.name) == 0
    if stage != "content":  # there it depends on whether the content had left before the reset came
        assert transport.unconfirmed == (1 if stage == "end" else 0)


def test_a_reply_that_comes_before_the_connection_breaks_counts(rig: RelayRig, hop: NextHop) -> None:
    def take_and_leave(talk: next_hop.Conversation) -> None:
        talk.sock.sendall(b"250 2.0.0 Taken\r\n")
        next_hop.close(talk)

    hop.on["end"] = take_and_leave
    sent = rig.send(rig.make(hop.name))
    rig.await_done(sent)
    assert sent.statuses == [DELIVERED]


def test_mails_behind_one_that_dies_go_over_another_connection(rig: RelayRig, hop: NextHop) -> None:
    """The next hop takes a mail, then dies: one of three is in doubt, the two that wait are not touched by it."""
    hop.on["end"] = [next_hop.reset]
    transport = rig.make(hop.name, route={"connections": 1})
    all_sent = [rig.send(transport) for _ in range(3)]
    rig.await_done(*all_sent)
    assert sorted(sent.outcome.status for sent in all_sent) == [DELIVERED, DELIVERED, DEFERRED]
    assert transport.unconfirmed == 1
    assert [warning for warning in rig.warnings if "may be delivered twice" in warning]


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_421_at_any_stage_defers_and_ends_the_connection(rig: RelayRig, either_hop: NextHop, stage: str) -> None:
    either_hop.on[stage] = b"421 4.3.2 Shutting down\r\n"
    transport = rig.make(either_hop.name)
    sent = rig.send(transport)
    rig.await_done(sent)
    assert (sent.outcome.status, sent.outcome.code, sent.outcome.dsn) == (DEFERRED, 421, "4.3.2")
    rig.await_closed(transport)
    assert transport.unconfirmed == 0


@pytest.mark.parametrize("stage", STAGES)
def test_4xx_at_any_stage_defers(rig: RelayRig, either_hop: NextHop, stage: str) -> None:
    either_hop.on[stage] = b"451 4.7.1 Later\r\n"
    sent = rig.send(rig.make(either_hop.name))
    rig.await_done(sent)
    assert (sent.outcome.status, sent.outcome.code, sent.outcome.text) == (DEFERRED, 451, "Later")
    assert sent.outcome.relay.startswith("127.0.0.1[127.0.0.1]:")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("refused_early", ["defer", "bounce"])
def test_5xx_is_final_from_rcpt_on_and_before_it_if_it_is_to_be_believed(
    rig: RelayRig, either_hop: NextHop, stage: str, refused_early: str
) -> None:
    if stage == "hello":  # EHLO is followed by HELO
        either_hop.on[stage] = [b"554 5.7.1 No\r\n", b"554 5.7.1 No\r\n"]
    else:
        either_hop.on[stage] = b"554 5.7.1 No\r\n"
    sent = rig.send(rig.make(either_hop.name, refused_early=refused_early))
    rig.await_done(sent)
    is_final = refused_early == "bounce" or stage in ("rcpt", "data", "end")
    assert sent.statuses == [UNDELIVERABLE if is_final else DEFERRED]
    assert sent.outcome.code == 554


def test_a_final_refusal_at_the_greeting_is_not_believed_while_another_next_hop_may_come_back(
    rig: RelayRig, hop: NextHop
) -> None:
    hop.on["greeting"] = b"554 5.7.1 Not you\r\n"
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        down = f"127.0.0.1:{unheard.getsockname()[1]}"
        for next_hops in ((hop.name, down), (down, hop.name)):
            sent = rig.send(rig.make(*next_hops, refused_early="bounce", retry_next_hop=0.001))
            rig.await_done(sent)
            assert sent.statuses == [DEFERRED]
            assert "Connection refused" in sent.outcome.text


def test_a_mail_that_is_refused_does_not_cost_the_connection(rig: RelayRig, either_hop: NextHop) -> None:
    either_hop.on["rcpt"] = [b"550 5.1.1 No such user\r\n"]
    transport = rig.make(either_hop.name)
    first = rig.send(transport)
    rig.await_done(first)
    rig.await_free(transport)  # the reply to RSET has come
    assert either_hop.count("rset") == 1
    second = rig.send(transport)
    rig.await_done(second)
    assert (first.statuses, second.statuses) == ([UNDELIVERABLE], [DELIVERED])
    assert [mail.connection for mail in either_hop.mails] == [1]


def test_one_recipient_that_is_refused_keeps_the_mail_from_no_other(rig: RelayRig, either_hop: NextHop) -> None:
    either_hop.replies = {b"bad@example.net": b"550 5.1.1 Unknown\r\n", b"full@example.net": b"452 4.2.2 Full\r\n"}
    sent = rig.send(rig.make(either_hop.name), b"good@example.net", b"bad@example.net", b"full@example.net", b"b@example.net")
    rig.await_done(sent)
    assert sent.statuses == [DELIVERED, UNDELIVERABLE, DEFERRED, DELIVERED]
    (mail,) = either_hop.mails
    assert mail.recipients == [b"good@example.net", b"b@example.net"]


def test_recipients_over_the_limit_of_the_next_hop_are_sent_at_once(rig: RelayRig, either_hop: NextHop) -> None:
    either_hop.most_recipients = 3
    either_hop.replies = {b"u1@example.net": b"550 5.1.1 Unknown\r\n"}
    sent = rig.send(rig.make(either_hop.name), *(b"u%d@example.net" % number for number in range(8)))
    rig.await_done(sent)
    assert sent.statuses == [DELIVERED, UNDELIVERABLE] + [DELIVERED] * 6
    arrived = [path for mail in either_hop.mails for path in mail.recipients]
    assert sorted(arrived) == sorted(b"u%d@example.net" % number for number in (0, 2, 3, 4, 5, 6, 7))
    assert all(len(mail.recipients) <= 3 for mail in either_hop.mails)


def test_what_is_put_off_is_found_by_its_place_in_the_envelope(rig: RelayRig, hop: NextHop) -> None:
    """Only some of the envelope's recipients travel here, and their indexes are not their positions."""
    hop.most_recipients = 1
    transport = rig.make(hop.name)
    sent = rig.send(transport, b"x@example.net")
    rig.await_done(sent)
    envelope = sent.item.envelope
    for number in range(4):
        envelope.recipients.append(type(envelope.recipients[0])(b"u%d@example.net" % number, "example.net"))
    seen = []
    transport.deliver(sent.item, Body(BODY, "", len(BODY)), [2, 4], lambda outcomes, _: seen.append(outcomes), "")
    rig.run_until(lambda: seen)
    assert [outcome.status for outcome in seen[0]] == [DELIVERED, DELIVERED]
    assert [mail.recipients for mail in hop.mails[1:]] == [[b"u1@example.net"], [b"u3@example.net"]]


# --- large bodies in files -------------------------------------------------------------------------------------------


@pytest.fixture
def big(tmp_path: Path) -> Path:
    path = tmp_path / "big"
    path.write_bytes(b"Subject: big\r\n\r\n" + b".a line that begins with a dot, and is of some length\r\n" * 40_000)
    return path


def test_a_body_in_a_file_arrives_whole(rig: RelayRig, either_hop: NextHop, big: Path) -> None:
    before = descriptors()
    transport = rig.make(either_hop.name, connection_idle=0.001)
    all_sent = [rig.send(transport, body=big) for _ in range(3)]
    rig.await_done(*all_sent)
    assert [sent.statuses for sent in all_sent] == [[DELIVERED]] * 3
    assert [mail.body for mail in either_hop.mails] == [big.read_bytes()] * 3
    rig.await_closed(transport)
    either_hop.close()
    rig.run_until(lambda: descriptors() <= before)


@pytest.mark.parametrize("is_spilled", [True, False], ids=["file", "memory"])
@pytest.mark.parametrize("behaviour", [next_hop.sip, next_hop.sit], ids=["sip", "sit"])
def test_a_next_hop_that_hardly_reads_is_given_up_with_bounded_output(
    rig: RelayRig, big: Path, is_spilled: bool, behaviour: next_hop.Action
) -> None:
    before = descriptors()
    with NextHop(receive_buffer=4096) as hop:
        hop.on["content"] = behaviour
        transport = rig.make(hop.name, block_timeout=0.4)
        body = big.read_bytes() * 6  # more than the kernel takes
        if is_spilled:
            big.write_bytes(body)
        sent = rig.send(transport, body=big if is_spilled else body)
        rig.await_done(sent)
        assert sent.outcome.text == "timed out while waiting for the next hop to take the message"
        assert transport.unconfirmed == 0
        rig.await_closed(transport)
    rig.run_until(lambda: descriptors() <= before)
    assert hop.mails == []  # not even what had been handed to the stream


def test_a_file_that_is_gone_or_shorter_than_it_was_defers_and_does_not_blame_the_next_hop(
    rig: RelayRig, hop: NextHop, big: Path, tmp_path: Path
) -> None:
    transport = rig.make(hop.name)
    missing = tmp_path / "missing"
    missing.write_bytes(b"x")
    gone = rig.send(transport, body=missing)
    missing.unlink()
    cut = rig.send(transport, body=big)
    os.truncate(big, 300_000)
    rig.await_done(gone, cut)
    assert [sent.outcome.dsn for sent in (gone, cut)] == ["4.3.0", "4.3.0"]
    fine = rig.send(transport)
    rig.await_done(fine)
    assert fine.statuses == [DELIVERED]
    assert [mail.body for mail in hop.mails] == [BODY]
    assert rig.warnings == []


def test_a_lost_reply_is_counted_where_everything_left_at_once(rig: RelayRig) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(8)

        def take_all_and_die() -> None:
            with listening.accept()[0] as sock:
                sock.sendall(b"220 x\r\n")
                sock.recv(999)
                sock.sendall(b"250-x\r\n250-PIPELINING\r\n250 CHUNKING\r\n")
                with sock.makefile("rb") as commands:
                    while not (line := commands.readline()).startswith(b"BDAT"):
                        pass
                    commands.read(int(line.split()[1]))

        thread = threading.Thread(target=take_all_and_die)
        thread.start()
        transport = rig.make(f"127.0.0.1:{listening.getsockname()[1]}")
        sent = rig.send(transport)
        rig.await_done(sent)
        thread.join()
    assert (sent.statuses, transport.unconfirmed) == ([DEFERRED], 1)
