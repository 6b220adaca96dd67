"""A sans-IO session as a dialog's server, whole or octet by octet; and the rules that a dialog's options ask for.

Options: `protocol = lmtp`, `dsn = yes`, `bare_newline = reject`, `suppress = SIZE CHUNKING`, `relay_domains = a b`,
`untrusted_routing = yes`, `queue = full` (of full.example), `client = unknown` (a front end that speaks for itself),
`xclient = yes` (one that may use it),
`spool = full | failing | full_at_commit | late`, any number of [limits] by its name,
`tls = starttls | required`,
`ways = whole` where the result depends on octets that arrive together (then the way of octets is left out), and
`inside = yes` where the dialog needs a server that the test holds in its hands.
"""

from __future__ import annotations

from typing import Any

from dialogs.dialog import Dialog
from dialogs.run import Mail, Server

from smtpd.limits.checks import QueueChecks, RateChecks, UnknownClientChecks
from smtpd.limits.clients import ClientLimits, make_client_table
from smtpd.mail.envelope import Envelope
from smtpd.mail.reply import Reply
from smtpd.mail.tls_facts import TlsFacts
from smtpd.mail.verdict import Verdict
from smtpd.policy.relay import RelayChecks
from smtpd.proto import events as ev
from smtpd.proto import replies
from smtpd.proto.content import make_envelope
from smtpd.proto.dialogue import Peer
from smtpd.proto.rules import Checks, Rules
from smtpd.proto.session import Session
from smtpd.settings import LimitsSettings

COMMIT_REPLIES = {
    "failing": replies.SPOOL_FAILED,
    "full_at_commit": replies.SPOOL_FULL,
    "late": replies.END_OF_DATA_TIMEOUT,
}
FULL_DOMAIN = "full.example"
NO_ROUTE_DOMAIN = "noroute.example"


def limits_of(dialog: Dialog) -> LimitsSettings:
    names = LimitsSettings.__struct_fields__
    values: dict[str, Any] = {
        name: value if name.endswith("_rate") else int(value) for name, value in dialog.options.items() if name in names
    }
    return LimitsSettings(**{"error_delay": 0.0, **values})


class _OfRow(ClientLimits):
    """The limits of one client, whatever the session's peer says: a dialog has one."""

    def __init__(self, limits: ClientLimits, row: int) -> None:
        self._limits = limits
        self._row = row

    def take(self, row: int, rate: int) -> bool:
        return self._limits.take(self._row, rate)


def rules_of(dialog: Dialog) -> Rules:
    """Return the rules that the options ask for."""
    options = dialog.options
    domains = options.get("relay_domains")
    checks: Checks = RelayChecks(
        domains.split() if domains else None,
        allows_untrusted_routing=options.get("untrusted_routing") == "yes",
        has_route=lambda domain: domain != NO_ROUTE_DOMAIN,
        is_full=lambda: options.get("spool") == "full",
    )
    clients = ClientLimits(make_client_table(), 0, limits_of(dialog))
    row, _ = clients.enter("192.0.2.7", False)
    if options.get("queue") == "full":
        checks = QueueChecks(lambda domain, reverse_path: domain == FULL_DOMAIN, checks)
    if options.get("client") == "unknown":
        checks = UnknownClientChecks()
    elif clients.has_rates:
        checks = RateChecks(_OfRow(clients, row), checks)
    return Rules(
        "mx.example.net",
        limits_of(dialog),
        checks,
        is_lmtp=options.get("protocol") == "lmtp",
        offers_dsn=options.get("dsn") == "yes",
        offers_xclient=options.get("xclient") == "yes",
        is_bare_newline_refused=options.get("bare_newline") == "reject",
        suppressed=frozenset(options.get("suppress", "").split()),
        tls=options.get("tls", "off"),
    )


class SessionWay:
    """Drives a session as a connection would, with a spool that answers at once."""

    def __init__(self, dialog: Dialog, is_octet_by_octet: bool) -> None:
        self.server: Server | None = Server()
        self._known = self.server
        self._step = 1 if is_octet_by_octet else 1 << 30
        self._commit_reply: Reply | None = COMMIT_REPLIES.get(dialog.options.get("spool", ""))
        self._session = Session(rules_of(dialog), Peer("192.0.2.7", 4711))
        self._output = b""
        self._has_closed = False
        self._is_shaking = False
        self._body: bytes | None = None
        self._envelope: Envelope | None = None
        self._session.start()
        self._settle()

    def send(self, octets: bytes) -> None:
        for start in range(0, len(octets), self._step):
            piece = octets[start : start + self._step]
            buffer = bytearray(b"\n" + piece + b"\n")
            position, end = 1, 1 + len(piece)
            while position < end:
                before = position
                position = self._session.receive(buffer, position, end)
                assert self._settle() or position > before, f"neither octets nor events: {piece[position:]!r}"

    def receive(self, awaits_reply: bool) -> bytes:
        output, self._output = self._output, b""
        return output

    def is_ended(self) -> bool:
        return self._has_closed

    def act(self, kind: str) -> None:
        match kind:
            case "GONE":
                self._session.abort(None, "client_lost")
            case "TIME":
                self._session.abort(replies.TIMEOUT, "idle")
            case "DRAIN":
                self._session.drain()
            case "TLS":
                assert self._is_shaking, "the session wants no handshake"
                self._is_shaking = False
                self._session.tls_started(TlsFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256, 256))
        self._settle()

    def count_mails(self) -> int:
        return len(self._known.mails)

    def _settle(self) -> bool:
        """Do what the session's events ask for; return whether there were any."""
        has_done = False
        while self._session.events:
            event = self._session.events.pop(0)
            has_done = True
            match event.kind:
                case ev.BODY_BEGIN:
                    assert self._body is None, "a body began before the last one was settled"
                    self._envelope, self._body = make_envelope(self._session, event.data), b""
                case ev.BODY_CHUNK:
                    assert self._body is not None, "content without a body"
                    self._body += event.data
                case ev.BODY_ABORT:
                    assert self._body is not None, "nothing to abort"
                    self._body = None
                    self._known.seen.add("abort")
                case ev.BODY_END:
                    self._commit(event.token)
                case ev.VIOLATION:
                    self._known.seen.add(event.data)
                case ev.DELAY:
                    assert self._session.take_output() == b"", "output is not held back"
                    self._known.seen.add("delay")
                    self._session.resume(event.token)
                case ev.CLIENT:
                    assert self._session.take_output() == b"", "an answer before the client was let in"
                    self._session.begin_client(event.token - 1, event.data, self._session.rules, None, None)  # a late one
                    self._session.begin_client(event.token, event.data, self._session.rules, None, None)
                case ev.START_TLS:
                    self._is_shaking = True
                case ev.CLOSE:
                    assert not self._has_closed, "closed twice"
                    self._has_closed = True
        self._output += self._session.take_output()
        return has_done

    def _commit(self, token: int) -> None:
        assert self._body is not None, "the end of a body that has not begun"
        assert self._envelope is not None
        body, self._body = self._body, None
        if self._commit_reply is not None:
            self._session.resume(token, Verdict(self._commit_reply))
            return
        self._session.resume(token - 1, Verdict(replies.SPOOL_FAILED))  # a late answer to something else: ignored
        envelope = self._envelope
        self._known.mails.append(Mail(envelope.reverse_path, [r.path for r in envelope.recipients], body))
        self._session.resume(token, Verdict(queue_id=f"QID{len(self._known.mails)}"))
