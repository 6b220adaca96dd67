"""The shutter: who got a connection keeps it, who comes later is refused, and the socket listens again where it stood."""

import socket
from pathlib import Path

import pytest

from smtpd.net import shutter
from smtpd.net.listeners import ListenerSockets, bind_listener, close_listener
from smtpd.settings import ListenerSettings


def bind(address: str, slots: int = 2) -> ListenerSockets:
    return bind_listener(ListenerSettings(address=address), slots)


def port_of(listener: ListenerSockets) -> tuple[str, int]:
    host, _, port = listener.label.rpartition(":")
    return host.strip("[]"), int(port)


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:0"])
def test_who_is_in_the_queue_when_it_is_lowered_is_served_and_who_comes_later_is_refused(address: str) -> None:
    listener = bind(address)
    with socket.create_connection(port_of(listener), timeout=10) as early:
        shutter.lower(listener)
        with socket.socket(early.family) as late:
            late.settimeout(0.3)
            with pytest.raises(TimeoutError):  # its SYN is dropped
                late.connect(port_of(listener))
        accepted = next(found for found in map(_accept, listener.sockets) if found is not None)
        shutter.shut(listener)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(port_of(listener), timeout=10)
        accepted.sendall(b"220 hello\r\n")
        assert early.recv(100) == b"220 hello\r\n"
        accepted.close()
    with socket.socket(early.family) as other, pytest.raises(OSError, match="in use"):  # the port is still ours
        other.bind(port_of(listener))
    shutter.raise_again(listener)
    shutter.raise_again(listener)
    for _ in range(10):
        socket.create_connection(port_of(listener), timeout=10).close()
    shutter.retire(listener)


def test_the_file_of_a_unix_socket_moves_aside_and_back(tmp_path: Path) -> None:
    path = tmp_path / "mail.sock"
    listener = bind(f"unix:{path}")
    with socket.socket(socket.AF_UNIX) as early:
        early.connect(str(path))
        shutter.lower(listener)
        shutter.shut(listener)
        assert not path.exists()
        accepted = _accept(listener.sockets[0])
        assert accepted is not None
        accepted.close()
    shutter.raise_again(listener)
    with socket.socket(socket.AF_UNIX) as late:
        late.connect(str(path))
    shutter.lower(listener)
    shutter.retire(listener)
    assert list(tmp_path.iterdir()) == []


def test_a_port_that_the_kernel_chose_is_had_again() -> None:
    listener = bind("127.0.0.1:0", slots=1)
    port = port_of(listener)
    shutter.lower(listener)
    shutter.shut(listener)
    shutter.raise_again(listener)
    socket.create_connection(port, timeout=10).close()
    close_listener(listener)


def _accept(sock: socket.socket) -> socket.socket | None:
    try:
        found = sock.accept()[0]
    except BlockingIOError:
        return None
    found.setblocking(True)
    return found
