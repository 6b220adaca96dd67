"""What one master tells the next at an upgrade, and how: packets of JSON with descriptors (SCM_RIGHTS) on a socket pair.

The two may be of different versions: unknown fields are ignored, missing ones have defaults. In order: a Handover, then its
descriptors in lots; later single words (`packets.py`): the new program says "ready" (or "failed" and why), the old one "take".
Raises OSError, and StartupError for what makes no sense.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

import msgspec

from smtpd.errors import StartupError
from smtpd.master.packets import say
from smtpd.net.listeners import ListenerSockets
from smtpd.settings import ListenerSettings

VARIABLE = "SMTPD_UPGRADE_FD"  # of the environment: the descriptor of the new program's end
_LOT = 200  # descriptors of a packet; unix(7) allows 253
_PACKET_BYTES = 1 << 20


class HandedListener(msgspec.Struct, omit_defaults=True):
    """One listener; `count` of the descriptors are its sockets, the n-th that of slot n."""

    name: str
    address: str
    label: str
    count: int
    is_given: bool = False


class Handover(msgspec.Struct, omit_defaults=True):
    """`listeners`, then the socket of the metrics on `metrics` ("": none), then the pid file: so are the descriptors ordered."""

    pid: int
    version: str
    run_dir: str
    listeners: list[HandedListener]
    metrics: str = ""
    is_metrics_given: bool = False
    is_paused: bool = False


def hand_listener(listener: ListenerSockets) -> HandedListener:
    """How a listener is told."""
    return HandedListener(
        listener.name, listener.settings.address, listener.label, len(listener.sockets), is_given=listener.is_given
    )


def take_listener(handed: HandedListener, sockets: list[socket.socket]) -> ListenerSockets:
    """The listener that was told."""
    bound_to: Any = None
    if not handed.label.startswith("unix:"):
        host, _, port = handed.label.rpartition(":")
        bound_to = (host.strip("[]"), int(port))  # a paused socket may have lost the port that the kernel chose
    settings = ListenerSettings(address=handed.address, name=handed.name)
    return ListenerSockets(settings, handed.name, sockets, handed.is_given, handed.label, bound_to)


def send_handover(channel: socket.socket, handover: Handover, descriptors: list[int]) -> None:
    """Send all of it without waiting; the other end may read later."""
    channel.send(msgspec.json.encode(handover), socket.MSG_DONTWAIT)
    for first in range(0, len(descriptors), _LOT):
        lot = descriptors[first : first + _LOT]
        if not say(channel, {"is": "descriptors"}, lot):
            raise BlockingIOError(errno.EAGAIN, "the channel of the new program is full")


def receive_handover(channel: socket.socket) -> tuple[Handover, list[int]]:
    """The other side of `send_handover`; the descriptors don't survive an exec."""
    try:
        handover = msgspec.json.decode(channel.recv(_PACKET_BYTES), type=Handover)
        count = sum(entry.count for entry in handover.listeners) + bool(handover.metrics) + 1
        descriptors: list[int] = []
        while len(descriptors) < count:
            data, lot, _, _ = socket.recv_fds(channel, 100, _LOT + 50, socket.MSG_CMSG_CLOEXEC)
            if not data:
                raise StartupError("upgrade: the program before ended in the middle of handing over", os.EX_UNAVAILABLE)
            descriptors += lot
    except (msgspec.MsgspecError, OSError) as error:
        raise StartupError(f"upgrade: what the program before handed over can't be taken: {error}", os.EX_PROTOCOL) from None
    return handover, descriptors
