"""Binding: one socket per slot, a port that is taken, unix sockets and their stale files, and what is
said."""

import os
import select
import socket
from pathlib import Path

import pytest

from smtpd.errors import StartupError
from smtpd.net import shutter
from smtpd.net.listeners import add_slot, bind_listener, close_listener, parse_address
from smtpd.settings import ListenerSettings


def listener(address: str) -> ListenerSettings:
    return ListenerSettings(address=address, backlog=64)


def accept_all(sockets: list[socket.socket], count: int) -> list[int]:
    """Accept so many connections; how many each socket had. A client may be connected a moment before its server knows."""
    counts = dict.fromkeys(sockets, 0)
    while sum(counts.values()) < count:
        readable, _, _ = select.select(sockets, [], [], 30.0)
        assert readable, counts
        for sock in readable:
            sock.accept()[0].close()
            counts[sock] += 1
    return list(counts.values())


@pytest.mark.parametrize(
    ("text", "family", "target"),
    [
        ("127.0.0.1:25", socket.AF_INET, ("127.0.0.1", 25)),
        ("[::1]:0", socket.AF_INET6, ("::1", 0)),
        ("unix:/run/x.sock", socket.AF_UNIX, "/run/x.sock"),
    ],
)
def test_addresses_are_parsed(text: str, family: int, target: object) -> None:
    assert parse_address(text) == (family, target)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("127.0.0.1", "port"),
        ("127.0.0.1:", "port"),
        ("127.0.0.1:65536", "port"),
        ("127.0.0.1:٢٥", "port"),
        ("mx.example.net:25", "not an IP address"),
        ("::1:25", "brackets"),
        ("[127.0.0.1]:25", "brackets"),
        ("unix:", "path"),
        ("unix:/" + "x" * 107, "path"),
    ],
)
def test_a_bad_address_is_a_configuration_fault(text: str, complaint: str) -> None:
    with pytest.raises(StartupError, match=complaint) as caught:
        bind_listener(listener(text), 1)
    assert caught.value.exit_code == os.EX_CONFIG


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:0"])
def test_each_slot_has_a_socket_on_the_same_port_and_each_gets_connections(address: str) -> None:
    sockets = bind_listener(listener(address), 2)
    added = add_slot(sockets)
    assert added is sockets.sockets[2]
    assert len({sock.getsockname() for sock in sockets.sockets}) == 1
    clients = [socket.create_connection(sockets.sockets[0].getsockname()[:2]) for _ in range(60)]
    counts = accept_all(sockets.sockets, 60)
    assert all(counts), counts
    for client in clients:
        client.close()
    close_listener(sockets)


def test_a_port_that_a_server_of_our_own_listens_on_is_taken() -> None:
    first = bind_listener(listener("127.0.0.1:0"), 2)
    with pytest.raises(StartupError, match="in use") as caught:
        bind_listener(listener(first.label), 2)
    assert caught.value.exit_code == os.EX_UNAVAILABLE
    close_listener(first)


def test_a_port_is_free_again_although_a_connection_of_the_last_server_lives_on() -> None:
    first = bind_listener(listener("127.0.0.1:0"), 1)
    label = first.label
    client = socket.create_connection(first.sockets[0].getsockname())
    served = first.sockets[0].accept()[0]
    close_listener(first)
    second = bind_listener(listener(label), 2)
    for sock in (client, served):
        sock.close()
    close_listener(second)


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(StartupError, match="no such address") as caught:
        bind_listener(listener("192.0.2.1:0"), 1)
    assert caught.value.exit_code == os.EX_UNAVAILABLE


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give sockets away")
def test_sockets_given_to_a_user_share_the_port_with_one_that_the_user_adds() -> None:
    sockets = bind_listener(listener("127.0.0.1:0"), 2, owner_uid=65534)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setuid(65534)
            add_slot(sockets)
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    close_listener(sockets)


def test_shutting_a_listener_refuses_new_connections_though_a_copy_is_open() -> None:
    sockets = bind_listener(listener("127.0.0.1:0"), 1)
    copy = sockets.sockets[0].dup()
    address = copy.getsockname()
    shutter.shut(sockets)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
    copy.close()
    close_listener(sockets)


def test_a_unix_socket_is_one_for_all_slots_and_its_file_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "smtpd.sock"
    sockets = bind_listener(listener(f"unix:{path}"), 3)
    assert sockets.is_shared
    assert len(sockets.sockets) == 1
    assert add_slot(sockets) is None
    assert sockets.label == f"unix:{path}"
    close_listener(sockets)
    assert not path.exists()


def test_a_stale_unix_socket_is_replaced_but_a_live_one_and_a_file_are_not(tmp_path: Path) -> None:
    path = tmp_path / "smtpd.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    live = bind_listener(listener(f"unix:{path}"), 1)
    with pytest.raises(StartupError, match="another process") as caught:
        bind_listener(listener(f"unix:{path}"), 1)
    assert caught.value.exit_code == os.EX_UNAVAILABLE
    close_listener(live)
    path.write_text("precious")
    with pytest.raises(StartupError, match="not a socket") as caught:
        bind_listener(listener(f"unix:{path}"), 1)
    assert caught.value.exit_code == os.EX_CONFIG
    assert path.read_text() == "precious"


def test_a_missing_directory_is_named_plainly(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="directory does not exist") as caught:
        bind_listener(listener(f"unix:{tmp_path}/absent/smtpd.sock"), 1)
    assert caught.value.exit_code == os.EX_CANTCREAT
