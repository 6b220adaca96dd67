"""The Received header field (RFC 5321 4.4) and the protocol names of RFC 3848 and 6531. Text only; the time is given."""

from __future__ import annotations

import time

from smtpd._text import join_pieces
from smtpd.mail.envelope import Envelope

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# In a comment or domain position only these octets of a HELO name are repeated; others could bend the field's structure.
_HELO_SAFE = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:[]")
_HELO_TABLE = bytes([octet if octet in _HELO_SAFE else 0x3F for octet in range(256)])


def protocol_name(is_lmtp: bool, is_extended: bool, is_smtputf8: bool, is_tls: bool) -> str:
    """Return the "with" keyword: SMTP, ESMTP, ESMTPS, LMTP, UTF8SMTPS, UTF8LMTP, …"""
    name = "LMTP" if is_lmtp else "SMTP"
    if is_smtputf8:
        name = "UTF8" + name
    elif is_extended and not is_lmtp:
        name = "ESMTP"
    return name + "S" if is_tls else name


class DateText:
    """The RFC 5322 date of a Unix time in local time, made once a second."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second = -1
        self._text = b""

    def at(self, unix_s: float) -> bytes:
        second = int(unix_s)
        if second != self._second:
            self._second = second
            t = time.localtime(second)
            offset_min = (t.tm_gmtoff or 0) // 60
            sign = "-" if offset_min < 0 else "+"
            zone = abs(offset_min) // 60 * 100 + abs(offset_min) % 60
            self._text = (
                f"{_DAYS[t.tm_wday]}, {t.tm_mday} {_MONTHS[t.tm_mon - 1]} {t.tm_year} "
                f"{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02} {sign}{zone:04} ({t.tm_zone})"
            ).encode("ascii", "replace")
        return self._text


def safe_helo(helo: bytes) -> bytes:
    """Return the HELO name with every octet that could bend a header field as "?"."""
    return helo.translate(_HELO_TABLE) or b"?"


def _encode(text: str) -> bytes:
    return text.encode("ascii") if text.isascii() else text.encode("ascii", "replace")


def received_field(envelope: Envelope, queue_id: str, hostname: bytes, date: bytes, tls: bytes = b"") -> bytes:
    """Return the whole field with its CRLF. `for` only with one recipient, so that none learns of the others; `tls` are the
    comments of `TlsFacts`."""
    name = _encode(envelope.client_name)
    address = envelope.client_address
    opening = closing = b""
    if address:  # a unix socket's peer has none
        opening, closing = b" [IPv6:" if ":" in address else b" [", b"]"
    helo = safe_helo(envelope.helo or b"[" + _encode(envelope.client_address) + b"]")
    before, path, behind = b"", b"", b";\r\n\t"
    recipients = envelope.recipients
    if len(recipients) == 1:
        only = recipients[0].path
        if envelope.smtputf8 or only.isascii():
            before, path, behind = b"\r\n\tfor <", only, b">;\r\n\t"
    return join_pieces(
        (
            b"Received: from ", helo, b" (", name, opening, _encode(address), closing, b")\r\n\t", tls, b"by ", hostname,
            b" (smtpd) with ", _encode(envelope.protocol), b" id ", _encode(queue_id), before, path, behind, date, b"\r\n",
        )
    )  # fmt: skip
