"""What one process measured: histograms by phase, what became of the mails, errors, and the figures of the running interval.

Pure data; packs itself for the pipe to the parent. Compiled: several records for each mail.
"""

from __future__ import annotations

from typing import Any

from smtpd.load.histogram import Histogram

CONNECT = 0
TLS = 1
GREETING = 2
HELLO = 3
MAIL = 4
RCPT = 5
DATA = 6
END_OF_DATA = 7
TRANSACTION = 8
MAIL_TOTAL = 9
SCHEDULE_LAG = 10

PHASE_NAMES = (
    "connect", "tls", "greeting", "hello", "mail", "rcpt", "data", "end_of_data", "transaction", "mail_total", "schedule_lag",
)  # fmt: skip
_TRANSACTION, _MAIL_TOTAL = TRANSACTION, MAIL_TOTAL
COUNTERS = (
    "accepted", "partial", "failed", "unsent", "resent", "recipients_accepted", "recipients_failed", "connections_opened",
    "connections_failed", "connections_ready", "octets", "starved",
)  # fmt: skip
_EXAMPLE_LENGTH = 200


class Recorder:
    """Times are monotonic seconds. `starved` are mails of the open loop that were late because no session was free."""

    __slots__ = (
        "_interval", "_interval_accepted", "_interval_failed", "_phases", "accepted", "connections_failed",
        "connections_opened", "connections_ready", "errors", "examples", "failed", "last_done_at", "notes", "octets", "partial",
        "recipients_accepted", "recipients_failed", "resent", "starved", "unsent",
    )  # fmt: skip

    def __init__(self) -> None:
        self._phases = [Histogram() for _ in PHASE_NAMES]
        self._interval = Histogram()
        self._interval_accepted = 0
        self._interval_failed = 0
        self.accepted = 0
        self.partial = 0
        self.failed = 0
        self.unsent = 0
        self.resent = 0
        self.recipients_accepted = 0
        self.recipients_failed = 0
        self.connections_opened = 0
        self.connections_failed = 0
        self.connections_ready = 0
        self.octets = 0
        self.starved = 0
        self.last_done_at = 0.0
        self.errors: dict[str, int] = {}
        self.examples: dict[str, str] = {}
        self.notes: list[str] = []

    def record(self, phase: int, seconds: float) -> None:
        """One value of a phase."""
        histogram = self._phases[phase]
        histogram.record(seconds)

    def note_mail(self, accepted: int, failed: int, octets: int, at: float, transaction_s: float, total_s: float) -> None:
        """What became of a mail: how many recipients it was accepted for, and how many not."""
        self.last_done_at = at
        self.recipients_accepted += accepted
        self.recipients_failed += failed
        if not accepted:
            self.failed += 1
            self._interval_failed += 1
            return
        self.octets += octets
        if failed:
            self.partial += 1
            self._interval_failed += 1
        else:
            self.accepted += 1
            self._interval_accepted += 1
        self.record(_TRANSACTION, transaction_s)
        self.record(_MAIL_TOTAL, total_s)
        interval = self._interval
        interval.record(total_s)

    def note_error(self, key: str, example: str) -> None:
        """`key` is a phase and a reply code or kind of failure; `example` what was said, by the peer perhaps."""
        self.errors[key] = self.errors.get(key, 0) + 1
        if example and key not in self.examples:
            self.examples[key] = example[:_EXAMPLE_LENGTH]

    def note(self, text: str) -> None:
        """Something that whoever reads the report should know, once."""
        if text not in self.notes:
            self.notes.append(text)

    @property
    def done(self) -> int:
        return self.accepted + self.partial + self.failed

    def end_interval(self) -> dict[str, Any]:
        """The figures since the last call."""
        interval = self._interval
        row = {"accepted": self._interval_accepted, "failed": self._interval_failed, "latency": interval.pack()}
        if interval.count:
            self._interval = Histogram()
        self._interval_accepted = self._interval_failed = 0
        return row

    def pack(self) -> dict[str, Any]:
        """All there is, for `Totals.add`."""
        return {
            "phases": [histogram.pack() for histogram in self._phases],
            "counters": {name: getattr(self, name) for name in COUNTERS},
            "errors": self.errors,
            "examples": self.examples,
            "notes": self.notes,
            "last_done_at": self.last_done_at,
        }
