"""What a sink puts into its workers: conducts, the dump, the gate of `--max-sessions`, transcripts of option -v.

Made once before the fork, with the memory that the workers share; a sink without such options puts in nothing at all.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from smtpd.control.follower import Follower
from smtpd.limits._clients import BANKS
from smtpd.log.maillog import MailLog
from smtpd.proto.dialogue import Peer
from smtpd.sink.conduct import SinkConduct, Surroundings
from smtpd.sink.dump import DumpSpool
from smtpd.sink.plan import Plan
from smtpd.sink.shared import SharedCounts, SharedGreylist
from smtpd.worker.parts import Host, WorkerParts


@dataclass(frozen=True, slots=True)
class SinkWishes:
    """Counts are 0 for no limit. `dump` is a template for strftime, "" for none; `greeting` b"" is the usual one."""

    max_sessions: int = 0
    exit_after_mails: int = 0
    exit_after_sessions: int = 0
    dump: str = ""
    is_dump_single: bool = False
    dump_start: bytes = b""
    greeting: bytes = b""
    is_verbose: bool = False


class SinkParts(WorkerParts):
    """See worker.parts."""

    def __init__(self, plan: Plan, wishes: SinkWishes) -> None:
        self._plan = plan
        self._wishes = wishes
        self.suppressed = plan.hidden
        self.greeting = wishes.greeting
        self.is_hello_optional = True  # as smtp-sink's clients know it
        self._greylist = SharedGreylist() if any(rule.greylist_s for rule in plan.rules) else None
        limits = (wishes.max_sessions, wishes.exit_after_mails, wishes.exit_after_sessions)
        self._counts: SharedCounts | None = None
        if plan.rules or plan.logged or wishes.dump or any(limits):
            self._counts = SharedCounts(BANKS, *limits)

    @property
    def draws(self) -> bool:
        """Something depends on the seed."""
        return any(
            rule.percent < 100 or rule.connections < 100 or len(rule.acts) > 1 or any(act.is_random for act in rule.acts)
            for rule in self._plan.rules
        )

    def begin(self, host: Host) -> None:
        wishes, counts = self._wishes, self._counts
        if wishes.is_verbose:
            log = host.log
            self.tap_for = lambda peer: LoggedSession(log, peer)
        if wishes.dump:
            start = wishes.dump_start
            self.spool = DumpSpool(
                host.files, host.slot, wishes.dump, is_single=wishes.is_dump_single, start=start, warn=host.log.warning
            )
        if counts is None:
            return
        counts.begin_worker(host.bank)
        if wishes.max_sessions:
            self.gate = SessionGate(counts, host.bank)
        around = Surroundings(
            self._plan, counts, self._greylist, host.bank, time.monotonic,
            lambda client, text: host.log.info("sink", f"[{client or 'unix'}] {text}"), host.finish,
            is_dumping=bool(wishes.dump),
        )  # fmt: skip
        self.conduct_for = lambda peer: SinkConduct(around, counts.next_connection())


class SessionGate:
    """Lets in as many sessions as all workers together may have."""

    def __init__(self, counts: SharedCounts, worker: int) -> None:
        self._counts = counts
        self._worker = worker

    def take(self) -> bool:
        return self._counts.take_session(self._worker)

    def give_back(self) -> None:
        self._counts.give_session_back(self._worker)


class LoggedSession:
    """A session's dialogue in the log, without content."""

    def __init__(self, log: MailLog, peer: Peer) -> None:
        self._log = log
        self._client = f"{peer.address or 'unix'}:{peer.port}"
        self._follower = Follower()

    def received(self, data: bytes) -> None:
        for text in self._follower.from_client(data):
            self._log.info("sink", f"[{self._client}] C: {text}")

    def sent(self, data: bytes) -> None:
        for text in self._follower.from_server(data):
            self._log.info("sink", f"[{self._client}] S: {text}")

    def closed(self) -> None:
        self._log.info("sink", f"[{self._client}] (closed)")
