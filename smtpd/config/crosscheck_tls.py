"""What is wrong with certificates, keys and the listeners that want them. Reads the files, as the server will.

All faults at once: each certificate by itself, its key by itself, and both together. Warnings are for what is legal and seldom
meant: a certificate that is over, that is not for the name in our greeting, that nobody uses, that a reload can't renew.
"""

import time
from collections.abc import Callable

from smtpd.config.faults import quote
from smtpd.config.read import Path
from smtpd.config.readable import find_unreadable
from smtpd.errors import TlsFileError
from smtpd.net.tls.certificates import Certificate, find_file_faults, read_certificate
from smtpd.net.tls.contexts import server_context
from smtpd.settings import Settings
from smtpd.settings.tls import IMPLICIT, NONE, OFF, REQUIRED

_SMTP_PORT = ":25"
Say = Callable[[Path, str], None]
Good = Callable[..., bool]


def check_tls(settings: Settings, hostname: str, is_good: Good, fault: Say, warn: Say) -> None:
    """`is_good(*paths)` says whether keys were good by themselves; `fault` and `warn` take what is found."""
    tls = settings.tls
    if not is_good(("tls",), ("tls", "certificate")):
        return
    certificates = []
    for number, entry in enumerate(tls.certificate):
        path: Path = ("tls", "certificate", number)
        if is_good(path, path + ("cert",), path + ("key",)):
            certificate = _certificate(path, entry.cert, entry.key, fault)
            if certificate is not None:
                certificates.append(certificate)
                _time(path + ("cert",), certificate, warn)
    if tls.certificate and len(certificates) == len(tls.certificate) and is_good(("hostname",)):
        _names(certificates, hostname, warn)
    if is_good(("user",)):
        _renewal(settings, certificates, warn)
    _shared(settings, is_good, fault)
    _listeners(settings, is_good, fault, warn)


def _certificate(path: Path, cert: str, key: str, fault: Say) -> Certificate | None:
    """The two files of a certificate are looked at one by one before they are held against each other."""
    try:
        return read_certificate(cert, key)
    except TlsFileError as error:
        text = str(error)
    own = find_file_faults(cert, key)
    for name, words in own:
        fault(path + (name,), words)
    if not own:
        fault(path + ("key" if key and text.startswith(f"{key}: ") else "cert",), text)
    return None


def _time(path: Path, certificate: Certificate, warn: Say) -> None:
    now_s = time.time()
    date = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(certificate.expires_s))
    if certificate.expires_s <= now_s:
        warn(path, f"{certificate.cert}: expired on {date}; clients that verify it will not send")
    elif certificate.begins_s > now_s:
        date = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(certificate.begins_s))
        warn(path, f"{certificate.cert}: not valid before {date}")


def _names(certificates: list[Certificate], hostname: str, warn: Say) -> None:
    if hostname and not any(certificate.covers(hostname) for certificate in certificates):
        names = ", ".join(certificates[0].names[:3]) or "no name"
        warn(("tls", "certificate", 0, "cert"), f"{certificates[0].cert}: for {names}, not for the host name {quote(hostname)}")
    seen: dict[tuple[tuple[str, ...], str], Certificate] = {}
    for number, certificate in enumerate(certificates):
        double = seen.setdefault((certificate.names, certificate.algorithm), certificate)
        if double is not certificate:
            path: Path = ("tls", "certificate", number, "cert")
            warn(path, f"{certificate.cert}: never used, {double.cert} has the same names and the same kind of key")


def _renewal(settings: Settings, certificates: list[Certificate], warn: Say) -> None:
    """Root reads every file at the start, and the user at a reload."""
    good = {(entry.cert, entry.key) for entry in certificates}
    files: dict[Path, str] = {}
    for number, entry in enumerate(settings.tls.certificate):
        if (entry.cert, entry.key) in good:
            path: Path = ("tls", "certificate", number)
            files[path + ("cert",)] = entry.cert
            if entry.key:
                files[path + ("key",)] = entry.key
    if settings.tls.client_ca:
        files["tls", "client_ca"] = settings.tls.client_ca
    unreadable = find_unreadable(settings.user, files.values()) if settings.user and files else None
    for path, file in files.items():
        if unreadable and file in unreadable:
            warn(path, f"{file}: user {settings.user} can't read it, so a reload can't take a renewed one: let its group read it")


def _shared(settings: Settings, is_good: Good, fault: Say) -> None:
    tls = settings.tls
    if is_good(("tls", "ciphers"), ("tls", "minimum")):
        try:
            server_context((), tls.minimum, tls.ciphers)
        except TlsFileError as error:
            fault(("tls", "ciphers"), str(error).removeprefix("tls.ciphers: "))
    if tls.client_ca and is_good(("tls", "client_ca")):
        try:
            server_context((), "1.2", "DEFAULT", "ask", tls.client_ca)
        except TlsFileError as error:
            fault(("tls", "client_ca"), str(error))


def _listeners(settings: Settings, is_good: Good, fault: Say, warn: Say) -> None:
    for number, listener in enumerate(settings.listener):
        path: Path = ("listener", number)
        if not is_good(path, path + ("tls",), path + ("client_certificates",)):
            continue
        if listener.tls == OFF:
            if listener.client_certificates != NONE:
                fault(path + ("client_certificates",), 'needs TLS: tls = "off" here')
            continue
        if not settings.tls.certificate:
            fault(path + ("tls",), f"{quote(listener.tls)} needs a [[tls.certificate]]")
        if listener.client_certificates != NONE and not settings.tls.client_ca:
            fault(path + ("client_certificates",), f"{quote(listener.client_certificates)} needs tls.client_ca")
        suppressed = [network for network, words in listener.suppress.items() if "STARTTLS" in words]
        if suppressed and listener.tls == REQUIRED:
            fault(path + ("suppress", suppressed[0]), 'tls = "required" leaves nobody a way in who is not offered STARTTLS')
        if listener.address.endswith(_SMTP_PORT) and listener.tls == IMPLICIT:
            warn(path + ("tls",), "no sender speaks TLS from the first octet on port 25 (RFC 8314 3.3: port 465)")
        if listener.address.endswith(_SMTP_PORT) and listener.tls == REQUIRED and listener.protocol == "smtp":
            warn(path + ("tls",), "an MX must not refuse mail without TLS (RFC 3207 4): plain senders will bounce")
