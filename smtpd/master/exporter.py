"""The master's HTTP server: /metrics, /healthz, /readyz, /status. Which answers there are is in `pages.py`.

Whoever connects may be slow or hostile, so everything here is bounded: connections (the one that was silent longest makes room),
octets of a request, time to send one and to take the answer, requests on a connection, one rendering of /metrics a turn.
Requests have no bodies: one that announces a body is refused and its connection closed, so nothing can hide in it.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import h11
from prometheus_client.registry import CollectorRegistry

from smtpd.master.pages import Answer, Pages
from smtpd.net.loop import Loop

MAX_CONNECTIONS = 64
MAX_REQUESTS = 1000  # on one connection
MAX_TARGET_BYTES = 1024
MAX_HEAD_BYTES = 16 * 1024
REQUEST_S = 10.0  # from its first octet to its last
IDLE_S = 75.0  # between requests; Prometheus scrapes once a minute unless told otherwise
ANSWER_S = 10.0  # until the peer has taken all of the answer
SWEEP_S = 1.0
LINGER_S = 2.0  # a refused peer is listened to a little longer, or the reset would overtake the refusal
_LINGER_BYTES = 256 * 1024
_READ_BYTES = 16 * 1024
_ACCEPTS_PER_TURN = 16
_RETRY_S = 0.2  # after EMFILE and its like


class Exporter:
    """Serves on a bound, listening, non-blocking socket, which it closes at the end."""

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        registry: CollectorRegistry,
        *,
        health: Callable[[], tuple[bool, dict[str, Any]]],
        readiness: Callable[[], tuple[bool, dict[str, Any]]],
        status: Callable[[], dict[str, Any]],
    ) -> None:
        self.loop = loop
        self.pages = Pages(loop, registry, health, readiness, status)
        self._socket = sock
        self._connections: dict[HttpConnection, None] = {}  # the one that was silent longest first
        self._is_closed = False
        self._is_sweeping = False
        sock.setblocking(False)
        loop.add_reader(sock.fileno(), self._accept)

    def fileno(self) -> int:
        """The descriptor of the listening socket."""
        return self._socket.fileno()

    @property
    def connection_count(self) -> int:
        return len(self._connections)

    def close(self) -> None:
        """Stop at once, in the middle of answers too."""
        self._is_closed = True
        self.loop.forget(self._socket.fileno())
        self._socket.close()
        for connection in list(self._connections):
            connection.close()

    def retire(self) -> None:
        """Take no more clients; those that are being answered get their answer. Another process has the socket."""
        self._is_closed = True
        self.loop.forget(self._socket.fileno())
        self._socket.close()
        for connection in list(self._connections):
            connection.retire()

    def touch(self, connection: HttpConnection) -> None:
        """The connection has moved on."""
        del self._connections[connection]
        self._connections[connection] = None

    def forget(self, connection: HttpConnection) -> None:
        """The connection is closed."""
        del self._connections[connection]

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                sock, _ = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.ECONNABORTED, errno.EPROTO, errno.EPERM):
                    continue
                self.loop.remove_reader(self._socket.fileno())  # no descriptors left: wait, don't spin
                self.loop.call_later(_RETRY_S, self._watch)
                return
            if len(self._connections) >= MAX_CONNECTIONS:
                next(iter(self._connections)).close()
            self._connections[HttpConnection(self, sock)] = None
            self._sweep_later()

    def _sweep_later(self) -> None:
        """Deadlines are looked at together, once a second: a timer for each would outlive its request in the loop's heap."""
        if not self._is_sweeping and self._connections:
            self._is_sweeping = True
            self.loop.call_later(SWEEP_S, self._sweep)

    def _sweep(self) -> None:
        self._is_sweeping = False
        for connection in [entry for entry in self._connections if entry.deadline_s <= self.loop.now]:
            connection.close()
        self._sweep_later()

    def _watch(self) -> None:
        if not self._is_closed:
            self.loop.add_reader(self._socket.fileno(), self._accept)


class HttpConnection:
    """One client: reads a request, or writes an answer, never both; or lingers after a refusal."""

    def __init__(self, exporter: Exporter, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._exporter = exporter
        self._loop = exporter.loop
        self._socket = sock
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._output = memoryview(b"")
        self._request_count = 0
        self._is_last = False  # the connection ends after this answer
        self._is_lingering = False
        self._has_begun = False  # octets of a request have come
        self._lingered_bytes = 0
        self._is_open = True
        self._is_head = False
        self.deadline_s = self._loop.now + REQUEST_S
        self._loop.add_reader(sock.fileno(), self._on_readable)

    def close(self) -> None:
        """Close now, whatever is going on."""
        if self._is_open:
            self._is_open = False
            self._loop.forget(self._socket.fileno())
            self._socket.close()
            self._exporter.forget(self)

    def retire(self) -> None:
        """End after the answer that is under way, or the first; a kept connection now, so that a late request is no reset."""
        self._is_last = True
        if self._request_count and not self._has_begun and not self._output and not self._is_lingering:
            self._linger()

    # --- reading -----------------------------------------------------------------------------------------------------

    def _on_readable(self) -> None:
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if self._is_lingering:
            self._lingered_bytes += len(data)
            if not data or self._lingered_bytes > _LINGER_BYTES:
                self.close()
            return
        if data and not self._has_begun:
            self._has_begun = True
            self.deadline_s = self._loop.now + REQUEST_S
        self._exporter.touch(self)
        self._http.receive_data(data)
        self._next_request()

    def _next_request(self) -> None:
        """Look for a whole request in what was received, and answer it."""
        request: h11.Request | None = None
        try:
            while True:
                event = self._http.next_event()
                if isinstance(event, h11.Request):
                    request = event
                    self._is_head = event.method == b"HEAD"
                    refusal = self._refuse(request)
                    if refusal is not None:
                        self._answer_last(refusal)
                        return
                elif isinstance(event, h11.EndOfMessage):
                    break
                elif isinstance(event, h11.ConnectionClosed):
                    self.close()
                    return
                else:  # NEED_DATA
                    if self._is_line_too_long():
                        self._answer_last(Answer(414, b"request line too long\n"))
                    return
        except h11.RemoteProtocolError as error:
            status = 414 if self._is_line_too_long() else error.error_status_hint
            self._answer_last(Answer(status, b"this is no request\n"))
            return
        assert request is not None
        self._request_count += 1
        self._is_last = self._is_last or self._request_count >= MAX_REQUESTS
        self._answer(request)

    def _refuse(self, request: h11.Request) -> Answer | None:
        """Return the answer to a request that ends the connection, None for one to be served."""
        for name, value in request.headers:
            if name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0")):
                return Answer(413, b"requests have no body here\n")
        if len(request.target) > MAX_TARGET_BYTES:
            return Answer(414, b"request line too long\n")
        if not request.http_version.startswith(b"1."):
            return Answer(505, b"only HTTP/1.1 and 1.0\n")
        return None

    def _is_line_too_long(self) -> bool:
        line = self._http.trailing_data[0]
        return len(line) > MAX_TARGET_BYTES and b"\n" not in line[: MAX_TARGET_BYTES + 64]

    # --- answering ---------------------------------------------------------------------------------------------------

    def _answer(self, request: h11.Request) -> None:
        try:
            answer = self._exporter.pages.answer(request)
        except Exception:
            self._answer_last(Answer(500, b"internal fault\n"))
            raise  # the master logs it
        self._send(answer)

    def _answer_last(self, answer: Answer) -> None:
        self._is_last = True
        self._send(answer)

    def _send(self, answer: Answer) -> None:
        headers = [
            ("Content-Type", answer.content_type),
            ("Content-Length", str(len(answer.body))),
            ("Cache-Control", "no-store"),
            ("Date", formatdate(usegmt=True)),
            *answer.headers,
        ]
        if self._is_last:
            headers.append(("Connection", "close"))
        try:
            parts = [self._http.send(h11.Response(status_code=answer.status, headers=headers, reason=answer.reason))]
            if not self._is_head:
                parts.append(self._http.send(h11.Data(data=answer.body)))
            parts.append(self._http.send(h11.EndOfMessage()))
        except h11.LocalProtocolError:  # the peer broke the protocol so early that h11 can't answer it
            self.close()
            return
        self._output = memoryview(b"".join(part for part in parts if part))
        self._loop.remove_reader(self._socket.fileno())  # nothing is taken while an answer is owed
        self.deadline_s = self._loop.now + ANSWER_S
        self._on_writable()

    def _on_writable(self) -> None:
        try:
            sent = self._socket.send(self._output)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        self._output = self._output[sent:]
        if self._output:
            if sent:
                self._exporter.touch(self)
            self._loop.add_writer(self._socket.fileno(), self._on_writable)
            return
        self._loop.remove_writer(self._socket.fileno())
        self._finish()

    def _finish(self) -> None:
        """The answer has left: read on, or say goodbye."""
        if self._is_last or self._http.our_state is h11.MUST_CLOSE or self._http.our_state is h11.ERROR:
            self._linger()
            return
        self._http.start_next_cycle()
        self._is_head = False
        self._has_begun = bool(self._http.trailing_data[0])
        self.deadline_s = self._loop.now + (REQUEST_S if self._has_begun else IDLE_S)
        if self._has_begun or self._http.trailing_data[1]:
            self._loop.ready(self._go_on)  # a pipelined request waits for the next turn, behind everybody else
        else:
            self._loop.add_reader(self._socket.fileno(), self._on_readable)

    def _go_on(self) -> None:
        if self._is_open:
            self._loop.add_reader(self._socket.fileno(), self._on_readable)
            self._next_request()

    def _linger(self) -> None:
        self._is_lingering = True
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
            return
        self.deadline_s = self._loop.now + LINGER_S
        self._loop.add_reader(self._socket.fileno(), self._on_readable)
