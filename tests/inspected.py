"""A session under an inspection, driven in memory: checks by a script, answers in any order, no clock."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from smtpd.mail.verdict import Verdict, accept_as
from smtpd.metrics._cells import Cells
from smtpd.metrics.catalogue import RULERS
from smtpd.metrics.slab import CellIndex
from smtpd.net.loop import Loop
from smtpd.net.side import SideThread
from smtpd.policy.check import Check, Client, Pause, Question
from smtpd.policy.draft import Draft
from smtpd.policy.inspection import Inspection
from smtpd.policy.overrides import Overrides
from smtpd.policy.pipeline import Entry, Pipeline
from smtpd.proto import events as ev
from smtpd.proto.dialogue import Peer
from smtpd.proto.rules import NoChecks, Rules
from smtpd.proto.session import Session
from smtpd.settings import LimitsSettings
from smtpd.settings.policy import CheckSettings
from smtpd.settings.section import Section

LIMITS = LimitsSettings(soft_errors=0, hard_errors=0, junk_commands=0, recipients=0)
NAMES = [f"check{number}" for number in range(8)]
INDEX = CellIndex()
INDEX.prepare(checks=NAMES)
CELLS = Cells(mmap.mmap(-1, INDEX.size * 8), 0, INDEX.size, RULERS)


class Scripted(Check):
    """Answers from memory what `answer(question)` returns or raises."""

    def __init__(self, answer: Callable[[Question], Any], stages: Sequence[str]) -> None:
        super().__init__(Section(), cast(Any, None))
        self.stages = tuple(stages)
        self.answer = answer
        self.ended: list[str] = []

    def ask(self, question: Question) -> Any:
        question.memory["asked"] = question.memory.get("asked", 0) + 1
        return self.answer(question)

    def end_transaction(self, memory: dict[str, Any]) -> None:
        self.ended.append("transaction")

    def end_session(self, memory: dict[str, Any]) -> None:
        self.ended.append("session")


class SlowScripted(Scripted):
    """The same, asked on the side thread, which is the test itself here."""

    async def ask(self, question: Question) -> Any:
        return self.answer(question)


@dataclass(eq=False)
class Open:
    """A question on the stand-in for the side thread."""

    make: Callable[[], Any]
    done: Callable[[Any, BaseException | None], None]
    is_cancelled: bool = False

    def cancel(self) -> None:
        self.is_cancelled = True

    def answer(self) -> None:
        """Run the coroutine, which never waits, and hand its answer over, also when nobody wants it any more."""
        result, error = None, None
        try:
            self.make().send(None)
        except StopIteration as stop:
            result = stop.value
        except Exception as raised:  # noqa: BLE001 that is the answer
            error = raised
        self.done(result, error)


@dataclass
class StandInSide:
    open: list[Open] = field(default_factory=list)

    def ask(
        self, make: Callable[[], Any], done: Callable[[Any, BaseException | None], None], timeout_s: float, kind: str = ""
    ) -> Open:
        self.open.append(Open(make, done))
        return self.open[-1]


@dataclass(eq=False)
class StandInTimer:
    fn: Callable[[], Any]
    is_cancelled: bool = False

    def cancel(self) -> None:
        self.is_cancelled = True


@dataclass
class StandInLoop:
    timers: list[StandInTimer] = field(default_factory=list)

    def call_later(self, delay_s: float, fn: Callable[[], Any]) -> StandInTimer:
        self.timers.append(StandInTimer(fn))
        return self.timers[-1]


class Inspected:
    """`checks` are (check, on_error, is_dry_run). `mails` counts what was taken into custody."""

    sees_all = True

    def __init__(
        self, checks: Sequence[tuple[Check, str, bool]], *, overrides: Overrides | None = None, is_lmtp: bool = False
    ) -> None:
        self.side = StandInSide()
        self.loop = StandInLoop()
        conditional = overrides.conditional if overrides is not None else frozenset()
        entries = [
            Entry(n, CheckSettings(name=NAMES[n], on_error=on_error, dry_run=dry), check, CELLS, INDEX, NAMES[n] in conditional)
            for n, (check, on_error, dry) in enumerate(checks)
        ]
        plan = Pipeline(entries, overrides).plan_for("mx", "192.0.2.7", False)
        self.session = Session(Rules("mx.example.net", LIMITS, NoChecks(), is_lmtp=is_lmtp), Peer("192.0.2.7", 4711))
        self.inspection = Inspection(
            plan, Client("192.0.2.7"), cast(Loop, self.loop), cast(SideThread, self.side), cast(Any, self), cast(Any, self)
        )
        self.session.policy = self.inspection
        self.mails = 0
        self.drafts: list[Draft] = []
        self.rows: list[tuple[str, str, int, str]] = []
        self._body = b""
        self._rest = b""
        self._output = b""
        self.session.start()
        self.settle()

    def send(self, octets: bytes) -> None:
        """Send; what the session does not take while it waits comes again later."""
        self._rest += octets
        self.settle()

    def settle(self) -> None:
        """Do all that can be done without an answer."""
        session = self.session
        while True:
            while session.events:
                event = session.events.pop(0)
                self._handle(event)
            self._output += session.take_output()
            if session.paused or not self._rest:
                return
            data = bytearray(self._rest)
            self._rest = self._rest[session.receive(data, 0, len(data)) :]

    def _handle(self, event: ev.Event) -> None:
        if event.kind == ev.ASK and event.stage == ev.STAGE_BODY:
            header = self._body.partition(b"\r\n\r\n")[0] + b"\r\n"
            data = b"Received: us\r\n" + self._body
            draft = Draft(data, "", len(data), b"Received: us\r\n", header)
            self.drafts.append(draft)
            self.inspection.judge_content(event.token, "QUEUEID", draft)
        elif event.kind == ev.ASK:
            self.inspection.wait_for(event.token)
        elif event.kind == ev.BODY_BEGIN:
            self._body = b""
        elif event.kind == ev.BODY_CHUNK:
            self._body += event.data
        elif event.kind == ev.BODY_END:
            self.mails += 1
            self.session.resume(event.token, accept_as("QUEUEID"))

    def replies(self) -> list[int]:
        """The codes since the last call, one for each reply."""
        output, self._output = self._output, b""
        return [int(line[:3]) for line in output.splitlines() if line[3:4] == b" "]

    # --- Driver and Observer -----------------------------------------------------------------------------------------

    def resume(self, token: int, verdict: Verdict | None) -> None:
        self.session.resume(token, verdict)
        self.settle()

    def say(self, wire: bytes) -> None:
        self.session.put(wire)

    def has_input(self) -> bool:
        return bool(self._rest)

    def answered(self, inspection: Inspection, entry: Entry, result: int, verdict: Verdict | None, failure: str) -> None:
        self.rows.append((inspection.stage, entry.name, result, failure))


def pausing(answer: Callable[[Question], Any]) -> Callable[[Question], Any]:
    """The same answer after a pause."""
    return lambda question: Pause(1.0, lambda has_talked: answer(question))
