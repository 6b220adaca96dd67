"""The actions of access(5) that a policy service may answer, and what they mean here.

Owns the reading of the action line: raises PolicyWireError for words that are no action, replies that are none, and more than one
line. What concerns the whole mail (PREPEND, REDIRECT, BCC, HOLD, DISCARD) is kept until the mail is whole.
"""

from __future__ import annotations

import re

from smtpd.mail import changes as c
from smtpd.mail.envelope import Recipient
from smtpd.mail.reply import Reply
from smtpd.mail.verdict import END_STAGE, Verdict
from smtpd.policy.delegation.wire import PolicyWireError
from smtpd.policy.milter.answer import clean_reply
from smtpd.policy.milter.changes import clean_reason, fold_value, read_mailbox
from smtpd.policy.milter.wire import WireError

REASON = "policy_service"
_CODE = re.compile(rb"[45][0-9][0-9]")
_STATUS = re.compile(rb"[245]\.[0-9]{1,3}\.[0-9]{1,3}(?: |$)")
_HEADER = re.compile(rb"([!-9;-~]+)[ \t]*:[ \t]*(.+)")
_MAX_KEPT = 200
# OK is Postfix's permit: the checks behind this one are not asked at this stage.
_PERMIT = Verdict(ending=END_STAGE)
# `action` and its default text; DEFER_IF_PERMIT can't wait for what later checks say, so it defers at once.
_REFUSALS = {
    b"REJECT": (b"554 5.7.1", b"Access denied"),
    b"DEFER": (b"450 4.7.1", b"Service unavailable"),
    b"DEFER_IF_PERMIT": (b"450 4.7.1", b"Service unavailable"),
    b"HANGUP": (b"421 4.7.1", b"Service unavailable"),
}
# Said to the log, and otherwise no objection. FILTER names a transport of Postfix's; DELAY holds back a reply.
_NOTED = frozenset((b"WARN", b"INFO", b"FILTER", b"DELAY", b"DEFER_IF_REJECT"))


class Kept:
    """What answers for one transaction have asked to be done with the mail, in order."""

    __slots__ = ("bcc", "discard", "headers", "hold", "redirect")

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.bcc: list[bytes] = []
        self.redirect: bytes | None = None
        self.hold: str | None = None
        self.discard: str | None = None

    def changes(self, recipients: tuple[Recipient, ...]) -> tuple[c.Change, ...]:
        """Return what has to be done with a mail for these recipients."""
        if self.discard is not None:
            return (c.Discard(self.discard),)
        made: list[c.Change] = []
        # above our Received, and in the order in which they were asked for
        made += [c.InsertHeader(0, name, value) for name, value in reversed(self.headers)]
        if self.redirect is not None:
            made.append(c.AddRecipient(self.redirect))
            made += [c.RemoveRecipient(recipient.path) for recipient in recipients if recipient.path != self.redirect]
        made += [c.AddRecipient(mailbox) for mailbox in self.bcc]
        made += [] if self.hold is None else [c.Hold(self.hold)]
        return tuple(made)


def carry_out(action: bytes, kept: Kept) -> Verdict | None:
    """Return the verdict of an action, None for no objection, having noted in `kept` what is for later; PolicyWireError."""
    if any(octet < 32 and octet != 9 for octet in action):
        raise PolicyWireError("control octets in an action")
    word, _, text = action.partition(b" ")
    text = text.strip()
    name = word.upper()
    try:
        if name in (b"DUNNO", b""):
            return None
        if name in (b"OK", b"RELAY") or (word.isdigit() and len(word) != 3):
            return _PERMIT
        if name in _REFUSALS or _CODE.fullmatch(word):
            return _refusal(name, text)
        if name in _NOTED:
            return Verdict(note=f"{name.decode()} {clean_reason(text)}")
        _keep(name, text, kept)
    except WireError as error:
        raise PolicyWireError(str(error)) from None
    return None


def _refusal(name: bytes, text: bytes) -> Verdict:
    if name in _REFUSALS:
        head, default = _REFUSALS[name]
    else:
        head, default = name + b" " + name[:1] + b".7.1", b"Access denied"
    code = head[:3]
    status = _STATUS.match(text)
    if status is not None and status[0][:1] == code[:1]:
        head = code + b" " + status[0].strip()
    if status is not None:
        text = text[status.end() :]
    reply = clean_reply(head + b" " + (text.strip() or default), has_percent_escapes=False)
    return Verdict(Reply(reply, closes=code == b"421"), REASON)


def _keep(name: bytes, text: bytes, kept: Kept) -> None:
    if len(kept.headers) + len(kept.bcc) >= _MAX_KEPT:
        raise PolicyWireError(f"more than {_MAX_KEPT} header fields and recipients for one mail")
    if name == b"PREPEND":
        match = _HEADER.fullmatch(text)
        if match is None:
            raise PolicyWireError("PREPEND without a header field")
        # Answers for several recipients say the same of the client and the sender; Postfix adds it as often.
        kept.headers.append((match[1], fold_value(match[2])))
    elif name == b"HOLD":
        kept.hold = clean_reason(text) if text else "held by the policy service"
    elif name == b"DISCARD":
        kept.discard = clean_reason(text) if text else REASON
    elif name == b"REDIRECT":
        kept.redirect = read_mailbox(text)
    elif name == b"BCC":
        kept.bcc.append(read_mailbox(text))
    else:
        raise PolicyWireError("a word that is no action")
