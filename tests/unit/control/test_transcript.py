"""Who is watched by whom, and that a slow reader costs lines, not memory."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway import wait_until
from queue_rig import QueueRig

from smtpd.control import transcript
from smtpd.control.transcript import Transcripts, Watch, read_network


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[QueueRig]:
    worker = QueueRig(tmp_path)
    yield worker
    worker.close()


def watch_of(network: str = "", next_hop: str = "", is_behind: bool = False) -> tuple[Watch, list[bytes]]:
    told: list[bytes] = []
    return Watch(read_network(network) if network else None, next_hop, told.append, lambda: is_behind), told


@pytest.mark.parametrize(
    ("network", "address", "is_wanted"),
    [
        ("192.0.2.0/24", "192.0.2.9", True), ("192.0.2.0/24", "192.0.3.9", False), ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.0/24", "::ffff:192.0.2.9", True), ("2001:db8::/32", "2001:db8::1", True), ("0.0.0.0/0", "2001:db8::1", False),
        ("0.0.0.0/0", "", False), ("0.0.0.0/0", "nonsense", False), ("", "192.0.2.1", False),
    ],
)  # fmt: skip
def test_clients_are_chosen_by_network(network: str, address: str, is_wanted: bool) -> None:
    transcripts = Transcripts()
    assert transcripts.for_client(address) is None
    watch, _ = watch_of(network)
    transcripts.add(watch)
    assert (transcripts.for_client(address) is not None) == is_wanted
    transcripts.remove(watch)
    assert transcripts.for_client(address) is None


@pytest.mark.parametrize(
    ("wanted", "name", "is_wanted"),
    [
        ("mx.example.org", "mx.example.org:25", True), ("MX.example.org:25", "mx.example.org:25", True),
        ("mx.example.org:26", "mx.example.org:25", False), ("2001:db8::1", "[2001:db8::1]:25", True),
        ("example.org", "mx.example.org:25", False), ("", "mx.example.org:25", False),
    ],
)  # fmt: skip
def test_next_hops_are_chosen_by_name(wanted: str, name: str, is_wanted: bool) -> None:
    transcripts = Transcripts()
    transcripts.add(watch_of(next_hop=wanted)[0])
    assert (transcripts.for_next_hop(name) is not None) == is_wanted


def test_at_a_next_hop_the_commands_are_ours() -> None:
    transcripts = Transcripts()
    watch, told = watch_of(next_hop="mx")
    transcripts.add(watch)
    tap = transcripts.for_next_hop("mx:25")
    assert tap is not None
    tap.received(b"220 hello\r\n")
    tap.sent(b"DATA\r\n")
    tap.received(b"354 go\r\n")
    tap.sent(b"secret\r\n.\r\n")
    tap.received(b"250 ok\r\n")
    tap.closed()
    said = [json.loads(line)["said"] for line in told]
    assert [(line["who"], line["text"]) for line in said] == [
        ("S", "220 hello"), ("C", "DATA"), ("S", "354 go"), ("C", "(11 octets of content)"), ("S", "250 ok"), ("", "(closed)"),
    ]  # fmt: skip
    assert {line["peer"] for line in said} == {"mx:25"}
    transcripts.remove(watch)
    tap.received(b"221 bye\r\n")
    assert len(told) == 6


def connect(rig: QueueRig, request: bytes) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(30)
    client.connect(rig.control.path)
    client.sendall(request)
    return client


def test_a_slow_reader_loses_lines_and_is_told_how_many(rig: QueueRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcript, "QUEUE_BYTES", 10_000)
    rig.serve()
    transcripts = rig.control.transcripts
    with connect(rig, b'{"do":"transcript","client":"192.0.2.1"}\n') as client, client.makefile("rb") as answer:
        wait_until("it is watching", lambda: rig.call(lambda: transcripts.is_watching), 30)
        tap = rig.call(lambda: transcripts.for_client("192.0.2.1"))
        count = 20_000
        rig.call(lambda: tap.received(b"NOOP\r\n" * count))
        assert rig.call(lambda: max(one.stream.buffered_bytes for one in rig.control.clients)) < 20_000
        seen = lost = 0
        while not lost:
            if not rig.call(lambda: [one for one in rig.control.clients if one.stream.buffered_bytes > 10_000]):
                rig.call(lambda: tap.received(b"QUIT\r\n"))  # there is room: it is told now
            line = json.loads(answer.readline())
            lost = line.get("lost", 0)
            seen += line.get("said", {}).get("text") == "NOOP"
        assert seen + lost == count
    wait_until("it is forgotten", lambda: not rig.call(lambda: transcripts.is_watching), 30)


def test_it_ends_after_its_time_and_when_it_makes_no_sense(rig: QueueRig) -> None:
    rig.serve()
    with connect(rig, b'{"do":"transcript","client":"192.0.2.1","seconds":0.05}\n') as client:
        assert client.makefile("rb").read() == b'{"end":true}\n'
    with connect(rig, b'{"do":"transcript","client":"nobody"}\n') as client:
        assert b"error" in client.makefile("rb").read()
    wait_until("nobody watches", lambda: rig.call(lambda: not rig.control.transcripts.is_watching), 30)
