"""Certificates for tests: a CA of the test's own, files that a configuration names, and what goes wrong with them."""

from __future__ import annotations

import datetime
import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme

NAME = "mx.example.net"
OTHER = "mx.example.org"


@dataclass(frozen=True)
class KeyPair:
    """The files of a certificate and its key."""

    cert: Path
    key: Path

    @property
    def settings(self) -> dict[str, str]:
        """The table [[tls.certificate]]."""
        return {"cert": str(self.cert), "key": str(self.key)}


class Authority:
    """A CA with its file, which issues into `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = trustme.CA()
        self.file = folder / "ca.pem"
        self.ca.cert_pem.write_to_path(str(self.file))

    def issue(self, file: str, *names: str, is_rsa: bool = False, is_expired: bool = False, days: int = 10) -> KeyPair:
        """A certificate for these names (NAME without any) as `file`.pem and `file`.key; issued again it replaces the files."""
        ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=-1 if is_expired else days)
        begins = ends - datetime.timedelta(days=60)
        kind = trustme.KeyType.RSA if is_rsa else trustme.KeyType.ECDSA
        leaf = self.ca.issue_cert(*(names or (NAME,)), not_before=begins, not_after=ends, key_type=kind)
        pair = KeyPair(self.folder / f"{file}.pem", self.folder / f"{file}.key")
        pair.cert.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        pair.key.write_bytes(leaf.private_key_pem.bytes())
        return pair

    def client_context(self, pair: KeyPair | None = None, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        """For a client that trusts this CA, and shows `pair`."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.ca.configure_trust(context)
        if pair is not None:
            context.load_cert_chain(pair.cert, pair.key)
        if version is not None:
            context.minimum_version = context.maximum_version = version
        return context
