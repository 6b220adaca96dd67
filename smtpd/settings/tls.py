"""The section [tls]: what all encrypted listeners have in common, and the certificates."""

from typing import Annotated

from smtpd.settings.key import Key
from smtpd.settings.section import Section

# Forward secrecy and authenticated encryption only: what else TLS 1.2 knows has had its attacks (RFC 9325 4.2).
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"

OFF, STARTTLS, REQUIRED, IMPLICIT = TLS_MODES = ("off", "starttls", "required", "implicit")
NONE, ASK, REQUIRE = CLIENT_CERTIFICATES = ("none", "ask", "require")


class CertificateSettings(Section, frozen=True, kw_only=True):
    """A certificate of this server. The first is the default, the others are for clients that ask for one of their names (SNI).
    One with an RSA key and one with an ECDSA key for the same name serve side by side."""

    cert: Annotated[
        str,
        Key("File of the certificate and those between it and its CA, in PEM", kind="path", example='"/etc/smtpd/mx1.pem"'),
    ]
    key: Annotated[
        str,
        Key(
            "File of its private key, in PEM without a password; for reloads the server's user must be able to read it",
            kind="path",
            empty="it is in the file of the certificate",
            example='"/etc/smtpd/mx1.key"',
        ),
    ] = ""


class TlsSettings(Section, frozen=True, kw_only=True):
    """Encryption of what clients send; a listener takes part by its key `tls`."""

    minimum: Annotated[str, Key("Oldest version of TLS that is spoken", choices=("1.2", "1.3"))] = "1.2"
    ciphers: Annotated[
        str, Key("What TLS 1.2 may use, as openssl-ciphers(1) writes it; those of TLS 1.3 are all good", kind="line")
    ] = CIPHERS
    client_ca: Annotated[
        str,
        Key(
            "File of the CAs, in PEM, by which certificates of clients are judged",
            kind="path",
            empty="none; needed where a listener asks for certificates",
            example='"/etc/smtpd/clients-ca.pem"',
        ),
    ] = ""
    handshake_timeout: Annotated[float, Key("Longest time for a handshake", kind="duration", least=0.1, most=600.0)] = 30.0
    certificate: list[CertificateSettings] = []
