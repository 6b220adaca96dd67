"""The commands of one transaction, and what is decided before any of them leaves: size, SMTPUTF8, number of recipients.

Parameters go to next hops that offer their extension, no others. A mail with a header, reverse-path or recipient that needs
SMTPUTF8 (RFC 6531) does not go to a next hop without it; a domain is no such need, for it has a form in ASCII (RFC 5890).
"""

from __future__ import annotations

import re

from smtpd._text import join_pieces
from smtpd.mail.address import AddressError, normal_domain
from smtpd.mail.envelope import NOTIFY_DELAY, NOTIFY_FAILURE, NOTIFY_NEVER, NOTIFY_SUCCESS, Envelope, Recipient
from smtpd.mail.outcome import DEFERRED, UNDELIVERABLE, Outcome
from smtpd.proto.client import extensions as ext
from smtpd.proto.client.extensions import Extensions
from smtpd.proto.client.transmission import Transmission

_SIZE, _DSN = ext.SIZE, ext.DSN  # in C variables of the module (commands.pxd)
_EMPTY_LINE = re.compile(rb"\r?\n\r?\n")
_NOTIFY_WORDS = ((NOTIFY_SUCCESS, b"SUCCESS"), (NOTIFY_FAILURE, b"FAILURE"), (NOTIFY_DELAY, b"DELAY"))


def _render_notify(bits: int) -> bytes:
    if not bits:
        return b""
    if bits & NOTIFY_NEVER:
        return b" NOTIFY=NEVER"
    return b" NOTIFY=" + b",".join(word for bit, word in _NOTIFY_WORDS if bits & bit)


_NOTIFY = [_render_notify(bits) for bits in range(16)]


def prepare(transmission: Transmission, extensions: Extensions, relay: str) -> bytes:
    """Fill in `commands` and `asked`, and the outcomes of recipients that can't be asked for; return MAIL and all RCPTs, or b""
    when all outcomes are decided by that.
    """
    envelope = transmission.envelope
    flags = extensions.flags
    reverse_path = envelope.reverse_path
    is_international = False
    if 0 < extensions.size_limit < transmission.size_bytes:
        text = f"mail has {transmission.size_bytes} octets, the next hop takes {extensions.size_limit}"
        transmission.decide_rest(Outcome(UNDELIVERABLE, 0, "5.3.4", text, relay))
        return b""
    if envelope.smtputf8:
        is_international = _is_international(transmission)
        if is_international and not flags & ext.SMTPUTF8:
            is_international = False
            refusal = Outcome(UNDELIVERABLE, 0, "5.6.7", "mail needs SMTPUTF8, which the next hop does not offer", relay)
            path = ascii_path(reverse_path)
            if path is None or has_8bit_header(_head_of(transmission)):
                transmission.decide_rest(refusal)
                return b""
            reverse_path = path
            for place, index in enumerate(transmission.recipients):
                if ascii_path(envelope.recipients[index].path) is None:
                    transmission.decide(place, refusal)
    commands = transmission.commands
    commands.append(_render_mail(transmission, reverse_path, flags, is_international))
    asked = transmission.asked
    recipients = envelope.recipients
    is_ascii_wanted = envelope.smtputf8 and not flags & ext.SMTPUTF8
    has_decided = transmission.undecided != len(transmission.recipients)
    for place, index in enumerate(transmission.recipients):
        if has_decided and transmission.is_decided(place):
            continue
        if extensions.recipient_limit and len(asked) == extensions.recipient_limit:
            text = f"the next hop takes {extensions.recipient_limit} recipients at once"
            transmission.put_off_rest(Outcome(DEFERRED, 0, "4.5.3", text, relay), place)
            break
        recipient = recipients[index]
        path = recipient.path
        if is_ascii_wanted:
            path = ascii_path(path) or path
        asked.append(place)
        commands.append(_render_rcpt(recipient, path, flags))
    if not asked:
        return b""
    octets = b"".join(commands)
    if octets.count(b"\n") != len(commands) or octets.count(b"\r") != len(commands):  # whoever made such an envelope
        transmission.decide_rest(Outcome(UNDELIVERABLE, 0, "5.1.3", "line end in an address or parameter", relay))
        return b""
    return octets


def _render_mail(transmission: Transmission, reverse_path: bytes, flags: int, is_international: bool) -> bytes:
    envelope = transmission.envelope
    size = b" SIZE=%d" % transmission.size_bytes if flags & _SIZE and transmission.size_bytes >= 0 else b""
    command = join_pieces((b"MAIL FROM:<", reverse_path, b">", size))
    if envelope.body == "8BITMIME":
        if flags & ext.EIGHT_BIT_MIME:
            command += b" BODY=8BITMIME"
        else:
            transmission.is_8bit_unannounced = True
    if is_international:
        command += b" SMTPUTF8"
    if flags & _DSN:
        if envelope.ret:
            command += b" RET=" + envelope.ret.encode()
        if envelope.envid:
            command += b" ENVID=" + envelope.envid
    return command + b"\r\n"


def _render_rcpt(recipient: Recipient, path: bytes, flags: int) -> bytes:
    if not flags & _DSN or not (recipient.notify or recipient.orcpt):
        return join_pieces((b"RCPT TO:<", path, b">\r\n"))
    command = b"RCPT TO:<" + path + b">" + _NOTIFY[recipient.notify & 15]
    if recipient.orcpt:
        command += b" ORCPT=" + recipient.orcpt
    return command + b"\r\n"


def ascii_path(path: bytes) -> bytes | None:
    """The path with its domain as A-labels; None where the local part is not ASCII or the domain has no such form."""
    if path.isascii():
        return path
    local, separator, domain = path.rpartition(b"@")
    if not separator or not local.isascii():
        return None
    try:
        return local + b"@" + normal_domain(domain.decode()).encode("ascii")
    except (AddressError, UnicodeError):
        return None


def has_8bit_header(head: bytes) -> bool:
    """Whether the header section at the start of `head` has an octet that is not ASCII."""
    if head.isascii() or head.startswith((b"\r\n", b"\n")):
        return False
    end = _EMPTY_LINE.search(head)
    return not (head[: end.start()] if end else head).isascii()


def _head_of(transmission: Transmission) -> bytes:
    return transmission.head if transmission.body is None else transmission.body


def _is_international(transmission: Transmission) -> bool:
    """Whether anything at all of a mail that came with SMTPUTF8 is not ASCII where ASCII is the rule."""
    envelope: Envelope = transmission.envelope
    if not envelope.reverse_path.isascii() or has_8bit_header(_head_of(transmission)):
        return True
    return any(not envelope.recipients[index].path.isascii() for index in transmission.recipients)
