"""An exporter and its clients on one thread: clients are plain sockets, and the loop turns only when a test says so."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

import h11
from prometheus_client.registry import CollectorRegistry

from smtpd.master.exporter import Exporter
from smtpd.metrics.collector import MasterGauges, SlabCollector
from smtpd.metrics.slab import CellIndex, Slabs
from smtpd.net.loop import Loop

LIMIT_S = 30.0


class Client:
    """A connection to the exporter; `received` grows with `drive`."""

    def __init__(self, address: tuple[str, int], *, receive_buffer: int = 0) -> None:
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            self.socket.connect(address)
        except OSError:
            self.socket.close()
            raise
        self.socket.setblocking(False)
        self.received = b""
        self.is_ended = False
        self.is_reset = False
        self.is_reading = True

    def send(self, data: bytes) -> None:
        """Send all of it; ConnectionError when the exporter has closed."""
        self.socket.sendall(data)

    def read(self) -> None:
        """Take what is there."""
        try:
            while self.is_reading and not self.is_ended:
                data = self.socket.recv(1 << 20)
                self.received += data
                self.is_ended = not data
        except BlockingIOError:
            pass
        except ConnectionResetError:
            self.is_ended = self.is_reset = True

    def responses(self, methods: str = "GET") -> list[tuple[int, dict[str, str], bytes]]:
        """Parse what was received as whole responses: (status, headers, body); `methods` in order, the last repeats."""
        found = []
        rest, names = self.received, methods.split()
        while rest:
            parser = h11.Connection(h11.CLIENT)
            method = names[min(len(found), len(names) - 1)]
            parser.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
            parser.send(h11.EndOfMessage())
            parser.receive_data(rest)
            response, body = parser.next_event(), b""
            if not isinstance(response, h11.Response):
                break
            while isinstance(event := parser.next_event(), h11.Data):
                body += event.data
            if not isinstance(event, h11.EndOfMessage):
                break
            headers = {name.decode(): value.decode() for name, value in response.headers}
            found.append((response.status_code, headers, body))
            rest = parser.trailing_data[0]
        return found

    def close(self) -> None:
        self.socket.close()


class Fixture:
    """An exporter with real metrics; `health` and the like can be changed by a test."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.loop = Loop()
        self.index = CellIndex()
        self.index.prepare(listeners=["mx"], routes=["store"])
        self.slabs = Slabs(self.index)
        if registry is None:
            registry = SlabCollector(self.slabs, self.index, MasterGauges()).registry
        self.health: tuple[bool, dict[str, Any]] = (True, {"status": "ok"})
        self.readiness: tuple[bool, dict[str, Any]] = (True, {"status": "ready"})
        self.status: Callable[[], dict[str, Any]] = lambda: {"workers": []}
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(1024)
        listener.setblocking(False)
        self.address: tuple[str, int] = listener.getsockname()
        self.exporter = Exporter(
            self.loop,
            listener,
            registry,
            health=lambda: self.health,
            readiness=lambda: self.readiness,
            status=lambda: self.status(),
        )
        self.clients: list[Client] = []
        self.is_closed = False

    def client(self, **options: int) -> Client:
        self.clients.append(Client(self.address, **options))
        return self.clients[-1]

    def drive(self, is_done: Callable[[], bool]) -> None:
        """Turn the loop and let the clients read until `is_done`; AssertionError when that takes for ever."""
        deadline_s = time.monotonic() + LIMIT_S
        while not is_done():
            assert time.monotonic() < deadline_s, "the exporter does not come to that"
            self.loop.turn(0.01)
            for client in self.clients:
                client.read()

    def drive_to_end(self, client: Client) -> list[tuple[int, dict[str, str], bytes]]:
        """Turn until the exporter has closed the connection; return its responses."""
        self.drive(lambda: client.is_ended)
        return client.responses()

    def ask(self, data: bytes, client: Client | None = None) -> tuple[int, dict[str, str], bytes]:
        """Send a request and return the first whole response to it."""
        client = client or self.client()
        before = len(client.responses())
        client.send(data)
        self.drive(lambda: len(client.responses()) > before or client.is_ended)
        return client.responses()[before]

    def get(self, target: str, *headers: str) -> tuple[int, dict[str, str], bytes]:
        lines = [f"GET {target} HTTP/1.1", "Host: x", *headers]
        return self.ask("".join(line + "\r\n" for line in lines).encode() + b"\r\n")

    def close(self) -> None:
        for client in self.clients:
            client.close()
        if not self.is_closed:
            self.is_closed = True
            self.exporter.close()
        self.loop.close()
