"""TLS on a stream, in both roles over socket pairs: what is promised of the plain one, the handshake, and every bad end."""

import contextlib
import datetime
import socket
import ssl

import pytest
import trustme

from smtpd.errors import TlsFileError
from smtpd.net.loop import Loop
from smtpd.net.stream import READ_BYTES, Stream, StreamOwner
from smtpd.net.tls.contexts import client_context, harden

NAME = "mx.example"


class Side(StreamOwner):
    """One end: writes down every call; takes `quota` octets of each offer."""

    def __init__(self, loop, sock):
        self.calls = []
        self.data = bytearray()
        self.offers = []
        self.quota = 1 << 30
        self.handshakes = []
        sock.setblocking(False)
        self.stream = Stream(loop, sock.detach(), self)
        self.on_offer = lambda: None
        self.on_done = lambda: None

    def shake(self, context, server_side, name=None):
        def done(failure):
            self.handshakes.append(failure)
            self.on_done()

        self.stream.start_tls(context, server_side, name, done)
        assert self.handshakes == []

    def on_data(self, buffer, start, end):
        self.on_offer()
        taken = min(self.quota, end - start)
        self.offers.append(end - start)
        self.data += buffer[start : start + taken]
        return start + taken

    def on_end(self):
        self.calls.append("end")

    def on_lost(self):
        self.calls.append("lost")

    def on_drained(self):
        self.calls.append("drained")

    def on_closed(self):
        self.calls.append("closed")


@pytest.fixture(scope="module")
def ca():
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(ca, tmp_path_factory):
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return str(path)


def server_context(certificate, version=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    harden(context)
    certificate.configure_cert(context)
    if version is not None:
        context.maximum_version = version
    return context


@pytest.fixture(scope="module")
def serving(ca):
    return server_context(ca.issue_cert(NAME))


@pytest.fixture
def loop():
    loop = Loop()
    yield loop
    loop.close()


@contextlib.contextmanager
def two(loop):
    ours, theirs = socket.socketpair()
    client, server = Side(loop, ours), Side(loop, theirs)
    try:
        yield client, server
    finally:
        client.stream.destroy()
        server.stream.destroy()


@pytest.fixture
def pair(loop):
    with two(loop) as pair:
        yield pair


@pytest.fixture
def lone(loop):
    """A stream, and its peer as a blocking socket."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(10)
    side = Side(loop, ours)
    yield side, theirs
    side.stream.destroy()
    theirs.close()


def turn_until(loop, condition, turns=1000):
    for _ in range(turns):
        if condition():
            return
        loop.turn(0.05)
    raise AssertionError("never happened")


def settle(loop, turns=5):
    for _ in range(turns):
        loop.turn(0.001)


def assert_idle(loop):
    """Nothing is left that makes the loop turn without a wait."""
    over = []
    loop.call_later(0.05, lambda: over.append(True))
    turns = 0
    while not over:
        loop.turn(1.0)
        turns += 1
    assert turns < 20


def shaken(loop, pair, serving, trusting=None, name=NAME):
    """Both handshakes, to their ends; what was told."""
    client, server = pair
    server.shake(serving, True)
    client.shake(client_context(False) if trusting is None else trusting, False, name)
    turn_until(loop, lambda: client.handshakes and server.handshakes)
    return client.handshakes[0], server.handshakes[0]


# --- the handshake -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_ends_are_encrypted(loop, pair, ca, ca_file, version):
    client, server = pair
    serving = server_context(ca.issue_cert(NAME), version)
    assert shaken(loop, pair, serving, client_context(True, ca_file)) == ("", "")
    assert client.stream.tls.version == server.stream.tls.version == version.name.replace("_", ".")
    assert client.stream.tls.cipher == server.stream.tls.cipher != ""
    assert client.stream.tls.is_verified
    assert not server.stream.tls.is_verified
    assert client.stream.write(b"EHLO a\r\n")
    assert server.stream.write(b"250 b\r\n")
    turn_until(loop, lambda: client.data and server.data)
    assert (bytes(client.data), bytes(server.data)) == (b"250 b\r\n", b"EHLO a\r\n")
    assert_idle(loop)
    assert client.handshakes == server.handshakes == [""]


def test_unverified_takes_any_certificate(loop, pair, serving):
    client, _ = pair
    assert shaken(loop, pair, serving, name="other.example") == ("", "")
    assert not client.stream.tls.is_verified


def test_wrong_name_is_told_to_both(loop, pair, serving, ca_file):
    ours, theirs = shaken(loop, pair, serving, client_context(True, ca_file), "other.example")
    assert ours.startswith("TLS handshake: certificate not accepted: Hostname mismatch")
    assert "alert" in theirs  # the alert came through
    assert not pair[0].stream.tls.is_verified
    assert pair[0].stream.write(b"never in the clear")
    settle(loop)
    assert bytes(pair[1].data) == b""


def test_name_that_the_certificate_has_only_as_common_name_is_not_enough(loop, pair, ca, ca_file):
    serving = server_context(ca.issue_cert("other.example", common_name=NAME))
    ours, _ = shaken(loop, pair, serving, client_context(True, ca_file))
    assert "Hostname mismatch" in ours


def test_unknown_ca_is_refused(loop, pair, ca_file):
    ours, _ = shaken(loop, pair, server_context(trustme.CA().issue_cert(NAME)), client_context(True, ca_file))
    assert ours == "TLS handshake: certificate not accepted: unable to get local issuer certificate"


def test_system_cas_do_not_know_ours(loop, pair, serving):
    ours, _ = shaken(loop, pair, serving, client_context(True))
    assert "certificate not accepted" in ours


def test_expired_certificate_is_refused(loop, pair, ca, ca_file):
    expired = ca.issue_cert(NAME, not_after=datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))
    ours, _ = shaken(loop, pair, server_context(expired), client_context(True, ca_file))
    assert ours == "TLS handshake: certificate not accepted: certificate has expired"


def test_servers_own_certificate_as_ca_file_is_enough(loop, pair, ca, tmp_path):
    certificate = ca.issue_cert(NAME)
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "leaf.pem"))
    assert shaken(loop, pair, server_context(certificate), client_context(True, str(tmp_path / "leaf.pem"))) == ("", "")


def test_old_versions_are_not_spoken(loop, pair, ca):
    old = server_context(ca.issue_cert(NAME))
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    ours, theirs = shaken(loop, pair, old)
    assert "version" in ours or "alert" in ours
    assert theirs


def test_settings_that_no_version_of_python_may_change(ca_file):
    for context in (client_context(False), client_context(True), client_context(True, ca_file)):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
        assert context.options & ssl.OP_NO_RENEGOTIATION
        assert context.options & ssl.OP_NO_COMPRESSION
        assert not context.verify_flags & ssl.VERIFY_X509_STRICT


def test_ca_file_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "empty.pem").write_text("")
    for name, words in (("none.pem", "No such file"), ("empty.pem", "no CA certificates")):
        with pytest.raises(TlsFileError, match=words):
            client_context(True, str(tmp_path / name))


@pytest.mark.parametrize("name", [None, "", ".bad.example", "x" * 70 + ".example"])
def test_name_that_cannot_be_one_fails_the_handshake(loop, lone, ca_file, name):
    side, _ = lone
    side.shake(client_context(True, ca_file), False, name)
    turn_until(loop, lambda: side.handshakes)
    assert side.handshakes[0].startswith("TLS can't be started: ")


@pytest.mark.parametrize("is_server", [False, True])
def test_garbage_ends_the_handshake(loop, lone, serving, is_server):
    side, theirs = lone
    side.shake(serving if is_server else client_context(False), is_server)
    theirs.sendall(b"250 this is no TLS at all\r\n")
    turn_until(loop, lambda: side.handshakes)
    assert side.handshakes[0].startswith("TLS handshake: ")
    theirs.sendall(b"more")
    assert_idle(loop)
    assert (bytes(side.data), side.calls, len(side.handshakes)) == (b"", [], 1)
    side.stream.close()
    theirs.close()
    turn_until(loop, lambda: side.calls == ["closed"])


def test_peer_that_goes_away_ends_the_handshake(loop, lone):
    side, theirs = lone
    side.shake(client_context(False), False, NAME)
    settle(loop)
    theirs.close()
    turn_until(loop, lambda: side.handshakes)
    assert side.handshakes[0].startswith("TLS handshake: the ")
    assert_idle(loop)


def test_handshake_that_never_ends_is_the_callers_to_close(loop, lone):
    side, theirs = lone
    side.shake(client_context(False), False, NAME)
    settle(loop)
    assert theirs.recv(5)[:1] == b"\x16"  # our hello
    side.stream.close(linger=False)
    settle(loop)
    assert side.handshakes == []
    assert side.calls == ["closed"]


def test_handshake_goes_on_while_the_stream_is_paused(loop, pair, serving):
    client, server = pair
    server.stream.pause()
    assert shaken(loop, pair, serving) == ("", "")
    client.stream.write(b"x")
    settle(loop)
    assert bytes(server.data) == b""
    server.stream.resume()
    turn_until(loop, lambda: bytes(server.data) == b"x")


def relay(loop, sides, sockets, chunk):
    """Pass octets between two streams' far ends, `chunk` at a time."""
    for source, target in ((0, 1), (1, 0)):
        with contextlib.suppress(BlockingIOError):
            data = sockets[source].recv(chunk)
            if data:
                sockets[target].sendall(data)
    loop.turn(0)


def test_records_split_at_every_octet(loop, serving):
    pairs = [socket.socketpair() for _ in range(2)]
    far = [pair[1] for pair in pairs]
    for sock in far:
        sock.setblocking(False)
    client, server = (Side(loop, pair[0]) for pair in pairs)
    server.shake(serving, True)
    client.shake(client_context(False), False, NAME)
    client.stream.write(b"early")  # kept until it can be encrypted
    for _ in range(20_000):
        relay(loop, (client, server), far, 1)
        if bytes(server.data) == b"early":
            break
    assert bytes(server.data) == b"early"
    assert client.handshakes == server.handshakes == [""]
    for side in (client, server):
        side.stream.destroy()
    for sock in far:
        sock.close()


# --- nothing from before ---------------------------------------------------------------------------------------------------


def test_rest_in_the_clear_is_never_taken_for_encrypted(loop, lone, serving):
    """STARTTLS and more in one piece: what follows it must not be run after the handshake (RFC 3207 6)."""
    side, theirs = lone
    side.quota = 10
    side.on_offer = lambda: side.handshakes or side.stream.tls or side.shake(serving, True)
    side.stream.start()
    theirs.sendall(b"STARTTLS\r\nMAIL FROM:<evil@example>\r\n")
    turn_until(loop, lambda: side.handshakes)
    settle(loop)
    assert bytes(side.data) == b"STARTTLS\r\n"
    assert "in the clear" in side.handshakes[0]


def test_kept_rest_is_never_taken_for_encrypted(loop, lone, serving):
    side, theirs = lone
    side.quota = 0
    side.on_offer = side.stream.pause
    side.stream.start()
    theirs.sendall(b"evil")
    turn_until(loop, lambda: side.offers)
    side.shake(serving, True)
    side.stream.resume()
    turn_until(loop, lambda: side.handshakes)
    settle(loop)
    assert side.offers == [4]
    assert "in the clear" in side.handshakes[0]


def test_commands_in_the_clear_that_came_later_break_the_handshake(loop, lone, serving):
    side, theirs = lone
    side.on_offer = lambda: side.shake(serving, True)
    side.stream.start()
    theirs.sendall(b"STARTTLS\r\n")
    turn_until(loop, lambda: side.data)
    theirs.sendall(b"MAIL FROM:<evil@example>\r\n")
    turn_until(loop, lambda: side.handshakes)
    assert bytes(side.data) == b"STARTTLS\r\n"
    assert side.handshakes[0] != ""


def test_output_from_before_leaves_in_the_clear_and_first(loop, lone, ca_file, serving):
    side, theirs = lone
    reply = b"220 ready\r\n" + b"." * 1_000_000  # more than the window takes
    assert not side.stream.write(reply)
    side.shake(serving, True)
    received = b""
    while len(received) < len(reply):
        loop.turn(0)
        received += theirs.recv(min(1 << 16, len(reply) - len(received)))
    assert received == reply
    turn_until(loop, lambda: "drained" in side.calls)
    other = Side(loop, theirs.dup())
    other.shake(client_context(True, ca_file), False, NAME)
    turn_until(loop, lambda: side.handshakes and other.handshakes)
    assert side.handshakes == other.handshakes == [""]
    other.stream.destroy()


# --- octets --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_large_transfers_each_way_with_back_pressure(loop, pair, ca, version):
    shaken(loop, pair, server_context(ca.issue_cert(NAME), version))
    pieces = [bytes([n % 251]) * 65_521 for n in range(64)]
    for source, target in (pair, pair[::-1]):
        left, waits = list(pieces), 0
        for _ in range(20_000):
            while left and not source.stream.has_output:
                waits += not source.stream.write(left.pop(0))
            assert source.stream.buffered_bytes < 2 * READ_BYTES
            assert target.stream.buffered_bytes < 2 * READ_BYTES
            loop.turn(0)
            if len(target.data) == 64 * 65_521:
                break
        assert bytes(target.data) == b"".join(pieces)
        assert waits
        turn_until(loop, lambda source=source: "drained" in source.calls)


def test_peer_that_never_reads_stops_being_read(loop, pair, serving):
    client, server = pair
    shaken(loop, pair, serving)
    server.on_offer = lambda: server.stream.write(b"r" * 50_000)
    client.stream.pause()
    sent = 0
    for _ in range(2000):
        if client.stream.has_output:
            break
        client.stream.write(b"c" * 10_000)
        sent += 10_000
        loop.turn(0)
    settle(loop)
    assert client.stream.has_output
    assert server.stream.has_output
    assert server.stream.buffered_bytes < 4 * READ_BYTES
    server.on_offer = lambda: None
    client.stream.resume()
    client.stream.destroy()  # it reads nothing while its own output waits: one of the two has to give way
    turn_until(loop, lambda: server.calls[-1:] == ["closed"])
    assert len(server.data) < sent


def test_no_offer_is_larger_than_the_quantum(loop, pair, serving):
    client, server = pair
    shaken(loop, pair, serving)
    for _ in range(40):
        client.stream.write(b"x" * 10_000)
        loop.turn(0)
    turn_until(loop, lambda: len(server.data) == 400_000)
    assert max(server.offers) <= READ_BYTES


def test_decrypted_rest_is_offered_while_the_socket_is_silent(loop, pair, serving):
    client, server = pair
    shaken(loop, pair, serving)
    server.quota = 1000
    client.stream.write(b"abcdefghij" * 1000)
    turn_until(loop, lambda: len(server.data) == 10_000)
    assert bytes(server.data) == b"abcdefghij" * 1000


def test_octets_that_wait_in_the_engine_come_after_a_pause(loop, pair, serving):
    client, server = pair
    shaken(loop, pair, serving)
    server.on_offer = server.stream.pause
    for _ in range(5):
        client.stream.write(b"y" * 16_000)
    settle(loop)
    assert len(server.offers) == 1
    assert_idle(loop)
    for number in range(2, 50):
        if len(server.data) == 80_000:
            break
        server.stream.resume()
        turn_until(loop, lambda number=number: len(server.offers) == number)
        settle(loop)
        assert len(server.offers) == number
    assert len(server.data) == 80_000


# --- ends ----------------------------------------------------------------------------------------------------------------------


def test_close_is_a_clean_end_for_the_peer(loop, pair, serving):
    client, server = pair
    shaken(loop, pair, serving)
    client.stream.write(b"QUIT\r\n")
    client.stream.close()
    turn_until(loop, lambda: "end" in server.calls)
    assert bytes(server.data) == b"QUIT\r\n"
    assert server.stream.write(b"dropped by the peer, which has closed")
    server.stream.close()
    turn_until(loop, lambda: client.calls == ["closed"])
    assert server.calls[:2] == ["end", "closed"]


def test_peer_that_said_its_end_still_gets_a_reply(loop, lone, serving):
    side, theirs = lone
    side.shake(serving, True)
    context = client_context(False)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    peer = context.wrap_bio(incoming, outgoing, server_hostname=NAME)
    talk(loop, side, theirs, peer, incoming, outgoing)
    peer.write(b"QUIT\r\n")
    with contextlib.suppress(ssl.SSLWantReadError):
        peer.unwrap()
    theirs.sendall(outgoing.read())
    turn_until(loop, lambda: side.calls == ["end"])
    theirs.shutdown(socket.SHUT_WR)
    assert_idle(loop)
    assert bytes(side.data) == b"QUIT\r\n"
    assert side.calls == ["end"]
    side.stream.write(b"221\r\n")
    side.stream.close()
    loop.turn(0)
    incoming.write(theirs.recv(1 << 16))
    assert theirs.recv(100) == b""


def talk(loop, side, theirs, peer, incoming, outgoing):
    """Shake hands with a stream from a blocking socket."""
    for _ in range(20):
        with contextlib.suppress(ssl.SSLWantReadError):
            peer.do_handshake()
        theirs.sendall(outgoing.read())
        if side.handshakes:
            return
        settle(loop, 3)
        theirs.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            incoming.write(theirs.recv(1 << 16))
        theirs.settimeout(10)
    raise AssertionError("no handshake")


def made_peer(loop, side, theirs, server_context, version=None):
    side.shake(server_context, True)
    context = client_context(False)
    if version is not None:
        context.maximum_version = version
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    peer = context.wrap_bio(incoming, outgoing, server_hostname=NAME)
    talk(loop, side, theirs, peer, incoming, outgoing)
    assert side.handshakes == [""]
    return peer, outgoing


def test_end_without_close_notify_is_no_clean_end(loop, lone, serving):
    side, theirs = lone
    peer, outgoing = made_peer(loop, side, theirs, serving)
    peer.write(b"all of this counts")
    theirs.sendall(outgoing.read())
    theirs.close()
    turn_until(loop, lambda: side.calls)
    assert bytes(side.data) == b"all of this counts"
    assert side.calls == ["lost", "closed"]


def test_record_cut_short_is_never_offered(loop, lone, serving):
    side, theirs = lone
    peer, outgoing = made_peer(loop, side, theirs, serving)
    peer.write(b"cut")
    theirs.sendall(outgoing.read()[:-1])
    assert_idle(loop)
    assert side.offers == []
    theirs.close()
    turn_until(loop, lambda: side.calls == ["lost", "closed"])
    assert side.offers == []


def test_record_that_was_tampered_with_breaks_the_connection(loop, lone, serving):
    side, theirs = lone
    peer, outgoing = made_peer(loop, side, theirs, serving)
    peer.write(b"good")
    good = outgoing.read()
    peer.write(b"bad")
    bad = bytearray(outgoing.read())
    bad[-1] ^= 1
    theirs.sendall(good + bad)
    turn_until(loop, lambda: "closed" in side.calls)
    assert bytes(side.data) == b"good"
    assert side.calls == ["lost", "closed"]


def test_destroy_within_every_call(loop, serving):
    """The owner may let go at any time."""
    with two(loop) as (client, server):
        server.on_done = server.stream.destroy
        server.shake(serving, True)
        client.shake(client_context(False), False, NAME)
        turn_until(loop, lambda: server.calls == ["closed"] and client.calls)
        assert client.calls[-1] == "closed"
    with two(loop) as (client, server):
        shaken(loop, (client, server), serving)
        server.on_offer = server.stream.destroy
        client.stream.write(b"x" * 20_000)
        turn_until(loop, lambda: server.calls == ["closed"])
        settle(loop)
        assert len(server.offers) == 1
