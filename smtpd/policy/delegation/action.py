"""The actions of access(5) that a policy service may answer, and what they mean here.

Owns the reading of the action line: raises PolicyWireError for words that are no action, replies that are none, and more than one
line.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from smtpd.mail import changes as c
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


class Redirect(NamedTuple):
    """The mail goes to this mailbox alone, whatever recipients it gets."""

    mailbox: bytes


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


def carry_out(action: bytes) -> Verdict | Redirect | None:
    """Return what an action comes to, None for no objection; raises PolicyWireError."""
    if any(octet < 32 and octet != 9 for octet in action):
        raise PolicyWireError("control octets in an action")
    word, _, text = action.partition(b" ")
    text = text.strip()
    name = word.upper()
    try:
        if name == b"DUNNO":
            return None
        if name in (b"OK", b"RELAY") or (word.isdigit() and len(word) != 3):
            return _PERMIT
        if name in _REFUSALS or _CODE.fullmatch(word):
            return _refusal(name, text)
        if name in _NOTED:
            return Verdict(note=f"{name.decode()} {clean_reason(text)}" if text else name.decode())
        if name == b"REDIRECT":
            return Redirect(read_mailbox(text))
        return Verdict(changes=(_change(name, text),))
    except WireError as error:
        raise PolicyWireError(str(error)) from None


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


def _change(name: bytes, text: bytes) -> c.Change:
    if name == b"PREPEND":
        match = _HEADER.fullmatch(text)
        if match is None:
            raise PolicyWireError("PREPEND without a header field")
        return c.InsertHeader(0, match[1], fold_value(match[2]))  # above our Received, as Postfix has it
    if name == b"HOLD":
        return c.Hold(clean_reason(text) if text else "held by the policy service")
    if name == b"DISCARD":
        return c.Discard(clean_reason(text) if text else REASON)
    if name == b"BCC":
        return c.AddRecipient(read_mailbox(text))
    raise PolicyWireError("a word that is no action")
