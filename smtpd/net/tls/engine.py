"""TLS of one connection without its socket: octets of the peer in, octets for the peer and plain ones out (RFC 8446, RFC 5246).

Owns the ssl object and its two memory BIOs. Never raises for what a peer sends: a failure is kept in `failure` as one line of
text, and then nothing is encrypted or decrypted any more. `Stream` moves the octets and decides when.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any, cast

END = -1  # the peer said that it sends no more (close_notify)
FAILED = -2
_END, _FAILED = END, FAILED  # in C variables of the module


class TlsEngine:
    """`done(failure)` belongs to the stream: it is called when the handshake ended, with "" when it went well."""

    __slots__ = (
        "_early",
        "_incoming",
        "_is_closing",
        "_is_ended",
        "_outgoing",
        "_ssl",
        "done",
        "failure",
        "is_dry",
        "is_shaking",
    )

    def __init__(
        self, context: ssl.SSLContext, server_side: bool, server_name: str | None, done: Callable[[str], object] | None
    ) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ssl: ssl.SSLObject | None = None
        self._early: list[bytes] = []
        self._is_closing = False
        self._is_ended = False
        self.done = done
        self.is_shaking = True
        self.is_dry = True  # all that came is decrypted and read
        self.failure = ""
        if not server_side and context.check_hostname and not server_name:  # ssl would go without the check, and say nothing
            self.fail("TLS can't be started: there is no name to check the certificate for")
            return
        try:
            self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_side, None if server_side else server_name)
        except (ssl.SSLError, ValueError) as error:  # a name that can't be one
            self.fail(f"TLS can't be started: {error}")

    # --- what it came to ---------------------------------------------------------------------------------------------

    @property
    def version(self) -> str:
        """ "TLSv1.3"; "" before the end of the handshake."""
        return "" if self.is_shaking or self._ssl is None else self._ssl.version() or ""

    @property
    def cipher(self) -> str:
        """ "TLS_AES_256_GCM_SHA384"; "" before the end of the handshake."""
        suite = None if self.is_shaking or self._ssl is None else self._ssl.cipher()
        return suite[0] if suite else ""

    @property
    def cipher_bits(self) -> int:
        """Secret bits of the cipher in use, 0 before the end of the handshake."""
        suite = None if self.is_shaking or self._ssl is None else self._ssl.cipher()
        return suite[2] if suite else 0

    def peer_names(self) -> tuple[str, str]:
        """The common names (else the organizations) of the peer's certificate and of its issuer, "" where there is none."""
        found = None if self.is_shaking or self._ssl is None else self._ssl.getpeercert()
        if not found:
            return "", ""
        return _common_name(found.get("subject", ())), _common_name(found.get("issuer", ()))

    @property
    def is_verified(self) -> bool:
        """Whether the peer has a certificate and the context found it good."""
        return not self.is_shaking and self._ssl is not None and bool(self._ssl.getpeercert())

    @property
    def buffered_bytes(self) -> int:
        return self._incoming.pending + self._outgoing.pending

    # --- octets ------------------------------------------------------------------------------------------------------

    def receive(self, buffer: bytearray, count: int) -> None:
        """Take the first `count` octets of `buffer`, which came from the peer."""
        with memoryview(buffer) as whole, whole[:count] as part:
            self._incoming.write(part)
        self.is_dry = False

    def shake(self) -> bool:
        """Go on with the handshake as far as the octets reach; True when it ended well."""
        if self._ssl is None or self.failure:
            return False
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except (ssl.SSLError, ValueError) as error:
            self.fail(f"TLS handshake: {_words_of(error)}")
            return False
        self.is_shaking = False
        for data in self._early:
            self.encrypt(data)
        self._early.clear()
        return True

    def read(self, buffer: bytearray, size: int) -> int:
        """Decrypt up to `size` octets into `buffer`: their number, 0 when more must come first, END, or FAILED.

        Until `is_dry` there may be more, or the end: ask again."""
        if self._ssl is None or self.failure:
            return _FAILED
        if self._is_ended:
            return _END
        count = got = asked = 0
        while count < size:
            # less than was asked for is all that was left of a record, so OpenSSL need not be asked for a rest
            if not self._incoming.pending and (got < asked or not self._ssl.pending()):
                self.is_dry = True
                return count
            asked = size - count
            try:
                if not count:  # with a buffer it returns a number
                    got = cast(int, self._ssl.read(size, buffer))
                else:
                    with memoryview(buffer) as whole, whole[count:size] as part:
                        got = cast(int, self._ssl.read(asked, part))
            except ssl.SSLWantReadError:
                self.is_dry = True
                return count
            except ssl.SSLZeroReturnError:
                got = 0
            except (ssl.SSLError, ValueError) as error:
                self.fail(f"TLS: {_words_of(error)}")
                return count or _FAILED  # what came before it is good
            if got == 0:
                self._is_ended = True
                return count or _END
            count += got
        return count

    def encrypt(self, data: bytes) -> None:
        """Make plain octets ready for the peer; before the end of the handshake they wait for it."""
        if self.failure or self._ssl is None or self._is_closing or not data:
            return
        if self.is_shaking:
            self._early.append(data)
            return
        try:
            self._ssl.write(data)
        except (ssl.SSLError, ValueError) as error:
            self.fail(f"TLS: {_words_of(error)}")

    def say_end(self) -> None:
        """Make close_notify ready for the peer (RFC 8446 6.1), once, and not in the middle of a handshake."""
        if self.failure or self._ssl is None or self._is_closing or self.is_shaking:
            return
        self._is_closing = True
        try:
            self._ssl.unwrap()
        except (ssl.SSLError, ValueError):
            pass  # SSLWantReadError: the peer's own has not come, which nobody waits for

    def take_output(self) -> bytes:
        """Return what is to be sent to the peer, alerts included."""
        return self._outgoing.read() if self._outgoing.pending else b""

    def fail(self, text: str) -> None:
        self.failure = self.failure or text
        self._early.clear()


def _common_name(name: Any) -> str:
    fields = {key: value for part in name for key, value in part}
    return str(fields.get("commonName") or fields.get("organizationName") or "")


def _words_of(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    return str(error)
