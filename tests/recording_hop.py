"""A next hop of our own that keeps a record of every mail it took: when its content was complete, and whether it hung up then.

It talks SMTP with PIPELINING, by DATA and by BDAT, a thread a connection. Now and then it hangs up between the end of a mail,
which it has taken, and its reply; the sender can't know and sends that mail again.
"""

from __future__ import annotations

import itertools
import random
import re
import socketserver
import threading
import time
from dataclasses import dataclass

from gateway import free_port, own_loopback_address

_QUEUE_ID = re.compile(rb"\(smtpd\) with E?SMTP id (\w+)")
_REPLY_DELAY_S = 0.005  # so that there are deliveries under way at any moment


@dataclass(frozen=True, slots=True)
class Taken:
    """One mail; `at` is the monotonic time at which its content was complete, before any reply."""

    at: float
    queue_id: str
    content: bytes
    is_hung_up: bool
    connection: int


class RecordingHop:
    """`with RecordingHop(seed) as hop:`; `taken` grows as mail comes. One in `hang_up_every` mails is not answered.

    `broken` are the connections that ended without QUIT after they had brought mail: their other end was killed.
    """

    def __init__(self, seed: int, hang_up_every: int = 100) -> None:
        self.taken: list[Taken] = []
        self.trouble: list[str] = []
        self.broken: set[int] = set()
        self.numbers = itertools.count(1)
        self._chance = random.Random(seed)
        self._hang_up_every = hang_up_every
        host = own_loopback_address()
        self._server = _Server((host, free_port(host)), _Connection)
        self._server.hop = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> RecordingHop:
        self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def next_hop(self) -> str:
        host, port = self._server.server_address[:2]
        return f"{host!s}:{port}"

    def take(self, content: bytes, connection: int) -> bool:
        """Record a mail; False when it is to be left without a reply."""
        found = _QUEUE_ID.search(content)
        is_hung_up = self._chance.randrange(self._hang_up_every) == 0
        self.taken.append(Taken(time.monotonic(), found[1].decode() if found else "", content, is_hung_up, connection))
        return not is_hung_up


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 100
    hop: RecordingHop


class _Connection(socketserver.StreamRequestHandler):
    """One connection; ends when the client does."""

    server: _Server

    def handle(self) -> None:
        self._mails = 0
        self._number = next(self.server.hop.numbers)
        try:
            is_in_order = self._converse()
        except OSError:
            is_in_order = False
        if self._mails and not is_in_order:
            self.server.hop.broken.add(self._number)

    def _converse(self) -> bool:
        """Return whether the connection ended by QUIT or by our own doing."""
        self._say("220 hop.example.net")
        chunks: list[bytes] = []
        while line := self.rfile.readline():
            verb, _, rest = line.decode("ascii").strip().partition(" ")
            if verb == "EHLO":
                self._say("250-hop.example.net", "250-PIPELINING", "250-8BITMIME", "250-CHUNKING", "250 ENHANCEDSTATUSCODES")
            elif verb == "DATA":
                self._say("354 go on")
                content = self._read_data()
                if content is None:
                    return False
                if not self._end_mail(content):
                    return True
            elif verb == "BDAT":
                size, _, last = rest.partition(" ")
                chunk = self.rfile.read(int(size))
                if len(chunk) < int(size):
                    return False
                chunks.append(chunk)
                if last:
                    content, chunks = b"".join(chunks), []
                    if not self._end_mail(content):
                        return True
                else:
                    self._say("250 2.0.0 go on")
            elif verb == "QUIT":
                self._say("221 2.0.0 bye")
                return True
            elif verb in ("MAIL", "RCPT", "RSET"):
                self._say("250 2.0.0 ok")
            else:
                self.server.hop.trouble.append(repr(line))
                self._say("500 5.5.1 what")
        return False

    def _read_data(self) -> bytes | None:
        lines = []
        while (line := self.rfile.readline()) != b".\r\n":
            if not line.endswith(b"\r\n"):
                return None  # the client is gone
            lines.append(line.removeprefix(b"."))
        return b"".join(lines)

    def _end_mail(self, content: bytes) -> bool:
        self._mails += 1
        if not self.server.hop.take(content, self._number):
            return False
        time.sleep(_REPLY_DELAY_S)
        self._say("250 2.0.0 taken")
        return True

    def _say(self, *lines: str) -> None:
        self.wfile.write("".join(line + "\r\n" for line in lines).encode())
