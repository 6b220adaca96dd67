"""The worker's log: lines arrive whole and in order, and a stuck, full or gone destination costs lines, never time."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from smtpd.log import maillog
from smtpd.log.maillog import MailLog
from smtpd.settings import LogSettings

CLIENT = "unknown[192.0.2.1]"


class Pipe:
    """A named pipe with a reader that reads only when told to."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self.rest = b""

    def fill(self) -> None:
        """Make it take no more."""
        writer = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        try:
            while True:
                os.write(writer, b"filler\n" * 512)
        except BlockingIOError:
            pass
        finally:
            os.close(writer)

    def read_lines(self) -> list[str]:
        """Wait a moment and return the lines that are there; "filler" lines are left out."""
        if not select.select([self.fd], [], [], 0.05)[0]:
            return []
        try:
            data = os.read(self.fd, 1 << 20)
        except BlockingIOError:  # select told of a pipe without a writer, and now there is one
            return []
        *lines, self.rest = (self.rest + data).split(b"\n")
        return [line.decode() for line in lines if line not in (b"filler", b"fille", b"r", b"")]


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Pipe]:
    pipe = Pipe(tmp_path / "pipe")
    yield pipe
    os.close(pipe.fd)


def texts(path: Path) -> list[str]:
    """The lines of a file from their program on."""
    return [line.partition("postfix/")[2].partition("]: ")[2] for line in path.read_text().splitlines()]


def started(destination: str | Path, **settings: str) -> MailLog:
    log = MailLog(LogSettings(destination=str(destination), **settings), "mx1")
    log.start()
    return log


def test_lines_arrive_in_order(tmp_path: Path) -> None:
    log = started(tmp_path / "log")
    for turn in range(50):
        for number in range(turn % 4):
            log.info("test", f"{turn} {number}")
        log.end_turn()
    log.close(30.0)
    assert texts(tmp_path / "log") == [f"{turn} {number}" for turn in range(50) for number in range(turn % 4)]
    assert log.dropped == 0


def test_nothing_is_written_on_the_calling_thread(pipe: Pipe) -> None:
    log = MailLog(LogSettings(destination=str(pipe.path)), "mx1")
    log.info("test", "x")
    log.end_turn()
    assert not select.select([pipe.fd], [], [], 0)[0]
    log.start()
    log.close(30.0)
    assert [line.partition("]: ")[2] for line in pipe.read_lines()] == ["x"]


def test_close_writes_what_is_not_handed_over_yet(tmp_path: Path) -> None:
    log = started(tmp_path / "log")
    log.info("test", "last words")
    log.close(30.0)
    assert texts(tmp_path / "log") == ["last words"]


def test_close_without_start_returns(tmp_path: Path) -> None:
    log = MailLog(LogSettings(destination=str(tmp_path / "log")), "mx1")
    log.info("test", "x")
    log.close(30.0)
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize(("level", "destination"), [("warning", "log"), ("info", "none")])
def test_ordinary_events_cost_nothing_where_nobody_reads_them(tmp_path: Path, level: str, destination: str) -> None:
    path = "none" if destination == "none" else str(tmp_path / "log")
    log = started(path, level=level)
    log.connect(CLIENT)
    log.client("QID", CLIENT)
    log.message_id("QID", b"<1@example.com>")
    log.queued("QID", b"a@example.com", 1, 1)
    log.delivered("QID", b"b@example.org", "maildir", 1.0, (0.0, 0.0, 0.0, 1.0), "2.0.0", "sent", "ok", "maildir")
    log.removed("QID")
    log.held("QID", "x")
    log.reject("", "RCPT", CLIENT, b"550 5.7.1 no", None, None, "SMTP", b"x")
    log.lost_connection("DATA", CLIENT)
    log.timeout("DATA", CLIENT)
    log.disconnect(CLIENT, {})
    assert not log.waiting
    log.warning("smtpd", "this one")
    log.info("smtpd", "and this one")
    log.close(30.0)
    if path != "none":
        assert texts(tmp_path / "log") == ["warning: this one", "and this one"]


# --- rotation ------------------------------------------------------------------------------------------------------------


def test_reopen_separates_old_from_new(tmp_path: Path) -> None:
    path, old = tmp_path / "log", tmp_path / "log.1"
    path.touch()
    log = started(path)
    log.info("test", "before")
    log.end_turn()
    log.close(30.0)
    log = started(path)
    log.info("test", "before too")
    os.rename(path, old)
    log.info("test", "between")
    log.reopen()
    log.info("test", "after")
    log.close(30.0)
    assert texts(old) + texts(path) == ["before", "before too", "between", "after"]
    assert texts(path)[-1] == "after"


def test_a_rotation_while_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is certainly open when it is renamed: its first line was seen."""
    path, old = tmp_path / "log", tmp_path / "log.1"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    log = started(path)
    log.info("test", "before")
    log.end_turn()
    assert select.select([reader], [], [], 30.0)[0]
    os.rename(path, old)
    log.info("test", "between")
    log.reopen()
    log.info("test", "after")
    log.close(30.0)
    with os.fdopen(reader, "rb") as stream:
        assert [line.rpartition(b" ")[2] for line in stream.read().splitlines()] == [b"before", b"between"]
    assert texts(path) == ["after"]


def test_a_deleted_file_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = started(path)
    log.info("test", "lost with the file")
    log.close(30.0)
    path.unlink()
    log = started(path)
    log.info("test", "in the new one")
    log.close(30.0)
    assert texts(path) == ["in the new one"]


# --- stuck, full, gone ---------------------------------------------------------------------------------------------------


def test_a_stuck_destination_drops_lines_counts_them_and_says_so_later(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maillog, "MAX_LINES", 100)
    counted: list[int] = []
    log = MailLog(LogSettings(destination=str(pipe.path)), "mx1", counted.append)
    pipe.fill()
    log.start()
    for number in range(1000):
        log.info("test", f"line {number}")
        log.end_turn()
    assert 900 <= log.dropped <= 1000
    assert sum(counted) == log.dropped
    lines: list[str] = []
    while not any("lost" in line for line in lines):
        lines += pipe.read_lines()
        log.end_turn()
    report = next(line for line in lines if "lost" in line)
    assert f"warning: {log.dropped} log lines were lost" in report
    kept = [line for line in lines if " line " in line]
    assert len(kept) == 1000 - log.dropped
    assert kept[0].endswith("line 0")
    log.close(30.0)


def test_the_queue_is_bounded_in_size_too(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maillog, "MAX_CHARACTERS", 10_000)
    log = MailLog(LogSettings(destination=str(pipe.path)), "mx1")
    for _ in range(100):
        log.info("test", "x" * 1000)
        log.end_turn()
    assert 90 <= log.dropped < 100


def test_close_does_not_wait_for_a_stuck_destination(pipe: Pipe) -> None:
    pipe.fill()
    log = started(pipe.path)
    log.info("test", "never written")
    log.close(0.1)
    log._thread.join(30.0)
    assert not log._thread.is_alive()
    assert log.dropped == 1


def test_a_full_disk_costs_lines_only() -> None:
    counted: list[int] = []
    log = MailLog(LogSettings(destination="/dev/full"), "mx1", counted.append)
    log.start()
    for _ in range(10):
        log.info("test", "x")
        log.end_turn()
    log.close(30.0)
    assert log.dropped == 10
    log.end_turn()
    assert sum(counted) == 10


def test_a_directory_that_is_gone_costs_lines_only(tmp_path: Path) -> None:
    log = started(tmp_path / "gone" / "log")
    log.info("test", "x")
    log.close(30.0)
    assert log.dropped == 1


def test_a_failed_reopen_keeps_the_old_file(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    log = started(folder / "log")
    log.info("test", "before")
    log.reopen()
    folder.rename(tmp_path / "moved")
    log.reopen()
    log.info("test", "after")
    log.close(30.0)
    moved = tmp_path / "moved" / "log"
    if moved.exists():  # opened before the folder moved
        assert texts(moved)[-1] == "after"
        assert log.dropped == 0


# --- syslog --------------------------------------------------------------------------------------------------------------


def test_syslog_gets_one_datagram_a_line(tmp_path: Path) -> None:
    path = str(tmp_path / "syslog")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(path)
        server.settimeout(30.0)
        log = MailLog(LogSettings(destination="syslog", syslog_name="mx"), "mx1", syslog_path=path)
        log.start()
        log.removed("QID1")
        log.removed("QID2")
        log.close(30.0)
        first, second = server.recv(8192), server.recv(8192)
    assert first.startswith(b"<22>")
    assert first.endswith(b" mx/qmgr[%d]: QID1: removed" % os.getpid())
    assert second.endswith(b"QID2: removed")
    assert log.dropped == 0


def test_syslog_that_is_not_there_costs_lines_only(tmp_path: Path) -> None:
    log = MailLog(LogSettings(destination="syslog"), "mx1", syslog_path=str(tmp_path / "none"))
    log.start()
    log.removed("QID")
    log.close(30.0)
    assert log.dropped == 1


def test_a_blocked_syslog_is_waited_for_by_the_thread(tmp_path: Path) -> None:
    path = str(tmp_path / "syslog")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(path)
        server.settimeout(30.0)
        log = MailLog(LogSettings(destination="syslog"), "mx1", syslog_path=path)
        log.start()
        for number in range(2000):  # far more than a datagram socket queues
            log.removed(f"Q{number}")
        log.end_turn()
        seen = [server.recv(8192).split(b"]: ")[1] for _ in range(2000)]
        log.close(30.0)
    assert seen == [b"Q%d: removed" % number for number in range(2000)]
    assert log.dropped == 0
