"""A next hop for tests: an SMTP or LMTP server in threads, told for each stage of a connection what to do there.

Stages: greeting, hello, starttls, mail, rcpt, data, content (after 354, before the content is read), end, rset, quit.
`on[stage]` is what happens there instead of the usual reply: octets to send, or one of the functions below, or a list of these
for one connection or command after the other (None: the usual). All it does is bounded by `close`.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PAUSE_S = 0.02  # of those that are slow


class OverError(Exception):
    """This connection is."""


@dataclass
class Mail:
    reverse_path: bytes
    recipients: list[bytes]
    body: bytes
    connection: int


Action = bytes | Callable[["Conversation"], None] | None


def hang(talk: Conversation) -> None:
    """Say nothing until the client goes away."""
    while talk.sock.recv(65536):
        pass
    raise OverError


def sit(talk: Conversation) -> None:
    """Neither say nor read anything."""
    talk.hop.is_over.wait()
    raise OverError


def close(talk: Conversation) -> None:
    raise OverError


def reset(talk: Conversation) -> None:
    talk.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raise OverError


def garbage(talk: Conversation) -> None:
    talk.sock.sendall(b"\x00\xff\x1b[2J no reply\r\n")
    hang(talk)


def endless(talk: Conversation) -> None:
    """A reply of lines without end, as fast as it is taken."""
    while True:
        talk.sock.sendall(b"250-more\r\n" * 1000)


def endless_line(talk: Conversation) -> None:
    while True:
        talk.sock.sendall(b"250 " + b"x" * 60000)


def trickle(talk: Conversation) -> None:
    """A reply that comes octet by octet and never ends."""
    talk.sock.sendall(b"250-")
    while not talk.hop.is_over.wait(PAUSE_S):
        talk.sock.sendall(b"x")
    raise OverError


def flood(talk: Conversation) -> None:
    """Replies that nobody asked for, whole."""
    while True:
        talk.sock.sendall(b"250 2.0.0 Ok\r\n" * 1000)


def sip(talk: Conversation) -> None:
    """Read an octet now and then."""
    while not talk.hop.is_over.wait(PAUSE_S):
        if not talk.sock.recv(1):
            break
    raise OverError


class Conversation:
    def __init__(self, hop: NextHop, sock: socket.socket, number: int) -> None:
        self.hop = hop
        self.sock = sock
        self.number = number
        self._buffer = bytearray()

    def run(self) -> None:
        with contextlib.suppress(OverError, OSError):
            if self.stage("greeting", b"220 hop.example ESMTP\r\n") < 400:
                self._serve()
        self.hop.end(self)  # before its descriptor may be another's
        with contextlib.suppress(OSError):
            self.sock.close()

    def stage(self, name: str, usual: bytes) -> int:
        """Do what is to be done; return the code of what was replied."""
        reply = usual
        action = self.hop.begin(self, name)
        if isinstance(action, bytes):
            reply = action
        elif action is not None:
            action(self)
            self.hop.end(self)
        if reply:
            self.sock.sendall(reply)
        return int(reply[:3] or b"0")

    def _serve(self) -> None:
        reverse_path = b""
        recipients: list[bytes] = []
        while True:
            line = self._read_until(b"\r\n")
            verb, _, rest = line.partition(b" ")
            verb = verb.upper()
            self.hop.commands.append(line)
            if verb in (b"EHLO", b"LHLO", b"HELO"):
                lines = [b"hop.example", *self.hop.extensions]
                reply = b"".join(b"250-" + text + b"\r\n" for text in lines[:-1]) + b"250 " + lines[-1] + b"\r\n"
                self.stage("hello", reply)
            elif verb == b"MAIL":
                recipients = []
                reverse_path = rest[rest.index(b"<") + 1 : rest.index(b">")]
                self.stage("mail", b"250 2.1.0 Ok\r\n")
            elif verb == b"RCPT":
                path = rest[rest.index(b"<") + 1 : rest.index(b">")]
                if self.stage("rcpt", self.hop.reply_to(path, len(recipients))) < 300:
                    recipients.append(path)
            elif verb == b"DATA":
                if not recipients:
                    self.sock.sendall(b"554 5.5.1 No valid recipients\r\n")
                elif self.stage("data", b"354 Go on\r\n") == 354:
                    self.stage("content", b"")
                    content = b"\r\n" + self._read_until(b"\r\n.\r\n", empty=b".\r\n") + b"\r\n"
                    self._end(reverse_path, recipients, content.replace(b"\r\n..", b"\r\n.")[2:])
            elif verb == b"BDAT":
                while len(self._buffer) < int(rest.split()[0]):
                    self._read()
                size = int(rest.split()[0])
                content = bytes(self._buffer[:size])
                del self._buffer[:size]
                self._end(reverse_path, recipients, content)
            elif verb == b"RSET":
                self.stage("rset", b"250 2.0.0 Ok\r\n")
            elif verb == b"STARTTLS":
                self.stage("starttls", b"454 4.7.0 Not now\r\n")
            elif verb == b"QUIT":
                self.stage("quit", b"221 2.0.0 Bye\r\n")
                return
            else:
                self.sock.sendall(b"502 5.5.1 What?\r\n")

    def _end(self, reverse_path: bytes, recipients: list[bytes], content: bytes) -> None:
        self.hop.mails.append(Mail(reverse_path, list(recipients), content, self.number))
        for _ in recipients if self.hop.is_lmtp else [b""]:
            self.stage("end", b"250 2.0.0 Taken\r\n")

    def _read_until(self, end: bytes, empty: bytes = b"") -> bytes:
        while True:
            if empty and self._buffer.startswith(empty):
                del self._buffer[: len(empty)]
                return b""
            position = self._buffer.find(end)
            if position >= 0:
                found = bytes(self._buffer[:position])
                del self._buffer[: position + len(end)]
                return found
            self._read()

    def _read(self) -> None:
        data = self.sock.recv(1 << 18)
        if not data:
            raise OverError
        self._buffer += data


class NextHop:
    """`mails` were received whole, whatever was replied then; `count(stage)` says how often a stage was reached. With `path` it
    listens on a unix socket, with `bound` on a socket that was bound before and refused connections until now.
    `most_recipients` of one mail get 250, the rest 452 4.5.3; `replies` are to single recipients."""

    def __init__(
        self, *, is_lmtp: bool = False, path: str = "", bound: socket.socket | None = None, receive_buffer: int = 0
    ) -> None:
        self.is_lmtp = is_lmtp
        self.extensions = [b"PIPELINING", b"8BITMIME", b"ENHANCEDSTATUSCODES"]
        self.on: dict[str, Action | list[Action]] = {}
        self.replies: dict[bytes, bytes] = {}
        self.most_recipients = 1000
        self.mails: list[Mail] = []
        self.commands: list[bytes] = []
        self.is_over = threading.Event()
        self._counts: dict[str, int] = {}
        self._misbehaving: set[Conversation] = set()
        self._lock = threading.Lock()
        self._socks: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        if path:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(path)
            self.name = f"unix:{path}"
        else:
            self._listener = socket.socket() if bound is None else bound
            if bound is None:
                self._listener.bind(("127.0.0.1", 0))
            self.name = f"127.0.0.1:{self._listener.getsockname()[1]}"
        if receive_buffer:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._listener.listen(64)
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    @property
    def port(self) -> int:
        return int(self.name.rpartition(":")[2])

    @property
    def connections(self) -> int:
        """Accepted so far."""
        return self.count("greeting")

    def count(self, stage: str) -> int:
        with self._lock:
            return self._counts.get(stage, 0)

    def begin(self, talk: Conversation, stage: str) -> Action:
        """Count that a stage was reached; return what is to be done there."""
        with self._lock:
            self._counts[stage] = self._counts.get(stage, 0) + 1
            action = self.on.get(stage)
            if isinstance(action, list):
                action = action.pop(0) if action else None
            if callable(action):
                self._misbehaving.add(talk)
            return action

    def end(self, talk: Conversation) -> None:
        """What it did at a stage, other than the usual, is over."""
        with self._lock:
            self._misbehaving.discard(talk)

    def reply_to(self, path: bytes, count: int) -> bytes:
        if count >= self.most_recipients:
            return b"452 4.5.3 Too many recipients\r\n"
        return self.replies.get(path, b"250 2.1.5 Ok\r\n")

    def drop_connections(self) -> None:
        """Shut all connections down, as a server that restarts does; it goes on to listen."""
        with self._lock:
            socks, self._socks = self._socks, []
        for sock in socks:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """From now on do the usual. Conversations that are within something else are cut off, all others left as they are: a mail
        that one of them has just taken will be answered."""
        with self._lock:
            self.on.clear()
            for talk in self._misbehaving:
                with contextlib.suppress(OSError):
                    talk.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.is_over.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(10)
        self._listener.close()
        self.drop_connections()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def __enter__(self) -> NextHop:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def _accept(self) -> None:
        while not self.is_over.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            if sock.family == socket.AF_INET:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._socks.append(sock)
            talk = Conversation(self, sock, len(self._threads) + 1)
            thread = threading.Thread(target=talk.run, daemon=True)
            self._threads.append(thread)
            thread.start()


@contextlib.contextmanager
def full_backlog() -> Any:
    """Yield the name of a next hop that takes no connection and refuses none: its queue is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield f"127.0.0.1:{listener.getsockname()[1]}"
