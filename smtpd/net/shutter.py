"""The shutter of a listening socket: lowered, shut, raised again, and no connection that a client has got is reset by it.

A close or shutdown of a listening socket resets what waits in its queue. So a lowered one first drops new SYNs (a classic BPF
filter, socket(7) SO_ATTACH_FILTER) while handshakes under way still end and what is queued is still accepted. After SETTLE_S
nothing can be in the queue that nobody saw; then it is shut, and the client's next SYN, a second after its first, is refused.
A shut TCP socket stays bound, so nobody takes the port meanwhile, and listens again where it stood. The file of a unix socket
is moved aside and back instead. Never closes a socket; raises OSError when the system refuses.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct

from smtpd.net.listeners import ListenerSockets, close_listener

SETTLE_S = 0.5  # a handshake under way ends within a round trip; less than the second after which a SYN comes again
_ASIDE = ".paused"
# linux/bpf_common.h: is this TCP segment (the filter sees it from its header on) a SYN without ACK? Then keep 0 octets of it.
_LOAD_BYTE, _AND, _JUMP_EQUAL, _RETURN = 0x30, 0x54, 0x15, 0x06
_FLAGS_OFFSET, _SYN, _ACK = 13, 0x02, 0x10
_DROP_SYN = (
    (_LOAD_BYTE, 0, 0, _FLAGS_OFFSET),
    (_AND, 0, 0, _SYN | _ACK),
    (_JUMP_EQUAL, 0, 1, _SYN),
    (_RETURN, 0, 0, 0),
    (_RETURN, 0, 0, 0xFFFFFFFF),
)
_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27  # the socket module has no names for them


def lower(listener: ListenerSockets) -> None:
    """From now on nobody new gets in; who is in the queue, or about to be, still does."""
    for sock in listener.sockets:
        if sock.family == socket.AF_UNIX:
            path = _path_of(sock)
            with contextlib.suppress(FileNotFoundError):
                os.rename(path, path + _ASIDE)
        else:
            drop_syns(sock)


def drop_syns(sock: socket.socket) -> None:
    """Let a TCP socket hear no new client."""
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _DROP_SYN))
    program = struct.pack("@HP", len(_DROP_SYN), ctypes.addressof(code))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def shut(listener: ListenerSockets) -> None:
    """Stop listening in every process that has the sockets: who connects is refused, who is in the queue reset."""
    for sock in listener.sockets:
        if sock.family != socket.AF_UNIX:
            with contextlib.suppress(OSError):  # it doesn't listen
                sock.shutdown(socket.SHUT_RDWR)


def raise_again(listener: ListenerSockets) -> None:
    """Listen where it was; does nothing to a socket that does."""
    for sock in listener.sockets:
        if sock.family == socket.AF_UNIX:
            path = _path_of(sock)
            with contextlib.suppress(FileNotFoundError):
                os.rename(path + _ASIDE, path)
            continue
        with contextlib.suppress(FileNotFoundError):  # it had none
            sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
        if listener.settings.address.endswith(":0"):  # the kernel chose the port for one of them, and has taken it back
            with contextlib.suppress(OSError):  # EINVAL: not this one
                sock.bind(listener.bound_to)
        sock.listen(listener.settings.backlog)


def retire(listener: ListenerSockets) -> None:
    """Close for good; sockets of a service manager listen on for whoever it starts next."""
    if listener.is_given:
        with contextlib.suppress(OSError):
            raise_again(listener)
    else:
        shut(listener)
        for sock in listener.sockets:
            if sock.family == socket.AF_UNIX:
                with contextlib.suppress(OSError):
                    os.unlink(_path_of(sock) + _ASIDE)
    close_listener(listener)


def _path_of(sock: socket.socket) -> str:
    return str(sock.getsockname())
