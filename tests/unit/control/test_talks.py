"""Exports and imports as strange clients hold them: nothing half is kept, nothing leased stays so."""

import base64
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway import wait_until
from queue_rig import QueueRig, deferred, envelope_of, put

from smtpd.control import server as server_module
from smtpd.control.client import QueueReader
from smtpd.control.stored import stored_of
from smtpd.control.wire import Line, Request, encode_line
from smtpd.spool import query


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[QueueRig]:
    worker = QueueRig(tmp_path)
    yield worker
    worker.close()


def connect(rig: QueueRig, *lines: bytes) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(30)
    client.connect(rig.control.path)
    for line in lines:
        client.sendall(line)
    return client


def states(rig: QueueRig) -> list[str]:
    reader = QueueReader(str(rig.run_dir), rig.path)
    return [entry.queue_name for entry in reader.entries(Request("list"))]


def a_stored_mail(rig: QueueRig) -> dict[str, Any]:
    put(rig, envelope_of(b"s@example.com", b"a@example.org"), [deferred()])
    [mail] = rig.query(lambda connection: query.list_page(connection, 0, 10))
    line: dict[str, Any] = json.loads(encode_line(Line(stored=stored_of(mail))))
    return line["stored"]


def line_of(**fields: Any) -> bytes:
    return json.dumps(fields).encode() + b"\n"


CONTENT = line_of(content=base64.b64encode(b"text\r\n").decode())
END = line_of(end=True)
IMPORT = b'{"do":"import"}\n'


def test_an_import_in_one_go_is_acknowledged_mail_by_mail(rig: QueueRig) -> None:
    stored = a_stored_mail(rig)
    rig.serve()
    mail = line_of(stored=stored) + CONTENT + END
    with connect(rig, IMPORT + mail + mail + END) as client:
        answer = [json.loads(line) for line in client.makefile("rb").read().splitlines()]
    assert [line.get("imported", [""])[0] for line in answer] == [stored["queue_id"], stored["queue_id"], ""]
    assert len({line["imported"][1] for line in answer[:2]}) == 2
    assert states(rig) == ["deferred"] * 3


@pytest.mark.parametrize(
    "spoil",
    [
        lambda stored: CONTENT,
        lambda stored: line_of(stored={**stored, "format": 2}),
        lambda stored: line_of(stored={**stored, "envelope": "AAAA"}),
        lambda stored: line_of(stored={**stored, "outcomes": "kA=="}),
        lambda stored: line_of(stored={**stored, "more": 1}),
        lambda stored: line_of(stored=stored) + CONTENT + CONTENT + END,
        lambda stored: line_of(stored=stored) + END,
        lambda stored: line_of(stored=stored) + line_of(stored=stored),
        lambda stored: b"\xff\xfe\n",
        lambda stored: b"x" * 2_000_000,
    ],
)
def test_an_import_that_makes_no_sense_keeps_nothing(rig: QueueRig, spoil: Any) -> None:
    stored = a_stored_mail(rig)
    rig.serve()
    with connect(rig, IMPORT) as client:
        try:
            client.sendall(spoil(stored))
            answer = client.makefile("rb").read()
        except (BrokenPipeError, ConnectionResetError):
            answer = b'{"error":"it went on too long"}'
    assert list(json.loads(answer)) == ["error"]
    assert states(rig) == ["deferred"]
    assert rig.call(lambda: rig.spool.memory_bytes) == 0


def test_an_import_that_ends_within_a_mail_keeps_nothing_of_it(rig: QueueRig) -> None:
    stored = a_stored_mail(rig)
    rig.serve()
    large = line_of(content=base64.b64encode(b"x" * 300_000).decode())
    with connect(rig, IMPORT, line_of(stored=stored), large):
        wait_until("it arrives", lambda: any(Path(rig.path).rglob("*.part")), 30)
    wait_until("it is forgotten", lambda: not any(Path(rig.path).rglob("*.part")), 30)
    assert states(rig) == ["deferred"]
    assert rig.call(lambda: rig.spool.memory_bytes) == 0


def test_mail_of_an_export_that_is_broken_off_is_given_back(rig: QueueRig) -> None:
    put(rig, envelope_of(b"s@example.com", b"a@example.org"), [deferred()])
    put(rig, envelope_of(b"s@example.com", b"a@example.org"), [deferred()], is_held=True)
    rig.serve()
    with connect(rig, b'{"do":"export"}\n') as client, client.makefile("rb") as answer:
        while b"asks" not in answer.readline():
            pass
        assert states(rig) == ["active", "hold"]
    wait_until("both are as they were", lambda: states(rig) == ["deferred", "hold"], 30)


@pytest.mark.parametrize("reply", [b"{}\n", b'{"done":["nosuch"]}\n', b"garbage\n"])
def test_only_what_was_stored_is_removed(rig: QueueRig, reply: bytes) -> None:
    put(rig, envelope_of(b"s@example.com", b"a@example.org"), [deferred()])
    rig.serve()
    with connect(rig, b'{"do":"export"}\n') as client, client.makefile("rb") as answer:
        while b"asks" not in answer.readline():
            pass
        client.sendall(reply)
        assert answer.read()
    wait_until("it is as it was", lambda: states(rig) == ["deferred"], 30)


def test_an_exporter_that_is_silent_is_dropped(rig: QueueRig, monkeypatch: pytest.MonkeyPatch) -> None:
    put(rig, envelope_of(b"s@example.com", b"a@example.org"), [deferred()])
    monkeypatch.setattr(server_module, "_TALK_TIMEOUT_S", 0.1)
    rig.serve()
    with connect(rig, b'{"do":"export"}\n') as client, client.makefile("rb") as answer:
        assert b"asks" in answer.read()
    wait_until("it is as it was", lambda: states(rig) == ["deferred"], 30)


def test_a_change_of_everything_must_be_meant(rig: QueueRig) -> None:
    put(rig, envelope_of(b"s@example.com", b"a@example.org"), [deferred()])
    rig.serve()
    with connect(rig, b'{"do":"delete"}\n') as client:
        assert b"must say so" in client.makefile("rb").read()
    assert states(rig) == ["deferred"]
