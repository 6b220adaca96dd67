"""Replies and changes of filters: what may be said to a client, and what may be done to a mail."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd.config.grammar import check_text
from smtpd.mail import changes as c
from smtpd.mail.reply import Reply
from smtpd.policy.milter import wire
from smtpd.policy.milter.answer import Answer, clean_reply, read_answer
from smtpd.policy.milter.changes import MAX_CHANGES, Changes, fold_value
from smtpd.policy.milter.content import BodyCutter, Field, split_fields
from smtpd.policy.milter.macros import DEFAULTS, MacroTable
from smtpd.policy.milter.negotiation import ALL_ACTIONS, ALL_STEPS, MAY_ADD_HEADERS, Agreement
from smtpd.policy.milter.wire import Packet, WireError

EVERYTHING = Agreement(wire.Offer(6, ALL_ACTIONS, 0, {}))


@pytest.mark.parametrize(
    ("told", "reply"),
    [
        (b"550 5.7.1 No", b"550 5.7.1 No"),
        (b"554 No", b"554 5.7.1 No"),
        (b"450 Later", b"450 4.7.1 Later"),
        (b"550 4.7.1 No", b"550 5.7.1 No"),
        (b"550 2.1.5 No", b"550 5.7.1 No"),
        (b"550", b"550 5.7.1 Refused by policy"),
        (b"550-5.7.1 One\r\n550 5.7.1 Two", b"550-5.7.1 One\r\n550 5.7.1 Two"),
        (b"550-5.7.1 One\r\n550 Two\r\n", b"550-5.7.1 One\r\n550 5.7.1 Two"),
        (b"550 5.7.1 100%% sure, %s", b"550 5.7.1 100% sure, s"),
        (b"550 5.7.1 caf\xc3\xa9\x1b[0m", b"550 5.7.1 caf???[0m"),
    ],
)
def test_replies_as_clients_get_them(told, reply):
    assert clean_reply(told) == reply


@pytest.mark.parametrize("told", [b"", b"250 2.0.0 Ok", b"354 Go", b"55", b"no reply", b"550-One\r\n450 Two", b"550 One\r\nTwo"])
def test_what_is_no_reply(told):
    with pytest.raises(WireError):
        clean_reply(told)


@given(st.binary(max_size=300), st.sampled_from([b"450 ", b"550-", b"421 ", b""]))
def test_reply_never_breaks_the_dialogue(text, head):
    try:
        reply = clean_reply(head + text)
    except WireError:
        return
    lines = reply.split(b"\r\n")
    assert all(len(line) <= 510 and line[:3] == lines[0][:3] and line[4:6] == line[:1] + b"." for line in lines)
    assert [line[3:4] for line in lines] == [b"-"] * (len(lines) - 1) + [b" "]
    assert all(31 < octet < 127 for line in lines for octet in line)
    assert Reply(reply).is_error


@pytest.mark.parametrize(
    ("letter", "reply"),
    [(wire.REJECT, b"550 5.7.1"), (wire.TEMPFAIL, b"451 4.7.1"), (wire.SHUTDOWN, b"421 4.7.1"), (wire.CONTINUE, b"")],
)
def test_answers_without_a_reply_of_their_own(letter, reply):
    answer = read_answer(Packet(letter, b""))
    assert answer.reply.startswith(reply)
    assert answer.refuses == bool(reply)


def test_reply_of_a_filter():
    assert read_answer(Packet(wire.REPLY_CODE, b"451 4.2.0 Wait\0")) == Answer(wire.REPLY_CODE, b"451 4.2.0 Wait")


def take(*packets: Packet, agreement: Agreement = EVERYTHING, limit: int = 0) -> tuple[c.Change, ...]:
    changes = Changes()
    for packet in packets:
        changes.take(packet, agreement, limit)
    return changes.all()


@pytest.mark.parametrize(
    ("packet", "change"),
    [
        (Packet(wire.ADD_HEADER, b"X-A\0value\0"), c.AddHeader(b"X-A", b"value")),
        (Packet(wire.ADD_HEADER, b"X-A\0 value\0"), c.AddHeader(b"X-A", b"value")),
        (Packet(wire.INSERT_HEADER, b"\0\0\0\0X-A\0value\0"), c.InsertHeader(0, b"X-A", b"value")),
        (Packet(wire.INSERT_HEADER, b"\0\0\0\1X-A\0value\0"), c.InsertHeader(0, b"X-A", b"value")),
        (Packet(wire.INSERT_HEADER, b"\0\0\0\2X-A\0value\0"), c.InsertHeader(1, b"X-A", b"value")),
        (Packet(wire.CHANGE_HEADER, b"\0\0\0\2X-A\0value\0"), c.ChangeHeader(b"X-A", 2, b"value")),
        (Packet(wire.CHANGE_HEADER, b"\0\0\0\0X-A\0\0"), c.ChangeHeader(b"X-A", 1, None)),
        (Packet(wire.QUARANTINE, b"looks\nbad\0"), c.Hold("looks?bad")),
        (Packet(wire.CHANGE_SENDER, b"<>\0"), c.ChangeReversePath(b"")),
        (Packet(wire.CHANGE_SENDER, b"<bob@example.org>\0RET=HDRS\0"), c.ChangeReversePath(b"bob@example.org")),
        (Packet(wire.ADD_RECIPIENT, b"bob@example.org\0"), c.AddRecipient(b"bob@example.org")),
        (Packet(wire.ADD_RECIPIENT_WITH, b"<bob@example.org>\0NOTIFY=NEVER\0"), c.AddRecipient(b"bob@example.org")),
        (Packet(wire.DELETE_RECIPIENT, b"<bob@example.org>\0"), c.RemoveRecipient(b"bob@example.org")),
    ],
)
def test_changes_of_a_filter(packet, change):
    assert take(packet) == (change,)


def test_pieces_of_a_new_body():
    pieces = take(Packet(wire.REPLACE_BODY, b"one"), Packet(wire.ADD_HEADER, b"A\0b\0"), Packet(wire.REPLACE_BODY, b"two"))
    assert pieces == (c.AddHeader(b"A", b"b"), c.ReplaceBody([b"one", b"two"]))


@pytest.mark.parametrize(
    ("packet", "text"),
    [
        (Packet(wire.ADD_RECIPIENT, b"<>\0"), "an address"),
        (Packet(wire.ADD_RECIPIENT, b"<bob@example.org> SIZE=1\0"), "an address"),
        (Packet(wire.CHANGE_SENDER, b"<bob\r\n@example.org>\0"), "an address"),
        (Packet(wire.REPLACE_BODY, b"x" * 11), "more than 10"),
    ],
)
def test_changes_that_cannot_be(packet, text):
    with pytest.raises(WireError, match=text):
        take(packet, limit=10)


def test_change_that_was_not_negotiated():
    with pytest.raises(WireError, match="not asked for"):
        take(Packet(wire.QUARANTINE, b"x\0"), agreement=Agreement(wire.Offer(6, MAY_ADD_HEADERS, 0, {})))


def test_changes_are_bounded():
    with pytest.raises(WireError, match="more than"):
        take(*[Packet(wire.ADD_HEADER, b"A\0b\0")] * (MAX_CHANGES + 1))


@pytest.mark.parametrize(
    ("value", "folded"),
    [
        (b"one", b"one"),
        (b"one\n\ttwo", b"one\r\n\ttwo"),
        (b"one\r\n two\r\n", b"one\r\n two"),
        (b"one\ntwo", b"one\r\n\ttwo"),
        (b"one\n\nX-Evil: two", b"one\r\n\tX-Evil: two"),
        (b"one\x01\x7f", b"one"),
    ],
)
def test_values_fold_and_end_no_field(value, folded):
    assert fold_value(value) == folded


@given(st.binary(max_size=100))
def test_no_value_begins_another_field_or_the_body(value):
    first, *more = fold_value(value).split(b"\r\n")
    assert b"\n" not in first
    assert b"\r" not in first
    assert all(line[:1] in (b" ", b"\t") and line.strip() and b"\n" not in line and b"\r" not in line for line in more)


@pytest.mark.parametrize(
    ("header", "fields", "rest"),
    [
        (b"", [], b""),
        (b"A: b\r\n", [Field(b"A", b" b")], b""),
        (b"A:b\r\n\tc\r\nB : d\r\n", [Field(b"A", b"b\n\tc"), Field(b"B", b" d")], b""),
        (b"A: b\r\nno field\r\nC: d\r\n", [Field(b"A", b" b")], b"no field\r\nC: d\r\n\r\n"),
        (b" x\r\nA: b\r\n", [], b" x\r\nA: b\r\n\r\n"),
    ],
)
def test_header_is_split_as_postfix_splits_it(header, fields, rest):
    assert split_fields(header) == (fields, rest)


@given(st.lists(st.integers(0, 3 * wire.CHUNK_BYTES), max_size=4))
def test_body_is_cut_into_full_pieces(sizes):
    cutter = BodyCutter()
    pieces = [piece for size in sizes for piece in cutter.feed(bytes(size))] + cutter.end()
    assert sum(map(len, pieces)) == sum(sizes)
    assert all(len(piece) == wire.CHUNK_BYTES for piece in pieces[:-1])
    assert all(pieces)


VALUES = {b"i": b"QID", b"{mail_addr}": b"alice@example.org", b"{client_addr}": b"192.0.2.1"}


def test_macros_by_default_from_the_configuration_and_as_the_filter_asks():
    table = MacroTable({})
    assert table.select(wire.MAIL, EVERYTHING, VALUES) == [
        (b"i", b"QID"),
        (b"{mail_addr}", b"alice@example.org"),
        (b"{client_addr}", b"192.0.2.1"),
    ]
    assert table.select(wire.BODY, EVERYTHING, VALUES) == []
    assert MacroTable({"mail": ["i"]}).select(wire.MAIL, EVERYTHING, VALUES) == [(b"i", b"QID")]
    asked = Agreement(wire.Offer(6, 0x100, 0, {2: [b"mail_addr", b"{nothing}"]}))
    assert table.select(wire.MAIL, asked, VALUES) == [(b"{mail_addr}", b"alice@example.org")]


def test_names_of_macros():
    assert [check_text("macro", name) for name in ("i", "{i}", "_", "client_addr", "{client_addr}")] == [
        "i", "i", "_", "{client_addr}", "{client_addr}",
    ]  # fmt: skip
    for name in ("", "{}", "a b", "{a", "ä"):
        with pytest.raises(ValueError, match="name of a macro"):
            check_text("macro", name)
    assert all(check_text("macro", name) == name for names in DEFAULTS.values() for name in names)


def test_steps_that_mean_nothing_are_let_go_by():
    assert Agreement(wire.Offer(6, 0, 0xFFFFFFFF, {})).steps == ALL_STEPS
