"""A certificate that nobody has to trust, made on the spot for `smtpd sink --tls`: P-256, 30 days, signed by itself.

Made by the package cryptography. Raises TlsFileError without it, OSError where the files can't be written.
"""

from __future__ import annotations

import datetime
import os

from smtpd.errors import TlsFileError

_DAYS = 30


def make_certificate(folder: str, *names: str) -> tuple[str, str]:
    """Write a certificate for these DNS names and its key into `folder`; return the paths of both."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import NameOID
    except ImportError as error:
        raise TlsFileError(f"no certificate can be made without the package cryptography: {error}") from None
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    begins = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + datetime.timedelta(days=_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_path, key_path = os.path.join(folder, "self-made.pem"), os.path.join(folder, "self-made.key")
    with open(os.open(key_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        encoding, shape = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        file.write(key.private_bytes(encoding, shape, serialization.NoEncryption()))
    with open(cert_path, "wb") as file:
        file.write(certificate.public_bytes(serialization.Encoding.PEM))
    return cert_path, key_path
