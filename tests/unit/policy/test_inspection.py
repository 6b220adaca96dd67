"""The way of a session through its checks: order, what runs beside what, what is cancelled, and who is told of an end."""

from __future__ import annotations

from typing import Any

from inspected import Inspected, Scripted, SlowScripted

from smtpd.mail.changes import AddHeader
from smtpd.mail.reply import Reply
from smtpd.mail.verdict import Verdict
from smtpd.policy.check import Question
from smtpd.policy.overrides import Overrides
from smtpd.policy.pipeline import RESULTS
from smtpd.settings.policy import OverrideSettings

HELLO = b"EHLO client.example\r\n"
MAIL = b"MAIL FROM:<a@example.net>\r\n"
NO = Verdict(Reply(b"550 5.7.1 No"))
LATER = Verdict(Reply(b"450 4.7.1 Later"))


def nothing(question: Question) -> None:
    """No objection."""


def rcpt(name: str, domain: str = "example.org") -> bytes:
    return b"RCPT TO:<%s@%s>\r\n" % (name.encode(), domain.encode())


def run(*checks: Scripted, on_error: str = "tempfail", **more: Any) -> Inspected:
    inspected = Inspected([(check, on_error, False) for check in checks], **more)
    inspected.send(HELLO)
    inspected.send(MAIL)
    assert inspected.replies()[-2:] == [250, 250]
    return inspected


def test_neighbours_are_asked_together_and_count_in_order() -> None:
    asked: list[str] = []
    memory = Scripted(lambda question: asked.append("memory"), ["rcpt"])
    first, second = SlowScripted(lambda question: LATER, ["rcpt"]), SlowScripted(lambda question: NO, ["rcpt"])
    inspected = run(first, second, memory)
    inspected.send(rcpt("alice"))
    one, two = inspected.side.open
    two.answer()
    assert inspected.replies() == []  # the first one has not said anything yet
    one.answer()
    assert inspected.replies() == [450]
    assert asked == []  # a check behind a refusal is never asked
    two.answer()
    one.answer()
    assert inspected.replies() == []


def test_an_early_refusal_cancels_the_rest_and_the_next_recipient_is_asked_anew() -> None:
    first = SlowScripted(lambda q: NO if q.recipient.path[:1] == b"e" else None, ["rcpt"])
    inspected = run(first, SlowScripted(nothing, ["rcpt"]))
    inspected.send(rcpt("eve") + rcpt("alice"))
    one, two = inspected.side.open
    one.answer()
    assert two.is_cancelled
    assert inspected.replies() == [550]
    for question in inspected.side.open[2:]:
        question.answer()
    assert inspected.replies() == [250]


def test_a_check_that_is_not_independent_runs_alone() -> None:
    alone = SlowScripted(nothing, ["rcpt"])
    alone.is_independent = False  # type: ignore[misc]
    inspected = run(SlowScripted(nothing, ["rcpt"]), alone, SlowScripted(nothing, ["rcpt"]))
    inspected.send(rcpt("alice"))
    for count in (1, 2, 3):
        assert len(inspected.side.open) == count
        inspected.side.open[-1].answer()
    assert inspected.replies() == [250]


def test_ends_are_told_and_cancel_what_is_open() -> None:
    memory, slow = Scripted(nothing, ["connect", "rcpt"]), SlowScripted(nothing, ["rcpt"])
    inspected = run(memory, slow)
    inspected.send(rcpt("alice"))
    inspected.side.open[0].answer()
    inspected.send(b"RSET\r\n" + MAIL + rcpt("alice"))
    assert memory.ended == ["transaction"]
    assert slow.ended == ["transaction"]
    inspected.inspection.end()
    assert inspected.side.open[-1].is_cancelled
    assert memory.ended == ["transaction", "transaction", "session"]
    inspected.inspection.end()
    assert memory.ended[-1:] == ["session"]


def test_changes_of_a_refused_recipient_are_void_and_the_rest_is_in_the_draft() -> None:
    def answer(question: Question) -> Verdict:
        if question.stage == "rcpt":
            assert question.recipient is not None
            return Verdict(changes=(AddHeader(b"X-Rcpt", question.recipient.path),))
        return Verdict(changes=(AddHeader(b"X-Stage", question.stage.encode()),))

    def refuse(question: Question) -> Verdict | None:
        assert question.recipient is not None
        return NO if question.recipient.path.startswith(b"eve") else None

    inspected = run(Scripted(answer, ["connect", "rcpt", "body"]), Scripted(refuse, ["rcpt"]))
    for _ in range(2):  # what connect wants holds for each mail
        inspected.send(rcpt("eve") + rcpt("alice") + b"DATA\r\n")
        inspected.send(b"Subject: x\r\n\r\ny\r\n.\r\n")
        assert inspected.replies() == [550, 250, 354, 250]
        assert inspected.drafts[-1].header == b"Subject: x\r\nX-Stage: connect\r\nX-Rcpt: alice@example.org\r\nX-Stage: body\r\n"
        inspected.send(MAIL)
        assert inspected.replies() == [250]


def test_lmtp_gets_a_reply_for_each_recipient_when_the_content_is_refused() -> None:
    inspected = Inspected([(SlowScripted(lambda question: NO, ["body"]), "tempfail", False)], is_lmtp=True)
    inspected.send(b"LHLO client.example\r\n")
    inspected.send(MAIL + rcpt("alice") + rcpt("bob") + b"DATA\r\n")
    inspected.replies()
    inspected.send(b"Subject: x\r\n\r\ny\r\n.\r\n")
    inspected.side.open[0].answer()
    assert inspected.replies() == [550, 550]
    assert inspected.mails == 0


def test_checks_are_on_and_off_by_the_domain_of_the_recipient() -> None:
    overrides = Overrides(
        [
            OverrideSettings(domains=["lax.example", ".lax.example"], checks_off=["check0"]),
            OverrideSettings(domains=["strict.example"], checks_on=["check1"]),
        ]
    )
    inspected = run(Scripted(lambda q: NO, ["rcpt"]), Scripted(lambda q: LATER, ["rcpt"]), overrides=overrides)
    inspected.send(rcpt("a") + rcpt("a", "strict.example") + rcpt("a", "sub.LAX.example") + rcpt("a", "lax.example"))
    assert inspected.replies() == [550, 550, 250, 250]
    inspected.send(rcpt("a", "strict.example") + b"RSET\r\n" + MAIL)
    assert inspected.replies() == [452, 250, 250]
    inspected = run(Scripted(nothing, ["rcpt"]), Scripted(lambda q: LATER, ["rcpt"]), overrides=overrides)
    inspected.send(rcpt("a", "strict.example") + rcpt("a"))
    assert inspected.replies() == [450, 250]


def test_answers_are_told_with_their_result() -> None:
    def fail(question: Question) -> None:
        raise KeyError("gone")

    inspected = run(
        Scripted(fail, ["rcpt"]), Scripted(lambda q: "yes", ["rcpt"]), SlowScripted(nothing, ["rcpt"]), on_error="accept"
    )
    inspected.send(rcpt("alice"))
    assert [(name, RESULTS[result]) for _, name, result, _ in inspected.rows] == [("check0", "error")]
    assert inspected.rows[0][3] == "KeyError: 'gone'"
