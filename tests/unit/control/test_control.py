"""The control socket of a worker, and the reader that merges running workers with shards that nobody owns."""

import json
import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway import wait_until
from queue_rig import QueueRig, deferred, envelope_of, put, put_all

from smtpd.control import server as server_module
from smtpd.control.client import QueueReader
from smtpd.control.server import ControlServer
from smtpd.control.wire import Filter, Request

EVERYTHING = Request("list")


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[QueueRig]:
    worker = QueueRig(tmp_path)
    yield worker
    worker.close()


def reader_of(rig: QueueRig) -> QueueReader:
    return QueueReader(str(rig.run_dir), rig.path)


def connect(rig: QueueRig) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(30)
    client.connect(rig.control.path)
    return client


def answer_to(rig: QueueRig, data: bytes) -> bytes:
    with connect(rig) as client:
        client.sendall(data)
        answer = b""
        while piece := client.recv(65536):
            answer += piece
        return answer


def test_the_socket_is_for_owner_and_group_and_goes_with_the_worker(rig: QueueRig) -> None:
    rig.serve()
    found = os.stat(rig.control.path)
    assert stat.S_ISSOCK(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o660
    assert rig.control.path == str(rig.run_dir / f"worker-0-{os.getpid()}.sock")
    rig.close()
    assert os.listdir(rig.run_dir) == []


def test_mail_of_a_running_worker_is_listed(rig: QueueRig) -> None:
    put(rig, envelope_of(b"s@example.com", b"a@example.org"), [deferred()])
    held = put(rig, envelope_of(b"", b"b@example.net"), [deferred("expired")], is_held=True)
    fresh = put(rig, envelope_of(b"x@example.com", b"c@example.net"))
    rig.serve()
    reader = reader_of(rig)
    entries = list(reader.entries(EVERYTHING))
    assert reader.problems == []
    assert [entry.queue_name for entry in entries] == ["deferred", "hold", "active"]
    assert [entry.queue_id for entry in reader.entries(Request("list", Filter(domain="example.net")))] == [
        held.queue_id,
        fresh.queue_id,
    ]
    shown = reader.find(held.queue_id)
    assert shown is not None
    assert shown.recipients[0].delay_reason == "expired"
    assert reader.find("no-such-id") is None


def test_shards_of_a_stopped_server_are_read_under_their_lock(rig: QueueRig) -> None:
    item = put(rig, envelope_of(b"s@example.com", b"a@example.org"), [deferred()])
    rig.close()
    reader = reader_of(rig)
    assert [entry.queue_id for entry in reader.entries(EVERYTHING)] == [item.queue_id]
    assert list(reader.entries(Request("list", Filter(state="held")))) == []
    shown = reader.find(item.queue_id)
    assert shown is not None
    assert shown.client_name == "client.example"
    assert reader.problems == []


def test_reading_a_stopped_shard_changes_nothing(rig: QueueRig, tmp_path: Path) -> None:
    item = put(rig, envelope_of(b"s@example.com", b"a@example.org"), [deferred()])
    rig.close()
    list(reader_of(rig).entries(EVERYTHING))
    with QueueRig(tmp_path) as again:
        assert [mail.queue_id for mail in again.claim(now_s=5e9)] == [item.queue_id]


def test_running_and_ownerless_shards_are_merged(rig: QueueRig, tmp_path: Path) -> None:
    mine = put(rig, envelope_of(b"s@example.com", b"a@example.org"), [deferred()])
    other = QueueRig(tmp_path, slot=1)  # takes a shard of its own
    theirs = put(other, envelope_of(b"s@example.com", b"b@example.org"), [deferred()])
    other.close()
    # the worker must not adopt the shard before it is read: its answers come from the shard that it has now
    rig.spool._adoption_timer.cancel()  # type: ignore[union-attr]
    rig.serve()
    reader = reader_of(rig)
    assert [entry.queue_id for entry in reader.entries(EVERYTHING)] == [mine.queue_id, theirs.queue_id]
    assert reader.find(theirs.queue_id) is not None
    assert reader.problems == []


def test_a_shard_held_by_a_process_without_socket_is_told(rig: QueueRig) -> None:
    put(rig, envelope_of(b"s@example.com", b"a@example.org"), [deferred()])
    reader = reader_of(rig)
    assert list(reader.entries(EVERYTHING)) == []
    [problem] = reader.problems
    assert problem.endswith(f"held by process {os.getpid()}, which can't be asked")


def test_a_stale_socket_is_skipped_and_told(rig: QueueRig) -> None:
    item = put(rig, envelope_of(b"s@example.com", b"a@example.org"), [deferred()])
    rig.serve()
    stale = rig.run_dir / "worker-9-1.sock"
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(stale))
    (rig.run_dir / "worker-x-1.sock").write_bytes(b"")
    (rig.run_dir / "smtpd.pid").write_bytes(b"1")
    reader = reader_of(rig)
    assert [entry.queue_id for entry in reader.entries(EVERYTHING)] == [item.queue_id]
    assert reader.problems == [f"{stale}: nobody listens there any more"]


def test_a_stale_socket_of_our_own_pid_is_replaced(rig: QueueRig) -> None:
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(rig.control.path)
    rig.serve()
    assert list(reader_of(rig).entries(EVERYTHING)) == []
    assert rig.problems == []


def test_without_its_socket_a_worker_serves_on(rig: QueueRig) -> None:
    Path(rig.control.path).mkdir()
    rig.control.start()
    [problem] = rig.problems
    assert "no control socket" in problem
    rig.control.close()


def test_paths_longer_than_a_socket_address_work(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    with QueueRig(deep) as rig:
        item = put(rig, envelope_of(b"s@example.com", b"a@example.org"), [deferred()])
        rig.serve()
        assert [entry.queue_id for entry in reader_of(rig).entries(EVERYTHING)] == [item.queue_id]


@pytest.mark.parametrize(
    "request_bytes",
    [b"\n", b"GET / HTTP/1.1\r\n\r\n", b'{"do":"drop"}\n', b"\xff\xfe\n", b"[" * 60_000 + b"\n", b"x" * 70_000, b"{" * 200_000],
)
def test_garbage_is_refused_and_has_no_effect(rig: QueueRig, request_bytes: bytes) -> None:
    rig.serve()
    try:
        answer = answer_to(rig, request_bytes)
    except (BrokenPipeError, ConnectionResetError):  # closed before all of it was sent
        answer = b'{"error":"too long"}\n'
    assert list(json.loads(answer)) == ["error"]
    assert list(reader_of(rig).entries(EVERYTHING)) == []
    wait_until("both are forgotten", lambda: rig.call(lambda: len(rig.control.clients)) == 0, 30)


def test_a_request_in_pieces_is_understood(rig: QueueRig) -> None:
    rig.serve()
    with connect(rig) as client:
        for octet in b'{"do":"list"}\n':
            client.sendall(bytes([octet]))
        assert client.makefile("rb").read() == b'{"end":true}\n'


def test_clients_beyond_the_limit_are_turned_away(rig: QueueRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "CLIENTS_MAX", 2)
    rig.serve()
    waiting = [connect(rig), connect(rig)]
    wait_until("both are there", lambda: rig.call(lambda: len(rig.control.clients)) == 2, 30)
    with connect(rig) as third:
        assert "too many" in json.loads(third.makefile("rb").read())["error"]
    for client in waiting:
        client.close()
    wait_until("both are gone", lambda: rig.call(lambda: len(rig.control.clients)) == 0, 30)
    assert list(reader_of(rig).entries(EVERYTHING)) == []


def test_silent_clients_are_dropped(rig: QueueRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "REQUEST_TIMEOUT_S", 0.05)
    rig.serve()
    with connect(rig) as client:
        assert client.recv(1) == b""


def test_a_long_queue_neither_piles_up_nor_holds_the_loop(rig: QueueRig) -> None:
    envelope = envelope_of(b"s@example.com", *(b"recipient%d@example.org" % number for number in range(20)))
    put_all(rig, [envelope] * 3000)
    rig.serve()
    with connect(rig) as client:
        client.sendall(b'{"do":"list"}\n')
        wait_until("the answer waits for its reader", lambda: rig.call(lambda: _unsent_bytes(rig)) > 0, 30)
        for _ in range(5):
            assert rig.call(lambda: _unsent_bytes(rig)) < 400_000  # one page, not the queue
        lines = client.makefile("rb").read().splitlines()
    assert len(lines) == 3001
    assert lines[-1] == b'{"end":true}'


def _unsent_bytes(rig: QueueRig) -> int:
    return sum(client.stream.buffered_bytes for client in rig.control.clients)


def test_a_reader_that_takes_nothing_is_dropped(rig: QueueRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "PROGRESS_TIMEOUT_S", 0.2)
    put_all(rig, [envelope_of(b"s@example.com", b"a" * 60 + b"@example.org")] * 4000)
    rig.serve()
    with connect(rig) as client:
        client.sendall(b'{"do":"list"}\n')
        assert client.recv(1, socket.MSG_PEEK)  # it was there: it may be dropped before we look
        wait_until("it is dropped", lambda: rig.call(lambda: len(rig.control.clients)) == 0, 30)
        answer = client.makefile("rb").read()
    assert not answer.endswith(b'{"end":true}\n')


def test_a_client_that_goes_away_midway_ends_its_answer(rig: QueueRig) -> None:
    put_all(rig, [envelope_of(b"s@example.com", b"a" * 60 + b"@example.org")] * 4000)
    rig.serve()
    with connect(rig) as client:
        client.sendall(b'{"do":"list"}\n')
        assert client.recv(10)
    wait_until("it is forgotten", lambda: rig.call(lambda: len(rig.control.clients)) == 0, 30)
    assert sum(1 for _ in reader_of(rig).entries(EVERYTHING)) == 4000


def test_an_answer_cut_short_is_a_problem(rig: QueueRig) -> None:
    put_all(rig, [envelope_of(b"s@example.com", b"a" * 60 + b"@example.org")] * 4000)
    rig.serve()
    reader = reader_of(rig)
    entries = reader.entries(EVERYTHING)
    next(entries)
    rig.call(rig.control.close)
    assert sum(1 for _ in entries) < 3999
    assert "ended before its answer" in reader.problems[0]


def test_a_worker_that_keeps_nothing_has_an_empty_queue(tmp_path: Path) -> None:
    from smtpd.net.loop import Loop
    from smtpd.spool.discard import DiscardSpool

    loop = Loop()
    control = ControlServer(loop, DiscardSpool(1, 0), str(tmp_path), 0)
    control.start()
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(control.path)
            client.sendall(b'{"do":"list"}\n')
            client.setblocking(False)
            deadline = time.monotonic() + 30
            answer = b""
            while not answer and time.monotonic() < deadline:
                loop.turn(0.1)
                try:
                    answer = client.recv(100)
                except BlockingIOError:
                    continue
        assert answer == b'{"end":true}\n'
    finally:
        control.close()
        loop.turn(0)
        loop.close()
