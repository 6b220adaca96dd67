"""The events of `shape.py` as named fields, for machines: logfmt (`key=value`) and JSON, one object a line.

Both formats carry the same fields under the same names; JSON keeps numbers as numbers.
"""

from __future__ import annotations

import re

import msgspec

from smtpd.log.escape import TEXT_LIMIT, clean_bytes, clean_text
from smtpd.log.shape import MESSAGE_LIMIT, PROGRAMS, Delays
from smtpd.log.stamp import INFO, LEVEL_NAMES, Stamp

Value = str | int | float | list[float]
_encode_json = msgspec.json.Encoder().encode
_find_special = re.compile(r'[ "=\\]').search


class FieldShape:
    """`render` turns the fields into the text of a line; a syslog socket gets its header before that."""

    def __init__(self, stamp: Stamp, is_json: bool, is_syslog: bool) -> None:
        self._stamp = stamp
        self._render = render_json if is_json else render_logfmt
        self._is_syslog = is_syslog

    def connect(self, client: str) -> str:
        return self._line("smtpd", {"event": "connect", "client": clean_text(client)})

    def disconnect(self, client: str, counts: dict[str, tuple[int, int]]) -> str:
        fields: dict[str, Value] = {"event": "disconnect", "client": clean_text(client)}
        for verb, (ok, tried) in counts.items():
            fields[f"{verb}_ok"] = ok
            fields[f"{verb}_count"] = tried
        fields["commands_ok"] = sum(ok for ok, _ in counts.values())
        fields["commands_count"] = sum(tried for _, tried in counts.values())
        return self._line("smtpd", fields)

    def lost_connection(self, stage: str, client: str) -> str:
        return self._line("smtpd", {"event": "lost_connection", "stage": stage, "client": clean_text(client)})

    def timeout(self, stage: str, client: str) -> str:
        return self._line("smtpd", {"event": "timeout", "stage": stage, "client": clean_text(client)})

    def client(self, queue_id: str, client: str) -> str:
        return self._line("smtpd", {"event": "client", "queue_id": queue_id, "client": clean_text(client)})

    def message_id(self, queue_id: str, message_id: bytes) -> str:
        return self._line("cleanup", {"event": "message_id", "queue_id": queue_id, "message_id": clean_bytes(message_id) or "<>"})

    def queued(self, queue_id: str, sender: bytes, size_bytes: int, recipient_count: int) -> str:
        return self._line(
            "qmgr",
            {
                "event": "queued",
                "queue_id": queue_id,
                "from": clean_bytes(sender),
                "size": size_bytes,
                "nrcpt": recipient_count,
            },
        )

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
        return self._line(
            PROGRAMS.get(transport, transport),
            {
                "event": "delivery",
                "queue_id": queue_id,
                "to": clean_bytes(to),
                "relay": clean_text(relay),
                "transport": transport,
                "delay": round(delay_s, 3),
                "delays": [round(part, 3) for part in delays],
                "dsn": dsn,
                "status": status,
                "text": clean_text(text),
            },
        )

    def removed(self, queue_id: str) -> str:
        return self._line("qmgr", {"event": "removed", "queue_id": queue_id})

    def expired(self, queue_id: str, sender: bytes, text: str) -> str:
        return self._line(
            "qmgr",
            {"event": "expired", "queue_id": queue_id, "from": clean_bytes(sender), "status": "expired", "text": text},
        )

    def held(self, queue_id: str, text: str) -> str:
        return self._line("qmgr", {"event": "held", "queue_id": queue_id, "text": clean_text(text)})

    def reported(self, queue_id: str, text: str, report_id: str) -> str:
        return self._line("bounce", {"event": "report", "queue_id": queue_id, "text": text, "report_id": report_id})

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
        fields: dict[str, Value] = {"event": "reject_warning", "dry_run": dry_run} if dry_run else {"event": "reject"}
        if queue_id:
            fields["queue_id"] = queue_id
        fields |= {"stage": stage, "client": clean_text(client), "reply": clean_bytes(reply, TEXT_LIMIT)}
        if sender is not None:
            fields["from"] = clean_bytes(sender)
        if recipient is not None:
            fields["to"] = clean_bytes(recipient)
        fields |= {"proto": protocol, "helo": clean_bytes(helo)}
        return self._line("smtpd", fields)

    def message(self, severity: int, component: str, text: str, fields: dict[str, object]) -> str:
        shown: dict[str, Value] = {"event": "message", "text": clean_text(text, MESSAGE_LIMIT)}
        for name, value in fields.items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            shown.setdefault(name, value if is_number else clean_text(str(value)))  # type: ignore[arg-type]
        return self._line(component, shown, severity)

    def _line(self, program: str, fields: dict[str, Value], severity: int = INFO) -> str:
        stamp = self._stamp
        header = stamp.header(program, severity)
        record: dict[str, Value] = {
            "time": stamp.utc,
            "level": LEVEL_NAMES[severity],
            "host": stamp.hostname,
            "program": program,
            "pid": stamp.pid,
        }
        record.update(fields)
        return header + self._render(record) if self._is_syslog else self._render(record)


def render_json(record: dict[str, Value]) -> str:
    """Return the record as one JSON object."""
    return _encode_json(record).decode()


def render_logfmt(record: dict[str, Value]) -> str:
    """Return the record as `key=value` words; values that need it in double quotes, with backslash escapes."""
    return " ".join(f"{name}={_word(value)}" for name, value in record.items())


def _word(value: Value) -> str:
    if isinstance(value, list):
        return "/".join(map(str, value))
    text = str(value)
    if text and _find_special(text) is None:
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
