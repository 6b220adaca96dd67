"""What a master has from outside when it starts: the sockets of the program before it (USR2), or of the service manager.

Owns the channel to the program before until that is gone. Until it says "take", or is gone, sockets and pid file are its: we
close our descriptors at most, and never shut, unlink or write. Raises StartupError.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from smtpd.errors import SmtpdError, StartupError
from smtpd.master import handover, packets
from smtpd.master.handover import VARIABLE
from smtpd.net.listeners import ListenerSockets
from smtpd.net.loop import Loop


@dataclass(slots=True)
class Inheritance:
    """`metrics` is the socket that served `metrics_address`. `pid_fd` holds the lock of `run_dir`; -1: there is none."""

    listeners: list[ListenerSockets] = field(default_factory=list)
    metrics: socket.socket | None = None
    metrics_address: str = ""
    is_metrics_given: bool = False
    pid_fd: int = -1
    run_dir: str = ""
    is_paused: bool = False
    predecessor: Predecessor | None = None

    def close(self) -> None:
        """We fail: let go of everything, and leave it to whom it belongs."""
        for listener in self.listeners:
            for sock in listener.sockets:
                sock.close()
        if self.metrics is not None:
            self.metrics.close()
        if self.pid_fd >= 0:
            os.close(self.pid_fd)
            self.pid_fd = -1


class Predecessor:
    """The program that has started this one. `on_take` is called once, when all is ours; `on_gone` when it has ended."""

    def __init__(self, channel: socket.socket, pid: int) -> None:
        self.pid = pid
        self.is_in_charge = True
        self._channel = channel
        self._loop: Loop | None = None
        self._on_take: Callable[[list[str]], object] = lambda verbs: None
        self._on_gone: Callable[[], object] = lambda: None

    def watch(self, loop: Loop, on_take: Callable[[list[str]], object], on_gone: Callable[[], object]) -> None:
        """`on_take(verbs)`: names of signals that came for the old program meanwhile."""
        self._loop = loop
        self._on_take = on_take
        self._on_gone = on_gone
        self._channel.setblocking(False)
        loop.add_reader(self._channel.fileno(), self._hear)

    def say_ready(self, kept: list[int]) -> None:
        """Our workers serve. `kept` are the numbers of the listeners that we go on with."""
        packets.say(self._channel, {"is": "ready", "kept": kept})

    def say_failed(self, text: str) -> None:
        packets.say(self._channel, {"is": "failed", "text": text[:1000]})

    def _hear(self) -> None:
        try:
            message = packets.hear(self._channel)
        except BlockingIOError:
            return
        if message is None:
            assert self._loop is not None
            self._loop.forget(self._channel.fileno())
            self._channel.close()
            self._take([])
            self._on_gone()
        elif message.get("do") == "take":
            self._take([str(verb) for verb in message.get("verbs", [])])

    def _take(self, verbs: list[str]) -> None:
        if self.is_in_charge:
            self.is_in_charge = False
            self._on_take(verbs)

    def close(self) -> None:
        """We end."""
        if self._channel.fileno() >= 0:
            if self._loop is not None:
                self._loop.forget(self._channel.fileno())
            self._channel.close()


def inherit() -> Inheritance:
    """What is there for this process, to be called once: the environment that tells of it is cleaned."""
    text = os.environ.pop(VARIABLE, "")
    if not text:
        return Inheritance()
    channel = _channel_of(text)
    told, descriptors = handover.receive_handover(channel)
    inheritance = Inheritance(
        run_dir=told.run_dir,
        metrics_address=told.metrics,
        is_metrics_given=told.is_metrics_given,
        is_paused=told.is_paused,
        predecessor=Predecessor(channel, told.pid),
    )
    for entry in told.listeners:
        sockets = [socket.socket(fileno=descriptors.pop(0)) for _ in range(entry.count)]
        inheritance.listeners.append(handover.take_listener(entry, sockets))
    if told.metrics:
        inheritance.metrics = socket.socket(fileno=descriptors.pop(0))
    inheritance.pid_fd = descriptors.pop(0)
    return inheritance


@contextlib.contextmanager
def telling_predecessor() -> Iterator[None]:
    """What is raised in here before `inherit` was called is told to the program that has started this one."""
    text = os.environ.get(VARIABLE, "")
    try:
        yield
    except SmtpdError as error:
        if text and VARIABLE in os.environ:
            with contextlib.closing(_channel_of(text)) as channel:
                packets.say(channel, {"is": "failed", "text": str(error)[:1000]})
        raise


def _channel_of(text: str) -> socket.socket:
    """The socket that the environment names; the descriptor doesn't survive another exec."""
    try:
        channel = socket.socket(fileno=int(text))
        channel.set_inheritable(False)
    except (ValueError, OSError) as error:
        raise StartupError(f"{VARIABLE}={text}: {error}", os.EX_SOFTWARE) from None
    if channel.family != socket.AF_UNIX:
        channel.detach()
        raise StartupError(f"{VARIABLE}={text} is not the channel of an upgrade", os.EX_SOFTWARE)
    return channel
