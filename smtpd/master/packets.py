"""Words between processes of this server: one JSON object a packet, on a SOCK_SEQPACKET pair, with descriptors where wanted.

Between master and worker, and between the masters of an upgrade. Never waits. A word that makes no sense is an empty one, since
the other side may be of another version or have been killed while it spoke.
"""

from __future__ import annotations

import array
import json
import socket
from collections.abc import Iterable
from typing import Any

_PACKET_BYTES = 65536


def say(channel: socket.socket, message: dict[str, Any], fds: Iterable[int] = ()) -> bool:
    """One packet; False when the other side doesn't take any (it is stuck or gone)."""
    numbers = array.array("i", fds)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)] if numbers else []
    try:  # socket.send_fds leaves its flags out (Python 3.13), and would wait
        channel.sendmsg([json.dumps(message).encode()], rights, socket.MSG_DONTWAIT)
    except OSError:
        return False
    return True


def hear(channel: socket.socket) -> dict[str, Any] | None:
    """The next packet, {} for one that makes no sense, None at the channel's end; raises BlockingIOError when there is none."""
    try:
        packet = channel.recv(_PACKET_BYTES, socket.MSG_DONTWAIT)
    except ConnectionError:
        return None
    if not packet:
        return None
    try:
        message = json.loads(packet)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}
