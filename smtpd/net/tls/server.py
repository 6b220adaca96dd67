"""TLS of a listener: one context for each, made by the master before the fork, with the certificates by name (SNI, RFC 6066 3).

The keys of session tickets belong to the context: workers inherit it, so a ticket of one is good at the others, and no other
listener's context knows it. Certificates of other names hang on contexts of their own, into which a handshake changes; tickets
stay with the listener's. A context whose files and settings did not change is kept over a reload. Raises TlsFileError.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable
from typing import Any, Protocol

from smtpd.errors import TlsFileError
from smtpd.mail.tls_facts import TlsFacts
from smtpd.net.tls.certificates import Certificate, read_certificate, remember
from smtpd.net.tls.contexts import server_context
from smtpd.net.tls.engine import TlsEngine
from smtpd.settings import ListenerSettings, TlsSettings
from smtpd.settings.tls import ASK, IMPLICIT, NONE, OFF, REQUIRE

Group = tuple[Certificate, ...]


class _Listener(Protocol):
    @property
    def tls(self) -> ServerTls | None: ...


class ServerTls:
    """`mode` is listener.tls, never "off". `recipe` is all that the context was made from."""

    __slots__ = ("_bits", "certificates", "context", "handshake_timeout_s", "mode", "recipe", "was_asked")

    def __init__(
        self, mode: str, handshake_timeout_s: float, certificates: Group, context: ssl.SSLContext, recipe: tuple[Any, ...]
    ) -> None:
        self.mode = mode
        self.handshake_timeout_s = handshake_timeout_s
        self.certificates = certificates
        self.context = context
        self.recipe = recipe
        self.was_asked = context.verify_mode != ssl.CERT_NONE
        self._bits = {str(entry["name"]): int(entry["alg_bits"]) for entry in context.get_ciphers()}

    @property
    def is_implicit(self) -> bool:
        return self.mode == IMPLICIT

    @property
    def handshake_mode(self) -> str:
        """The label of smtpd_tls_handshakes_total."""
        return "implicit" if self.mode == IMPLICIT else "starttls"

    def facts_of(self, engine: TlsEngine) -> TlsFacts:
        """What a handshake that ended well came to."""
        bits = engine.cipher_bits
        subject, issuer = engine.peer_names() if self.was_asked else ("", "")
        return TlsFacts(
            engine.version, engine.cipher, bits, self._bits.get(engine.cipher, bits), was_asked=self.was_asked,
            is_verified=self.was_asked and engine.is_verified, client_subject=subject, client_issuer=issuer,
        )  # fmt: skip


def make_server_tls(listener: ListenerSettings, settings: TlsSettings, known: ServerTls | None = None) -> ServerTls | None:
    """The TLS of a listener, None where it has none; with the context of `known` where nothing has changed."""
    if listener.tls == OFF:
        return None
    certificates = tuple(read_certificate(entry.cert, entry.key) for entry in settings.certificate)
    if not certificates:
        raise TlsFileError(f'tls = "{listener.tls}" needs a [[tls.certificate]]')
    asks = listener.client_certificates
    recipe = (
        certificates,
        settings.minimum,
        settings.ciphers,
        asks,
        _ca_stamp(settings.client_ca) if asks in (ASK, REQUIRE) else None,
    )
    if known is not None and known.recipe == recipe:
        context = known.context
    else:
        context = _make_context(certificates, settings, asks)
    for certificate in certificates:
        remember(certificate)
    return ServerTls(listener.tls, settings.handshake_timeout, certificates, context, recipe)


def _ca_stamp(path: str) -> tuple[str, int, int, int]:
    try:
        found = os.stat(path)
    except OSError as error:
        raise TlsFileError(f"{path}: {error.strerror or error}") from None
    return path, found.st_ino, found.st_size, found.st_mtime_ns


def _make_context(certificates: Group, settings: TlsSettings, asks: str) -> ssl.SSLContext:
    made: dict[Group, ssl.SSLContext] = {}

    def context_of(group: Group) -> ssl.SSLContext:
        if group not in made:
            files = [(entry.cert, entry.key) for entry in group]
            made[group] = server_context(files, settings.minimum, settings.ciphers, asks or NONE, settings.client_ca)
        return made[group]

    main = context_of(default_group(certificates))
    by_name = {name: context_of(group) for name, group in groups_by_name(certificates).items()}
    if len(made) > 1:

        def choose(connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
            if name is not None:
                name = name.lower()
                chosen = by_name.get(name) or by_name.get("*." + name.partition(".")[2])
                if chosen is not None and chosen is not main:
                    connection.context = chosen

        main.sni_callback = choose
    return main


def default_group(certificates: Group) -> Group:
    """The first certificate, and beside it one of each other algorithm for one of its names."""
    first = certificates[0]
    return _one_of_each([first, *(entry for entry in certificates[1:] if set(entry.names) & set(first.names))])


def groups_by_name(certificates: Group) -> dict[str, Group]:
    """For each name, stars too, the certificates that cover it, one of each algorithm."""
    names = dict.fromkeys(name for entry in certificates for name in entry.names)
    return {name: _one_of_each(entry for entry in certificates if name in entry.names or entry.covers(name)) for name in names}


def _one_of_each(certificates: Iterable[Certificate]) -> Group:
    by_algorithm: dict[str, Certificate] = {}
    for entry in certificates:
        by_algorithm.setdefault(entry.algorithm, entry)
    return tuple(by_algorithm.values())


def find_expiries(listeners: Iterable[_Listener]) -> dict[str, float]:
    """When the certificates of these listeners expire, Unix seconds by the name of the file."""
    return {entry.cert: entry.expires_s for each in listeners if each.tls is not None for entry in each.tls.certificates}
