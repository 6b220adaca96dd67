"""What a check is asked about: the client, the mail so far, its content. Values; `smtpd.policy.check` is their face.

Kept plain so that it can be compiled as it stands: a question is made for each check of each command.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

from smtpd.mail.envelope import Recipient


class TlsFacts:
    """The TLS of a session: `version` as "TLSv1.3", `cipher` by OpenSSL's name, `client_subject` of a verified certificate."""

    __slots__ = ("cipher", "client_subject", "version")

    def __init__(self, version: str, cipher: str, client_subject: str = "") -> None:
        self.version = version
        self.cipher = cipher
        self.client_subject = client_subject


class Client:
    """Who is at the other end, one object for a whole session; it is replaced after XCLIENT.

    `address` is without brackets, "" for a unix socket; `name` is the verified reverse name, "unknown" without one. `helo` is
    what it last said (b"" before), `protocol` the keyword of RFC 3848 without TLS ("ESMTP", "SMTP", "LMTP"). `is_trusted`: in
    policy.trusted or the listener's exempt networks. `session_id` is in the footer of refusals and in the log.
    """

    __slots__ = ("address", "helo", "is_trusted", "listener", "name", "port", "protocol", "session_id", "tls")

    def __init__(
        self,
        address: str,
        port: int = 0,
        name: str = "unknown",
        *,
        helo: bytes = b"",
        listener: str = "",
        is_trusted: bool = False,
        tls: TlsFacts | None = None,
        protocol: str = "ESMTP",
        session_id: str = "",
    ) -> None:
        self.address = address
        self.port = port
        self.name = name
        self.helo = helo
        self.listener = listener
        self.is_trusted = is_trusted
        self.tls = tls
        self.protocol = protocol
        self.session_id = session_id


class Content(Protocol):
    """A mail as it would be stored now, without our Received: what earlier checks of this stage changed is changed here.

    `header` are all fields with their CRLF, without the blank line behind them. `size_bytes` is that of the whole.
    """

    @property
    def header(self) -> bytes: ...

    @property
    def size_bytes(self) -> int: ...

    def __aiter__(self) -> AsyncIterator[bytes]:
        """All octets in pieces of at most 256 KiB, from memory or from the spill file; only on the side thread."""
        ...

    def body(self) -> AsyncIterator[bytes]:
        """The same from behind the blank line on."""
        ...


class Question:
    """What a check is asked. A snapshot: nothing in it changes while a check looks at it, on whichever thread; change nothing.

    `reverse_path`, `parameters` (`smtpd.proto.params.MailParameters`) and `recipients` (accepted so far) are those of the
    transaction, None, None and () outside of one. `recipient` is set at rcpt. `queue_id` and `content` at body; queue_id is "" at
    data. `check_memory()` returns the memory described at `memory`.
    """

    __slots__ = (
        "_memory_of", "client", "content", "parameters", "queue_id", "recipient", "recipients", "reverse_path", "stage",
    )  # fmt: skip

    def __init__(
        self,
        stage: str,
        client: Client,
        *,
        reverse_path: bytes | None = None,
        parameters: Any = None,
        recipient: Recipient | None = None,
        recipients: tuple[Recipient, ...] = (),
        queue_id: str = "",
        content: Content | None = None,
        memory_of: Callable[[], dict[str, Any]] | None = None,
    ) -> None:
        self.stage = stage
        self.client = client
        self.reverse_path = reverse_path
        self.parameters = parameters
        self.recipient = recipient
        self.recipients = recipients
        self.queue_id = queue_id
        self.content = content
        self._memory_of: Callable[[], dict[str, Any]] = memory_of or dict

    @property
    def memory(self) -> dict[str, Any]:
        """A place of this check in this session, empty at first, for whatever it likes to keep: a connection to its filter, say.
        Only one question of a check and session is open at a time, so nobody else looks at it. STARTTLS and XCLIENT end it."""
        return self._memory_of()
