"""What the lines of each event look like: Postfix's words and tags, as pflogsumm, fail2ban and people's grep know them.

`Shape` is the interface; `PostfixShape` is here, logfmt and JSON are in `fields.py`. A shape returns one line without its end
and escapes what peers sent (`escape.py`); it neither writes nor keeps anything.
"""

from __future__ import annotations

from typing import Protocol

from smtpd.log.escape import ADDRESS_LIMIT, TEXT_LIMIT, clean_bytes, clean_text, in_brackets
from smtpd.log.stamp import INFO, WARNING, Stamp

NO_QUEUE = "NOQUEUE"
MESSAGE_LIMIT = 1500  # characters of a warning's own text

# Postfix's program for each transport: what delivers to a Maildir there is virtual(8).
PROGRAMS = {"maildir": "virtual", "discard": "discard", "smtp": "smtp", "lmtp": "lmtp"}
# In C variables of the module (shape.pxd).
_TEXT_LIMIT, _ADDRESS_LIMIT = TEXT_LIMIT, ADDRESS_LIMIT
_PROGRAMS = PROGRAMS
_SECONDS = tuple(f"{hundredths / 100:.2f}".rstrip("0").rstrip(".") for hundredths in range(1001))
Delays = tuple[float, float, float, float]


class Shape(Protocol):
    """One line for each event; the arguments are those of `MailLog`'s methods."""

    def connect(self, client: str) -> str: ...
    def disconnect(self, client: str, counts: dict[str, tuple[int, int]]) -> str: ...
    def lost_connection(self, stage: str, client: str) -> str: ...
    def timeout(self, stage: str, client: str) -> str: ...
    def client(self, queue_id: str, client: str) -> str: ...
    def message_id(self, queue_id: str, message_id: bytes) -> str: ...
    def queued(self, queue_id: str, sender: bytes, size_bytes: int, recipient_count: int) -> str: ...
    def delivered(
        self,
        queue_id: str,
        to: bytes,
        relay: str,
        delay_s: float,
        delays: Delays,
        dsn: str,
        status: str,
        text: str,
        transport: str,
    ) -> str: ...
    def removed(self, queue_id: str) -> str: ...
    def expired(self, queue_id: str, sender: bytes, text: str) -> str: ...
    def held(self, queue_id: str, text: str) -> str: ...
    def reported(self, queue_id: str, text: str, report_id: str) -> str: ...
    def reject(
        self,
        queue_id: str,
        stage: str,
        client: str,
        reply: bytes,
        sender: bytes | None,
        recipient: bytes | None,
        protocol: str,
        helo: bytes,
        dry_run: str = "",
    ) -> str: ...
    def message(self, severity: int, component: str, text: str, fields: dict[str, object]) -> str: ...


class PostfixShape:
    """Lines as Postfix 3.7 writes them."""

    def __init__(self, stamp: Stamp) -> None:
        self._stamp = stamp

    def connect(self, client: str) -> str:
        return f"{self._stamp.header('smtpd')}connect from {_text(client)}"

    def disconnect(self, client: str, counts: dict[str, tuple[int, int]]) -> str:
        done = total = 0
        words = []
        for verb, (ok, tried) in counts.items():
            done += ok
            total += tried
            words.append(f" {verb}={_ratio(ok, tried)}")
        return f"{self._stamp.header('smtpd')}disconnect from {_text(client)}{''.join(words)} commands={_ratio(done, total)}"

    def lost_connection(self, stage: str, client: str) -> str:
        return f"{self._stamp.header('smtpd')}lost connection after {stage} from {_text(client)}"

    def timeout(self, stage: str, client: str) -> str:
        return f"{self._stamp.header('smtpd')}timeout after {stage} from {_text(client)}"

    def client(self, queue_id: str, client: str) -> str:
        return f"{self._stamp.header('smtpd')}{queue_id}: client={_text(client)}"

    def message_id(self, queue_id: str, message_id: bytes) -> str:
        return f"{self._stamp.header('cleanup')}{queue_id}: message-id={_octets(message_id, _ADDRESS_LIMIT) or '<>'}"

    def queued(self, queue_id: str, sender: bytes, size_bytes: int, recipient_count: int) -> str:
        header = self._stamp.header("qmgr")
        return f"{header}{queue_id}: from=<{in_brackets(sender)}>, size={size_bytes}, nrcpt={recipient_count} (queue active)"

    def delivered(
        self,
        queue_id: str,
        to: bytes,
        relay: str,
        delay_s: float,
        delays: Delays,
        dsn: str,
        status: str,
        text: str,
        transport: str,
    ) -> str:
        a, b, c, d = delays
        return (
            f"{self._stamp.header(_PROGRAMS.get(transport, transport))}{queue_id}: to=<{in_brackets(to)}>, relay={_text(relay)}, "
            f"delay={seconds(delay_s)}, delays={seconds(a)}/{seconds(b)}/{seconds(c)}/{seconds(d)}, "
            f"dsn={dsn}, status={status} ({_text(text)})"
        )

    def removed(self, queue_id: str) -> str:
        return f"{self._stamp.header('qmgr')}{queue_id}: removed"

    def expired(self, queue_id: str, sender: bytes, text: str) -> str:
        return f"{self._stamp.header('qmgr')}{queue_id}: from=<{in_brackets(sender)}>, status=expired, {text}"

    def held(self, queue_id: str, text: str) -> str:
        return f"{self._stamp.header('qmgr')}{queue_id}: held: {_text(text)}"

    def reported(self, queue_id: str, text: str, report_id: str) -> str:
        return f"{self._stamp.header('bounce')}{queue_id}: {text}: {report_id}"

    def reject(
        self,
        queue_id: str,
        stage: str,
        client: str,
        reply: bytes,
        sender: bytes | None,
        recipient: bytes | None,
        protocol: str,
        helo: bytes,
        dry_run: str = "",
    ) -> str:
        said = _octets(reply, _TEXT_LIMIT)
        if recipient is not None and stage == "RCPT":
            code, dsn, words = (said.split(" ", 2) + ["", ""])[:3]
            said = f"{code} {dsn} <{in_brackets(recipient)}>: {words}"
        return (
            f"{self._stamp.header('smtpd')}{queue_id or NO_QUEUE}: {'reject_warning' if dry_run else 'reject'}: "
            f"{stage} from {_text(client)}: {said};"
            f"{'' if sender is None else f' from=<{in_brackets(sender)}>'}"
            f"{'' if recipient is None else f' to=<{in_brackets(recipient)}>'}"
            f" proto={protocol} helo=<{in_brackets(helo)}>{f' (dry run of check {dry_run})' if dry_run else ''}"
        )

    def message(self, severity: int, component: str, text: str, fields: dict[str, object]) -> str:
        label = "" if severity == INFO else "warning: " if severity == WARNING else "error: "
        rest = "".join(f" {name}={_text(str(value))}" for name, value in fields.items())
        return f"{self._stamp.header(component, severity)}{label}{_text(text, MESSAGE_LIMIT)}{rest}"


def _text(text: str, limit: int = TEXT_LIMIT) -> str:
    """Return what others said, outside of brackets: it can't look like a field of ours (`from=<…>, size=…`)."""
    return clean_text(text, limit).replace("=<", "=\\x3c")


def _octets(data: bytes, limit: int) -> str:
    return clean_bytes(data, limit).replace("=<", "=\\x3c")


def seconds(value: float) -> str:
    """Return a delay as Postfix writes it: two digits after the point below 10 s, none above, no trailing zeros."""
    if value < 0.005:
        return "0"
    if value >= 10.0:
        return f"{value:.0f}"
    hundredths = int(value * 100.0 + 0.5)
    return _SECONDS[hundredths]


def _ratio(done: int, total: int) -> str:
    return str(total) if done == total else f"{done}/{total}"
