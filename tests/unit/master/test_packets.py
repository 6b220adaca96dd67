"""Words between processes: whole ones, senseless ones, and a side that is gone or doesn't listen."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from smtpd.master.packets import hear, say

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


def test_a_word_arrives_whole_and_with_its_descriptors(pair: Pair) -> None:
    ours, theirs = pair
    assert say(ours, {"is": "ready"})
    assert say(ours, {"do": "listeners"}, [ours.fileno()])
    assert hear(theirs) == {"is": "ready"}
    data, descriptors, _, _ = socket.recv_fds(theirs, 1000, 2)
    assert (data, len(descriptors)) == (b'{"do": "listeners"}', 1)
    os.close(descriptors[0])


@pytest.mark.parametrize("octets", [b"no JSON", b"[1]", b"\xff\xfe", b'{"is": '])
def test_what_makes_no_sense_is_an_empty_word(pair: Pair, octets: bytes) -> None:
    ours, theirs = pair
    ours.send(octets)
    assert hear(theirs) == {}


def test_the_end_is_none_and_silence_is_an_exception(pair: Pair) -> None:
    ours, theirs = pair
    with pytest.raises(BlockingIOError):
        hear(theirs)
    ours.close()
    assert hear(theirs) is None
    assert not say(theirs, {"is": "ready"})


def test_a_full_channel_takes_no_word(pair: Pair) -> None:
    ours, _ = pair
    assert sum(say(ours, {"text": "x" * 1000}) for _ in range(100_000)) < 100_000
