"""One connection's octets: reads into a buffer that all streams share, writes with back-pressure, ends without losing a reply.

Owns the descriptor. Knows no protocol: `on_data(buffer, start, end)` returns how far it got, and the stream keeps a copy of
the rest. While there is a rest, unsent output or a `pause`, nothing is read, so a peer that sends without reading can't grow
memory. The end of the peer's side is told once (`on_end`): half-closed is not gone, output still leaves.

Interest in reading is dropped only when an event comes that isn't wanted, not at each pause: a peer that waits for its
reply costs no epoll_ctl.

With TLS (`start_tls`) the octets pass through an engine of their own (`smtpd.net.tls`) on the way, with the same promises; a
plain stream pays one comparison for it.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
import struct
from collections.abc import Callable

from smtpd import _io
from smtpd.net.loop import Loop, Timer
from smtpd.net.tls.engine import END, TlsEngine

READ_BYTES = 64 * 1024  # octets per connection and turn: the quantum that keeps one fat sender from starving the others
LINGER_S = 2.0  # how long a closing stream waits for the peer to read its last reply
LINGER_BYTES = 64 * 1024
_EARLY = "TLS handshake: the peer had sent more, in the clear, before it began"
_ENDED = "TLS handshake: the peer closed the connection"
# In C variables of the module (stream.pxd), for the path of every mail.
_READ_BYTES = READ_BYTES
_EAGAIN = -errno.EAGAIN
_BUFFER = bytearray(READ_BYTES)  # one for all: whatever is not taken during the call is copied


class StreamOwner:
    """What a stream calls; override what matters. `on_data` returns the position after the last octet taken."""

    __slots__ = ()

    def on_data(self, buffer: bytearray, start: int, end: int) -> int:
        return end

    def on_end(self) -> None:
        """The peer sends no more; it may still read."""

    def on_lost(self) -> None:
        """The connection broke; `on_closed` follows."""

    def on_drained(self) -> None:
        """All output has left after some had to wait."""

    def on_closed(self) -> None:
        """The descriptor is closed; last call."""


def make_stream(loop: Loop, fd: int, owner: StreamOwner) -> Stream:
    """The same as Stream(...), quicker."""
    stream = Stream.__new__(Stream)
    stream._begin(loop, fd, owner)
    return stream


class Stream:
    """`owner` gets the calls. All methods belong to the loop thread.

    Compiled, a method's own object is a borrowed reference: each method that calls the owner holds it in a variable, since the
    owner may let go of itself in `on_closed`.
    """

    __slots__ = (
        "_has_reader",
        "_linger",
        "_linger_bytes",
        "_loop",
        "_output",
        "_rest",
        "at_end",
        "fd",
        "is_paused",
        "owner",
        "tls",
    )

    def __init__(self, loop: Loop, fd: int, owner: StreamOwner) -> None:
        self._begin(loop, fd, owner)

    def _begin(self, loop: Loop, fd: int, owner: StreamOwner) -> None:
        self._loop = loop
        self.fd = fd
        self.owner: StreamOwner = owner
        self.is_paused = False
        self.at_end = False  # the peer has shut its side down
        self._has_reader = False
        self._rest: bytearray | None = None
        self._output: bytes = b""
        self._linger: Timer | None = None
        self._linger_bytes = 0
        self.tls: TlsEngine | None = None  # what the handshake came to; to be read only

    @property
    def is_open(self) -> bool:
        return self.fd >= 0 and self._linger is None

    @property
    def has_output(self) -> bool:
        """Octets that the peer's window did not take yet."""
        return bool(self._output)

    @property
    def buffered_bytes(self) -> int:
        held = 0 if self.tls is None else self.tls.buffered_bytes
        return len(self._output) + (len(self._rest) if self._rest else 0) + held

    def start(self) -> None:
        """Begin to read."""
        self._watch()

    def has_input(self) -> bool:
        """Whether the peer has sent something that was not taken; an end is none."""
        if self._rest is not None:
            return True
        if self.fd < 0:
            return False
        sock = socket.socket(fileno=self.fd)
        try:
            return bool(sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return False
        finally:
            sock.detach()

    def pause(self) -> None:
        """Take nothing from the peer until `resume`."""
        self.is_paused = True

    def resume(self) -> None:
        """Go on: first with the kept rest, in the next turn, then with the socket."""
        self.is_paused = False
        if self._rest is not None:
            self._loop.ready(self._pump)
        elif self.tls is not None:
            self._loop.ready(self._step_tls)
        elif self.at_end:
            self._loop.ready(self._tell_end)
        elif not self._has_reader and not self._output:
            self._watch()

    def write(self, data: bytes) -> bool:
        """Send what the window takes, keep the rest; True when all is gone. Octets after an error are dropped."""
        if self.fd < 0 or self._linger is not None:
            return True
        if self.tls is not None:
            data = self._encrypt(data)
            if not data:
                return not self._output
        if self._output:
            self._output += data
            return False
        sent = _io.send(self.fd, data, 0)
        if sent == len(data):
            return True
        if sent < 0 and sent != _EAGAIN:
            self._loop.ready(self._lose)
            return True
        self._output = data[max(sent, 0) :]
        self._loop.add_writer(self.fd, self._on_writable)
        return False

    def finish(self, data: bytes) -> None:
        """Send and close at once, in one segment if there is room: only where nothing of the peer's is left to be read."""
        if data and self.fd >= 0 and self._linger is None and not self._output and self.tls is None:
            sent = _io.send_last(self.fd, data)
            if sent == len(data):
                self.destroy()
                return
            data = data[max(sent, 0) :]
        if data:
            self.write(data)
        self.close(linger=False)

    def close(self, linger: bool = True) -> None:
        """End after the pending output. With `linger` the write side is shut first and what the peer still sends is read for a
        short time: a close with unread input would reset the connection and lose the last reply."""
        if self.fd < 0 or self._linger is not None:
            return
        if self.tls is not None:
            self.tls.say_end()
            self.write(b"")
            self.tls.done = None
        if not linger and not self._output:
            self.destroy()
            return
        self._rest = None
        self._linger = self._loop.call_later(LINGER_S, self.destroy)
        if not self._output:
            self._shut_down()
        elif not self._has_reader:
            self._watch()

    def reset(self) -> None:
        """Close the descriptor now so that the peer sees a TCP reset (a unix socket's peer an end), whatever is pending."""
        if self.fd >= 0:
            with socket.socket(fileno=os.dup(self.fd)) as same:
                same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.destroy()

    def destroy(self) -> None:
        """Close the descriptor now, whatever is pending."""
        fd = self.fd
        if fd < 0:
            return
        self.fd = -1
        if self._linger is not None:
            self._linger.cancel()
        self._loop.forget_closed(fd)
        _io.close(fd)
        self._rest = None
        self._output = b""
        if self.tls is not None:
            self.tls.done = None
        owner = self.owner
        owner.on_closed()

    # --- callbacks ---------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        if self.fd >= 0 and not self.at_end:
            self._loop.add_reader(self.fd, self._on_readable if self.tls is None else self._on_tls_readable)
            self._has_reader = True

    def _unwatch(self) -> None:
        self._loop.remove_reader(self.fd)
        self._has_reader = False

    def _on_readable(self) -> None:
        if self.fd < 0:
            return
        if self._linger is not None:
            self._discard()
            return
        if self.is_paused or self._rest is not None or self._output:
            self._unwatch()
            return
        owner = self.owner
        count = _io.recv_into(self.fd, _BUFFER, 0, _READ_BYTES)
        if count > 0:
            taken = owner.on_data(_BUFFER, 0, count)
            if taken < count and self.is_open:
                self._keep(_BUFFER[taken:count])
        elif count == 0:
            self.at_end = True
            self._unwatch()
            owner.on_end()
        elif count != _EAGAIN:
            self._lose()

    def _keep(self, rest: bytearray) -> None:
        """Offer what was not taken again later."""
        if self.tls is not None and self.tls.is_shaking:  # it came in the clear, before TLS was begun in this very call
            self.tls.fail(_EARLY)
            return
        self._rest = rest
        if not self.is_paused and not self._output:
            self._loop.ready(self._pump)

    def _tell_end(self) -> None:
        owner = self.owner
        if self.is_open and not self.is_paused:
            owner.on_end()

    def _pump(self) -> None:
        """Offer the kept rest again."""
        rest = self._rest
        if rest is None or self.is_paused or self._output or not self.is_open:
            return
        self._rest = None
        owner = self.owner
        taken = owner.on_data(rest, 0, len(rest))
        if not self.is_open:
            return
        if taken < len(rest):
            self._keep(rest[taken:])
        elif self.tls is not None:
            self._loop.ready(self._step_tls)
        elif self.at_end:
            owner.on_end()
        elif not self._has_reader and not self.is_paused and not self._output:
            self._watch()

    def _on_writable(self) -> None:
        if self.fd < 0:
            return
        sent = _io.send(self.fd, self._output, 0)
        if sent < 0:
            if sent != _EAGAIN:
                self._lose()
            return
        self._output = self._output[sent:]
        if self._output:
            return
        self._loop.remove_writer(self.fd)
        if self._linger is not None:
            self._shut_down()
            return
        owner = self.owner
        owner.on_drained()
        if not self.is_open:
            return
        if self.tls is not None:
            self._loop.ready(self._step_tls if self._rest is None else self._pump)
        elif not self.is_paused:
            self.resume()

    def _shut_down(self) -> None:
        if self.at_end or _io.shutdown_write(self.fd) < 0:
            self.destroy()
        elif not self._has_reader:
            self._watch()

    def _discard(self) -> None:
        """Read and forget while closing."""
        count = _io.recv_into(self.fd, _BUFFER, 0, _READ_BYTES)
        if count == _EAGAIN:
            return
        self._linger_bytes += max(count, 0)
        if count <= 0 or self._linger_bytes > LINGER_BYTES:
            self.destroy()

    def _lose(self) -> None:
        """The connection broke."""
        owner = self.owner
        if self.fd >= 0 and self._linger is None:
            if self.tls is not None and self.tls.done is not None:
                self._end_handshake("TLS handshake: the connection broke")
                if self.fd < 0:
                    return
            owner.on_lost()
        self.destroy()

    # --- TLS ---------------------------------------------------------------------------------------------------------

    def start_tls(
        self, context: ssl.SSLContext, server_side: bool, server_name: str | None, done: Callable[[str], object]
    ) -> None:
        """Shake hands; pending output still leaves in the clear. `server_name` is the name that a client asks for and checks.

        `done("")` when all from now on is encrypted, `done(words)` when the handshake failed: then nothing is read any more, and
        what is left is to close. Called once, on the loop, never before this returns, also when the connection breaks meanwhile,
        but not after `close` or `destroy`. There is no limit of time here. What was read before is never taken for something
        that came encrypted: octets that wait untaken make the handshake fail (RFC 3207 5, 6)."""
        if self.fd < 0 or self._linger is not None or self.tls is not None:
            return
        self.tls = TlsEngine(context, server_side, server_name, done)
        if self._rest is not None or self.at_end:
            self._rest = None
            self.tls.fail(_EARLY if not self.at_end else _ENDED)
        self._watch()
        self._loop.ready(self._step_tls)

    def _encrypt(self, data: bytes) -> bytes:
        """Return what is to be sent for `data`, and what the engine has to send by itself (`write(b"")` sends that alone)."""
        tls = self.tls
        if tls is None:
            return data
        tls.encrypt(data)
        if tls.failure and not tls.is_shaking:
            self._loop.ready(self._lose)
        return tls.take_output()

    def _on_tls_readable(self) -> None:
        if self.fd < 0:
            return
        if self._linger is not None:
            self._discard()
            return
        tls = self.tls
        if tls is None:
            return
        is_waiting = tls.failure or self.at_end or self._output
        if is_waiting or (not tls.is_shaking and (self.is_paused or self._rest is not None or not tls.is_dry)):
            self._unwatch()
            return
        count = _io.recv_into(self.fd, _BUFFER, 0, READ_BYTES)
        if count > 0:
            tls.receive(_BUFFER, count)
            self._step_tls()
        elif count == 0 and tls.is_shaking:
            self._unwatch()
            self._end_handshake(_ENDED)
        elif count != _EAGAIN:  # also an end without close_notify: somebody may have cut the rest off (RFC 8446 6.1)
            self._lose()

    def _step_tls(self) -> None:
        """Go on with what the engine has: the handshake, or one quantum of octets for the owner."""
        tls = self.tls
        if tls is None or not self.is_open:
            return
        if tls.is_shaking:
            is_done = tls.shake()
            self.write(b"")  # also the alert that tells the peer why not
            if is_done:
                self._end_handshake("")
                self._loop.ready(self._step_tls)
            elif tls.failure:
                self._end_handshake(tls.failure)
            elif not self._has_reader and not self._output:
                self._watch()
            return
        if self.at_end or self.is_paused or self._rest is not None or self._output:
            if self.at_end and self._rest is None:
                self._tell_end()
            return
        owner = self.owner
        count = tls.read(_BUFFER, READ_BYTES)
        self.write(b"")
        if count > 0:
            taken = owner.on_data(_BUFFER, 0, count)
            if not self.is_open:
                return
            if taken < count:
                self._keep(_BUFFER[taken:count])
            elif not tls.is_dry:
                self._loop.ready(self._step_tls)
            elif not self._has_reader and not self.is_paused and not self._output:
                self._watch()
        elif count == 0:
            if not self._has_reader and not self._output:
                self._watch()
        elif count == END:
            self.at_end = True
            self._unwatch()
            owner.on_end()
        else:
            self._lose()

    def _end_handshake(self, failure: str) -> None:
        """Tell it once."""
        tls = self.tls
        if tls is None:
            return
        done = tls.done
        tls.done = None
        if failure:
            tls.fail(failure)
            self._unwatch()
        if done is not None:
            done(failure)
