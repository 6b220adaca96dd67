"""A stream over a real socket pair: rest, back-pressure, half-close, the end that loses nothing."""

import contextlib
import os
import socket
import struct

import pytest

from smtpd.net.loop import Loop
from smtpd.net.stream import LINGER_BYTES, Stream, StreamOwner


class Owner(StreamOwner):
    """Takes `quota` octets of each offer and writes down every call."""

    def __init__(self):
        self.calls = []
        self.data = b""
        self.quota = 1 << 30
        self.reply = b""
        self.stream = None

    def on_data(self, buffer, start, end):
        taken = min(self.quota, end - start)
        self.data += bytes(buffer[start : start + taken])
        self.calls.append(("data", taken))
        if self.reply:
            self.stream.write(self.reply)
        return start + taken

    def on_end(self):
        self.calls.append("end")

    def on_lost(self):
        self.calls.append("lost")

    def on_drained(self):
        self.calls.append("drained")

    def on_closed(self):
        self.calls.append("closed")


@pytest.fixture
def rig():
    loop = Loop()
    server = socket.create_server(("127.0.0.1", 0))
    theirs = socket.create_connection(server.getsockname())
    ours, _ = server.accept()
    server.close()
    ours.setblocking(False)
    theirs.settimeout(10)
    owner = Owner()
    stream = owner.stream = Stream(loop, ours.detach(), owner)
    stream.start()
    yield loop, stream, owner, theirs
    stream.destroy()
    theirs.close()
    loop.close()


def turn_until(loop, condition, turns=2000):
    for _ in range(turns):
        if condition():
            return
        loop.turn(0.01)
    raise AssertionError("never happened")


def test_rest_is_offered_again_until_it_is_taken(rig):
    loop, _, owner, theirs = rig
    owner.quota = 3
    theirs.sendall(b"0123456789")
    turn_until(loop, lambda: owner.data == b"0123456789")
    assert owner.calls == [("data", 3), ("data", 3), ("data", 3), ("data", 1)]


def test_paused_stream_takes_nothing_and_loses_nothing(rig):
    loop, stream, owner, theirs = rig
    stream.pause()
    theirs.sendall(b"abc")
    for _ in range(3):
        loop.turn(0.01)
    assert owner.data == b""
    stream.resume()
    turn_until(loop, lambda: owner.data == b"abc")


def test_peer_that_never_reads_stops_being_read(rig):
    loop, stream, owner, theirs = rig
    owner.reply = b"r" * 100_000
    theirs.setblocking(False)
    sent = 0
    for _ in range(2000):
        try:
            sent += theirs.send(b"c" * 10_000)
        except BlockingIOError:
            if stream.has_output and not owner.calls:
                break
        owner.calls.clear()
        loop.turn(0)
    assert stream.has_output
    assert stream.buffered_bytes < 2 * len(owner.reply) + (64 << 10)
    assert len(owner.data) < sent
    owner.reply = b""
    theirs.setblocking(True)
    received = 0
    while stream.has_output:
        received += len(theirs.recv(1 << 20))
        loop.turn(0.01)
    turn_until(loop, lambda: len(owner.data) == sent)


def test_half_closed_peer_still_gets_its_reply(rig):
    loop, stream, owner, theirs = rig
    theirs.sendall(b"QUIT")
    theirs.shutdown(socket.SHUT_WR)
    turn_until(loop, lambda: "end" in owner.calls)
    stream.write(b"221")
    stream.close()
    turn_until(loop, lambda: "closed" in owner.calls)
    assert theirs.recv(100) == b"221"
    assert theirs.recv(100) == b""


def test_end_that_came_while_paused_is_told_after_resume(rig):
    loop, stream, owner, theirs = rig
    stream.pause()
    theirs.sendall(b"abc")
    theirs.shutdown(socket.SHUT_WR)
    for _ in range(3):
        loop.turn(0.01)
    assert owner.calls == []
    stream.resume()
    turn_until(loop, lambda: "end" in owner.calls)
    assert owner.data == b"abc"


def test_last_reply_survives_unread_input(rig):
    """A close with unread input would reset the connection and could take the reply with it."""
    loop, stream, owner, theirs = rig
    stream.pause()
    theirs.sendall(b"more that nobody reads")
    loop.turn(0.01)
    stream.write(b"421 4.3.2 bye\r\n")
    stream.close()
    loop.turn(0.01)
    assert theirs.recv(100) == b"421 4.3.2 bye\r\n"
    assert theirs.recv(100) == b""  # a clean end; a reset would raise
    theirs.close()
    turn_until(loop, lambda: "closed" in owner.calls)


def test_lingering_close_is_bounded_in_octets(rig):
    loop, stream, owner, theirs = rig
    stream.write(b"421\r\n")
    stream.close()
    theirs.settimeout(5)

    def send_for_ever():
        for _ in range(LINGER_BYTES):
            theirs.sendall(b"x" * 4096)
            loop.turn(0)

    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        send_for_ever()
    assert "closed" in owner.calls


def test_reset_is_lost_then_closed(rig):
    loop, _, owner, theirs = rig
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
    turn_until(loop, lambda: "closed" in owner.calls)
    assert owner.calls == ["lost", "closed"]


def test_short_sends_arrive_whole_and_in_order(rig):
    loop, stream, owner, theirs = rig
    with socket.socket(fileno=os.dup(stream.fd)) as same:  # left to itself the kernel may take all of it at once
        same.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 256 << 10)
    whole = b"".join(b"%08d" % n for n in range(500_000))
    stream.write(whole[:2_000_000])
    stream.write(whole[2_000_000:])
    got = bytearray()
    theirs.setblocking(False)

    def has_all():
        with contextlib.suppress(BlockingIOError):
            got.extend(theirs.recv(1 << 20))
        return len(got) >= len(whole)

    turn_until(loop, has_all, turns=10_000)
    assert got == whole
    turn_until(loop, lambda: owner.calls == ["drained"])


def test_close_without_linger_waits_for_pending_output_only(rig):
    _, stream, owner, theirs = rig
    stream.write(b"221 bye")
    stream.close(linger=False)
    assert owner.calls == ["closed"]
    assert theirs.recv(100) == b"221 bye"
