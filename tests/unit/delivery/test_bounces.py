"""Who is told what, and what becomes of the mail: through the scheduler, with everything around it replaced."""

from __future__ import annotations

import email
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from delivery_rig import Bench, Row, defer

from smtpd.delivery.bounce import rate as rate_module
from smtpd.delivery.bounce.rate import SenderRate
from smtpd.errors import SpoolError
from smtpd.mail.envelope import NOTIFY_DELAY, NOTIFY_FAILURE, NOTIFY_NEVER, NOTIFY_SUCCESS
from smtpd.mail.outcome import DEFERRED, DELIVERED, UNDELIVERABLE, Outcome, decode_outcomes, encode_outcomes, soften
from smtpd.settings import BounceSettings, RouteSettings
from smtpd.spool.change import DELETE, HOLD, REQUEUE
from smtpd.spool.item import Body

SAID = "host mx.example.org[192.0.2.1]:25 said: 550 5.1.1 no such user"
MakeBench = Callable[..., Bench]
ON = {"enabled": True, "next_hop": ["mx:"]}


@pytest.fixture
def make_bench(monkeypatch: pytest.MonkeyPatch) -> MakeBench:
    def make(
        *, routes: dict[str, Any] | None = None, spool: Any = None, delivery: dict[str, Any] | None = None, **bounce: Any
    ) -> Bench:
        sections = [
            RouteSettings(domains=["example.org"], transport="smtp", name="first", **(routes or {})),
            RouteSettings(domains=["example.net"], transport="maildir", name="second"),
        ]
        bench = Bench(monkeypatch, spool=spool, routes=sections, bounce=BounceSettings(**{**ON, **bounce}), **(delivery or {}))
        if "bounce" in bench.transports:
            bench.transports["bounce"].is_slow = True  # reports stay where the tests look for them
        bench.scheduler.start()
        return bench

    return make


def refuse(path: bytes) -> Outcome:
    return Outcome(UNDELIVERABLE, 550, "5.1.1", "no such user", "mx.example.org[192.0.2.1]:25")


def deliver(path: bytes) -> Outcome:
    return Outcome(DELIVERED, 250, "2.0.0", "ok", "mx.example.org[192.0.2.1]:25")


def reports(bench: Bench) -> list[Row]:
    return [row for row in bench.spool.rows.values() if row.item.queue_id.startswith("NEW")]


def is_gone(bench: Bench, row: Row) -> bool:
    return row.item.row not in bench.spool.rows


def actions(row: Row) -> dict[str, str]:
    """Action by address, as the report has it."""
    message = email.message_from_bytes(row.body)
    groups = message.get_payload()[1].get_payload()[1:]  # type: ignore[union-attr,index]
    return {group["Final-Recipient"].partition("; ")[2]: group["Action"] for group in groups}


def notices(bench: Bench) -> list[tuple[str, str]]:
    return [(queue_id, text) for queue_id, text, _ in bench.log.named("reported")]


def test_a_refused_mail_is_replaced_by_its_bounce(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.transports["first"].answer = refuse
    row = bench.send(body=b"Subject: x\r\n\r\nhello\r\n")
    assert is_gone(bench, row)
    (report,) = reports(bench)
    assert actions(report) == {"a@example.org": "failed"}
    envelope = report.item.envelope
    assert (envelope.reverse_path, envelope.via, envelope.recipients[0].path) == (b"", "bounce", b"s@example.com")
    assert b"hello" in report.body
    assert notices(bench) == [("Q1", "sender non-delivery notification")]
    assert bench.log.named("reported")[0][2] == "NEW1"
    assert bench.log.named("queued")[0] == ("NEW1", b"", len(report.body), 1)
    assert bench.log.named("message_id") == [("NEW1", b"<NEW1@mx.example.net>")]
    assert bench.log.named("removed") == [("Q1",)]
    names = [line[0] for line in bench.log.lines]
    assert names.index("reported") < names.index("removed")
    assert bench.counter("smtpd_bounces_total", route="first") == 1
    assert bench.counter("smtpd_bounces_total", route="second") == 0


def test_the_bounce_is_delivered_like_accepted_mail(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.transports["first"].answer = refuse
    bench.send(reverse_path=b"s@example.net")
    assert [queue_id for queue_id, _, _ in bench.transports["bounce"].tried] == ["NEW1"]  # not by the route of example.net
    bench.transports["bounce"].finish()
    assert not bench.spool.rows
    assert bench.counter("smtpd_bounces_total", route="bounce") == 0


def test_an_error_of_the_spool_sends_and_logs_no_bounce(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.transports["first"].answer = refuse
    bench.spool.settle_error = SpoolError("closed")
    row = bench.send()
    assert not is_gone(bench, row)
    assert reports(bench) == []
    assert notices(bench) == []
    assert bench.counter("smtpd_bounces_total", route="first") == 0


@pytest.mark.parametrize(
    ("notify", "is_told"),
    [
        (0, True),
        (NOTIFY_FAILURE, True),
        (NOTIFY_FAILURE | NOTIFY_SUCCESS, True),
        (NOTIFY_NEVER, False),
        (NOTIFY_SUCCESS, False),
        (NOTIFY_DELAY, False),
    ],
)
def test_notify_says_whether_a_failure_is_told(make_bench: MakeBench, notify: int, is_told: bool) -> None:
    bench = make_bench()
    bench.transports["first"].answer = refuse
    row = bench.send(notify=[notify])
    assert is_gone(bench, row)
    assert len(reports(bench)) == is_told


@pytest.mark.parametrize(
    ("notify", "is_told"),
    [(0, True), (NOTIFY_DELAY, True), (NOTIFY_DELAY | NOTIFY_FAILURE, True), (NOTIFY_NEVER, False), (NOTIFY_FAILURE, False)],
)
def test_notify_says_whether_a_delay_is_told(make_bench: MakeBench, notify: int, is_told: bool) -> None:
    bench = make_bench(delay_warning=100.0)
    bench.transports["first"].answer = defer()
    bench.send(notify=[notify])
    assert reports(bench) == []
    bench.loop.advance(400)
    assert len(reports(bench)) == is_told


@pytest.mark.parametrize(
    ("path", "notify", "outcome", "action"),
    [
        (b"a@example.org", NOTIFY_SUCCESS, deliver(b""), "relayed"),
        (b"a@example.org", NOTIFY_SUCCESS | NOTIFY_FAILURE, deliver(b""), "relayed"),
        (b"a@example.net", NOTIFY_SUCCESS, deliver(b""), "delivered"),
        (b"a@example.org", NOTIFY_SUCCESS, Outcome(DELIVERED, 250, "2.0.0", "ok", "mx", passes_dsn=True), None),
        (b"a@example.net", 0, deliver(b""), None),
        (b"a@example.net", NOTIFY_FAILURE, deliver(b""), None),
    ],
)
def test_success_is_told_to_who_asked(
    make_bench: MakeBench, path: bytes, notify: int, outcome: Outcome, action: str | None
) -> None:
    bench = make_bench()
    for transport in bench.transports.values():
        transport.answer = lambda _: outcome
    row = bench.send(path, notify=[notify], reverse_path=b"s@example.com")
    assert is_gone(bench, row)
    found = [actions(report) for report in reports(bench)]
    assert found == ([] if action is None else [{path.decode(): action}])
    assert notices(bench) == ([] if action is None else [("Q1", "sender delivery status notification")])
    assert bench.counter("smtpd_bounces_total", route="first") == 0


def test_success_is_asked_for_by_one_of_several(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.send(b"a@example.net", b"b@example.net", notify=[0, NOTIFY_SUCCESS])
    (report,) = reports(bench)
    assert actions(report) == {"b@example.net": "delivered"}


def test_each_recipient_of_a_mixed_mail_is_reported_once(make_bench: MakeBench) -> None:
    bench = make_bench()

    def answer(path: bytes) -> Outcome:
        return {b"b": refuse, b"d": defer()}.get(path[:1], deliver)(path)

    bench.transports["first"].answer = answer
    row = bench.send(b"ok@example.org", b"bad@example.org", b"d@example.org", notify=[NOTIFY_SUCCESS, 0, 0])
    assert not is_gone(bench, row)
    assert [actions(report) for report in reports(bench)] == [{"bad@example.org": "failed"}, {"ok@example.org": "relayed"}]
    assert row.outcomes is not None
    assert [(outcome.status, outcome.is_reported) for outcome in row.outcomes] == [
        (DELIVERED, True),
        (UNDELIVERABLE, True),
        (DEFERRED, False),
    ]
    bench.loop.advance(400)  # deferred again: nothing new to tell
    assert len(bench.transports["first"].tried) == 2
    assert bench.transports["first"].tried[1][1] == [2]
    assert len(reports(bench)) == 2
    bench.transports["first"].answer = refuse
    bench.loop.advance(700)
    assert is_gone(bench, row)
    assert actions(reports(bench)[2]) == {"d@example.org": "failed"}
    assert len(reports(bench)) == 3


def test_the_sender_is_warned_once_of_a_mail(make_bench: MakeBench) -> None:
    bench = make_bench(delay_warning=1000.0)
    bench.transports["first"].answer = defer("busy")
    row = bench.send(b"a@example.org", b"b@example.org")
    bench.loop.advance(900)
    assert reports(bench) == []
    bench.loop.advance(800)  # past the attempt at 1,500 s, give or take a tenth
    (report,) = reports(bench)
    assert actions(report) == {"a@example.org": "delayed", "b@example.org": "delayed"}
    assert notices(bench) == [("Q1", "sender delay notification")]
    bench.transports["first"].answer = lambda path: deliver(path) if path[:1] == b"a" else defer("busy")(path)
    bench.loop.advance(1500)  # several attempts, and one of the two is done meanwhile
    assert len(bench.transports["first"].tried) > 3
    assert len(reports(bench)) == 1
    assert not is_gone(bench, row)


def test_an_expired_mail_is_returned_with_what_was_said_last(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.transports["first"].answer = defer("disk full")
    row = bench.send()
    bench.loop.advance(3650)
    assert is_gone(bench, row)
    (report,) = reports(bench)
    group = email.message_from_bytes(report.body).get_payload()[1].get_payload()[1]  # type: ignore[union-attr,index]
    assert (group["Action"], group["Status"]) == ("failed", "4.4.7")
    assert group["Diagnostic-Code"] == "smtp; 450 4.2.0 disk full"
    assert not any(lane.held.count or lane.deferred.count for lane in bench.scheduler.lanes)


def test_a_refused_bounce_is_held(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.transports["first"].answer = bench.transports["bounce"].answer = refuse
    bench.send()
    bench.transports["bounce"].finish()
    (report,) = reports(bench)
    assert report.is_held
    assert bench.gauge("smtpd_queue_messages", route="bounce", state="held") == 1


def test_a_bounce_is_never_bounced(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.transports["first"].answer = refuse
    row = bench.send(reverse_path=b"", notify=[NOTIFY_NEVER])
    assert row.is_held
    assert reports(bench) == []
    assert bench.log.named("held") == [("Q1", SAID + " (an undeliverable bounce, and there is no double_bounce)")]
    assert bench.gauge("smtpd_queue_messages", route="first", state="held") == 1


def test_an_undeliverable_bounce_is_reported_to_the_postmaster_once(make_bench: MakeBench) -> None:
    bench = make_bench(double_bounce="Postmaster@example.org")
    bench.transports["first"].answer = bench.transports["bounce"].answer = refuse
    row = bench.send(reverse_path=b"", notify=[NOTIFY_NEVER])
    assert is_gone(bench, row)
    (report,) = reports(bench)
    assert report.item.envelope.recipients[0].path == b"Postmaster@example.org"
    bench.transports["bounce"].finish()
    assert report.is_held  # it was refused too
    assert notices(bench) == [("Q1", "postmaster non-delivery notification")]
    assert bench.log.named("held") == [("NEW1", SAID + " (it is for double_bounce itself)")]


@pytest.mark.parametrize("warning", [0.0, 100.0])
def test_a_late_bounce_is_no_reason_for_a_warning(make_bench: MakeBench, warning: float) -> None:
    bench = make_bench(delay_warning=warning)
    bench.transports["first"].answer = defer()
    bench.send(reverse_path=b"")
    bench.loop.advance(1000)
    assert reports(bench) == []


def test_above_the_cap_mail_is_held_and_released_mail_is_reported(make_bench: MakeBench) -> None:
    bench = make_bench(per_sender=2)
    bench.transports["first"].answer = refuse
    rows = [bench.send() for _ in range(3)]
    other = bench.send(reverse_path=b"other@example.com")
    assert [is_gone(bench, row) for row in rows] == [True, True, False]
    assert is_gone(bench, other)
    held = rows[2]
    assert held.is_held
    assert bench.log.named("held") == [(held.item.queue_id, SAID + " (more than 2 bounces an hour to one address)")]
    bench.loop.advance(3601)
    held.is_held, held.due_s = False, bench.loop.wall_s  # as an operator releases it
    bench.loop.advance(2)
    assert is_gone(bench, held)
    assert len(bench.transports["first"].tried) == 4  # not tried again, only reported
    assert len(reports(bench)) == 4


def test_success_reports_use_up_nothing_that_failures_need(make_bench: MakeBench) -> None:
    bench = make_bench(per_sender=1)
    for _ in range(3):
        bench.send(b"a@example.net", notify=[NOTIFY_SUCCESS], reverse_path=b"s@example.com")
    assert len(reports(bench)) == 1
    bench.transports["first"].answer = refuse
    row = bench.send()
    assert is_gone(bench, row)
    assert len(reports(bench)) == 2


@pytest.mark.parametrize(
    ("routes", "bounce", "reason"),
    [({}, {"enabled": False}, "bounces are off"), ({"bounce": False}, {}, "bounces of route first are off")],
)
@pytest.mark.parametrize("notify", [0, NOTIFY_NEVER])
def test_without_bounces_undeliverable_mail_is_held(
    make_bench: MakeBench, routes: dict[str, Any], bounce: dict[str, Any], reason: str, notify: int
) -> None:
    bench = make_bench(routes=routes, delay_warning=1.0, **bounce)
    bench.transports["first"].answer = refuse
    row = bench.send(notify=[notify])
    assert row.is_held
    assert bench.log.named("held") == [("Q1", f"{SAID} ({reason})")]
    bench.transports["first"].answer = defer()
    late = bench.send()
    bench.loop.advance(3650)
    assert late.is_held
    assert late.outcomes is not None
    assert late.outcomes[0].status == DEFERRED  # tried again once it is released
    assert reports(bench) == []


def test_a_route_without_bounces_holds_its_part_of_a_mail(make_bench: MakeBench) -> None:
    bench = make_bench(routes={"bounce": False})
    bench.transports["first"].answer = refuse
    bench.transports["second"].answer = refuse
    row = bench.send(b"a@example.org", b"b@example.net")
    assert row.is_held
    (report,) = reports(bench)
    assert actions(report) == {"b@example.net": "failed"}
    assert bench.counter("smtpd_bounces_total", route="second") == 1
    assert bench.gauge("smtpd_queue_messages", route="first", state="held") == 1
    assert bench.gauge("smtpd_queue_messages", route="second", state="held") == 0


def test_what_is_not_reported_waits_for_the_deferred(make_bench: MakeBench) -> None:
    bench = make_bench(routes={"bounce": False})
    bench.transports["first"].answer = refuse
    bench.transports["second"].answer = defer()
    row = bench.send(b"a@example.org", b"b@example.net")
    assert not row.is_held
    assert bench.log.named("held") == []
    bench.transports["second"].answer = deliver
    bench.loop.advance(400)
    assert row.is_held
    assert len(bench.transports["first"].tried) == 1


@pytest.mark.parametrize(
    ("envelope", "bounce", "is_whole"),
    [({}, {}, True), ({"ret": "FULL"}, {}, True), ({"ret": "HDRS"}, {}, False), ({}, {"content_size": 10}, False)],
)
def test_how_much_of_the_mail_is_returned(
    make_bench: MakeBench, envelope: dict[str, str], bounce: dict[str, Any], is_whole: bool
) -> None:
    bench = make_bench(**bounce)
    bench.transports["first"].answer = refuse
    bench.send(body=b"Subject: x\r\n\r\nthe whole text\r\n", **envelope)
    (report,) = reports(bench)
    assert (b"the whole text" in report.body) == is_whole
    assert b"Subject: x\r\n" in report.body


def test_a_full_spool_gets_headers_only(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.spool.is_full = True
    bench.transports["first"].answer = refuse
    bench.send(body=b"Subject: x\r\n\r\nthe whole text\r\n")
    assert b"the whole text" not in reports(bench)[0].body


def test_the_body_is_fetched_for_a_transport_that_needs_none(make_bench: MakeBench) -> None:
    bench = make_bench()
    transport = bench.transports["first"]
    transport.needs_body = False
    transport.answer = refuse
    row = bench.store(due_s=bench.loop.wall_s, body=b"Subject: fetched\r\n\r\n")
    bench.loop.advance(2)
    assert is_gone(bench, row)
    assert b"Subject: fetched" in reports(bench)[0].body


def test_a_body_that_cannot_be_read_does_not_stop_the_bounce(make_bench: MakeBench) -> None:
    bench = make_bench()
    transport = bench.transports["first"]
    transport.needs_body = False
    transport.answer = refuse
    row = bench.store(due_s=bench.loop.wall_s)
    bench.spool.body_error = SpoolError("cut")
    bench.loop.advance(2)
    assert is_gone(bench, row)
    assert b"could not be read" in reports(bench)[0].body


class DirectFiles:
    """A files thread that answers at once."""

    def submit(self, job: Callable[[], Any], done: Callable[[Any, BaseException | None], object]) -> None:
        try:
            result = job()
        except OSError as error:
            done(None, error)
        else:
            done(result, None)


@pytest.mark.parametrize("is_there", [True, False])
def test_of_a_spill_file_the_header_is_returned(make_bench: MakeBench, tmp_path: Path, is_there: bool) -> None:
    bench = make_bench()
    bench.scheduler._reports._files = DirectFiles()  # type: ignore[assignment]
    path = tmp_path / "spilled"
    if is_there:
        path.write_bytes(b"Subject: spilled\r\n\r\n" + b"the whole text\r\n" * 10_000)
    bench.transports["first"].answer = refuse
    row = bench.store(body=b"x")
    row.item.body = Body(None, str(path), 160_000)
    row.item.is_spilled = True
    bench.scheduler.accepted(row.item)
    (report,) = reports(bench)
    assert (b"Subject: spilled\r\n" in report.body) == is_there
    assert (b"could not be read" in report.body) != is_there
    assert b"the whole text" not in report.body


def test_draining_waits_for_a_bounce_in_the_making(make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = make_bench()
    transport = bench.transports["first"]
    transport.needs_body = False
    transport.answer = refuse
    row = bench.store(due_s=bench.loop.wall_s)
    waiting: list[Callable[[Body | None, SpoolError | None], None]] = []
    monkeypatch.setattr(bench.spool, "open_body", lambda item, done: waiting.append(done))
    bench.loop.advance(2)
    assert transport.tried
    drained: list[bool] = []
    bench.scheduler.drain(lambda: drained.append(True))
    assert not drained
    waiting[0](Body(b"Subject: late\r\n\r\n", "", 17), None)
    assert drained
    assert not bench.transports["bounce"].tried  # it is for the next start
    assert is_gone(bench, row)
    assert b"Subject: late" in reports(bench)[0].body


def test_soften_makes_every_refusal_a_deferral() -> None:
    given = [
        refuse(b""),
        deliver(b""),
        defer()(b""),
        Outcome(UNDELIVERABLE, 0, "", "broken"),
        Outcome(UNDELIVERABLE, 451, "4.0.0"),
    ]
    before = list(given)
    softened = soften(given)
    assert [(outcome.status, outcome.code, outcome.dsn) for outcome in softened] == [
        (DEFERRED, 450, "4.1.1"),
        (DELIVERED, 250, "2.0.0"),
        (DEFERRED, 450, "4.2.0"),
        (DEFERRED, 0, ""),
        (DEFERRED, 451, "4.0.0"),
    ]
    assert given == before
    assert given[0].status == UNDELIVERABLE


def test_outcomes_of_older_versions_stay_readable() -> None:
    blob = msgspec.msgpack.encode([[3, 550, "5.1.1", "no", "mx", 1, 5.0]])
    assert decode_outcomes(blob) == [Outcome(UNDELIVERABLE, 550, "5.1.1", "no", "mx", 1, 5.0)]
    reported = [Outcome(UNDELIVERABLE, is_reported=True, is_warned=True)]
    assert decode_outcomes(encode_outcomes(reported)) == reported


def test_a_rate_forgets_after_an_hour_and_when_it_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_module, "_MAX_ADDRESSES", 3)
    rate = SenderRate(2)
    assert [rate.take(b"A@x", 100.0), rate.take(b"a@X", 3000.0), rate.take(b"a@x", 3699.0)] == [True, True, False]
    assert rate.take(b"a@x", 3700.0)
    assert rate.take(b"a@x", 50.0)  # the clock was set back
    for name in (b"b", b"c", b"d"):
        assert rate.take(name, 60.0)
    assert len(rate._counted) == 3
    assert all(SenderRate(0).take(b"a", 0.0) for _ in range(1000))


def test_boundaries_are_never_the_same(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.transports["first"].answer = refuse
    bench.send()
    bench.spool.made_ids = 0
    bench.send()
    first, second = (email.message_from_bytes(row.body).get_boundary() for row in reports(bench))
    assert first != second


@pytest.mark.parametrize("action", [HOLD, REQUEUE, DELETE])
def test_a_success_is_told_whatever_a_queue_command_wants(make_bench: MakeBench, action: str) -> None:
    bench = make_bench()
    transport = bench.transports["first"]
    transport.answer, transport.is_slow = deliver, True
    row = bench.send(notify=[NOTIFY_SUCCESS])
    bench.scheduler.wishes.wish([row.item.queue_id], action)
    transport.finish()
    assert is_gone(bench, row)
    assert len(reports(bench)) == 1


@pytest.mark.parametrize("action", [HOLD, REQUEUE])
def test_a_delay_is_told_once_whatever_a_queue_command_wants(make_bench: MakeBench, action: str) -> None:
    bench = make_bench(delay_warning=1.0)
    transport = bench.transports["first"]
    transport.answer, transport.is_slow = defer(), True
    row = bench.send()
    bench.loop.advance(10)
    transport.finish()
    assert len(reports(bench)) == 1
    bench.loop.advance(400)
    bench.scheduler.wishes.wish([row.item.queue_id], action)
    transport.finish()
    assert row.outcomes is not None
    assert row.outcomes[0].is_warned
    row.is_held, row.due_s = False, bench.loop.wall_s
    bench.loop.advance(10)
    transport.finish()
    assert len(reports(bench)) == 1


@pytest.mark.parametrize(
    ("bounce", "notify", "text"),
    [
        ({}, [], "returned to sender"),
        ({"enabled": False}, [], "held"),
        ({}, [NOTIFY_NEVER], "nobody is told"),
    ],
)
def test_the_end_of_a_lifetime_has_a_line_of_its_own(
    make_bench: MakeBench, bounce: dict[str, Any], notify: list[int], text: str
) -> None:
    bench = make_bench(**bounce)
    bench.transports["first"].answer = defer()
    row = bench.send(notify=notify)
    assert bench.log.named("expired") == []
    bench.loop.advance(4000)
    assert bench.log.named("expired") == [(row.item.queue_id, b"s@example.com", text)]
