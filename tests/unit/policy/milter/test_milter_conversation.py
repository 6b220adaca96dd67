"""Whole conversations with a filter written with kilter-protocol: what it hears, in which order, and what its answers come to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from filter_rig import Letter
from kilter.protocol import messages as km
from milter_rig import Milter

from smtpd.mail import changes as c
from smtpd.policy.milter import wire
from smtpd.policy.milter.answer import Answer
from smtpd.policy.milter.client import Limits, MilterClient
from smtpd.policy.milter.conversation import Conversation, Event
from smtpd.policy.milter.macros import MacroTable
from smtpd.policy.milter.negotiation import ALL_ACTIONS, Agreement
from smtpd.policy.milter.session import GO_ON, MilterSession
from smtpd.policy.milter.wire import WireError
from smtpd.settings.endpoint import parse_endpoint

VALUES = {b"j": b"mx.example.net", b"i": b"QID", b"{mail_addr}": b"alice@example.org"}
CONNECT = Event(wire.CONNECT, wire.make_connect(b"client.example.org", "192.0.2.1", 4321), VALUES)
HELO = Event(wire.HELO, wire.make_strings(wire.HELO, b"client.example.org"), VALUES)
SESSION = [CONNECT, HELO]
LIMITS = Limits(20.0, 20.0, 20.0)
NO_ANSWERS = 0x80 | 0xFF000


def mail(path: bytes = b"<alice@example.org>") -> Event:
    return Event(wire.MAIL, wire.make_strings(wire.MAIL, path, b"SIZE=10"), VALUES)


def rcpt(path: bytes = b"<bob@example.org>") -> Event:
    return Event(wire.RCPT, wire.make_strings(wire.RCPT, path), VALUES)


def data() -> Event:
    return Event(wire.DATA, wire.make_packet(wire.DATA), VALUES)


def play(
    milter: Milter, scene: Callable[[MilterClient], Awaitable[None]], *, may_reuse: bool = False, limits: Limits = LIMITS
) -> None:
    """Run a scene with a client of the milter; nothing is left open behind it."""

    async def run() -> None:
        await milter.start()
        client = MilterClient(parse_endpoint(milter.address), limits, may_reuse=may_reuse)
        try:
            await scene(client)
        finally:
            client.close()
            await milter.stop()
            await asyncio.sleep(0)  # what was aborted is closed in the next turn

    asyncio.run(run())


def talk(client: MilterClient) -> Conversation:
    return Conversation(client, MacroTable({}))


async def until(condition: Callable[[], bool]) -> None:
    """What the milter heard comes by its own reads."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0)


def test_every_stage_is_told_in_order_with_its_macros():
    milter = Milter()

    async def scene(client: MilterClient) -> None:
        events = []
        conversation = talk(client)
        for event in (CONNECT, HELO, mail(), rcpt(), rcpt(b"<carol@example.org>"), data()):
            events.append(event)
            assert conversation.must_ask(events)
            assert await conversation.tell(events) == GO_ON
        answer, changes = await conversation.tell_content(events, Letter(), VALUES)
        assert (answer, changes.all()) == (GO_ON, ())
        conversation.end_session()
        await until(lambda: bool(milter.of(km.Close)))

    play(milter, scene)
    assert milter.names() == (
        "Negotiate Connect Helo EnvelopeFrom EnvelopeRecipient EnvelopeRecipient Data Header Header EndOfHeaders Body "
        "EndOfMessage Close"
    )
    assert milter.of(km.EnvelopeFrom) == [km.EnvelopeFrom(b"<alice@example.org>", [b"SIZE=10"])]
    assert (
        milter.of(km.Header) == [km.Header("Subject", b" x"), km.Header("To", b" bob")] or milter.of(km.Header)[0].value == b"x"
    )
    assert [(chr(macro.stage), macro.macros) for macro in milter.of(km.Macro)] == [
        ("C", {"j": "mx.example.net"}),
        ("M", {"i": "QID", "{mail_addr}": "alice@example.org"}),
        ("R", {"i": "QID"}),
        ("R", {"i": "QID"}),
        ("T", {"i": "QID"}),
        ("N", {"i": "QID"}),
        ("E", {"i": "QID"}),
    ]


@pytest.mark.parametrize(("steps", "value"), [(0, b"x"), (0x100000, b" x")])
def test_leading_space_is_as_negotiated(steps, value):
    milter = Milter(steps=steps)

    async def scene(client: MilterClient) -> None:
        await talk(client).tell_content([*SESSION, mail(), rcpt(), data()], Letter(), VALUES)

    play(milter, scene)
    assert milter.of(km.Header)[0] == km.Header("Subject", value)


def test_filter_that_answers_nothing_hears_all_at_the_end_on_one_connection():
    milter = Milter(steps=NO_ANSWERS)

    async def scene(client: MilterClient) -> None:
        await talk(client).tell_content([*SESSION, mail(), rcpt(), data()], Letter(), VALUES)
        later = talk(client)
        events = [*SESSION, mail(), rcpt(), data()]
        assert not any(later.must_ask(events[: n + 1]) for n in range(5))
        answer, _ = await later.tell_content(events, Letter(), VALUES)
        assert answer == GO_ON

    play(milter, scene)
    assert milter.connections == 2


def test_events_that_a_filter_does_not_want_are_not_told():
    milter = Milter(steps=0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x20 | 0x40 | 0x200)

    async def scene(client: MilterClient) -> None:
        conversation = talk(client)
        events = [*SESSION, mail(), rcpt(), data()]
        assert await conversation.tell(events) == GO_ON
        assert not conversation.must_ask(events)
        await conversation.tell_content(events, Letter(), VALUES)

    play(milter, scene)
    assert milter.names() == "Negotiate EndOfMessage"


def test_macros_that_a_filter_asks_for():
    milter = Milter(steps=NO_ANSWERS, macros={2: ["j"]})

    async def scene(client: MilterClient) -> None:
        await talk(client).tell_content([*SESSION, mail(), rcpt(), data()], Letter(), VALUES)

    play(milter, scene)
    assert [macro.macros for macro in milter.of(km.Macro) if macro.stage == ord("M")] == [{"j": "mx.example.net"}]


def test_a_large_body_comes_in_full_pieces():
    milter = Milter()
    body = bytes(range(32, 126)) * 5000

    async def scene(client: MilterClient) -> None:
        await talk(client).tell_content([*SESSION, mail(), rcpt(), data()], Letter(body, piece=1000), VALUES)

    play(milter, scene)
    pieces = [bytes(message.content) for message in milter.of(km.Body)]
    assert b"".join(pieces) == body
    assert [len(piece) for piece in pieces[:-1]] == [wire.CHUNK_BYTES] * (len(body) // wire.CHUNK_BYTES)


def test_skip_ends_the_body_but_not_the_mail():
    milter = Milter(steps=0x400)
    milter.answers[km.Body] = [km.Skip()]

    async def scene(client: MilterClient) -> None:
        conversation = talk(client)
        for _ in range(2):
            letter = Letter(bytes(300_000).replace(b"\0", b"x"))
            answer, _ = await conversation.tell_content([*SESSION, mail(), rcpt(), data()], letter, VALUES)
            assert answer == GO_ON

    play(milter, scene)
    assert len(milter.of(km.Body)) == 2
    assert len(milter.of(km.EndOfMessage)) == 2


@pytest.mark.parametrize(
    ("kind", "count"), [(km.Connect, 1), (km.Helo, 2), (km.EnvelopeFrom, 3), (km.EnvelopeRecipient, 4), (km.Data, 5)]
)
def test_refusal_at_each_stage(kind, count):
    milter = Milter()
    milter.answers[kind] = [km.Reject()]

    async def scene(client: MilterClient) -> None:
        conversation = talk(client)
        events = [*SESSION, mail(), rcpt(), data()][:count]
        assert await conversation.tell(events[:-1]) == GO_ON
        answer = await conversation.tell(events)
        assert answer == Answer(wire.REJECT, b"550 5.7.1 Command rejected")
        assert conversation.must_ask(events)

    play(milter, scene)


def test_a_refused_recipient_is_not_the_mail():
    milter = Milter()
    milter.answers[km.EnvelopeRecipient] = lambda message: (
        [km.ReplyCode(b"550 5.1.1 Nobody here\0")] if b"nobody" in bytes(message.recipient) else [km.Continue()]
    )

    async def scene(client: MilterClient) -> None:
        conversation = talk(client)
        events = [*SESSION, mail(), rcpt(b"<nobody@example.org>")]
        assert (await conversation.tell(events)).reply == b"550 5.1.1 Nobody here"
        events.append(rcpt())
        assert await conversation.tell(events) == GO_ON
        answer, _ = await conversation.tell_content([*events, data()], Letter(), VALUES)
        assert answer == GO_ON

    play(milter, scene)
    assert len(milter.of(km.EnvelopeRecipient)) == 2


def test_recipient_that_a_later_check_refused_is_taken_back_by_telling_the_mail_anew():
    milter = Milter()

    async def scene(client: MilterClient) -> None:
        conversation = talk(client)
        events = [*SESSION, mail(), rcpt(b"<refused@example.org>")]
        await conversation.tell(events)
        events[3:] = [rcpt()]
        await conversation.tell(events)
        await conversation.tell_content([*events, data()], Letter(), VALUES)

    play(milter, scene)
    told = milter.names().split()
    assert told[told.index("Abort") :][:3] == ["Abort", "EnvelopeFrom", "EnvelopeRecipient"]
    assert "EnvelopeRecipient" not in told[told.index("Abort") + 3 :]


def test_late_refusal_of_a_recipient_defers_the_mail():
    """The filter is asked about two recipients after both were taken: neither may be lost without a word."""
    milter = Milter()
    milter.answers[km.EnvelopeRecipient] = [km.Reject()]

    async def scene(client: MilterClient) -> None:
        answer, _ = await talk(client).tell_content([*SESSION, mail(), rcpt(), data()], Letter(), VALUES)
        assert answer.reply.startswith(b"451 4.7.1")

    play(milter, scene)


def test_refused_session_stays_refused_and_the_filter_is_not_asked_again():
    milter = Milter()
    milter.answers[km.Helo] = [km.Reject()]

    async def scene(client: MilterClient) -> None:
        conversation = talk(client)
        for events in (SESSION, [*SESSION, mail()], [*SESSION, mail(), rcpt()]):
            assert (await conversation.tell(events)).refuses
            assert conversation.must_ask(events)

    play(milter, scene)
    assert milter.names() == "Negotiate Connect Helo"


def test_accept_ends_the_session_for_the_filter_at_connect_and_the_mail_later():
    milter = Milter()
    milter.answers[km.EnvelopeFrom] = [km.Accept()]

    async def scene(client: MilterClient) -> None:
        conversation = talk(client)
        first = [*SESSION, mail()]
        assert (await conversation.tell(first)).letter == wire.ACCEPT
        first.append(rcpt())
        assert not conversation.must_ask(first)
        assert (await conversation.tell_content(first, Letter(), VALUES))[0].letter == wire.ACCEPT
        second = [*SESSION, mail()]
        assert conversation.must_ask(second)
        await conversation.tell(second)

    play(milter, scene)
    assert milter.names() == "Negotiate Connect Helo EnvelopeFrom Abort EnvelopeFrom"


def test_aborted_mail_after_accept_does_not_hold_for_the_next_one():
    milter = Milter()
    milter.answers[km.EnvelopeFrom] = [km.Accept()]

    async def scene(client: MilterClient) -> None:
        conversation = talk(client)
        await conversation.tell([*SESSION, mail()])
        assert conversation.must_ask([*SESSION, mail()])

    play(milter, scene)


@pytest.mark.parametrize("kind", [km.Header, km.EndOfHeaders, km.Body, km.EndOfMessage])
def test_answer_within_the_content_ends_it(kind):
    milter = Milter()
    milter.answers[kind] = [km.ReplyCode(b"554 5.7.9 Bad content\0")]

    async def scene(client: MilterClient) -> None:
        conversation = talk(client)
        for _ in range(2):
            events = [*SESSION, mail(), rcpt(), data()]
            answer, _ = await conversation.tell_content(events, Letter(b"x" * 200_000), VALUES)
            assert answer.reply == b"554 5.7.9 Bad content"

    play(milter, scene)
    assert len(milter.of(kind)) == 2
    assert len(milter.of(km.EndOfMessage)) == (2 if kind is km.EndOfMessage else 0)


def test_changes_come_in_the_order_of_the_filter():
    milter = Milter()
    milter.answers[km.EndOfMessage] = [
        km.Progress(),
        km.AddHeader("X-One", b"1"),
        km.InsertHeader(1, "X-Two", b"2"),
        km.ReplaceBody(b"new "),
        km.ChangeHeader(1, "Subject", b""),
        km.ReplaceBody(b"body\r\n"),
        km.AddRecipient("<carol@example.org>"),
        km.AddRecipientPar("<dave@example.org>", "NOTIFY=NEVER"),
        km.RemoveRecipient("<bob@example.org>"),
        km.ChangeSender("<eve@example.org>", "RET=HDRS"),
        km.Quarantine("to be looked at"),
        km.Accept(),
    ]

    async def scene(client: MilterClient) -> None:
        answer, changes = await talk(client).tell_content([*SESSION, mail(), rcpt(), data()], Letter(), VALUES)
        assert answer.letter == wire.ACCEPT
        assert changes.all() == (
            c.AddHeader(b"X-One", b"1"),
            c.InsertHeader(0, b"X-Two", b"2"),
            c.ChangeHeader(b"Subject", 1, None),
            c.AddRecipient(b"carol@example.org"),
            c.AddRecipient(b"dave@example.org"),
            c.RemoveRecipient(b"bob@example.org"),
            c.ChangeReversePath(b"eve@example.org"),
            c.Hold("to be looked at"),
            c.ReplaceBody([b"new ", b"body\r\n"]),
        )

    play(milter, scene)


@pytest.mark.parametrize(
    "octets", [b"\0\0\0\1c\0\0\0\1c", b"\0\0\0\1?", b"\xff\xff\xff\xff", b"\0\0\0\2cx", b"HTTP/1.1 400 Bad\r\n"]
)
@pytest.mark.parametrize("kind", [km.Negotiate, km.Connect, km.EndOfMessage])
def test_garbage_is_an_error_and_the_connection_gone(kind, octets):
    milter = Milter()
    milter.raw[kind] = octets

    async def scene(client: MilterClient) -> None:
        conversation = talk(client)
        with pytest.raises(WireError):
            await conversation.tell_content([*SESSION, mail(), rcpt(), data()], Letter(), VALUES)
        milter.raw.clear()
        answer, _ = await conversation.tell_content([*SESSION, mail(), rcpt(), data()], Letter(), VALUES)
        assert answer == GO_ON

    play(milter, scene)
    assert milter.connections == 2


@pytest.mark.parametrize("letter", [b"h\0", b"s", b"+x\0", b"O"])
def test_answer_out_of_its_place(letter):
    milter = Milter()
    milter.raw[km.EndOfMessage if letter == b"s" else km.Helo] = len(letter).to_bytes(4, "big") + letter

    async def scene(client: MilterClient) -> None:
        with pytest.raises(WireError):
            await talk(client).tell_content([*SESSION, mail(), rcpt(), data()], Letter(), VALUES)

    play(milter, scene)


@pytest.mark.parametrize("kind", [km.Negotiate, km.Connect, km.EnvelopeFrom, km.Body, km.EndOfMessage])
def test_filter_that_leaves_midway(kind):
    milter = Milter()
    milter.raw[kind] = None

    async def scene(client: MilterClient) -> None:
        with pytest.raises(OSError, match="closed"):
            await talk(client).tell_content([*SESSION, mail(), rcpt(), data()], Letter(), VALUES)

    play(milter, scene)
    assert milter.connections == 1


@pytest.mark.parametrize("kind", [km.Negotiate, km.Helo, km.EndOfMessage])
def test_filter_that_says_nothing(kind):
    milter = Milter()
    milter.raw[kind] = "hang"

    async def scene(client: MilterClient) -> None:
        with pytest.raises(TimeoutError):
            await talk(client).tell_content([*SESSION, mail(), rcpt(), data()], Letter(), VALUES)

    play(milter, scene, limits=Limits(0.05, 0.05, 0.05))
    assert type(milter.heard[-1]) is kind


def test_filter_that_is_away():
    async def scene(client: MilterClient) -> None:
        await milter.stop()
        with pytest.raises(OSError, match=r"."):
            await talk(client).tell(SESSION)

    milter = Milter()
    play(milter, scene)


def test_progress_extends_the_time(monkeypatch):
    """Five times nine tenths of the limit go by, by a clock that the test moves."""
    milter = Milter()
    milter.raw[km.EndOfMessage] = b""
    heard = []
    take = MilterSession.take
    monkeypatch.setattr(MilterSession, "take", lambda self, packet: heard.append(packet) or take(self, packet))

    async def scene(client: MilterClient) -> None:
        loop = asyncio.get_running_loop()
        later_s = 0.0
        time = loop.time
        monkeypatch.setattr(loop, "time", lambda: time() + later_s)
        task = asyncio.ensure_future(talk(client).tell_content([*SESSION, mail(), rcpt(), data()], Letter(), VALUES))
        await until(lambda: bool(milter.of(km.EndOfMessage)))
        (writer,) = milter.writers
        heard.clear()
        for count in range(5):
            later_s += 270.0
            writer.write(wire.make_packet(wire.PROGRESS))
            await until(lambda: len(heard) > count)  # noqa: B023 - awaited here
        writer.write(wire.make_packet(wire.CONTINUE))
        answer, _ = await task
        assert answer == GO_ON

    play(milter, scene, limits=Limits(20.0, 20.0, 300.0))


def test_macros_set_by_an_answer_of_their_own():
    milter = Milter()
    packet = wire.make_packet(wire.SET_MACROS, b"\0\0\0\2j {mail_addr}\0") + wire.make_packet(wire.CONTINUE)

    async def scene(client: MilterClient) -> None:
        milter.raw[km.Connect] = packet
        assert await talk(client).tell([CONNECT]) == GO_ON
        milter.raw.clear()

    play(milter, scene)
    agreement = Agreement(wire.Offer(6, ALL_ACTIONS, 0, {}))
    agreement.set_macros(wire.Packet(wire.SET_MACROS, b"\0\0\0\2j {mail_addr}\0"))
    assert agreement.macros == {2: [b"j", b"{mail_addr}"]}
    with pytest.raises(WireError, match="without having asked"):
        Agreement(wire.Offer(6, 0, 0, {})).set_macros(wire.Packet(wire.SET_MACROS, b""))


def test_connection_is_used_for_several_mails_of_a_session():
    milter = Milter()

    async def scene(client: MilterClient) -> None:
        conversation = talk(client)
        for _ in range(3):
            await conversation.tell_content([*SESSION, mail(), rcpt(), data()], Letter(), VALUES)
        await conversation.tell([*SESSION, mail()])
        await conversation.tell([*SESSION, mail()])
        conversation.end_session()
        await until(lambda: bool(milter.of(km.Close)))

    play(milter, scene)
    assert milter.connections == 1
    assert len(milter.of(km.Connect)) == 1
    assert milter.names().endswith("EndOfMessage EnvelopeFrom Abort EnvelopeFrom Abort Close")


def test_filter_restarted_between_two_mails_is_no_failure():
    milter = Milter()

    async def scene(client: MilterClient) -> None:
        conversation = talk(client)
        await conversation.tell_content([*SESSION, mail(), rcpt(), data()], Letter(), VALUES)
        milter.close_connections()
        await until(lambda: not milter.writers)
        answer, _ = await conversation.tell_content([*SESSION, mail(), rcpt(), data()], Letter(), VALUES)
        assert answer == GO_ON

    play(milter, scene)
    assert milter.connections == 2


def test_filter_restarted_within_a_session_hears_all_of_it_again():
    milter = Milter()

    async def scene(client: MilterClient) -> None:
        conversation = talk(client)
        events = [*SESSION, mail(), rcpt()]
        for count in range(1, 5):
            assert await conversation.tell(events[:count]) == GO_ON
            milter.close_connections()
            await until(lambda: not milter.writers)
        assert (await conversation.tell_content([*events, data()], Letter(), VALUES))[0] == GO_ON

    play(milter, scene)
    assert milter.connections == 5
    assert milter.names().endswith(
        "Negotiate Connect Helo EnvelopeFrom EnvelopeRecipient Data Header Header EndOfHeaders Body EndOfMessage"
    )


class Reused:
    """A filter that takes QUIT_NC, told in octets: the library doesn't know it."""

    def __init__(self) -> None:
        self.connections = 0
        self.letters = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        packets = wire.PacketReader()
        while data := await reader.read(65536):
            packets.feed(data)
            for letter, payload in packets.packets():
                self.letters += letter
                if letter == wire.NEGOTIATE:
                    writer.write(wire.make_packet(wire.NEGOTIATE, payload[:8] + (0xFF080).to_bytes(4, "big")))
                elif letter == wire.END_OF_BODY:
                    writer.write(wire.make_packet(wire.CONTINUE))
        writer.close()


def test_connection_is_used_for_several_sessions_where_that_is_configured():
    filter_ = Reused()

    async def run() -> None:
        server = await asyncio.start_server(filter_.serve, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        client = MilterClient(parse_endpoint(f"{host}:{port}"), LIMITS, may_reuse=True)
        for _ in range(3):
            conversation = talk(client)
            events = [*SESSION, mail(), rcpt(), data()]
            assert (await conversation.tell_content(events, Letter(b""), VALUES))[0] == GO_ON
            conversation.end_session()
        client.close()
        server.close()
        await server.wait_closed()

    asyncio.run(run())
    assert filter_.connections == 1
    assert filter_.letters.replace(b"D", b"").removesuffix(b"K") == b"O" + b"K".join([b"CHMRTLLNE"] * 3)


def test_session_that_ends_while_its_question_is_cancelled_leaves_nothing():
    milter = Milter()
    milter.raw[km.Helo] = "hang"

    async def scene(client: MilterClient) -> None:
        conversation = talk(client)
        task = asyncio.ensure_future(conversation.tell(SESSION))
        await until(lambda: bool(milter.of(km.Helo)))
        task.cancel()
        conversation.end_session()
        with pytest.raises(asyncio.CancelledError):
            await task

    play(milter, scene)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "unix"])
def test_families(host, tmp_path):
    milter = Milter()

    async def run() -> None:
        path = str(tmp_path / "milter.sock") if host == "unix" else ""
        await milter.start(host, path)
        client = MilterClient(parse_endpoint(f"unix:{path}" if path else milter.address), LIMITS)
        assert await talk(client).tell(SESSION) == GO_ON
        client.close()
        await milter.stop()
        await asyncio.sleep(0)

    asyncio.run(run())
