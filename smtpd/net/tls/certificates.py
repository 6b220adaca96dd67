"""Certificates of this server as files: read, held against their key, and what they say of names and time.

Owns what this process has loaded: a server that has given up root's rights can't read every key again, so a reload goes on with
files that have not changed (`remember`). Never keeps a private key. Raises TlsFileError, whose text names the file.
`cryptography` is imported when the first certificate is read; a server without TLS does without it.
"""

from __future__ import annotations

import os
import ssl
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from smtpd.errors import TlsFileError

if TYPE_CHECKING:
    from cryptography import x509

_FILE_BYTES = 1 << 20
Stamp = tuple[int, int, int, int, int]
_loaded: dict[tuple[str, str], tuple[tuple[Stamp, Stamp], Certificate]] = {}


@dataclass(frozen=True, slots=True)
class Certificate:
    """One certificate with its key. `names` are DNS names in lower case, "*.example.org" among them; times are Unix seconds.

    `algorithm` is the kind of its key ("RSA", "EC", …): a context takes one of each. `stamps` tell whether the files are still
    the same."""

    cert: str
    key: str
    names: tuple[str, ...]
    algorithm: str
    begins_s: float
    expires_s: float
    stamps: tuple[Stamp, Stamp]

    def covers(self, name: str) -> bool:
        """Whether it is good for a host name (RFC 6125 6.4.3: a star stands for one label)."""
        name = name.lower()
        return name in self.names or "*." + name.partition(".")[2] in self.names


def read_certificate(cert: str, key: str) -> Certificate:
    """Return what the files hold; `key` "" = in the same file. Unchanged files that this process has loaded stay as read."""
    stamps = _stamp(cert), _stamp(key or cert)
    known = _loaded.get((cert, key))
    if known is not None and known[0] == stamps:
        return known[1]
    leaf = _read_leaf(cert)
    _check_key(cert, key)
    begins, ends = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    return Certificate(cert, key, _names_of(leaf), _algorithm_of(leaf), begins.timestamp(), ends.timestamp(), stamps)


def remember(certificate: Certificate) -> None:
    """A context of this process has it: from now on its files need not be readable while they stay as they are."""
    _loaded[certificate.cert, certificate.key] = certificate.stamps, certificate


def find_file_faults(cert: str, key: str) -> list[tuple[str, str]]:
    """What is wrong with each file by itself: ("cert" or "key", text)."""
    faults = []
    try:
        _read_leaf(cert)
    except TlsFileError as error:
        faults.append(("cert", str(error)))
    try:
        if key and key != cert:
            _read(key)
    except TlsFileError as error:
        faults.append(("key", str(error)))
    return faults


def _stamp(path: str) -> Stamp:
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        raise TlsFileError(explain_unreadable(path, error)) from None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _read_leaf(path: str) -> x509.Certificate:
    try:
        from cryptography import x509
    except ImportError as error:
        raise TlsFileError(f"{path}: can't be read without the package cryptography: {error}") from None
    try:
        return x509.load_pem_x509_certificates(_read(path))[0]
    except ValueError:
        raise TlsFileError(f"{path}: no certificate in it (PEM is needed)") from None


def _read(path: str) -> bytes:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise TlsFileError(f"{path}: not a file")
        with open(path, "rb") as file:
            return file.read(_FILE_BYTES)
    except OSError as error:
        raise TlsFileError(explain_unreadable(path, error)) from None


def explain_unreadable(path: str, error: OSError | ValueError) -> str:
    """One line that names the file, and what helps where a right is missing."""
    text = f"{path}: {error.strerror or error}" if isinstance(error, OSError) else f"{path}: {error}"
    if isinstance(error, PermissionError) and os.geteuid() != 0:
        text += (
            f"; user {_user_name()} has to read it: at the start root does, but a reload comes after root's rights were given "
            "up, so let the user's group read it"
        )
    return text


def _user_name() -> str:
    import pwd  # here: only a fault needs it

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _check_key(cert: str, key: str) -> None:
    """What OpenSSL says of both together, once without the other's fault in the way."""
    if key:
        _read(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert, key or None, password=_refuse_password)
    except ssl.SSLError as error:
        raise TlsFileError(_explain(cert, key, error)) from None
    except OSError as error:
        raise TlsFileError(explain_unreadable(key or cert, error)) from None
    except ValueError:  # from _refuse_password
        raise TlsFileError(f"{key or cert}: the key needs a password, which nobody could give at a start") from None


def _refuse_password() -> str:
    raise ValueError


def _explain(cert: str, key: str, error: ssl.SSLError) -> str:
    reason = error.reason or ""
    if reason == "KEY_VALUES_MISMATCH" or reason == "KEY_TYPE_MISMATCH":
        return f"{key or cert}: not the key of the certificate {cert}"
    if reason in ("EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"):
        return f"{cert}: refused by OpenSSL: {reason.lower().replace('_', ' ')}"
    if reason:
        return f"{key or cert}: no private key in it that can be used: {reason.lower().replace('_', ' ')}"
    return f"{key or cert}: no private key in it (PEM is needed)"


def _names_of(leaf: x509.Certificate) -> tuple[str, ...]:
    """Alternative names, and where there are none the common name (RFC 6125 6.4.4)."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    except (x509.ExtensionNotFound, ValueError):
        names = []
    if not names:
        names = [str(entry.value) for entry in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return tuple(dict.fromkeys(name.lower() for name in names))


def _algorithm_of(leaf: x509.Certificate) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    key = leaf.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return "RSA"
    return "EC" if isinstance(key, ec.EllipticCurvePublicKey) else type(key).__name__
