"""A client session in a test's hands: a scripted next hop, or our own server session wired to it back to back in memory."""

from __future__ import annotations

from dataclasses import dataclass, field

from smtpd.mail.envelope import Envelope, Recipient
from smtpd.mail.outcome import Outcome
from smtpd.mail.verdict import Verdict
from smtpd.proto import events as server_ev
from smtpd.proto import replies
from smtpd.proto.client import events as ev
from smtpd.proto.client.rules import ClientRules
from smtpd.proto.client.session import ClientSession
from smtpd.proto.client.transmission import Transmission
from smtpd.proto.dialogue import Peer
from smtpd.proto.rules import NoChecks, Rules
from smtpd.proto.session import Session
from smtpd.settings import LimitsSettings

RELAY = "mx.example.net[192.0.2.1]:25"
BODY = b"Subject: x\r\n\r\n.dot\r\n..\r\ntext\r\n"
ALL = b"PIPELINING", b"SIZE 1000000", b"8BITMIME", b"SMTPUTF8", b"DSN", b"ENHANCEDSTATUSCODES"


def envelope_of(*paths: bytes, reverse_path: bytes = b"a@example.org", **fields: object) -> Envelope:
    recipients = [Recipient(path, path.rpartition(b"@")[2].decode()) for path in paths or (b"b@example.net",)]
    return Envelope(reverse_path, recipients, "192.0.2.7", "client.example", b"client.example", "ESMTP", 0.0, **fields)  # type: ignore[arg-type]


def mail_to(*paths: bytes, body: bytes | None = BODY, **fields: object) -> Transmission:
    envelope = envelope_of(*paths, **fields)
    return Transmission(envelope, list(range(len(envelope.recipients))), body, len(BODY))


@dataclass
class Client:
    """The driver: keeps what was sent and what was told."""

    rules: ClientRules
    is_octet_by_octet: bool = False
    sent: bytes = b""
    told: list[tuple[int, Transmission | None]] = field(default_factory=list)
    reason: Outcome | None = None

    def __post_init__(self) -> None:
        self.session = ClientSession(self.rules, RELAY)

    def hear(self, octets: bytes) -> bytes:
        """Give replies to the session; return what it sends on them."""
        step = 1 if self.is_octet_by_octet else len(octets) or 1
        for start in range(0, len(octets), step):
            buffer = bytearray(b"#" + octets[start : start + step] + b"#")
            assert self.session.receive(buffer, 1, len(buffer) - 1) == len(buffer) - 1
        return self.take()

    def take(self) -> bytes:
        output = self.session.take_output()
        self.sent += output
        while event := self.session.next_event():
            self.told.append((event.kind, event.transmission))
            if event.kind == ev.CLOSED:
                self.reason = event.reason
        return output

    def kinds(self) -> list[int]:
        """Return what was told since the last call."""
        kinds = [kind for kind, _ in self.told]
        self.told.clear()
        return kinds

    def greet(self, *extensions: bytes) -> None:
        """Bring the session to READY without TLS."""
        self.hear(b"220 mx.example.net ESMTP\r\n")
        lines = [b"mx.example.net", *extensions]
        self.hear(b"".join(b"250-" + line + b"\r\n" for line in lines[:-1]) + b"250 " + lines[-1] + b"\r\n")
        assert self.kinds() == [ev.READY]

    def send(self, transmission: Transmission) -> bytes:
        self.session.send(transmission)
        return self.take()


def greeted(*extensions: bytes, is_octet_by_octet: bool = False, **rules: object) -> Client:
    """A client that is READY to send to a next hop with these extensions."""
    client = Client(ClientRules(b"out.example.org", **rules), is_octet_by_octet)  # type: ignore[arg-type]
    client.greet(*extensions)
    return client


class NextHop:
    """Our own server's session; accepts all mail, or answers each with the reply of `refusals` by number of the mail."""

    def __init__(self, is_lmtp: bool = False, suppressed: frozenset[str] = frozenset(), **limits: int) -> None:
        rules = Rules(
            "mx.example.net", LimitsSettings(**limits), NoChecks(), is_lmtp=is_lmtp, offers_dsn=True, suppressed=suppressed
        )
        self.session = Session(rules, Peer("192.0.2.1", 25, "client.example"))
        self.session.start()
        self.mails: list[tuple[Envelope, bytes]] = []
        self.refusals: dict[int, replies.Reply] = {}
        self._chunks: list[bytes] = []
        self._envelope: Envelope | None = None
        self._rest = b""

    def hear(self, octets: bytes) -> bytes:
        buffer = bytearray(self._rest + octets)
        position = 0
        while True:
            before = position
            position = self.session.receive(buffer, position, len(buffer))
            has_events = bool(self.session.events)
            while self.session.events:
                self._handle(self.session.events.pop(0))
            if position == before and not has_events:
                break
        self._rest = bytes(buffer[position:])
        return self.session.take_output()

    def _handle(self, event: server_ev.Event) -> None:
        if event.kind == server_ev.BODY_BEGIN:
            self._envelope = event.data
            self._chunks = []
        elif event.kind == server_ev.BODY_CHUNK:
            self._chunks.append(event.data)
        elif event.kind == server_ev.BODY_END:
            assert self._envelope is not None
            self.mails.append((self._envelope, b"".join(self._chunks)))
            number = len(self.mails)
            refusal = self.refusals.get(number)
            self.session.resume(event.token, Verdict(refusal, "other", f"QID{number}"))


def converse(client: Client, hop: NextHop, octets: bytes) -> None:
    """Carry octets to the next hop, replies back, until both are silent."""
    while octets:
        octets = client.hear(hop.hear(octets))


def connected(hop: NextHop, **rules: object) -> Client:
    """A client that is READY to send to this next hop."""
    client = Client(ClientRules(b"out.example.org", **rules))  # type: ignore[arg-type]
    converse(client, hop, client.hear(hop.hear(b"")))
    assert client.kinds() == [ev.READY]
    return client
