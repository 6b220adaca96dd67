"""The master's log never waits; and what becomes of lines when the descriptors themselves are bad."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from smtpd.log.master import MasterLog
from smtpd.log.output import DescriptorOutput, no_patience
from smtpd.settings import LogSettings


def run(script: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, timeout=60, check=True, **options)  # type: ignore[call-overload, no-any-return]


def test_lines_are_there_at_once(tmp_path: Path) -> None:
    log = MasterLog(LogSettings(destination=str(tmp_path / "log")), "mx1")
    log.info("master", "one", n=1)
    log.warning("master", "two")
    log.error("master", "three\nfour")
    lines = (tmp_path / "log").read_text().splitlines()
    head = f"mx1 postfix/master[{os.getpid()}]: "
    assert [line[16:] for line in lines] == [head + "one n=1", head + "warning: two", head + "error: three\\nfour"]
    log.close()


def test_rotation_and_a_change_of_settings(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    log = MasterLog(LogSettings(destination=str(one)), "mx1")
    log.info("master", "old")
    one.rename(tmp_path / "one.1")
    log.reopen()
    log.info("master", "new")
    log.change(LogSettings(destination=str(two), format="json"), "mx2")
    log.info("master", "elsewhere")
    log.close()
    assert (tmp_path / "one.1").read_text().endswith("old\n")
    assert one.read_text().endswith("new\n")
    assert '"host":"mx2"' in two.read_text()


def test_a_rotation_that_fails_is_said_in_the_old_file(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    log = MasterLog(LogSettings(destination=str(folder / "log")), "mx1")
    folder.rename(tmp_path / "moved")
    log.reopen()
    log.close()
    assert "can't open" in (tmp_path / "moved" / "log").read_text()


def test_a_full_pipe_costs_lines_and_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    log = MasterLog(LogSettings(destination=str(path)), "mx1")
    while not log.dropped:
        log.info("master", "x" * 1000)
    for _ in range(9):
        log.info("master", "x")
    while True:
        try:
            os.read(reader, 1 << 20)
        except BlockingIOError:
            break
    log.info("master", "again")
    text = os.read(reader, 1 << 20).decode()
    assert text.count("\n") == 2
    assert "warning: 10 log lines were lost" in text
    log.close()
    os.close(reader)


def test_a_full_disk_costs_lines_only() -> None:
    log = MasterLog(LogSettings(destination="/dev/full"), "mx1")
    log.info("master", "x")
    log.info("master", "x")
    assert log.dropped == 2
    log.close()


def test_a_stuck_syslog_costs_lines_and_a_restarted_one_is_found(tmp_path: Path) -> None:
    path = tmp_path / "syslog"
    server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    server.bind(str(path))
    log = MasterLog(LogSettings(destination="syslog"), "mx1", syslog_path=str(path))
    while not log.dropped:
        log.info("master", "x")
    server.close()
    path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(path))
        server.settimeout(30.0)
        log.reopen()
        log.info("master", "to the new one")
        assert b"warning: 1 log line was lost" in server.recv(8192)
        assert server.recv(8192).endswith(b"]: to the new one")
    log.close()


STUCK = """
import fcntl, os, sys
from smtpd.log.maillog import MailLog
from smtpd.log.master import MasterLog
from smtpd.settings import LogSettings
master, log = MasterLog(LogSettings(), "mx1"), MailLog(LogSettings(), "mx1")
log.start()
for number in range(3000):
    master.info("master", "x" * 100)
    log.info("smtpd", "y" * 100)
    log.end_turn()
log.close(0.1)
print(master.dropped > 1000, bool(fcntl.fcntl(2, fcntl.F_GETFL) & os.O_NONBLOCK), flush=True)
os._exit(0)
"""


def test_a_stderr_that_nobody_reads_stops_nothing() -> None:
    reader, writer = os.pipe()
    try:
        assert run(STUCK, stderr=writer).stdout.split() == [b"True", b"False"]
    finally:
        os.close(reader)
        os.close(writer)


def test_a_stderr_that_is_a_socket_nobody_reads_stops_nothing() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert run(STUCK.replace("1000", "100"), stderr=other).stdout.split() == [b"True", b"False"]


CLOSED = """
import os, sys
os.close(2)
from smtpd.log.descriptors import hold_standard_descriptors
from smtpd.log.maillog import MailLog
from smtpd.log.master import MasterLog
from smtpd.settings import LogSettings
master, log = MasterLog(LogSettings(), "mx1"), MailLog(LogSettings(), "mx1")
log.start()
master.info("master", "x")
log.info("smtpd", "x")
log.close(30.0)
print(master.dropped, log.dropped)
hold_standard_descriptors()
print(os.readlink("/proc/self/fd/2"), os.get_inheritable(2), os.readlink("/proc/self/fd/1") != "/dev/null")
fd = os.open("/", os.O_RDONLY)
print(fd > 2)
"""


def test_a_closed_stderr_costs_lines_only_and_its_number_is_kept_from_others() -> None:
    assert run(CLOSED).stdout.split() == [b"1", b"1", b"/dev/null", b"True", b"True", b"True"]


GONE = """
import os
from smtpd.log.maillog import MailLog
from smtpd.log.master import MasterLog
from smtpd.settings import LogSettings
reader, writer = os.pipe()
os.dup2(writer, 2)
os.close(writer)
os.close(reader)
master, log = MasterLog(LogSettings(), "mx1"), MailLog(LogSettings(), "mx1")
log.start()
master.info("master", "x")
log.info("smtpd", "x")
log.close(30.0)
print(master.dropped, log.dropped, flush=True)
os._exit(0)
"""


def test_a_reader_that_is_gone_costs_lines_only() -> None:
    assert run(GONE).stdout.split() == [b"1", b"1"]


TORN = """
import resource, sys
from smtpd.log.master import MasterLog
from smtpd.settings import LogSettings
log = MasterLog(LogSettings(destination=sys.argv[1]), "mx1")
log.info("master", "first")
resource.setrlimit(resource.RLIMIT_FSIZE, (80, resource.RLIM_INFINITY))
log.info("master", "second" * 20)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.info("master", "third")
print(log.dropped)
"""


def test_half_a_line_does_not_spoil_the_next(tmp_path: Path) -> None:
    path = tmp_path / "log"
    done = subprocess.run([sys.executable, "-c", TORN, path], stdout=subprocess.PIPE, timeout=60, check=True)
    first, half, lost, third = path.read_text().splitlines()
    assert first.endswith("first")
    assert len(first) + 1 + len(half) == 80
    assert lost.endswith("warning: 1 log line was lost, the destination took no more")
    assert third.endswith("]: third")
    assert done.stdout == b"1\n"


MANY = """
import os, sys
from smtpd.log.maillog import MailLog
from smtpd.settings import LogSettings
log = MailLog(LogSettings(format="json"), "mx1")
log.start()
for number in range(2000):
    log.info("smtpd", sys.argv[1] * (number % 700), n=number)
    if number % 50 == 0:
        log.end_turn()
log.close(30.0)
os._exit(log.dropped > 0)
"""


def test_lines_of_several_processes_on_one_pipe_stay_whole() -> None:
    reader, writer = os.pipe()
    writers = [subprocess.Popen([sys.executable, "-c", MANY, letter], stderr=writer) for letter in "abc"]
    os.close(writer)
    with os.fdopen(reader, "r") as stream:
        lines = stream.read().splitlines()
    assert [process.wait(60) for process in writers] == [0, 0, 0]
    texts = [line.partition('"text":"')[2].partition('"')[0] for line in lines]
    assert len(lines) == 6000
    assert all(line.startswith('{"time":') and line.endswith("}") for line in lines)
    assert all(len(set(text)) <= 1 for text in texts)


def test_a_pipe_takes_small_pieces_of_whole_lines() -> None:
    reader, writer = os.pipe()
    pieces: list[bytes] = []

    class Spy(DescriptorOutput):
        def _send(self, data: memoryview) -> int:
            pieces.append(bytes(data))
            return super()._send(data)

    lines = ["x" * size for size in (10, 2000, 2000, 90, 4095, 1, 3000)]
    assert Spy(writer, no_patience).write(lines) == 0
    assert os.read(reader, 1 << 16).decode().split("\n") == [*lines, ""]
    assert all(len(piece) <= 4096 and piece.endswith(b"\n") for piece in pieces)
    assert len(pieces) == 4
    os.close(reader)
    os.close(writer)
