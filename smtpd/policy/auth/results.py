"""The Authentication-Results field (RFC 8601): ours made, and those of others that use our name found.

Pure. What strangers wrote (domains, selectors, reasons) stands in it only as tokens or quoted printable ASCII.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from smtpd.mail.changes import Change, ChangeHeader, InsertHeader
from smtpd.policy.auth.alignment import DmarcResult
from smtpd.policy.auth.signatures import Signature, Verification
from smtpd.policy.auth.spf import SpfResult

NAME = b"Authentication-Results"
_FIELD = re.compile(rb"^authentication-results[ \t]*:((?:[^\r\n]|\r?\n[ \t])*)", re.IGNORECASE | re.MULTILINE)
_TOKEN = re.compile(r"[A-Za-z0-9.!#$%&*+/^_{|}~@-]+")


def make_field(
    authserv_id: str, sender: str, helo: str, spf: SpfResult | None, verification: Verification | None, dmarc: DmarcResult | None
) -> bytes:
    """The value of the field, folded before each method."""
    parts: list[str] = []
    if spf is not None:
        identity = f"smtp.helo={_value(helo)}" if spf.is_helo else f"smtp.mailfrom={_value(sender)}"
        parts.append(f"spf={spf.result} {identity}")
    if verification is not None:
        parts += [_dkim(signature) for signature in verification.signatures] or (["dkim=none"] if verification.has_dkim else [])
        if verification.arc:
            parts.append(f"arc={verification.arc}" + _reason(verification.arc_text))
    if dmarc is not None:
        shown = f" header.from={_value(dmarc.domain)}" if dmarc.domain else ""
        parts.append(f"dmarc={dmarc.result}{_reason(dmarc.text)}{shown}")
    return f"{authserv_id};\r\n\t{';\r\n\t'.join(parts) or 'none'}".encode("ascii")


def _dkim(signature: Signature) -> str:
    properties = [("header.d", signature.domain), ("header.s", signature.selector), ("header.b", signature.start)]
    shown = "".join(f" {name}={_value(value)}" for name, value in properties if value)
    return f"dkim={signature.result}{_reason(signature.text)}{shown}"


def changes_for(header: bytes, authserv_id: str, value: bytes) -> tuple[Change, ...]:
    """Forged fields removed, ours above all: whoever reads from the top meets ours first."""
    return (*remove_forged(header, authserv_id), InsertHeader(0, NAME, value))


def remove_forged(header: bytes, authserv_id: str) -> Sequence[Change]:
    """Changes that delete the fields which use our name, last first, so that numbers hold (RFC 8601 5)."""
    ours = re.compile(rb"(?<![a-z0-9.-])" + re.escape(authserv_id.lower().encode()) + rb"(?![a-z0-9-]|\.[a-z0-9])")
    numbers = [
        number for number, match in enumerate(_FIELD.finditer(header), 1) if ours.search(match[1].partition(b";")[0].lower())
    ]
    return [ChangeHeader(NAME, number, None) for number in reversed(numbers)]


def _value(text: str) -> str:
    return text if _TOKEN.fullmatch(text) else _quoted(text)


def _reason(text: str) -> str:
    return f" reason={_quoted(text)}" if text else ""


def _quoted(text: str) -> str:
    plain = "".join(c if " " <= c <= "~" else "?" for c in text)[:200]
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'
