"""One SMTP reply: code, text and the octets that go on the wire. Immutable; the catalogue is `smtpd.proto.replies`."""

from __future__ import annotations


class Reply:
    """`text` is the whole reply without the last CRLF, code first (b"550 5.7.1 Relay access denied").

    `closes` says that the connection ends after it. A reply that starts with 4 or 5 `is_error`.
    """

    __slots__ = ("closes", "code", "is_error", "wire")

    def __init__(self, text: bytes, closes: bool = False) -> None:
        self.code = int(text[:3])
        self.wire = text + b"\r\n"
        self.is_error = self.code >= 400
        self.closes = closes

    @property
    def text(self) -> bytes:
        """The reply without the last CRLF."""
        return self.wire[:-2]

    def __repr__(self) -> str:
        return f"Reply({self.text!r})"


def make_success(code: int, wire: bytes) -> Reply:
    """A 2xx reply from its octets with CRLF: what is made for each mail costs no parsing."""
    reply = Reply.__new__(Reply)
    reply.code = code
    reply.wire = wire
    reply.is_error = False
    reply.closes = False
    return reply
