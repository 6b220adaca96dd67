"""What a listener allows: limits, offered extensions and the checks that answer from memory. Shared by its sessions.

Made once for each listener (and once for each list of suppressed extensions); never changed while sessions use it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from smtpd.mail.envelope import Recipient
from smtpd.mail.reply import Reply
from smtpd.mail.verdict import GO_ON, Verdict
from smtpd.proto.states import refusal_table
from smtpd.settings import LimitsSettings

if TYPE_CHECKING:
    from smtpd.proto.dialogue import Dialogue, Peer

KEYWORDS = (
    "PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "CHUNKING", "LIMITS", "DSN",
)  # fmt: skip


class Checks(Protocol):
    """Checks by stage. A verdict at once, or None: the session then asks by an event and waits."""

    def at_mail(self, session: Dialogue) -> Verdict | None: ...

    def at_rcpt(self, session: Dialogue, recipient: Recipient) -> Verdict | None: ...


class Footer(Protocol):
    """Words behind each refusal."""

    def put_behind(self, reply: Reply, peer: Peer) -> Reply: ...


class NoChecks:
    """Everything is taken."""

    def at_mail(self, session: Dialogue) -> Verdict | None:
        return GO_ON

    def at_rcpt(self, session: Dialogue, recipient: Recipient) -> Verdict | None:
        return GO_ON


class Rules:
    """`suppressed` are EHLO keywords in upper case that are neither offered nor honoured; `greeting`, if any, follows the 220."""

    def __init__(
        self,
        hostname: str,
        limits: LimitsSettings,
        checks: Checks,
        *,
        listener: str = "",
        is_lmtp: bool = False,
        banner: str = "ESMTP",
        offers_dsn: bool = False,
        is_bare_newline_refused: bool = False,
        suppressed: frozenset[str] = frozenset(),
        postmaster: Recipient | None = None,
        is_hello_optional: bool = False,
        greeting: bytes = b"",
        footer: Footer | None = None,
    ) -> None:
        self.footer = footer
        self.hostname = hostname.encode("ascii")
        self.listener = listener
        self.checks = checks
        self.has_checks = type(checks) is not NoChecks
        self.is_lmtp = is_lmtp
        self.is_bare_newline_refused = is_bare_newline_refused
        self.postmaster = postmaster or Recipient(b"postmaster@" + self.hostname, hostname.lower())
        kind = b"LMTP" if is_lmtp and banner == "ESMTP" else banner.encode("ascii")
        self.greeting = b"220 " + (greeting or self.hostname + b" " + kind).rstrip() + b"\r\n"
        self.size_limit = limits.message_size
        self.line_limit = limits.line_length
        self.command_limit = limits.command_length
        self.header_limit = limits.header_size
        self.recipient_limit = limits.recipients
        self.mail_limit = limits.mails_per_connection
        self.hop_limit = limits.hop_limit
        self.soft_errors = limits.soft_errors
        self.hard_errors = limits.hard_errors
        self.junk_limit = limits.junk_commands
        self.refusals = refusal_table(is_lmtp, is_hello_optional)
        offered = {keyword for keyword in KEYWORDS if keyword != "DSN" or offers_dsn} - suppressed
        self.offers_size = "SIZE" in offered
        self.offers_8bitmime = "8BITMIME" in offered
        self.offers_smtputf8 = "SMTPUTF8" in offered
        self.offers_chunking = "CHUNKING" in offered
        self.offers_dsn = "DSN" in offered
        self.helo_reply = Reply(b"250 " + self.hostname)
        self.ehlo_reply = Reply(self._render_ehlo(offered))

    def _render_ehlo(self, offered: set[str]) -> bytes:
        lines = [self.hostname]
        for keyword in KEYWORDS:
            if keyword not in offered:
                continue
            text = keyword.encode()
            if keyword == "SIZE" and self.size_limit:
                text += b" %d" % self.size_limit
            elif keyword == "LIMITS":
                limits = [b"RCPTMAX=%d" % self.recipient_limit] if self.recipient_limit else []
                limits += [b"MAILMAX=%d" % self.mail_limit] if self.mail_limit else []
                if not limits:
                    continue
                text += b" " + b" ".join(limits)
            lines.append(text)
        return b"".join(b"250-" + line + b"\r\n" for line in lines[:-1]) + b"250 " + lines[-1]
