"""What a stall does to latencies, by a clock that the test moves: nothing here waits."""

from __future__ import annotations

import errno

from smtpd.load.addresses import parse_addresses
from smtpd.load.connection import Connection, ConnectionOwner, Wiring
from smtpd.load.crew import Crew
from smtpd.load.histogram import TICKS, Histogram, middle
from smtpd.load.maker import MailMaker, MailSpec
from smtpd.load.offer import NEVER, ClosedOffer, Offer, OpenOffer
from smtpd.load.recorder import MAIL_TOTAL, SCHEDULE_LAG, TRANSACTION, Recorder
from smtpd.load.sizes import parse_sizes
from smtpd.mail.outcome import DELIVERED, Outcome
from smtpd.net.loop import Loop
from smtpd.proto.client.rules import ClientRules
from smtpd.proto.client.transmission import Transmission

SERVICE_S = 0.01
STALL = (5.0, 15.0)
OK = Outcome(DELIVERED, 250, "2.0.0", "Ok")
SPEC = MailSpec(parse_addresses(["a@example.org"]), parse_addresses(["b@example.org"]), parse_sizes("100"), b"")


class StandIn(Connection):
    """Answers each mail after SERVICE_S, and not while the target stalls."""

    def __init__(self, owner: ConnectionOwner, wiring: Wiring) -> None:
        super().__init__(owner, wiring)
        self.boss, self.loop = owner, wiring.loop
        self.mail: Transmission | None = None

    def open(self) -> None:
        self.is_ready = True
        self.begin()

    def take(self, number: int, intended_at: float, transmission: Transmission) -> None:
        self.number, self.intended_at, self.mail, self.has_mail = number, intended_at, transmission, True
        if self.is_ready:
            self.begin()

    def begin(self) -> None:
        self.sent_at = self.loop.now
        at = self.sent_at + SERVICE_S
        self.loop.call_at(STALL[1] + SERVICE_S if STALL[0] <= at < STALL[1] else at, self.finish)

    def finish(self) -> None:
        mail, self.mail, self.has_mail = self.mail, None, False
        assert mail is not None
        mail.decide_rest(OK)
        self.boss.on_done(self, mail)
        self.boss.on_idle(self)

    def quit(self) -> None:
        self.loop.call_at(self.loop.now, lambda: self.boss.on_closed(self, None))


class Lost(StandIn):
    """Can't connect."""

    def open(self) -> None:
        assert self.mail is not None
        self.has_mail = False
        self.mail.decide_rest(Outcome())
        self.boss.on_done(self, self.mail)
        self.boss.on_closed(self, Outcome(text=errno.errorcode[errno.ECONNREFUSED]))


class Sim:
    """`over_at` is when the crew said that it was over."""

    def __init__(self, offer: Offer, sessions: int = 1, kind: type[Connection] = StandIn) -> None:
        self.loop = Loop()
        self.loop.now = 0.0
        self.recorder = Recorder()
        self.recorder.connections_ready = int(kind is StandIn)
        wiring = Wiring(self.loop, self.recorder, ClientRules(b"client.example"), lambda: self.loop.now, "target", [])
        self.crew = Crew(wiring, offer, MailMaker(SPEC), sessions, kind, self.on_over)
        self.over_at = NEVER

    def on_over(self) -> None:
        self.over_at = self.loop.now

    def run(self, until_s: float, from_s: float = 0.0) -> None:
        for tick in range(int(from_s * 1000), int(until_s * 1000)):
            self.loop.now = tick / 1000
            self.loop._run_timers()
            if self.crew.is_over:
                break

    def count_over(self, phase: int, seconds: float) -> int:
        pairs = self.recorder.pack()["phases"][phase][4:]
        return sum(count for bucket, count in zip(pairs[::2], pairs[1::2], strict=True) if middle(bucket) / TICKS > seconds)

    def count(self, phase: int) -> int:
        histogram = Histogram()
        histogram.merge(self.recorder.pack()["phases"][phase])
        return histogram.count


def test_a_closed_loop_sees_a_stall_once() -> None:
    sim = Sim(ClosedOffer(0.0, 1 << 40))
    sim.crew.ends_at = 20.0
    sim.crew.start()
    sim.run(40.0)
    assert sim.count_over(MAIL_TOTAL, 1.0) == 1  # all that a benchmark with coordinated omission would tell
    assert sim.over_at < 21.0


def test_an_open_loop_sees_it_for_each_mail_that_should_have_left() -> None:
    sim = Sim(OpenOffer(0.0, 20.0, 1 << 40, 50.0))
    sim.crew.ends_at = 20.0
    sim.crew.start()
    sim.run(60.0)
    assert sim.recorder.accepted == 1000
    assert sim.count_over(TRANSACTION, 1.0) == 1  # from MAIL to the final reply: one mail was under way
    # Due at 50 a second for the 10 s of the stall, then done at 100 a second: the mail due d seconds after the stall began waits
    # 10 - d/2 seconds, so 90 % of the 1000 mails that the delay lasts for wait over a second; 750 of them are due before the end.
    assert 735 < sim.count_over(MAIL_TOTAL, 1.0) < 765
    assert 190 < sim.count_over(MAIL_TOTAL, 8.0) < 215
    assert 740 < sim.recorder.starved <= 760  # that was the target, not us
    assert sim.count_over(SCHEDULE_LAG, 0.002) == 0


def test_what_is_due_and_never_begun_is_told() -> None:
    sim = Sim(OpenOffer(0.0, 12.0, 1 << 40, 50.0))
    sim.crew.ends_at, sim.crew.drain_s = 12.0, 1.0
    sim.crew.start()
    sim.run(30.0)
    assert sim.recorder.unsent in range(345, 350)  # due from 5.0 s to 12.0 s, but for the one under way
    assert sim.recorder.accepted + sim.recorder.unsent in (599, 600)


def test_more_sessions_are_used_only_when_needed() -> None:
    sim = Sim(OpenOffer(0.0, 2.0, 1 << 40, 50.0), sessions=10)
    sim.crew.ends_at = 2.0
    sim.crew.start()
    sim.run(10.0)
    assert sim.recorder.accepted == 100
    assert sim.recorder.starved == 0
    assert sim.over_at < 3.0


def test_an_interruption_lets_what_is_due_finish() -> None:
    sim = Sim(OpenOffer(0.0, 1000.0, 1 << 40, 50.0), sessions=2)
    sim.crew.start()
    sim.run(2.0)
    sim.crew.stop()
    sim.run(4.0, 2.0)
    assert sim.over_at < 2.5
    assert sim.recorder.accepted in (100, 101)
    assert sim.recorder.unsent == 0


def test_sessions_begin_one_after_the_other_and_wait_between_mails() -> None:
    sim = Sim(ClosedOffer(0.0, 1 << 40), sessions=4)
    sim.crew.ends_at = 4.0
    sim.crew.pause_between(0.99, 0.0)
    sim.crew.start(ramp_up_s=4.0)
    sim.run(10.0)
    assert sim.recorder.accepted == 4 + 3 + 2 + 1  # one a second each, begun a second apart


def test_a_target_that_is_not_there_ends_the_run() -> None:
    sim = Sim(ClosedOffer(0.0, 1 << 40), kind=Lost)
    sim.crew.start()
    sim.run(10.0)
    assert sim.crew.gave_up == "no session with the target could be begun"
    assert sim.recorder.failed == 3
    assert sim.over_at < 1.0
