"""Outgoing connects over loopback and unix sockets: every end comes once, as an errno, and no descriptor is left behind."""

import errno
import os
import resource
import socket

import pytest

from smtpd.net.connect import connect
from smtpd.net.loop import Loop


@pytest.fixture
def loop():
    loop = Loop()
    before = set(os.listdir("/proc/self/fd"))
    yield loop
    assert set(os.listdir("/proc/self/fd")) <= before  # one of a test before may be closed meanwhile
    loop.close()


def connected(loop, address, timeout_s=10.0, source=""):
    """Run a connect to its end; the descriptor or the errno, and that it was told exactly once."""
    calls = []
    connect(loop, address, timeout_s, source, lambda fd, failure: calls.append((fd, failure)))
    assert calls == []  # never before connect returns
    for _ in range(1000):
        if calls:
            break
        loop.turn(0.05)
    loop.turn(0)
    assert len(calls) == 1
    return calls[0]


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_tcp_connection_carries_octets_and_never_blocks(loop, family, host):
    with socket.create_server((host, 0), family=family) as server:
        fd, failure = connected(loop, (host, server.getsockname()[1]))
        assert failure == 0
        assert not os.get_inheritable(fd)
        assert not os.get_blocking(fd)
        theirs, _ = server.accept()
        with socket.socket(fileno=fd) as ours, theirs:
            assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
            theirs.sendall(b"220 hello\r\n")
            ours.setblocking(True)
            assert ours.recv(100) == b"220 hello\r\n"


def test_source_address_is_used(loop):
    with socket.create_server(("127.0.0.1", 0)) as server:
        fd, failure = connected(loop, server.getsockname(), source="127.0.0.77")
        assert failure == 0
        os.close(fd)
        theirs, peer = server.accept()
        theirs.close()
        assert peer[0] == "127.0.0.77"


def test_source_address_that_cannot_be_used_is_an_error(loop):
    assert connected(loop, ("127.0.0.1", 25), source="::1") == (-1, errno.EAFNOSUPPORT)
    assert connected(loop, ("127.0.0.1", 25), source="192.0.2.1") == (-1, errno.EADDRNOTAVAIL)


def test_nobody_listening_is_refused(loop):
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        assert connected(loop, unheard.getsockname()) == (-1, errno.ECONNREFUSED)


@pytest.mark.parametrize("host", ["", "localhost", "[::1]", "127.1", "1.2.3.4\0", "ü", "127.0.0.1%lo"])
def test_what_is_no_address_is_an_error(loop, host):
    assert connected(loop, (host, 25)) == (-1, errno.EINVAL)


def full_server(family, address):
    """A listener whose backlog is taken up: the next connect stays open-ended."""
    server = socket.socket(family)
    server.bind(address)
    server.listen(0)
    fillers = []
    for _ in range(2):
        filler = socket.socket(family)
        filler.setblocking(False)
        fillers.append(filler)
        filler.connect_ex(server.getsockname())
    return server, fillers


def test_peer_that_does_not_answer_is_a_timeout(loop):
    server, fillers = full_server(socket.AF_INET, ("127.0.0.1", 0))
    assert connected(loop, server.getsockname(), timeout_s=0.05) == (-1, errno.ETIMEDOUT)
    for sock in [server, *fillers]:
        sock.close()


def test_cancelled_connect_is_never_told(loop):
    server, fillers = full_server(socket.AF_INET, ("127.0.0.1", 0))
    calls = []
    connecting = connect(loop, server.getsockname(), 0.05, "", lambda *args: calls.append(args))
    connecting.cancel()
    at_end = []
    loop.call_later(0.1, lambda: at_end.append(True))
    while not at_end:
        loop.turn(0.05)
    connecting.cancel()
    assert calls == []
    for sock in [server, *fillers]:
        sock.close()


def test_unix_socket_behind_a_long_path(loop, tmp_path):
    folder = tmp_path / ("d" * 120)
    folder.mkdir()
    old = os.getcwd()
    os.chdir(folder)  # bind has the same limit of length
    try:
        server = socket.socket(socket.AF_UNIX)
        server.bind("s.sock")
    finally:
        os.chdir(old)
    server.listen()
    fd, failure = connected(loop, str(folder / "s.sock"))
    assert failure == 0
    os.close(fd)
    server.close()
    assert connected(loop, str(folder / "s.sock")) == (-1, errno.ECONNREFUSED)
    assert connected(loop, str(folder / "none.sock")) == (-1, errno.ENOENT)
    assert connected(loop, str(folder / "no" / "none.sock")) == (-1, errno.ENOENT)
    assert connected(loop, str(folder / ("n" * 120))) == (-1, errno.ENAMETOOLONG)


def test_unix_socket_with_a_full_backlog_is_asked_until_there_is_room(loop, tmp_path):
    server, fillers = full_server(socket.AF_UNIX, str(tmp_path / "s.sock"))
    assert connected(loop, str(tmp_path / "s.sock"), timeout_s=0.05) == (-1, errno.ETIMEDOUT)
    calls = []
    connect(loop, str(tmp_path / "s.sock"), 10.0, "", lambda *args: calls.append(args))
    loop.turn(0)
    accepted = server.accept()[0]
    while not calls:
        loop.turn(0.05)
    assert calls[0][1] == 0
    os.close(calls[0][0])
    for sock in [server, accepted, *fillers]:
        sock.close()


def test_process_without_free_descriptors_gets_an_error(loop):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        result = connected(loop, ("127.0.0.1", 25))
        of_long_path = connected(loop, "/" + "d" * 120 + "/s")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert result == (-1, errno.EMFILE)
    assert of_long_path == (-1, errno.EMFILE)


def test_connect_to_itself_counts_as_refused(loop):
    """A connect to a free local port that the kernel happens to start from the same port."""
    from smtpd import _io

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.connect(sock.getsockname())
        assert _io.finish_connect(sock.fileno()) == errno.ECONNREFUSED
