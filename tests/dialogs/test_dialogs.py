"""Every dialog gives the same replies whole, octet by octet, and over a real socket; together they use every reply there is."""

from __future__ import annotations

import pytest
from dialogs.dialog import Dialog, DialogError, parse_dialog, parse_octets, read_dialogs, split_replies
from dialogs.run import Runner
from dialogs.session_run import SessionWay

from smtpd._text import make_line
from smtpd.mail.reply import Reply, make_success
from smtpd.proto import replies

DIALOGS = read_dialogs()
CONSTANTS = {name: value.wire for name, value in vars(replies).items() if isinstance(value, Reply)}
INSTEAD_OF_A_SESSION = {"HOST_BUSY", "TOO_MANY_CONNECTIONS", "OVERLOADED"}  # heard in process/test_client_limits, test_overload
# What the functions of the catalogue make starts so.
STARTS = {
    "bad_attribute": replies.bad_attribute("").text,
    "queued": b"250 2.0.0 Ok: queued as ",
    "queued_for": b"250 2.1.5 <",
    "chunk_taken": replies.chunk_taken(1).wire.partition(b"1")[0],
    "bad_reverse_path": replies.bad_reverse_path("").text,
    "bad_forward_path": replies.bad_forward_path("").text,
}


def run_session(dialog: Dialog, is_octet_by_octet: bool) -> list[bytes]:
    runner = Runner(dialog, SessionWay(dialog, is_octet_by_octet))
    runner.run()
    return runner.replies


@pytest.mark.parametrize("dialog", DIALOGS, ids=lambda dialog: dialog.name)
def test_whole(dialog: Dialog) -> None:
    run_session(dialog, is_octet_by_octet=False)


@pytest.mark.parametrize("dialog", [one for one in DIALOGS if one.options.get("ways") != "whole"], ids=lambda dialog: dialog.name)
def test_octet_by_octet(dialog: Dialog) -> None:
    assert run_session(dialog, is_octet_by_octet=True) == run_session(dialog, is_octet_by_octet=False)


def test_every_reply_is_used_by_some_dialog() -> None:
    used = {reply for dialog in DIALOGS for reply in run_session(dialog, is_octet_by_octet=False)}
    unused = [name for name, wire in CONSTANTS.items() if wire not in used and name not in INSTEAD_OF_A_SESSION]
    unused += [name for name, start in STARTS.items() if not any(reply.startswith(start) for reply in used)]
    functions = {
        name for name, value in vars(replies).items() if callable(value) and value not in (Reply, make_line, make_success)
    }
    assert functions == set(STARTS)
    assert unused == []


def test_every_reply_but_the_basic_ones_has_an_enhanced_status_code() -> None:
    """RFC 2034 4: also not for 220, 354 and the answers to HELO and EHLO, which rules.py makes."""
    for name, wire in CONSTANTS.items():
        basic, enhanced = wire.split(b" ")[:2]
        if name != "START_DATA":
            assert enhanced.split(b".")[0] == basic[:1], name
            assert len(enhanced.split(b".")) == 3, name


@pytest.mark.parametrize(
    ("text", "octets"),
    [('"a\\r\\n"', b"a\r\n"), ('"\\xff" * 3', b"\xff" * 3), ('"a" + "b" * 2', b"abb"), ('("ab" * 2) + "c"', b"ababc")],
)
def test_octets_of_a_step(text: str, octets: bytes) -> None:
    assert parse_octets(text) == octets


@pytest.mark.parametrize("text", ["1", "a", '"a" - "b"', '"a" * "b"', "f()", '"\\u20ac"'])
def test_what_is_not_octets(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - DialogError or UnicodeEncodeError, both say it
        parse_octets(text)


@pytest.mark.parametrize("text", ["X: 1", "S 220", "@ a = b", "s: 220"])
def test_lines_that_are_no_steps(text: str) -> None:
    with pytest.raises(DialogError, match="one:2: no step"):
        parse_dialog("one", "S: 220\n" + text)


def run_text(text: str) -> None:
    run_session(parse_dialog("one", "S: 220\n" + text), is_octet_by_octet=False)


@pytest.mark.parametrize(
    "text",
    ["S: 250", "C: NOOP", "C: NOOP\nS: 500", "C: NOOP\nC: NOOP\nS: 250", "END:", "MAILS: 1", "BODY: \"\"", "SEEN: nul",
     "C: EHLO a\nS: 250-...\nHAS: AUTH", "C: EHLO a\nS: 250-...\nNOT: SIZE"],
)  # fmt: skip
def test_a_dialog_can_fail(text: str) -> None:
    with pytest.raises(AssertionError, match=r"one\.dialog:"):
        run_text(text)


def test_replies_are_split_at_their_last_lines() -> None:
    assert split_replies(b"250-a\r\n250 b\r\n354 c\r\n25") == ([b"250-a\r\n250 b\r\n", b"354 c\r\n"], b"25")
