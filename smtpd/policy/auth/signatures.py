"""DKIM (RFC 6376, 8463) and ARC (RFC 8617) of one mail, by dkimpy, with keys that were fetched before.

Pure computation, and much of it: RSA in Python and hashes over the whole mail, for octets that a stranger chose. It runs in a
process of its own (`verifier.py`). Raises nothing: what is wrong is a result.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

SETS_MAX = 10  # of ARC; RFC 8617 allows 50, and each costs two signatures
_FIELD = re.compile(
    rb"^(dkim-signature|arc-seal|arc-message-signature)[ \t]*:((?:[^\r\n]|\r?\n[ \t])*)", re.IGNORECASE | re.MULTILINE
)
_TAG = re.compile(rb"(?:^|;)\s*([a-zA-Z]+)\s*=\s*([^;]*)")


class Key(msgspec.Struct, array_like=True):
    """What DNS says of a key: `text` is the record, b"" without one; `is_failed`: DNS couldn't tell."""

    text: bytes = b""
    is_failed: bool = False


class Order(msgspec.Struct, array_like=True):
    """What is to be verified. `keys` by name without the last dot."""

    message: bytes
    keys: dict[str, Key]
    signatures: int
    key_bits: int
    dkim: bool
    arc: bool


class Signature(msgspec.Struct, array_like=True):
    """One DKIM signature: `result` of RFC 8601 2.7.1, its domain and selector, the first octets of b=, and why not."""

    result: str
    domain: str
    selector: str
    start: str = ""
    text: str = ""


class Verification(msgspec.Struct, array_like=True):
    """`arc` is "" when it was not asked for, else "none", "pass", "fail" or "temperror"; `has_dkim`: signatures were."""

    signatures: list[Signature]
    has_dkim: bool
    arc: str = ""
    arc_text: str = ""


def key_names(header: bytes, signatures: int, dkim: bool, arc: bool) -> list[str]:
    """The names of the keys that `verify` will want, from the fields of a mail."""
    names: dict[str, None] = {}
    count = 0
    for match in _FIELD.finditer(header):
        is_dkim = match[1].lower() == b"dkim-signature"
        if is_dkim:
            count += 1
        if (is_dkim and (not dkim or count > signatures)) or (not is_dkim and not arc):
            continue
        tags = {name.lower(): b"".join(value.split()) for name, value in _TAG.findall(match[2])}
        name = key_name(tags.get(b"s", b""), tags.get(b"d", b""))
        if name:
            names[name] = None
    return list(names)[: signatures + 2 * SETS_MAX]


def key_name(selector: bytes, domain: bytes) -> str:
    """Where a key is, "" for what can't be a name."""
    if not selector or not domain or not (selector + domain).isascii():
        return ""
    return (selector + b"._domainkey." + domain).decode("ascii").removesuffix(".").lower()


def verify(order: Order) -> Verification:
    """Verify what is ordered."""
    find = _finder(order.keys)
    signatures = _verify_dkim(order, find) if order.dkim else []
    arc, text = _verify_arc(order, find) if order.arc else ("", "")
    return Verification(signatures, order.dkim, arc, text)


def _finder(keys: Mapping[str, Key]) -> Any:
    """dkimpy's dnsfunc: a TXT record or None."""
    import dkim

    def find(name: bytes | str, timeout: float = 0.0) -> bytes | None:
        text = name.decode("ascii", "replace") if isinstance(name, bytes) else name
        key = keys.get(text.removesuffix(".").lower(), Key())
        if key.is_failed:
            raise dkim.DnsTimeoutError("DNS failed")
        return key.text or None

    return find


def _verify_dkim(order: Order, find: Any) -> list[Signature]:
    import dkim

    found: list[Signature] = []
    try:
        mail = dkim.DKIM(order.message, minkey=order.key_bits)
        count = sum(name.lower() == b"dkim-signature" for name, _ in mail.headers)
    except dkim.DKIMException:
        return found
    for number in range(min(count, order.signatures)):
        mail.signature_fields = {}
        text = ""
        try:
            result = "pass" if mail.verify(number, dnsfunc=find) else "fail"
        except dkim.ValidationError as error:
            result, text = "fail", str(error)
        except Exception as error:  # noqa: BLE001 dkimpy raises what Python raises for some signatures that are nonsense
            result, text = "permerror", str(error) or type(error).__name__
        fields = mail.signature_fields
        domain, selector = fields.get(b"d", b""), fields.get(b"s", b"")
        key = order.keys.get(key_name(domain=domain, selector=selector), Key())
        if result == "fail" and key.is_failed:
            result, text = "temperror", "key not available"
        elif result == "fail" and not key.text:
            result, text = "permerror", "no key"
        start = b"".join(fields.get(b"b", b"").split())[:8]
        found.append(Signature(result, _text(domain).lower(), _text(selector), _text(start), text[:100]))
    return found


def _verify_arc(order: Order, find: Any) -> tuple[str, str]:
    import dkim

    try:
        mail = dkim.ARC(order.message, minkey=order.key_bits)
        highest, _ = mail.sorted_arc_headers()
        if highest > SETS_MAX:
            return "fail", f"more than {SETS_MAX} sets"
        result, _, text = mail.verify(dnsfunc=find)
    except Exception as error:  # noqa: BLE001 as above
        return "fail", (str(error) or type(error).__name__)[:100]
    if result != dkim.CV_Pass and any(key.is_failed for key in order.keys.values()) and highest:
        return "temperror", "key not available"
    names = {dkim.CV_Pass: "pass", dkim.CV_None: "none"}
    return names.get(result, "fail"), "" if result in names else str(text)[:100]


def _text(octets: bytes) -> str:
    return octets.decode("ascii", "replace")
