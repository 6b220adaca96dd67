"""Live transcripts: operators who watch the dialogues of some clients or next hops, and the taps of the sessions that they see.

Costs a session nothing but a test for None while nobody watches it. Never shows a mail's content (follower.py). Loop thread only.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from typing import Protocol

from smtpd.control.follower import Follower
from smtpd.control.wire import Line, Said, encode_line
from smtpd.net.loop import Loop, Timer

QUEUE_BYTES = 256 * 1024  # that a reader may be behind; what comes then is lost to it
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Watch:
    """One operator: what is wanted, and where it goes. `is_behind()` tells whether there is no room; `lost` counts lines."""

    def __init__(
        self, network: Network | None, next_hop: str, send: Callable[[bytes], None], is_behind: Callable[[], bool]
    ) -> None:
        self._network = network
        self._next_hop = next_hop
        self._send = send
        self._is_behind = is_behind
        self.lost = 0

    def wants_client(self, address: str) -> bool:
        """Whether it is about sessions of this client; `address` "" is a unix socket's, in no network."""
        if self._network is None or not address:
            return False
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        mapped = getattr(found, "ipv4_mapped", None)
        return (mapped or found) in self._network

    def wants_next_hop(self, name: str) -> bool:
        """Whether it is about connections to this next hop; a name with its port matches one without."""
        wanted = self._next_hop.lower()
        name = name.lower()
        return bool(wanted) and (name == wanted or name.rpartition(":")[0].strip("[]") == wanted.strip("[]"))

    def tell(self, said: Said) -> None:
        """Pass a line on, or count it as lost."""
        if self._is_behind():
            self.lost += 1
            return
        self.tell_lost()
        self._send(encode_line(Line(said=said)))

    def tell_lost(self) -> None:
        """Say how many lines are missing here."""
        if self.lost:
            lost, self.lost = self.lost, 0
            self._send(encode_line(Line(lost=lost)))


class Tap:
    """A session that is watched. `peer` is shown with each line; `received` and `sent` take its octets as they pass."""

    __slots__ = ("_follower", "_is_client", "_number", "_peer", "_transcripts")

    def __init__(self, transcripts: Transcripts, number: int, peer: str, *, is_client: bool, is_begun: bool) -> None:
        self._transcripts = transcripts
        self._number = number
        self._peer = peer
        self._is_client = is_client  # the peer is the client, not the next hop
        self._follower = Follower(is_begun=is_begun)

    def received(self, data: bytes) -> None:
        """The peer has sent these octets."""
        self._tell(data, from_client=self._is_client)

    def sent(self, data: bytes) -> None:
        """We have sent these octets."""
        self._tell(data, from_client=not self._is_client)

    def closed(self) -> None:
        """The connection is over."""
        self._tell_text("", "(closed)")

    def _tell(self, data: bytes, *, from_client: bool) -> None:
        follower = self._follower
        if from_client:
            for text in follower.from_client(data):
                self._tell_text("C", text)
        else:
            for text in follower.from_server(data):
                self._tell_text("S", text)

    def _tell_text(self, who: str, text: str) -> None:
        said = Said(self._number, self._peer, time.time(), who, text)
        for watch in self._transcripts.watches:
            if watch.wants_client(self._peer) if self._is_client else watch.wants_next_hop(self._peer):
                watch.tell(said)


class Transcripts:
    """All watches of a worker. `on_change` is called when one begins or ends, for the sessions that are open already."""

    def __init__(self, on_change: Callable[[], object] = lambda: None) -> None:
        self.watches: list[Watch] = []
        self.on_change = on_change
        self._count = 0

    @property
    def is_watching(self) -> bool:
        return bool(self.watches)

    def add(self, watch: Watch) -> None:
        """Begin with a watch."""
        self.watches.append(watch)
        self.on_change()

    def remove(self, watch: Watch) -> None:
        """End a watch. Harmless when done twice."""
        if watch in self.watches:
            self.watches.remove(watch)
            self.on_change()

    def for_client(self, address: str, *, is_begun: bool = False) -> Tap | None:
        """Return the tap of a client's session if somebody watches it. `is_begun`: it was open before."""
        if any(watch.wants_client(address) for watch in self.watches):
            return self._tap(address, is_client=True, is_begun=is_begun)
        return None

    def for_next_hop(self, name: str, is_begun: bool = False) -> Tap | None:
        """Return the tap of a connection to a next hop ("host:port") if somebody watches it."""
        if any(watch.wants_next_hop(name) for watch in self.watches):
            return self._tap(name, is_client=False, is_begun=is_begun)
        return None

    def _tap(self, peer: str, *, is_client: bool, is_begun: bool) -> Tap:
        self._count += 1
        return Tap(self, self._count, peer, is_client=is_client, is_begun=is_begun)


class TranscriptClient(Protocol):
    """The connection of an operator, as this needs it."""

    @property
    def is_open(self) -> bool: ...
    @property
    def waiting_bytes(self) -> int: ...
    def read_line(self, on_line: Callable[[bytes], None], patience_s: float = ...) -> None: ...
    def write(self, data: bytes) -> None: ...
    def finish(self, error: str = "") -> None: ...


class TranscriptAnswer:
    """Streams {"said"} lines to `client` for `seconds` (0: until it goes, or sends a line)."""

    def __init__(
        self, client: TranscriptClient, loop: Loop, transcripts: Transcripts, network: str, next_hop: str, seconds: float
    ) -> None:
        """Raises ValueError for a network that is none."""
        wanted = read_network(network) if network else None
        self._client = client
        self._loop = loop
        self._transcripts = transcripts
        self._seconds = seconds
        self._timer: Timer | None = None
        self._watch = Watch(wanted, next_hop, client.write, lambda: client.waiting_bytes > QUEUE_BYTES)

    def start(self) -> None:
        self._transcripts.add(self._watch)
        if self._seconds:
            self._timer = self._loop.call_later(self._seconds, self._end)
        self._client.read_line(lambda line: self._end(), _FOR_EVER_S)

    def abort(self) -> None:
        """The operator is gone."""
        self._transcripts.remove(self._watch)
        if self._timer is not None:
            self._timer.cancel()

    def _end(self) -> None:
        self.abort()
        if self._client.is_open:
            self._watch.tell_lost()
            self._client.finish()


_FOR_EVER_S = 365 * 86400.0


def read_network(text: str) -> Network:
    """Return a network, or one address as such; raises ValueError."""
    return ipaddress.ip_network(text.strip("[]"), strict=False)
