"""Who is who for a greylist: the network of a client, a sender without what changes from mail to mail, and the keys of both.

Pure. Keys are hashes: of one size whatever the addresses, and a stolen store names nobody.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re

_TAGGED = re.compile(rb"^(?:prvs|msprvs1|btv1)=+[^=@]*=+", re.IGNORECASE)  # BATV: the tag changes every day
_REWRITTEN = re.compile(rb"^srs([01])[=+-].*", re.IGNORECASE)  # SRS: hash, time stamp and the first sender
_RETURNING = re.compile(rb"[-+._]?[^-+._=]*=[^@]*$")  # VERP: the recipient within the sender ("list-alice=example.org")
_NUMBER = re.compile(rb"(?<![a-z])(?=[0-9a-f]*[0-9])[0-9a-f]{2,}(?![a-z])|[0-9]+")  # counters, hexadecimal identifiers
KEY_BYTES = 16


def network_of(address: str, ipv4_prefix: int = 24, ipv6_prefix: int = 64) -> str:
    """The network that stands for a client; what is no address (a unix socket's peer) stands for itself."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 6 and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    prefix = ipv4_prefix if parsed.version == 4 else ipv6_prefix
    return str(ipaddress.ip_network((parsed, prefix), strict=False))


def normal_sender(mailbox: bytes) -> bytes:
    """A reverse-path without extensions, tags, embedded recipients and numbers, in lower case; b"" stays."""
    local, at, domain = mailbox.lower().rpartition(b"@")
    if not at:
        return mailbox.lower()
    local = _TAGGED.sub(b"", local)
    rewritten = _REWRITTEN.match(local)
    if rewritten:
        return b"srs" + rewritten[1] + b"@" + domain
    plain, plus, _ = local.partition(b"+")
    local = _RETURNING.sub(b"=", plain if plus and plain else local)
    return _NUMBER.sub(b"#", local) + b"@" + domain


def make_key(*parts: bytes | str) -> bytes:
    """A hash of the parts, KEY_BYTES long."""
    sha = hashlib.sha256()
    for part in parts:
        octets = part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part
        sha.update(len(octets).to_bytes(4))
        sha.update(octets)
    return sha.digest()[:KEY_BYTES]
