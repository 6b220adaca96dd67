"""Which sockets a configuration gets: those that are there, and new ones for the rest."""

import os
import socket
import subprocess
import sys

import pytest

from smtpd.errors import StartupError
from smtpd.master.sockets import close_all, open_listeners
from smtpd.net.listeners import are_overlapping, take_given
from smtpd.settings import ListenerSettings

# In a network namespace of its own, where all of 0.0.0.0 is ours: one listener moves to an address that includes its own, and
# back. A stranger who has the port on one address is still in the way.
MOVE = """
import fcntl, os, socket, struct
from smtpd.errors import StartupError
from smtpd.master.sockets import open_listeners
from smtpd.settings import ListenerSettings

os.unshare(os.CLONE_NEWNET | (0 if os.geteuid() == 0 else os.CLONE_NEWUSER))
with socket.socket() as sock:
    fcntl.ioctl(sock, 0x8914, struct.pack("16sh22x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
known = []
for address in ("127.0.0.1:2525", "0.0.0.0:2525", "127.0.0.2:2525"):
    opened = open_listeners([ListenerSettings(address=address)], known, 2)
    assert len(opened.bound) == 1 and len(opened.dropped) == len(known), address
    known = opened.listeners
    socket.create_connection(("127.0.0.2" if address[0] != "1" or address[8] == "2" else "127.0.0.1", 2525), 10).close()
stranger = socket.create_server(("127.0.0.3", 2526))
try:
    open_listeners([ListenerSettings(address="0.0.0.0:2526")], known, 2)
except StartupError as error:
    print(error)
"""


def entry(name: str, address: str = "127.0.0.1:0") -> ListenerSettings:
    return ListenerSettings(name=name, address=address)


def test_a_listener_moves_to_an_address_that_includes_its_own_and_back() -> None:
    done = subprocess.run([sys.executable, "-c", MOVE], capture_output=True, text=True, timeout=60)
    if "PermissionError" in done.stderr and os.geteuid() != 0:
        pytest.skip("this system gives ordinary users no namespaces")
    assert done.stderr == ""
    assert "in use" in done.stdout


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("127.0.0.1:25", "0.0.0.0:25", True),
        ("[::]:25", "[::1]:25", True),
        ("127.0.0.1:25", "0.0.0.0:26", False),
        ("127.0.0.1:25", "[::]:25", False),
        ("127.0.0.1:25", "127.0.0.2:25", False),
        ("0.0.0.0:25", "0.0.0.0:25", False),
        ("unix:/x", "unix:/y", False),
    ],
)
def test_addresses_that_include_each_other(one: str, other: str, expected: bool) -> None:
    assert are_overlapping(one, other) is are_overlapping(other, one) is expected


def test_sockets_are_kept_by_address_under_another_name_and_more_slots_are_added() -> None:
    first = open_listeners([entry("a", "127.0.0.1:0")], [], 1)
    second = open_listeners([entry("b", "127.0.0.1:0")], first.listeners, 3)
    assert (second.bound, second.dropped) == ([], [])
    assert second.listeners[0].name == "b"
    assert second.listeners[0].sockets[0] is first.listeners[0].sockets[0]
    assert len({sock.getsockname() for sock in second.listeners[0].sockets}) == 1
    assert len(second.listeners[0].sockets) == 3
    close_all(second.listeners)


def test_what_was_bound_is_given_back_when_another_address_cannot_be_had() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
        probe.close()
        addresses = [f"127.0.0.1:{free}", f"127.0.0.1:{taken.getsockname()[1]}"]
        with pytest.raises(StartupError, match="in use"):
            open_listeners([entry(address, address) for address in addresses], [], 2)
    socket.create_server(("127.0.0.1", free)).close()


def test_sockets_of_a_service_manager_are_taken_by_name_and_kept_when_nobody_asks_for_them() -> None:
    made = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    given = take_given(entry("mx"), "mx", made)
    opened = open_listeners([entry("mx", "127.0.0.1:25")], [given], 3)
    assert opened.bound == []
    assert opened.listeners[0].is_shared
    assert opened.listeners[0].sockets == made
    later = open_listeners([], opened.listeners, 3)
    assert later.dropped == []
    assert [listener.name for listener in later.spare] == ["mx"]
    again = open_listeners([entry("mx", "127.0.0.1:25")], later.spare, 3)
    assert again.listeners[0].sockets == made
    label = again.listeners[0].label
    with socket.create_connection(made[0].getsockname(), timeout=10):  # close_all leaves them listening for the manager
        copy = made[0].dup()
        close_all(again.listeners)
        assert copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
        copy.close()
    assert label.startswith("127.0.0.1:")
