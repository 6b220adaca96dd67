"""What the TLS of a session came to, as Received, log lines and checks tell it (RFC 8314 4.3, Postfix's words). A leaf."""

from __future__ import annotations

from smtpd.log.escape import clean_text

_HEADER_LIMIT = 64  # characters of a name in Received


class TlsFacts:
    """`version` as "TLSv1.3", `cipher` by OpenSSL's name, its strength in bits and those of its key. `client_subject` and
    `client_issuer` are common names of a certificate that the listener's CAs are good for, "" without one; `was_asked` says
    whether the client was asked for one. `comments` are those of the Received field, each with the folding behind it."""

    __slots__ = (
        "algorithm_bits", "cipher", "cipher_bits", "client_issuer", "client_subject", "comments", "is_verified", "version",
        "was_asked",
    )  # fmt: skip

    def __init__(
        self,
        version: str,
        cipher: str,
        cipher_bits: int = 0,
        algorithm_bits: int = 0,
        *,
        was_asked: bool = False,
        is_verified: bool = False,
        client_subject: str = "",
        client_issuer: str = "",
    ) -> None:
        self.version = version
        self.cipher = cipher
        self.cipher_bits = cipher_bits
        self.algorithm_bits = algorithm_bits
        self.was_asked = was_asked
        self.is_verified = is_verified
        self.client_subject = client_subject
        self.client_issuer = client_issuer
        self.comments = self._received_comments()

    @property
    def trust(self) -> str:
        """Postfix's word: what is known of the client by its certificate."""
        return "Trusted" if self.is_verified else "Anonymous"

    def _received_comments(self) -> bytes:
        bits = f"{self.cipher_bits}/{self.algorithm_bits} bits"
        lines = [f"(using {self.version} with cipher {self.cipher} ({bits}))"]
        if self.is_verified:
            lines.append(f'(Client CN "{_quoted(self.client_subject)}", Issuer "{_quoted(self.client_issuer)}" (verified OK))')
        elif self.was_asked:
            lines.append("(Client did not present a certificate)")
        else:
            lines.append("(No client certificate requested)")
        return "".join(f"{line}\r\n\t" for line in lines).encode("ascii", "replace")


def _quoted(name: str) -> str:
    """A name that can't end its comment: a CA may have signed anything."""
    text = clean_text(name, _HEADER_LIMIT)
    return "".join("?" if character in '()"\\' else character for character in text)
