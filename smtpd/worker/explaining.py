"""What would become of a mail: a session's commands through the real session, checks and router, without any socket.

Owns a loop and the threads that slow checks need, for as long as one answer takes. Sends nothing and takes no mail; but the
checks are real: what they ask is asked, and what they remember (a greylist, a client that waited) they may remember. There is
no content to ask about. Raises StartupError where the checks can't be made.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field

from msgspec.structs import replace

from smtpd import _io
from smtpd.delivery.router import Router
from smtpd.log.maillog import MailLog
from smtpd.mail.address import AddressError, parse_path
from smtpd.mail.verdict import Verdict
from smtpd.metrics._cells import Cells
from smtpd.metrics.catalogue import RULERS
from smtpd.metrics.slab import CellIndex
from smtpd.net.files import FilesThread
from smtpd.net.loop import Loop
from smtpd.net.side import SideThread
from smtpd.policy.check import CheckHost, Client
from smtpd.policy.inspection import Inspection
from smtpd.policy.networks import NetworkSet
from smtpd.policy.overrides import Overrides
from smtpd.policy.pipeline import RESULTS, Entry, Pipeline, make_entries
from smtpd.proto import events as ev
from smtpd.proto import states
from smtpd.proto.dialogue import Peer
from smtpd.proto.session import Session
from smtpd.settings import ListenerSettings, LogSettings, Settings
from smtpd.worker.rulebook import Rulebook

_TURN_S = 1.0


@dataclass
class Asking:
    """Who would send what: `client` an address, `helo` a name, `sender` "" for the null reverse-path."""

    recipient: str
    client: str
    sender: str
    helo: str
    name: str = "unknown"


@dataclass
class Row:
    """One answer of one check. `verdict` is the reply, or what else it wants; "" = no objection."""

    stage: str
    check: str
    result: str
    verdict: str
    milliseconds: float
    dry_run: bool = False


@dataclass
class Explanation:
    """`replies` are (stage, reply) of each command as the client would see them; `route` is "" where there is none."""

    rows: list[Row] = field(default_factory=list)
    replies: list[tuple[str, str]] = field(default_factory=list)
    is_accepted: bool = False
    route: str = ""
    transport: str = ""
    next_hop: list[str] = field(default_factory=list)


def explain(settings: Settings, listener: ListenerSettings, asking: Asking) -> Explanation:
    """Ask everything that a session with this client would ask, up to DATA."""
    loop = Loop()
    files = FilesThread(loop)
    side = SideThread(loop)
    log = MailLog(LogSettings(destination="none"), settings.hostname, lambda count: None)
    files.start()
    log.start()
    explainer = _Explainer(settings, listener, asking, loop, side, files, log)
    try:
        explainer.run()
    finally:
        explainer.pipeline.close()
        side.close(5.0)
        files.close()
        log.close(5.0)
        loop.close()
    return explainer.found


class _Explainer:
    """Driver and observer of one inspection."""

    sees_all = True

    def __init__(
        self,
        settings: Settings,
        listener: ListenerSettings,
        asking: Asking,
        loop: Loop,
        side: SideThread,
        files: FilesThread,
        log: MailLog,
    ) -> None:
        self.found = Explanation()
        self._asking = asking
        self._loop = loop
        policy = settings.policy
        index = CellIndex()
        index.prepare(listeners=[listener.name], checks=[check.instance for check in policy.check])
        cells = Cells(mmap.mmap(-1, index.size * 8), 0, index.size, RULERS)

        def host_for(name: str) -> CheckHost:
            return CheckHost(name, loop, side, files, log, cells, index, settings)

        overrides = Overrides(policy.override) if policy.override else None
        conditional = overrides.conditional if overrides is not None else frozenset()
        self.pipeline = Pipeline(make_entries(policy.check, conditional, host_for), overrides)
        self._router = Router(settings.route, settings.bounce)
        trusted = NetworkSet(policy.trusted + listener.exempt)
        peer = Peer(asking.client, 0, asking.name)
        peer.is_trusted = asking.client in trusted
        whole = replace(settings, limits=replace(settings.limits, soft_errors=0))
        rules = Rulebook(whole, listener, listener.name, self._router.has_route, lambda: False).rules_for(peer)
        self._session = Session(rules, peer)
        plan = self.pipeline.plan_for(listener.name, asking.client, peer.is_trusted)
        client = Client(asking.client, 0, asking.name, listener=listener.name, is_trusted=peer.is_trusted, session_id="explain")
        self._inspection: Inspection | None = None
        if not plan.is_empty:
            self._inspection = self._session.policy = Inspection(plan, client, loop, side, self, self)
        self._asked_at_s = _io.monotonic_s()

    def run(self) -> None:
        asking = self._asking
        self._say("connect", b"")
        hello = b"LHLO " if self._session.rules.is_lmtp else b"EHLO "
        self._say("helo", hello + asking.helo.encode())
        utf8 = b"" if (asking.sender + asking.recipient).isascii() else b" SMTPUTF8"
        self._say("mail", b"MAIL FROM:<%s>%s" % (asking.sender.encode(), utf8))
        transaction = self._session.transaction
        self._say("rcpt", b"RCPT TO:<%s>" % asking.recipient.encode())
        if transaction is not None and transaction.recipients:
            self._say("data", b"DATA")
            self.found.is_accepted = self.found.replies[-1][1].startswith("354")
        self._find_route()
        if self._inspection is not None:
            self._inspection.end()

    def _find_route(self) -> None:
        """Where mail for this address goes, refused or not."""
        try:
            domain = parse_path(b"TO:<%s>" % self._asking.recipient.encode(), b"TO", True).domain
        except AddressError:
            return
        route = self._router.route_for(domain or self._session.rules.postmaster.domain, self._asking.sender.encode())
        if route is not None:
            self.found.route = route.name
            self.found.transport = route.settings.transport
            self.found.next_hop = list(route.settings.next_hop)

    def _say(self, stage: str, line: bytes) -> None:
        """Give the session a command and wait for its reply; nothing when an earlier reply has ended it all."""
        session = self._session
        if self.found.replies and not self.found.replies[-1][1].startswith(("2", "3")):
            return
        self._asked_at_s = _io.monotonic_s()
        if not line:
            session.start()
        else:
            data = bytearray(line + b"\r\n")
            session.receive(data, 0, len(data))
        self._settle()
        while session.paused and session.state != states.CLOSED:
            self._loop.turn(_TURN_S)
            self._settle()
        reply = session.take_output().decode("ascii", "replace").rstrip("\r\n")
        self.found.replies.append((stage, reply.replace("\r\n", "\n")))

    def _settle(self) -> None:
        session = self._session
        while (event := session.next_event()) is not None:
            if event.kind == ev.ASK and self._inspection is not None:
                self._inspection.wait_for(event.token)

    # --- of Driver and Observer --------------------------------------------------------------------------------------

    def resume(self, token: int, verdict: Verdict | None) -> None:
        self._session.resume(token, verdict)

    def say(self, wire: bytes) -> None:
        """The teaser is not worth showing."""

    def has_input(self) -> bool:
        """An honest client waits."""
        return False

    def answered(self, inspection: Inspection, entry: Entry, result: int, verdict: Verdict | None, failure: str) -> None:
        words = []
        if failure:
            words.append(failure)
        if verdict is not None:
            if verdict.reply is not None:
                words.append(verdict.reply.text.decode("ascii", "replace"))
            words += [type(change).__name__ for change in verdict.changes]
            if verdict.ending:
                words.append("ends this stage" if verdict.ending == 1 else "exempt from all later checks")
            if verdict.note:
                words.append(verdict.note)
        milliseconds = (_io.monotonic_s() - self._asked_at_s) * 1000
        self.found.rows.append(
            Row(inspection.stage, entry.name, RESULTS[result], "; ".join(words), round(milliseconds, 1), entry.is_dry_run)
        )
