"""A session under a conduct, driven in memory: what is sent, what it waits for, how it ended. Time is what the test says."""

from __future__ import annotations

from dataclasses import dataclass, field

from smtpd.mail.verdict import Verdict, accept_as
from smtpd.proto import events as ev
from smtpd.proto.conduct import Conduct, Step
from smtpd.proto.dialogue import Dialogue, Peer
from smtpd.proto.events import Event
from smtpd.proto.rules import NoChecks, Rules
from smtpd.proto.session import Session
from smtpd.settings import LimitsSettings

LIMITS = LimitsSettings(soft_errors=0, hard_errors=0, junk_commands=0, recipients=0)


@dataclass
class Script:
    """A conduct that takes the steps that are written down for a stage and verb, and notes what it was asked."""

    steps: dict[tuple[str, int], Step] = field(default_factory=dict)
    asked: list[tuple[str, int, bytes]] = field(default_factory=list)

    def at_stage(self, session: Dialogue, stage: str, verb: int, argument: bytes) -> Step | None:
        self.asked.append((stage, verb, argument))
        return self.steps.get((stage, verb))

    def begin_body(self, writer: object) -> None: ...

    def end(self) -> None: ...


class Conducted:
    """`waits` is what the session waits for: ("delay", seconds) or ("ask", stage), None while it reads on."""

    def __init__(self, conduct: Conduct | None, *, is_lmtp: bool = False, address: str = "192.0.2.7") -> None:
        self.session = Session(Rules("mx.example.net", LIMITS, NoChecks(), is_lmtp=is_lmtp), Peer(address, 4711))
        self.session.conduct = conduct
        self.waits: tuple[str, float | str] | None = None
        self.token = 0
        self.ended = ""
        self.is_reset = False
        self.mails = 0
        self.bodies_dropped = 0
        self.rejects: list[tuple[str, bytes]] = []
        self._rest = b""
        self._output = b""
        self.session.start()
        self._settle()

    def send(self, octets: bytes) -> list[bytes]:
        """Send, and return the replies that came of it, each as its code and text."""
        self._rest += octets
        self._read()
        return self.replies()

    def replies(self) -> list[bytes]:
        output, self._output = self._output, b""
        return [line for line in output.split(b"\r\n") if line and line[3:4] != b"-"]

    def pass_time(self, verdict: Verdict | None = None) -> list[bytes]:
        """What it waits for has come."""
        assert self.waits is not None
        self.waits = None
        self.session.resume(self.token, verdict)
        self._settle()
        self._read()
        return self.replies()

    def _read(self) -> None:
        while self._rest and self.waits is None and not self.ended:
            taken = self.session.receive(bytearray(self._rest), 0, len(self._rest))
            self._rest = self._rest[taken:]
            self._settle()

    def _settle(self) -> None:
        while self.session.events:
            event = self.session.events.pop(0)
            self._heed(event)
        self._output += self.session.take_output() or b""

    def _heed(self, event: Event) -> None:
        if event.kind == ev.DELAY:
            self.waits, self.token = ("delay", event.data), event.token
        elif event.kind == ev.ASK:
            self.waits, self.token = ("ask", event.stage), event.token
        elif event.kind == ev.BODY_END:
            self.mails += 1
            self.session.resume(event.token, accept_as("QID"))
        elif event.kind == ev.BODY_ABORT:
            self.bodies_dropped += 1
        elif event.kind == ev.REJECT:
            self.rejects.append((event.stage, event.data.reply.text))
        elif event.kind == ev.RESET:
            self.is_reset = True
        elif event.kind == ev.CLOSE:
            self.ended = event.data


HELLO = b"EHLO client.example.com\r\n"
MAIL = b"MAIL FROM:<a@example.com>\r\n"
RCPT = b"RCPT TO:<b@example.org>\r\n"
DATA = b"DATA\r\n"
CONTENT = b"Subject: x\r\n\r\ntext\r\n.\r\n"
QUIT = b"QUIT\r\n"
