from __future__ import annotations

import io
import json

import pytest

from smtpd.load.addresses import parse_addresses
from smtpd.load.maker import MailSpec
from smtpd.load.plan import Plan
from smtpd.load.progress import Progress
from smtpd.load.recorder import MAIL, SCHEDULE_LAG, Recorder
from smtpd.load.sizes import parse_sizes
from smtpd.load.table import render
from smtpd.load.target import Target
from smtpd.load.totals import Totals

SPEC = MailSpec(parse_addresses(["a@example.org"]), parse_addresses(["b@example.org"]), parse_sizes("100"), b"")


def plan_of(**fields: object) -> Plan:
    return Plan(Target("127.0.0.1:25", "127.0.0.1", (("127.0.0.1", 25),)), SPEC, **fields)  # type: ignore[arg-type]


def tell(totals: Totals, share: int, recorder: Recorder, cpu_s: float = 0.1) -> None:
    totals.take_interval(share, {"interval": 0, "under_way": 0, **recorder.end_interval()})
    totals.take_result({"cpu_s": cpu_s, "elapsed_s": 1.0, "gave_up": "", **recorder.pack()})


def recorder_of(mails: int, *, failed: int = 0) -> Recorder:
    recorder = Recorder()
    for number in range(mails):
        recorder.record(MAIL, 0.001)
        recorder.note_mail(1, 0, 50, 11.0 + number / 10, 0.002, 0.003)
    for _ in range(failed):
        recorder.note_mail(0, 1, 50, 12.0, 0.0, 0.0)
        recorder.note_error("rcpt 550", "550 5.1.1 No such user")
    return recorder


def test_processes_are_added_up() -> None:
    totals = Totals(plan_of(workers=2, count=7))
    tell(totals, 0, recorder_of(3))
    assert totals.last_row is None  # the other one has not told its part yet
    tell(totals, 1, recorder_of(2, failed=1))
    report = json.loads(json.dumps(totals.report(1000.0, 10.0, 20.0, 0.05)))
    assert report["mails"] == {"sent": 6, "accepted": 5, "partial": 0, "failed": 1, "unsent": 0, "resent": 0}
    assert report["duration_s"] == 2.0  # to the last final reply
    assert report["throughput_per_s"] == 2.5
    assert report["octets"] == 250
    assert report["cpu_us_per_mail"] == pytest.approx(0.25e6 / 6, abs=0.01)
    assert report["latency_ms"]["mail_total"]["count"] == 5
    assert report["latency_ms"]["mail_total"]["p50"] == pytest.approx(3.0, rel=0.005)
    assert report["latency_ms"]["tls"] == {"count": 0}
    assert report["errors"] == {"rcpt 550": 1}
    assert [row["accepted"] for row in report["series"]] == [5]
    assert report["notes"] == ["1 of 7 mails were not tried"]
    assert not report["load_maker"]["was_bottleneck"]


def test_a_busy_process_is_called_the_bottleneck() -> None:
    totals = Totals(plan_of(count=1))
    tell(totals, 0, recorder_of(1), cpu_s=0.95)
    report = totals.report(0.0, 10.0, 20.0, 0.0)
    assert report["load_maker"]["was_bottleneck"]
    assert "the load maker was the bottleneck: a process used 95% of a CPU" in report["notes"][0]
    assert "bottleneck" in render(report)


def test_mails_that_were_late_with_sessions_free_are_our_fault_others_the_targets() -> None:
    late, starved = recorder_of(1), recorder_of(1)
    for _ in range(100):
        late.record(SCHEDULE_LAG, 0.05)
    starved.starved = 100
    reports = []
    for recorder in (late, starved):
        totals = Totals(plan_of(count=1, rate=10.0))
        tell(totals, 0, recorder)
        reports.append(totals.report(0.0, 10.0, 20.0, 0.0))
    assert [report["load_maker"]["was_bottleneck"] for report in reports] == [True, False]
    assert "waiting for the target" in reports[1]["notes"][0]


def test_a_lost_process_is_said() -> None:
    totals = Totals(plan_of(workers=2, count=0))
    tell(totals, 0, recorder_of(1))
    report = totals.report(0.0, 10.0, 20.0, 0.0)
    assert report["load_maker"]["lost_processes"] == 1
    assert report["notes"] == ["1 of 2 processes ended without their figures"]
    assert len(report["series"]) == 1


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    totals = Totals(plan_of(count=10))
    tell(totals, 0, recorder_of(4, failed=1))
    for out, is_shown in ((Terminal(), True), (io.StringIO(), False)):
        progress = Progress(plan_of(count=10), out)
        progress.show(totals, 1.0)
        progress.close()
        assert ("5 mails" in out.getvalue()) == is_shown
        assert (" 50%" in out.getvalue()) == is_shown
    counted = io.StringIO()
    progress = Progress(plan_of(count=10), counted, is_counting=True)
    progress.show(totals, 1.0)
    progress.close()
    assert counted.getvalue() == "\r5\n"
