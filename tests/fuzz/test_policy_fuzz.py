"""Any verdicts, failures and pauses of any checks: each command gets one reply, and nothing is taken that a check refused.

A second reading of the rules (docs/checks.md) says what each reply must be. Answers come in any order, also twice and too late.
`make fuzz` runs 20,000 combinations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from inspected import Inspected, Scripted, SlowScripted, pausing

from smtpd.mail.changes import AddHeader
from smtpd.mail.reply import Reply
from smtpd.mail.verdict import END_ALL, END_STAGE, Verdict
from smtpd.policy.check import STAGES, Check, Question

ANSWERS: dict[str, Any] = {
    "none": None,
    "change": Verdict(changes=(AddHeader(b"X-Seen", b"1"),)),
    "stage": Verdict(ending=END_STAGE),
    "all": Verdict(ending=END_ALL),
    "reject": Verdict(Reply(b"550 5.7.1 No"), "policy_service"),
    "defer": Verdict(Reply(b"450 4.7.1 Later"), "nonsense"),
    "no refusal": Verdict(Reply(b"250 2.0.0 Fine")),
    "smuggled": Verdict(Reply(b"550 5.7.1 No\r\n250 2.0.0 Yes")),
    "bad change": Verdict(changes=(AddHeader(b"X", b"1\r\nBcc: eve@example.org"),)),
    "wrong": "a text",
}
FAILURES = {"no refusal", "smuggled", "bad change", "wrong", "raise", "timeout"}
KINDS = [*ANSWERS, "raise", "timeout"]
ON_ERROR = {"tempfail": 451, "accept": 0, "reject": 550}
QUIET = ["none", "none", "none", "change", "stage"]


class Plan:
    """One check: how it asks, what its `on_error` is, and what it answers at each stage (at rcpt for each of two recipients)."""

    def __init__(self, way: str, on_error: str, is_dry: bool, answers: dict[str, str]) -> None:
        self.way = way
        self.on_error = on_error
        self.is_dry = is_dry
        self.answers = answers

    def answer(self, question: Question) -> Any:
        kind = self.answers[place_of(question)]
        if kind == "raise":
            raise ValueError("as it was told")
        if kind == "timeout":
            raise TimeoutError
        return ANSWERS[kind]

    def check(self) -> Check:
        stages = {place.rstrip("12") for place in self.answers}
        chosen = [stage for stage in STAGES if stage in stages]
        if self.way == "slow":
            return SlowScripted(self.answer, chosen)
        return Scripted(pausing(self.answer) if self.way == "pausing" else self.answer, chosen)

    def __repr__(self) -> str:
        return f"Plan({self.way!r}, {self.on_error!r}, {self.is_dry}, {self.answers})"


def place_of(question: Question) -> str:
    if question.stage != "rcpt":
        return question.stage
    assert question.recipient is not None
    return f"rcpt{question.recipient.path[:1].decode()}"


PLACES = ("connect", "helo", "mail", "rcpt1", "rcpt2", "data", "body")


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    stages = draw(st.sets(st.sampled_from(STAGES), min_size=1))
    kind = st.sampled_from(KINDS) if draw(st.booleans()) else st.sampled_from(QUIET)
    answers = {place: draw(kind) for place in PLACES if place.rstrip("12") in stages}
    way = draw(st.sampled_from(["memory", "slow", "slow", "pausing"]))
    return Plan(way, draw(st.sampled_from(list(ON_ERROR))), draw(st.integers(0, 3)) == 0, answers)


class Expected:
    """The rules once more, written down as they stand in the manual."""

    def __init__(self, checks: list[Plan]) -> None:
        self.checks = checks
        self.session_exempt = self.mail_exempt = False

    def code(self, place: str) -> int:
        """The refusal at this place, 0 for none."""
        in_mail = place not in ("connect", "helo")
        if self.session_exempt or (in_mail and self.mail_exempt):
            return 0
        for check in self.checks:
            kind = check.answers.get(place)
            if kind is None or check.is_dry:
                continue
            if kind in FAILURES:
                code = ON_ERROR[check.on_error]
                if code:
                    return code
            elif kind in ("reject", "defer"):
                return 550 if kind == "reject" else 450
            elif kind in ("stage", "all"):
                if kind == "all":
                    self.session_exempt = self.session_exempt or not in_mail
                    self.mail_exempt = self.mail_exempt or in_mail
                return 0
        return 0

    def replies(self, by_bdat: bool) -> tuple[list[int], int]:
        """The replies to greeting, EHLO, MAIL, RCPT, RCPT, DATA and content (or BDAT), QUIT; and how many mails are taken."""
        connect = self.code("connect")
        if connect:
            return ([421], 0) if connect < 500 else ([554, 503, 503, 503, 503, 503, 221], 0)
        codes = [220]
        helo = self.code("helo")
        if helo:
            return [*codes, helo, 503, 503, 503, 503, 221], 0
        codes.append(250)
        mail = self.code("mail")
        if mail:
            return [*codes, mail, 503, 503, 503, 221], 0
        codes.append(250)
        recipients = [self.code("rcpt1"), self.code("rcpt2")]
        codes += [code or 250 for code in recipients]
        if all(recipients):
            return [*codes, 503 if by_bdat else 554, 221], 0
        data = self.code("data")
        if data:
            return [*codes, data, 221], 0
        if not by_bdat:
            codes.append(354)
        body = self.code("body")
        return [*codes, body or 250, 221], int(not body)


@given(st.lists(plans(), max_size=4), st.booleans(), st.data())
def test_each_command_gets_one_reply_and_no_refusal_is_lost(checks: list[Plan], by_bdat: bool, data: st.DataObject) -> None:
    run = Inspected([(plan.check(), plan.on_error, plan.is_dry) for plan in checks])
    replies = finish(run, data.draw)
    if run.session.state != 6:
        run.send(b"EHLO client.example\r\n")
        replies += finish(run, data.draw)
        content = b"Subject: x\r\n\r\ny\r\n"
        body = b"BDAT %d LAST\r\n%s" % (len(content), content) if by_bdat else b"DATA\r\n"
        run.send(b"MAIL FROM:<a@example.net>\r\nRCPT TO:<1@example.org>\r\nRCPT TO:<2@example.org>\r\n" + body)
        replies += finish(run, data.draw)
        if replies[-1] == 354:
            run.send(content + b".\r\n")
            replies += finish(run, data.draw)
        run.send(b"QUIT\r\n")
        replies += finish(run, data.draw)
    expected, mails = Expected(checks).replies(by_bdat)
    assert (replies, run.mails) == (expected, mails)
    run.inspection.end()
    assert all(question.is_cancelled for question in run.side.open if not hasattr(question, "is_done"))


def finish(run: Inspected, draw: Callable[[Any], Any]) -> list[int]:
    """Answer what is open, in an order of the test's choice, until the session waits for nothing; return the replies."""
    answered: list[Any] = []
    while run.session.paused:
        waiting: list[Any] = [q for q in run.side.open if not hasattr(q, "is_done") and not q.is_cancelled]
        waiting += [t for t in run.loop.timers if not hasattr(t, "is_done") and not t.is_cancelled]
        assert waiting, "the session waits for a question that nobody has asked"
        one = draw(st.sampled_from(waiting))
        one.is_done = True
        fire(one)
        answered.append(one)
        late = draw(st.sampled_from([None, *answered]))  # a second answer, or one that came too late, does nothing
        if late is not None:
            fire(late)
    return run.replies()


def fire(one: Any) -> None:
    if hasattr(one, "fn"):
        one.fn()
    else:
        one.answer()
