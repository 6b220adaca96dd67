"""What rspamd answers, as a verdict: its action, the header fields to add and remove, the subject.

Owns the reading of its JSON, which raises RspamdError when it isn't what rspamd sends. Source: rspamd's protocol
(`/checkv2`), and what its own milter does for each action.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from smtpd.mail import changes as c
from smtpd.mail.reply import Reply
from smtpd.mail.verdict import Verdict
from smtpd.policy.milter.answer import clean_reply
from smtpd.policy.milter.changes import fold_value

REJECT, SOFT_REJECT, GREYLIST = "reject", "soft reject", "greylist"
ADD_HEADER, REWRITE_SUBJECT, NO_ACTION = "add header", "rewrite subject", "no action"
DISCARD, QUARANTINE = "discard", "quarantine"

_MAX_FIELDS = 200
_MAX_SYMBOLS = 20
_NAME_OCTETS = frozenset(range(33, 127)) - {0x3A}


class RspamdError(ValueError):
    """The answer is not one of rspamd's; the text says why."""


class MilterPart(msgspec.Struct, frozen=True):
    """What is to be changed: a value is a text, an object with `value` and `order`, or a list of both."""

    add_headers: dict[str, Any] = {}
    remove_headers: dict[str, Any] = {}


class ScanAnswer(msgspec.Struct, frozen=True, rename={"dkim_signature": "dkim-signature"}):
    """What is used of an answer; all else is passed over. `action` "" with an `error`."""

    action: str = ""
    score: float = 0.0
    required_score: float = 0.0
    subject: str = ""
    error: str = ""
    messages: dict[str, Any] = {}
    milter: MilterPart = MilterPart()
    dkim_signature: Any = None
    symbols: dict[str, Any] = {}


_DECODER = msgspec.json.Decoder(ScanAnswer)


def parse_answer(octets: bytes) -> ScanAnswer:
    """Return an answer; raises RspamdError."""
    try:
        answer = _DECODER.decode(octets)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise RspamdError(f"no answer of rspamd: {type(error).__name__}") from None
    if not answer.action:
        raise RspamdError("an answer without an action")
    return answer


def judge(answer: ScanAnswer, header: bytes, *, spam_header: str = "X-Spam", defers_greylist: bool = False) -> Verdict | None:
    """Return the verdict on a mail with this header; None when it stays as it is. Raises RspamdError for an unknown action.

    `greylist` alone is what rspamd says where its own greylisting is off: its milter takes such a mail, and so does this, unless
    `defers_greylist`. `spam_header` "" adds none."""
    action = answer.action
    note = f"rspamd {action} {answer.score:.2f}/{answer.required_score:.2f}{_symbols(answer)}"
    message = str(answer.messages.get("smtp_message", ""))
    if action == REJECT:
        return Verdict(_reply(b"554 5.7.1", message or "Spam message rejected"), "content", note=note)
    if action == SOFT_REJECT:
        return Verdict(_reply(b"451 4.7.1", message or "Try again later"), "content", note=note)
    if action == GREYLIST and defers_greylist:
        return Verdict(_reply(b"450 4.7.1", message or "Greylisted, try again later"), "greylist", note=note)
    if action == DISCARD:
        return Verdict(changes=(c.Discard(note),), note=note)
    made = _headers(answer, header)
    if action == QUARANTINE:
        made.append(c.Hold(f"rspamd: {message or action}"))
    elif action == ADD_HEADER:
        made += [c.ChangeHeader(spam_header.encode(), 1, b"Yes")] if spam_header else []
    elif action == REWRITE_SUBJECT:
        made += [c.ChangeHeader(b"Subject", 1, fold_value(answer.subject.encode("utf-8", "replace")))] if answer.subject else []
    elif action not in (NO_ACTION, GREYLIST):
        raise RspamdError("an action that is unknown")
    return Verdict(changes=tuple(made), note=note) if made else None


def _reply(code: bytes, message: str) -> Reply:
    text = b" ".join(message.encode("ascii", "replace").split())
    return Reply(clean_reply(code + b" " + text, has_percent_escapes=False))


def _symbols(answer: ScanAnswer) -> str:
    names = [name for name in answer.symbols if name.isascii() and name.isprintable()][:_MAX_SYMBOLS]
    return f" ({', '.join(names)})" if names else ""


def _headers(answer: ScanAnswer, header: bytes) -> list[c.Change]:
    made: list[c.Change] = []
    for text, which in answer.milter.remove_headers.items():
        name = _name(text)
        made += [c.ChangeHeader(name, nth, None) for nth in _places(which, _count(header, name))]
    for text, value in answer.milter.add_headers.items():
        name = _name(text)
        made += [_added(name, one) for one in (value if isinstance(value, list) else [value])]
    signatures = answer.dkim_signature if isinstance(answer.dkim_signature, list) else [answer.dkim_signature]
    made += [c.InsertHeader(0, b"DKIM-Signature", _value(text)) for text in signatures if text is not None]
    if len(made) > _MAX_FIELDS:
        raise RspamdError(f"more than {_MAX_FIELDS} header fields")
    return made


def _count(header: bytes, name: bytes) -> int:
    return len(re.findall(rb"^" + re.escape(name) + rb"[ \t]*:", header, re.MULTILINE | re.IGNORECASE))


def _places(which: Any, count: int) -> list[int]:
    """Which fields of a name go: 0 all, n the n-th, -n the n-th from the end; a list is several. From the last to the first, so
    that one that is gone moves no other."""
    places: set[int] = set()
    for one in which if isinstance(which, list) else [which]:
        if not isinstance(one, int) or isinstance(one, bool):
            raise RspamdError("a header field to remove without its number")
        places.update(range(1, count + 1) if one == 0 else [one if one > 0 else count + 1 + one])
    return sorted((place for place in places if 0 < place <= count), reverse=True)


def _added(name: bytes, one: Any) -> c.Change:
    if isinstance(one, dict):
        order = one.get("order", -1)
        if not isinstance(order, int) or isinstance(order, bool):
            raise RspamdError("a header field with a place that is no number")
        value = _value(one.get("value"))
        # its numbers are a milter's, where our own Received is the first; below 0 they count from the end
        return c.InsertHeader(max(0, order - 1), name, value) if order >= 0 else c.AddHeader(name, value)
    return c.AddHeader(name, _value(one))


def _name(text: str) -> bytes:
    name = text.encode("utf-8", "replace")
    if not name or not _NAME_OCTETS.issuperset(name):
        raise RspamdError("a header field without a proper name")
    return name


def _value(value: Any) -> bytes:
    if not isinstance(value, str):
        raise RspamdError("a header field without a text")
    return fold_value(value.encode("utf-8", "replace"))
