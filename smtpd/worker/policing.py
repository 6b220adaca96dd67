"""The checks of a worker: made once from the configuration, given to each session that meets any, told to the log.

Owns the pipeline and the numbers of sessions. A worker without checks, overrides and footer has none of it.
"""

from __future__ import annotations

from collections.abc import Callable

from smtpd.log.maillog import MailLog
from smtpd.mail.verdict import Verdict
from smtpd.net.loop import Loop
from smtpd.net.side import SideThread
from smtpd.policy.check import CheckHost, Client
from smtpd.policy.footer import Footer, SessionIds
from smtpd.policy.inspection import Driver, Inspection
from smtpd.policy.overrides import Overrides
from smtpd.policy.pipeline import Entry, Pipeline, make_entries
from smtpd.proto.dialogue import Peer
from smtpd.settings import Settings
from smtpd.worker.account import COMMANDS


class Policing:
    """`keeps_mail` is the spool's. Raises StartupError where a check can't be made."""

    def __init__(
        self,
        settings: Settings,
        loop: Loop,
        side: SideThread,
        log: MailLog,
        host_for: Callable[[str], CheckHost],
        keeps_mail: bool,
        is_logging: bool,
    ) -> None:
        policy = settings.policy
        self._loop = loop
        self._side = side
        self._ids = SessionIds()
        self._observer = PolicyLog(loop, log, is_logging)
        overrides = Overrides(policy.override) if policy.override else None
        conditional = overrides.conditional if overrides is not None else frozenset()
        self.pipeline = Pipeline(make_entries(policy.check, conditional, host_for), overrides, keeps_mail=keeps_mail)
        self.has_checks = bool(policy.check or policy.override)
        self.footer = Footer(policy.footer, settings.hostname, self._ids) if policy.footer else None

    def policy_for(self, listener: str) -> Callable[[Peer, Driver], Inspection | None] | None:
        """Return what gives the sessions of a listener their checks; None: they have none."""
        if not self.has_checks:
            return None
        pipeline, loop, side, observer, ids = self.pipeline, self._loop, self._side, self._observer, self._ids

        def inspect(peer: Peer, driver: Driver) -> Inspection | None:
            if peer.is_balancer:
                return None
            plan = pipeline.plan_for(listener, peer.address, peer.is_trusted)
            if plan.is_empty:
                return None
            client = Client(
                peer.address, peer.port, peer.name, listener=listener, is_trusted=peer.is_trusted, session_id=ids.of(peer)
            )
            return Inspection(plan, client, loop, side, observer, driver)

        return inspect

    def close(self) -> None:
        """The worker ends."""
        self.pipeline.close()


class PolicyLog:
    """Log lines of checks: failures (a few in a second), dry runs, notes. See smtpd.policy.inspection.Observer."""

    sees_all = False

    def __init__(self, loop: Loop, log: MailLog, is_logging: bool) -> None:
        self._loop = loop
        self._log = log
        self._is_logging = is_logging

    def answered(self, inspection: Inspection, entry: Entry, result: int, verdict: Verdict | None, failure: str) -> None:
        """See Observer."""
        client = f"{inspection.client.name}[{inspection.client.address or 'unix'}]"
        where = f"{COMMANDS[inspection.stage]} from {client}"
        if failure:
            self._tell_failure(entry, f"check {entry.name}: {where}: {failure}")
        if not self._is_logging or verdict is None:
            return
        if entry.is_dry_run and verdict.reply is not None:
            self._log.reject(
                inspection.queue_id, COMMANDS[inspection.stage], client, verdict.reply.text, inspection.reverse_path,
                inspection.recipient.path if inspection.recipient is not None else None, inspection.client.protocol,
                inspection.client.helo, entry.name,
            )  # fmt: skip
        elif verdict.note or (verdict.changes and verdict.reply is None):
            words = ", ".join(type(change).__name__ for change in verdict.changes)
            dry = " (dry run)" if entry.is_dry_run else ""
            said = "; ".join(part for part in (verdict.note, words) if part)
            self._log.info("smtpd", f"{inspection.queue_id or 'NOQUEUE'}: check {entry.name}{dry}: {where}: {said}")

    def _tell_failure(self, entry: Entry, text: str) -> None:
        now_s = int(self._loop.now)
        if entry.last_told_s == now_s:
            entry.untold += 1
            return
        more = f" ({entry.untold} more before)" if entry.untold else ""
        entry.last_told_s, entry.untold = now_s, 0
        self._log.warning("smtpd", text + more)
