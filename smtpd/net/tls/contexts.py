"""Contexts of TLS with every setting that matters made here, so that none depends on the version of Python.

Raises TlsFileError for a file that can't be used. RFC 8996 (TLS 1.2 at least), RFC 9525 (names), RFC 7435
(opportunistic: encryption without knowing whom to, rather than none).
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence

from smtpd.errors import TlsFileError
from smtpd.net.tls.certificates import explain_unreadable

# Unverified, a weak key of the peer is still better than plain text, which is what a refusal of it would come to.
_UNVERIFIED_CIPHERS = "DEFAULT:!aNULL:!eNULL:@SECLEVEL=1"


def client_context(must_verify: bool, ca_file: str = "") -> ssl.SSLContext:
    """For connections to next hops. With `must_verify` the certificate must be good for the name given to `start_tls`, by the
    CAs in `ca_file` ("" = those of the system); without, any certificate will do."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    harden(context)
    if not must_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_ciphers(_UNVERIFIED_CIPHERS)
        return context
    context.check_hostname = True
    context.verify_mode = ssl.CERT_REQUIRED
    context.hostname_checks_common_name = False
    # Not VERIFY_X509_STRICT, which Python 3.13 turned on in its default context: it refuses what private CAs, and so many
    # mail servers inside a company, have issued for years (no key identifiers, no key usage), and no other mail server does.
    context.verify_flags = ssl.VERIFY_X509_TRUSTED_FIRST
    if not ca_file:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        return context
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the file may hold just an intermediate, or the server's own
    _load_ca(context, ca_file)
    return context


def server_context(
    files: Sequence[tuple[str, str]], minimum: str, ciphers: str, client_certificates: str = "none", client_ca: str = ""
) -> ssl.SSLContext:
    """For a listener: `files` are (certificate, key) with one of each algorithm, `minimum` "1.2" or "1.3". `client_certificates`
    is "none", "ask" or "require", then by the CAs in `client_ca`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    harden(context)
    if minimum == "1.3":
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_SINGLE_ECDH_USE
    context.num_tickets = 1  # a client that comes again has one to use, and gets the next
    try:
        context.set_ciphers(ciphers)
    except ssl.SSLError:
        raise TlsFileError(f"tls.ciphers: OpenSSL knows none of {ciphers}") from None
    for cert, key in files:
        try:
            context.load_cert_chain(cert, key or None, password=_no_password)
        except ssl.SSLError as error:
            raise TlsFileError(f"{key or cert}: can't be used: {error.reason or error}") from None
        except (OSError, ValueError) as error:
            raise TlsFileError(explain_unreadable(key or cert, error)) from None
    if client_certificates != "none":
        context.verify_mode = ssl.CERT_REQUIRED if client_certificates == "require" else ssl.CERT_OPTIONAL
        context.verify_flags = ssl.VERIFY_X509_TRUSTED_FIRST
        _load_ca(context, client_ca)
    return context


def _no_password() -> str:
    raise ValueError("the key needs a password")


def _load_ca(context: ssl.SSLContext, ca_file: str) -> None:
    try:
        context.load_verify_locations(cafile=ca_file)
    except ssl.SSLError as error:
        raise TlsFileError(f"{ca_file}: no CA certificates in it ({error.reason or error})") from None
    except OSError as error:
        raise TlsFileError(f"{ca_file}: {error.strerror or error}") from None


def harden(context: ssl.SSLContext) -> None:
    """What every context of ours has, in both roles."""
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION
    context.options |= ssl.OP_NO_RENEGOTIATION  # a peer could have us compute keys without end
