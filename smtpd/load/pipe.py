"""What processes of a run say to each other over a socket pair: msgpack objects, each behind its length in four octets.

A worker tells "interval" (figures since the last) and at its end "result"; the parent "stop". An end of the stream means that the
other one is gone. Raises OSError only.
"""

from __future__ import annotations

import socket
from typing import Any

import msgspec

_HEAD_BYTES = 4


def tell(sock: socket.socket, message: dict[str, Any]) -> None:
    """Send one; waits for room (the parent always reads)."""
    octets = msgspec.msgpack.encode(message)
    sock.sendall(len(octets).to_bytes(_HEAD_BYTES) + octets)


class Inbox:
    """The messages of one socket."""

    __slots__ = ("_octets", "_sock", "is_over")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._octets = bytearray()
        self.is_over = False

    def read(self) -> list[dict[str, Any]]:
        """Read once; return the messages that are whole now."""
        try:
            data = self._sock.recv(1 << 18, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return []
        except ConnectionResetError:
            data = b""
        self.is_over = not data
        self._octets += data
        messages = []
        while len(self._octets) >= _HEAD_BYTES:
            end = _HEAD_BYTES + int.from_bytes(self._octets[:_HEAD_BYTES])
            if len(self._octets) < end:
                break
            messages.append(msgspec.msgpack.decode(bytes(self._octets[_HEAD_BYTES:end])))
            del self._octets[:end]
        return messages
