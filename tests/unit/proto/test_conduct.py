"""What a session does when its conduct says so, stage by stage; with a script for a conduct and no clock."""

from __future__ import annotations

import pytest
from conducted import CONTENT, DATA, HELLO, MAIL, QUIT, RCPT, Conducted, Script

from smtpd import _parser as p
from smtpd.mail.reply import Reply
from smtpd.mail.verdict import Verdict
from smtpd.proto import events as ev
from smtpd.proto.conduct import CLOSE, LATER, RESET, Step

BUSY = Reply(b"450 4.2.0 Busy")
BDAT = b"BDAT 6 LAST\r\ntext\r\n"
_PLACES = {
    HELLO: (ev.STAGE_HELO, p.VERB_EHLO), MAIL: (ev.STAGE_MAIL, p.VERB_MAIL), RCPT: (ev.STAGE_RCPT, p.VERB_RCPT),
    DATA: (ev.STAGE_DATA, p.VERB_DATA), b"RSET\r\n": ("", p.VERB_RSET), b"NOOP\r\n": ("", p.VERB_NOOP),
    b"VRFY x\r\n": ("", p.VERB_VRFY), QUIT: ("", p.VERB_QUIT),
}  # fmt: skip
_BEFORE = {
    HELLO: b"", MAIL: HELLO, RCPT: HELLO + MAIL, DATA: HELLO + MAIL + RCPT, b"RSET\r\n": b"", b"NOOP\r\n": b"",
    b"VRFY x\r\n": b"", QUIT: b"",
}  # fmt: skip
COMMANDS = list(_PLACES)


def conducted(*steps: tuple[tuple[str, int], Step], is_lmtp: bool = False) -> Conducted:
    return Conducted(Script(dict(steps)), is_lmtp=is_lmtp)


def prepare(run: Conducted, command: bytes) -> list[bytes]:
    """Send what has to come before the command, each line by itself; return the replies with the greeting."""
    return run.replies() + [reply for line in _BEFORE[command].splitlines(keepends=True) for reply in run.send(line)]


def codes(replies: list[bytes]) -> list[int]:
    return [int(reply[:3]) for reply in replies]


def test_it_is_asked_at_every_stage_in_order_with_the_argument() -> None:
    script = Script()
    run = Conducted(script)
    assert codes(run.send(HELLO)) == [220, 250]
    assert codes(run.send(MAIL + RCPT + DATA)) == [250, 250, 354]
    assert codes(run.send(CONTENT)) == [250]
    assert codes(run.send(MAIL + RCPT + BDAT + QUIT)) == [250, 250, 250, 221]
    assert script.asked == [
        (ev.STAGE_CONNECT, p.VERB_NONE, b""),
        (ev.STAGE_HELO, p.VERB_EHLO, b"client.example.com"),
        (ev.STAGE_MAIL, p.VERB_MAIL, b"FROM:<a@example.com>"),
        (ev.STAGE_RCPT, p.VERB_RCPT, b"TO:<b@example.org>"),
        (ev.STAGE_DATA, p.VERB_DATA, b""),
        (ev.STAGE_BODY, p.VERB_DATA, b""),
        (ev.STAGE_MAIL, p.VERB_MAIL, b"FROM:<a@example.com>"),
        (ev.STAGE_RCPT, p.VERB_RCPT, b"TO:<b@example.org>"),
        (ev.STAGE_DATA, p.VERB_BDAT, b"6 LAST"),
        (ev.STAGE_BODY, p.VERB_BDAT, b""),
        ("", p.VERB_QUIT, b""),
    ]
    assert (run.mails, run.ended) == (2, "quit")


def test_it_is_not_asked_for_a_command_out_of_order() -> None:
    script = Script()
    run = Conducted(script)
    assert codes(run.send(DATA + b"XYZZY\r\n")) == [220, 503, 500]
    assert [stage for stage, verb, _ in script.asked if verb != p.VERB_OTHER] == [ev.STAGE_CONNECT]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_reply_stands_for_the_commands_own_and_nothing_is_carried_out(command: bytes) -> None:
    run = conducted((_PLACES[command], Step(BUSY)))
    before = prepare(run, command)
    assert run.send(command) == [BUSY.text]
    assert 450 not in codes(before)
    assert not run.ended
    if command == DATA:  # the recipients are still there: no content is expected
        assert codes(run.send(b"NOOP\r\n")) == [250]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("ending", [CLOSE, RESET])
def test_an_ending_without_a_reply_says_nothing(command: bytes, ending: int) -> None:
    run = conducted((_PLACES[command], Step(ending=ending)))
    prepare(run, command)
    assert run.send(command) == []
    assert (run.ended, run.is_reset) == ("conduct", ending == RESET)


@pytest.mark.parametrize("command", COMMANDS)
def test_421_ends_the_connection(command: bytes) -> None:
    run = conducted((_PLACES[command], Step(Reply(b"421 4.3.2 Bye"))))
    prepare(run, command)
    assert run.send(command) == [b"421 4.3.2 Bye"]
    assert run.ended == "conduct"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_delay_comes_before_the_command_and_nothing_behind_it_is_read(command: bytes) -> None:
    run = conducted((_PLACES[command], Step(delay_s=2.5)))
    prepare(run, command)
    assert run.send(command) == []
    assert run.waits == ("delay", 2.5)
    assert run.send(b"" if command == QUIT else b"HELP\r\n") == []
    replies = codes(run.pass_time())
    assert len(replies) == (1 if command in (QUIT, DATA) else 2)  # after DATA it is content
    assert replies[0] < 400


def test_the_greeting_can_wait_be_replaced_and_be_withheld() -> None:
    place = (ev.STAGE_CONNECT, p.VERB_NONE)
    late = conducted((place, Step(delay_s=9.0)))
    assert late.replies() == []
    assert codes(late.pass_time()) == [220]
    refused = conducted((place, Step(Reply(b"554 5.7.1 No"))))
    assert (codes(refused.replies()), refused.ended, refused.rejects) == ([554], "", [("connect", b"554 5.7.1 No")])
    closed = conducted((place, Step(Reply(b"421 4.3.2 No"))))
    assert (codes(closed.replies()), closed.ended) == ([421], "conduct")
    silent = conducted((place, Step(ending=RESET)))
    assert (silent.replies(), silent.is_reset, silent.ended) == ([], True, "conduct")


def test_a_refused_end_of_data_drops_the_body_and_the_session_goes_on() -> None:
    run = conducted(((ev.STAGE_BODY, p.VERB_DATA), Step(BUSY)))
    assert codes(run.send(HELLO)) == [220, 250]
    run.send(MAIL + RCPT + DATA)
    assert run.send(CONTENT) == [BUSY.text]
    assert (run.mails, run.bodies_dropped, run.rejects) == (0, 1, [("body", BUSY.text)])
    assert codes(run.send(MAIL)) == [250]


def test_a_late_end_of_data_is_a_mail_only_then() -> None:
    run = conducted(((ev.STAGE_BODY, p.VERB_DATA), Step(delay_s=1.0)))
    run.send(HELLO)
    run.send(MAIL + RCPT + DATA)
    assert run.send(CONTENT) == []
    assert run.mails == 0
    assert codes(run.pass_time()) == [250]
    assert run.mails == 1


def test_an_end_of_data_without_an_answer_keeps_nothing() -> None:
    run = conducted(((ev.STAGE_BODY, p.VERB_DATA), Step(ending=CLOSE)))
    run.send(HELLO)
    run.send(MAIL + RCPT + DATA)
    assert run.send(CONTENT) == []
    assert (run.mails, run.bodies_dropped, run.ended) == (0, 1, "conduct")


def test_lmtp_refuses_each_recipient() -> None:
    run = conducted(((ev.STAGE_BODY, p.VERB_DATA), Step(BUSY)), is_lmtp=True)
    run.send(b"LHLO client.example.com\r\n")
    run.send(MAIL + RCPT + RCPT + DATA)
    assert run.send(CONTENT) == [BUSY.text, BUSY.text]


def test_lmtp_answers_each_recipient_for_itself() -> None:
    run = conducted(((ev.STAGE_BODY, p.VERB_DATA), Step(each=[None, BUSY, None])), is_lmtp=True)
    run.send(b"LHLO client.example.com\r\n")
    run.send(MAIL + RCPT * 3 + DATA)
    first, second, third = run.send(CONTENT)
    assert first.startswith(b"250 2.1.5 <b@example.org> Ok: queued as ")
    assert (second, third) == (BUSY.text, first)
    assert run.mails == 1
    run.send(MAIL + RCPT * 3 + DATA)  # whose answers are its own
    run.session.conduct = None
    assert codes(run.send(CONTENT)) == [250] * 3


def test_lmtp_keeps_nothing_that_no_recipient_gets() -> None:
    run = conducted(((ev.STAGE_BODY, p.VERB_DATA), Step(BUSY, each=[Reply(b"550 5.2.1 No"), BUSY])), is_lmtp=True)
    run.send(b"LHLO client.example.com\r\n")
    run.send(MAIL + RCPT * 2 + DATA)
    assert run.send(CONTENT) == [b"550 5.2.1 No", BUSY.text]
    assert (run.mails, run.bodies_dropped) == (0, 1)


def test_a_refused_chunk_is_swallowed() -> None:
    run = conducted(((ev.STAGE_DATA, p.VERB_BDAT), Step(BUSY)))
    run.send(HELLO)
    assert run.send(MAIL + RCPT + BDAT + b"NOOP\r\n")[2:] == [BUSY.text, b"250 2.0.0 Ok"]
    assert run.mails == 0


def test_a_late_chunk_is_taken_later() -> None:
    run = conducted(((ev.STAGE_DATA, p.VERB_BDAT), Step(delay_s=3.0)))
    run.send(HELLO)
    assert codes(run.send(MAIL + RCPT + BDAT)) == [250, 250]
    assert run.waits == ("delay", 3.0)
    assert codes(run.pass_time()) == [250]
    assert run.mails == 1


def test_hold_answers_and_reads_nothing_for_a_while() -> None:
    run = conducted(((ev.STAGE_DATA, p.VERB_DATA), Step(hold_s=4.0)))
    run.send(HELLO)
    assert codes(run.send(MAIL + RCPT + DATA)) == [250, 250, 354]
    assert run.waits == ("delay", 4.0)
    assert run.send(CONTENT) == []
    assert codes(run.pass_time()) == [250]


@pytest.mark.parametrize("command", [command for command in COMMANDS if command != QUIT])
@pytest.mark.parametrize("delay_s", [0.0, 2.0])
@pytest.mark.parametrize("reply", [None, BUSY])
def test_hold_follows_every_answer(command: bytes, delay_s: float, reply: Reply | None) -> None:
    run = conducted((_PLACES[command], Step(reply, delay_s=delay_s, hold_s=4.0)))
    prepare(run, command)
    replies = run.send(command)
    if delay_s:
        assert (replies, run.waits) == ([], ("delay", 2.0))
        replies = run.pass_time()
    assert len(replies) == 1
    assert (codes(replies) == [450]) is (reply is not None)
    assert run.waits == ("delay", 4.0)


@pytest.mark.parametrize("delay_s", [0.0, 2.0])
@pytest.mark.parametrize(("reply", "code"), [(None, 250), (BUSY, 450)])
@pytest.mark.parametrize(("content", "verb"), [(CONTENT, p.VERB_DATA), (b"BDAT 0 LAST\r\n", p.VERB_BDAT), (BDAT, p.VERB_BDAT)])
def test_hold_follows_the_answer_to_a_mail(delay_s: float, reply: Reply | None, code: int, content: bytes, verb: int) -> None:
    run = conducted(((ev.STAGE_BODY, verb), Step(reply, delay_s=delay_s, hold_s=4.0)))
    run.send(HELLO)
    run.send(MAIL + RCPT + (DATA if verb == p.VERB_DATA else b""))
    replies = run.send(content + b"NOOP\r\n")
    if delay_s:
        assert (replies, run.waits) == ([], ("delay", 2.0))
        replies = run.pass_time()
    assert codes(replies) == [code]
    assert run.waits == ("delay", 4.0)
    assert codes(run.pass_time()) == [250]


@pytest.mark.parametrize("delay_s", [0.0, 2.0])
def test_hold_follows_the_greeting(delay_s: float) -> None:
    run = conducted(((ev.STAGE_CONNECT, p.VERB_NONE), Step(delay_s=delay_s, hold_s=4.0)))
    replies = run.replies()
    if delay_s:
        assert (replies, run.waits) == ([], ("delay", 2.0))
        replies = run.pass_time()
    assert codes(replies) == [220]
    assert run.send(HELLO) == []
    assert run.waits == ("delay", 4.0)
    assert codes(run.pass_time()) == [250]


def test_who_is_held_between_transactions_is_told_at_once_when_the_server_drains() -> None:
    run = conducted((_PLACES[MAIL], Step(BUSY, hold_s=60.0)))
    run.send(HELLO)
    assert codes(run.send(MAIL)) == [450]
    run.session.drain()
    assert run.session.take_output()[:3] == b"421"


def test_abort_says_550_without_reading_the_content() -> None:
    cut = Step(Reply(b"550 5.3.0 No"), CLOSE)
    run = conducted(((ev.STAGE_DATA, p.VERB_DATA), Step(hold_s=1.0, cut=cut)))
    run.send(HELLO)
    assert codes(run.send(MAIL + RCPT + DATA)) == [250, 250, 354]
    assert run.pass_time() == [b"550 5.3.0 No"]
    assert (run.ended, run.mails, run.bodies_dropped) == ("conduct", 0, 1)
    at_once = conducted(((ev.STAGE_DATA, p.VERB_DATA), Step(cut=cut)))
    at_once.send(HELLO)
    assert codes(at_once.send(MAIL + RCPT + DATA)) == [250, 250, 354, 550]


@pytest.mark.parametrize("begin", [DATA, b"BDAT 5000\r\n"])
def test_content_is_cut_after_so_many_octets(begin: bytes) -> None:
    verb = p.VERB_DATA if begin == DATA else p.VERB_BDAT
    run = conducted(((ev.STAGE_DATA, verb), Step(cut=Step(ending=RESET), cut_bytes=1000)))
    run.send(HELLO)
    run.send(MAIL + RCPT + begin)
    run.send(b"x" * 900)
    assert not run.ended
    run.send(b"x" * 200)
    assert (run.ended, run.is_reset, run.bodies_dropped) == ("conduct", True, 1)


def test_content_that_is_shorter_than_the_cut_is_a_mail() -> None:
    run = conducted(((ev.STAGE_DATA, p.VERB_DATA), Step(cut=Step(ending=RESET), cut_bytes=1000)))
    run.send(HELLO)
    run.send(MAIL + RCPT + DATA)
    assert codes(run.send(CONTENT)) == [250]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_verdict_may_come_later(command: bytes) -> None:
    for verdict, code in ((Verdict(), None), (Verdict(BUSY, "greylist"), 450)):
        run = conducted((_PLACES[command], LATER))
        prepare(run, command)
        assert run.send(command) == []
        assert run.waits == ("ask", _PLACES[command][0])
        replies = codes(run.pass_time(verdict))
        assert replies == [450] if code else replies[0] < 400


def test_a_late_or_double_answer_does_nothing() -> None:
    run = conducted((_PLACES[MAIL], Step(delay_s=1.0)))
    run.send(HELLO)
    run.send(MAIL)
    token = run.token
    assert codes(run.pass_time()) == [250]
    run.session.resume(token, None)
    assert run.session.take_output() in (None, b"")
    assert codes(run.send(RCPT)) == [250]


def test_who_waits_between_transactions_is_told_at_once_when_the_server_drains() -> None:
    for command, before in ((MAIL, HELLO), (b"NOOP\r\n", HELLO)):
        run = conducted((_PLACES[command], Step(delay_s=60.0)))
        run.send(before)
        run.send(command)
        run.session.drain()
        assert run.session.take_output()[:3] == b"421"
