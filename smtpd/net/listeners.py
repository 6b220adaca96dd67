"""Listening sockets: an address of the configuration becomes one SO_REUSEPORT socket per worker slot.

Owns binding, the stale file of a unix socket, and what is said when an address can't be had. The master makes
and keeps all sockets; workers inherit them. Sockets that a service manager has made (`is_given`) are taken as they are, and
never closed to its clients. Never accepts.

The first socket of an address listens *before* it gets SO_REUSEPORT: so a second server that wants the same
port is refused by the kernel, where two SO_REUSEPORT servers of one user would silently share it. Each
socket is given to the user that the server will run as: the kernel lets only sockets of one user share a
port, and TTIN adds one after the drop.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from smtpd.errors import StartupError
from smtpd.net.tls.server import ServerTls
from smtpd.settings import ListenerSettings

_UNIX_PATH_BYTES = 107  # sun_path of unix(7), without its NUL

Address = str | tuple[str, int]


@dataclass(slots=True)
class ListenerSockets:
    """One [[listener]] with its sockets; index = slot, unless it `is_shared`: then all slots have all of them.

    `label` is the address really bound, with the port that the kernel chose for port 0.
    """

    settings: ListenerSettings
    name: str
    sockets: list[socket.socket]
    is_given: bool = False  # made by a service manager, who keeps them when we end
    label: str = ""
    bound_to: Any = None  # what bind(2) took
    tls: ServerTls | None = None  # made by the master, before the fork

    def __post_init__(self) -> None:
        self.label = self.label or format_address(self.sockets[0])
        self.bound_to = self.bound_to or self.sockets[0].getsockname()

    @property
    def is_shared(self) -> bool:
        """The sockets can't be multiplied: every worker accepts from all of them."""
        return self.is_given or self.sockets[0].family == socket.AF_UNIX


def parse_address(text: str) -> tuple[socket.AddressFamily, Address]:
    """`127.0.0.1:25`, `[::1]:25` or `unix:/path` as what bind(2) takes; ValueError says what is wrong."""
    if text.startswith("unix:"):
        path = text[5:]
        if not path or "\0" in path or len(os.fsencode(path)) > _UNIX_PATH_BYTES:
            raise ValueError(f"a unix socket needs a path of 1 to {_UNIX_PATH_BYTES} bytes")
        return socket.AF_UNIX, path
    host, colon, port_text = text.rpartition(":")
    if not colon or not port_text.isascii() or not port_text.isdigit() or int(port_text) > 65535:
        raise ValueError('a port from 0 to 65535 is missing, as in "127.0.0.1:25" or "[::1]:25"')
    is_bracketed = host.startswith("[") and host.endswith("]")
    try:
        ip = ipaddress.ip_address(host[1:-1] if is_bracketed else host)
    except ValueError:
        raise ValueError(f'"{host}" is not an IP address (names are not looked up)') from None
    if (ip.version == 6) != is_bracketed:
        raise ValueError('an IPv6 address, and only that, stands in brackets, as in "[::1]:25"')
    return (socket.AF_INET6 if ip.version == 6 else socket.AF_INET), (str(ip), int(port_text))


def format_address(sock: socket.socket) -> str:
    """The bound address as the configuration writes it."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{name}"
    return f"[{name[0]}]:{name[1]}" if sock.family == socket.AF_INET6 else f"{name[0]}:{name[1]}"


def bind_listener(settings: ListenerSettings, slots: int, owner_uid: int = -1, *, is_beside_own: bool = False) -> ListenerSockets:
    """Bind and listen for `slots` workers; `owner_uid` is the user that the server will drop to, -1 = stays.

    `is_beside_own`: a socket of ours has this port on an address that includes this one, or is included in it.

    Raises StartupError: EX_CONFIG for an address that can't be one, EX_UNAVAILABLE when it is taken or not
    of this machine, EX_NOPERM when it is not allowed.
    """
    sockets = [bind_socket(settings.address, settings.backlog, owner_uid, is_beside_own=is_beside_own)]
    listener = ListenerSockets(settings, settings.name or settings.address, sockets)
    try:
        while not listener.is_shared and len(sockets) < slots:
            add_slot(listener, owner_uid)
    except StartupError:
        close_listener(listener)
        raise
    return listener


def add_slot(listener: ListenerSockets, owner_uid: int = -1, *, is_listening: bool = True) -> socket.socket | None:
    """Bind one more socket on the listener's address for the next slot; None for a shared one, raises as above."""
    if listener.is_shared:
        return None
    first = listener.sockets[0]
    with _explained(listener.settings.address):
        sock = socket.socket(first.family, socket.SOCK_STREAM)
        try:
            _prepare(sock, owner_uid)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(listener.bound_to)
            if is_listening:
                sock.listen(listener.settings.backlog)
        except OSError:
            sock.close()
            raise
    listener.sockets.append(sock)
    return sock


def bind_socket(address: str, backlog: int, owner_uid: int = -1, *, is_beside_own: bool = False) -> socket.socket:
    """One non-blocking listening socket on an address of the configuration; raises as `bind_listener`."""
    with _explained(address):
        try:
            family, target = parse_address(address)
        except ValueError as error:
            raise StartupError(f"can't listen on {address}: {error}", os.EX_CONFIG) from None
        if isinstance(target, str):
            _remove_stale_file(target)
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            _prepare(sock, owner_uid)
            if is_beside_own and family != socket.AF_UNIX:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(target)
            if isinstance(target, str):
                os.chmod(target, 0o666)  # like a loopback port: any local program may hand mail over
                if owner_uid >= 0:
                    os.chown(target, owner_uid, -1)
            sock.listen(backlog)
            if family != socket.AF_UNIX:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        except OSError:
            sock.close()
            raise
    return sock


def are_overlapping(one: str, other: str) -> bool:
    """Two addresses of the configuration that differ, but of which one includes the other's port on all addresses."""
    try:
        family, target = parse_address(one)
        other_family, other_target = parse_address(other)
    except ValueError:
        return False
    if family != other_family or isinstance(target, str) or isinstance(other_target, str) or target == other_target:
        return False
    is_wild = "0.0.0.0" in (target[0], other_target[0]) or "::" in (target[0], other_target[0])
    return is_wild and target[1] == other_target[1] != 0


def take_given(settings: ListenerSettings, name: str, sockets: list[socket.socket]) -> ListenerSockets:
    """A listener on sockets that a service manager has made."""
    for sock in sockets:
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return ListenerSockets(settings, name, sockets, is_given=True)


def close_listener(listener: ListenerSockets, *, is_handed_over: bool = False) -> None:
    """Close this process's descriptors, and remove the file of a unix socket unless another process goes on with it."""
    for sock in listener.sockets:
        if sock.family == socket.AF_UNIX and not listener.is_given and not is_handed_over:
            with contextlib.suppress(OSError):
                os.unlink(sock.getsockname())
        sock.close()


def _prepare(sock: socket.socket, owner_uid: int) -> None:
    """What every listening socket has, before it is bound."""
    sock.setblocking(False)
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what is accepted inherits it
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of an ended server in TIME_WAIT
    if sock.family == socket.AF_INET6:
        # [::]:25 and 0.0.0.0:25 are two listeners, whatever the machine's bindv6only says
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if owner_uid >= 0:
        os.fchown(sock.fileno(), owner_uid, -1)


def _remove_stale_file(path: str) -> None:
    """Unlink a unix socket's file that nobody listens on; StartupError when somebody does, or it is no
    socket."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise StartupError(f"can't listen on unix:{path}: the file exists and is not a socket", os.EX_CONFIG)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:  # its backlog is full: somebody is there
            pass
    raise StartupError(f"can't listen on unix:{path}: another process does", os.EX_UNAVAILABLE)


_EXPLANATIONS = {
    errno.EADDRINUSE: ("the address is in use by another program", os.EX_UNAVAILABLE),
    errno.EADDRNOTAVAIL: ("this machine has no such address", os.EX_UNAVAILABLE),
    errno.EAFNOSUPPORT: ("this machine has no support for such addresses", os.EX_UNAVAILABLE),
    errno.EACCES: ("no permission (ports below 1024 need root or CAP_NET_BIND_SERVICE)", os.EX_NOPERM),
    errno.EPERM: ("no permission", os.EX_NOPERM),
    errno.ENOENT: ("the directory does not exist", os.EX_CANTCREAT),
    errno.ENOTDIR: ("the directory does not exist", os.EX_CANTCREAT),
}


@contextlib.contextmanager
def _explained(address: str) -> Iterator[None]:
    """Turns an OSError of binding `address` into a StartupError of one line."""
    try:
        yield
    except OSError as error:
        text, exit_code = _EXPLANATIONS.get(error.errno or 0, (error.strerror, os.EX_OSERR))
        if error.errno == errno.EACCES and address.startswith("unix:"):
            text = "no permission to make a socket there"
        raise StartupError(f"can't listen on {address}: {text}", exit_code) from None
