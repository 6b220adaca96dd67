"""`smtpd sink` as a process: limits over all workers, dumps, reports, signals, refused options."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import smtplib
import socket
import urllib.request
from pathlib import Path

import pytest
from gateway import free_port, own_loopback_address, wait_until
from sink_rig import RunningSink

EXAMPLES = Path(__file__).parents[2] / "conf" / "examples" / "sink"


# --- report and end ------------------------------------------------------------------------------------------------------


def test_the_report_counts_what_came_over_all_workers(tmp_path: Path) -> None:
    with RunningSink(tmp_path, "--workers", "3", "--seed", "7") as sink:
        for _ in range(8):
            sink.send(2)
        sink.stop()
    report = sink.report
    assert (report["connections"], report["mails"], report["recipients"], report["seed"]) == (8, 16, 16, 7)
    assert report["commands"] == {"ehlo": 8, "mail": 16, "rcpt": 16, "data": 16, "quit": 8}
    assert report["replies"] == {"220": 8, "221": 8, "250": 8 + 3 * 16, "354": 16}
    assert report["sessions_ended"] == {"quit": 8}
    assert report["bytes"] == 16 * len("Subject: 0\r\n\r\n.dot\r\ntext\r\n")
    assert sum(worker["mails"] for worker in report["workers"]) == 16
    assert report["listen"] == [sink.address]
    assert report["duration_s"] >= report["busy_s"] >= 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_a_summary(tmp_path: Path, number: int) -> None:
    with RunningSink(tmp_path, has_report=False) as sink:
        sink.send(3)
        held = sink.connect()
        held.makefile("rb").readline()
        sink.stop(number)
        held.close()
    assert "smtpd sink: 3 mails (" in sink.stderr
    assert "replies: 220 2," in sink.stderr


@pytest.mark.full
def test_a_report_to_stdout_is_nothing_but_json(tmp_path: Path) -> None:
    with RunningSink(tmp_path, "--report", "-", has_report=False) as sink:
        sink.send(1)
        out = sink.stop()
    assert json.loads(out)["mails"] == 1


def test_exit_after_n_mails_takes_exactly_n(tmp_path: Path) -> None:
    with RunningSink(tmp_path, "--workers", "2", "-M", "5") as sink:
        sink.send(2)
        sink.send(2)
        smtp = sink.smtp()
        assert smtp.sendmail("a@example.com", ["b@example.org"], "Subject: last\r\n\r\nx\r\n") == {}
        sink.await_end()  # while the session of the last mail is still open
        smtp.close()
    assert sink.report["mails"] == 5


@pytest.mark.full
def test_exit_after_n_sessions(tmp_path: Path) -> None:
    with RunningSink(tmp_path, "--workers", "2", "-n", "4") as sink:
        for _ in range(4):
            sink.send(1)
        sink.await_end()
    assert sink.report["mails"] == 4


def test_no_more_sessions_than_the_limit_over_all_workers(tmp_path: Path) -> None:
    with RunningSink(tmp_path, "--workers", "2", "-m", "2") as sink, contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(sink.connect()) for _ in range(4)]
        files = [sock.makefile("rb") for sock in sockets]
        greeted: set[int] = set()

        def look() -> int:
            for number, sock in enumerate(sockets):
                if number not in greeted and _has_octets(sock):
                    greeted.add(number)
            return len(greeted)

        wait_until("two are greeted", lambda: look() >= 2, 20)
        first = sorted(greeted)
        for number in first:  # one more is let in for each that leaves, and no sooner
            assert files[number].readline()[:3] == b"220"
            before = look()
            assert before <= 2 + first.index(number)
            sockets[number].sendall(b"QUIT\r\n")
            assert files[number].readline()[:3] == b"221"
            wait_until("the next is greeted", lambda before=before: look() > before, 20)
        assert look() == 4
        for number in set(range(4)) - set(first):
            assert files[number].readline()[:3] == b"220"
        for file in files:
            file.close()


def _has_octets(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


# --- behaviour -----------------------------------------------------------------------------------------------------------


@pytest.mark.full
def test_two_runs_with_one_seed_are_the_same(tmp_path: Path) -> None:
    def outcomes(folder: Path, workers: str) -> list[int]:
        folder.mkdir()
        with RunningSink(folder, "-r", "RCPT:40", "--seed", "11", "--workers", workers) as sink:
            codes = []
            for _ in range(25):
                with sink.smtp() as smtp:
                    smtp.ehlo()
                    smtp.mail("a@example.com")
                    codes.append(smtp.rcpt("b@example.org")[0])
        assert sink.report["rejects"] == {"rcpt": codes.count(450)}
        return codes

    first = outcomes(tmp_path / "first", "1")
    assert set(first) == {250, 450}
    assert outcomes(tmp_path / "second", "3") == first


def test_a_reset_is_a_reset_and_a_disconnect_an_end(tmp_path: Path) -> None:
    with RunningSink(tmp_path, "--reset", "VRFY", "-q", "NOOP") as sink:
        with sink.connect() as sock, sock.makefile("rb") as file:
            assert file.readline()[:3] == b"220"
            sock.sendall(b"VRFY x\r\n")
            with pytest.raises(ConnectionResetError):
                file.readline()
        with sink.connect() as sock, sock.makefile("rb") as file:
            assert file.readline()[:3] == b"220"
            sock.sendall(b"NOOP\r\n")
            assert file.readline() == b""
    assert sink.report["sessions_ended"] == {"conduct": 2}


def test_sessions_in_a_tarpit_hold_nobody_up_and_a_stop_neither(tmp_path: Path) -> None:
    with RunningSink(tmp_path, "-W", "HELO:1 h") as sink, contextlib.ExitStack() as stack:
        for _ in range(200):
            sock = stack.enter_context(sink.connect())
            with sock.makefile("rb") as file:
                assert file.readline()[:3] == b"220"
            sock.sendall(b"HELO client.example.com\r\n")
        sink.send(3)  # EHLO: not in the tarpit
        sink.stop()
    assert sink.report["mails"] == 3
    assert sink.report["connections"] == 201


def test_hidden_extensions_and_another_greeting(tmp_path: Path) -> None:
    options = ("-8", "-E", "-N", "-p", "--hide", "chunking", "-h", "sink.example.net")
    with RunningSink(tmp_path, *options) as sink, sink.smtp() as smtp:
        smtp.ehlo()
        assert set(smtp.esmtp_features) == {"size", "smtputf8"}
        assert (smtp.ehlo_resp or b"").splitlines()[0] == b"sink.example.net"


@pytest.mark.full
def test_smtp_without_esmtp_like_a_pix(tmp_path: Path) -> None:
    with RunningSink(tmp_path, "-P") as sink:
        with sink.connect() as sock, sock.makefile("rb") as file:
            assert file.readline() == b"220 " + b"*" * 50 + b"\r\n"
        sink.send(1)  # smtplib says HELO when EHLO is refused
    assert sink.report["commands"]["helo"] == 1
    assert sink.report["mails"] == 1


@pytest.mark.full
def test_a_scenario_file_is_followed(tmp_path: Path) -> None:
    with RunningSink(tmp_path, "--scenario", str(EXAMPLES / "greylisting.toml"), "--workers", "2") as sink:
        for _ in range(4):
            with sink.smtp() as smtp, pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
                smtp.sendmail("a@example.com", ["b@example.org"], "Subject: x\r\n\r\nx\r\n")
            assert refused.value.recipients["b@example.org"][0] == 450
    assert sink.report["rejects"] == {"rcpt": 4}


@pytest.mark.full
def test_metrics_are_served(tmp_path: Path) -> None:
    host = own_loopback_address()
    port = free_port(host)
    with RunningSink(tmp_path, "-r", "RCPT", "-B", "500 5.0.0 No", "--metrics", f"{host}:{port}") as sink:
        with sink.smtp() as smtp:
            smtp.ehlo()
            smtp.mail("a@example.com")
            assert smtp.rcpt("b@example.org")[0] == 450
        with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=20) as response:
            text = response.read().decode()
    assert re.search(r'^smtpd_rejections_total\{listener="sink",reason="other",stage="rcpt"\} 1\.0$', text, re.MULTILINE)


def test_commands_and_dialogues_are_logged(tmp_path: Path) -> None:
    with RunningSink(tmp_path, "-s", "RCPT", "-v") as sink:
        sink.send(1)
    text = sink.stderr.lower()
    assert "] rcpt to:<b@example.org>" in text
    assert "s: 220 " in text
    assert "c: mail from:<a@example.com>" in text
    assert ".dot" not in sink.stderr  # content is never shown


@pytest.mark.full
def test_counters_where_no_terminal_is(tmp_path: Path) -> None:
    with RunningSink(tmp_path, "-c", "--metrics", "") as sink:
        sink.send(2)
        assert sink._process is not None
        assert sink._process.stdout is not None
        assert sink._process.stdout.readline().startswith(b"sess=1 ")
        sink.stop()


@pytest.mark.full
def test_a_unix_socket_is_listened_on(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with RunningSink(tmp_path, listen=f"unix:{path}") as sink, socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        with sock.makefile("rb") as file:
            assert file.readline()[:3] == b"220"
            sock.sendall(b"QUIT\r\n")
            assert file.readline()[:3] == b"221"
    assert sink.report["connections"] == 1
    assert not path.exists()


# --- dump ----------------------------------------------------------------------------------------------------------------


def test_each_mail_is_dumped_to_a_file_of_its_own(tmp_path: Path) -> None:
    with RunningSink(tmp_path, "-d", "dump/%Y/mail.", "-S", r"start\n", "-r", "VRFY") as sink:
        sink.send(3)
    year = next((tmp_path / "dump").iterdir())
    files = sorted(year.iterdir())
    assert year.name.isdigit()
    assert len(files) == 3
    assert all(re.fullmatch(r"mail\.[0-9a-f]{8}", file.name) for file in files)
    octets = files[0].read_bytes()
    header, _, body = octets.partition(b"\n\n")
    lines = header.split(b"\n")
    assert lines[0] == b"start"
    assert lines[1].startswith(b"X-Client-Addr: 127.")
    assert lines[2:4] == [b"X-Client-Proto: ESMTP", b"X-Helo-Args: client.example.com"]
    assert [line.lower() for line in lines[4:6]] == [
        b"x-mail-args: <a@example.com> size=26",
        b"x-rcpt-args: <b@example.org>",
    ]
    assert lines[6].startswith(b"Received: from client.example.com ")
    assert body == b".dot\ntext\n\n"
    assert b"\r" not in octets


def test_all_mails_are_appended_whole_to_one_file(tmp_path: Path) -> None:
    with RunningSink(tmp_path, "-D", "all", "--workers", "2", "-r", "RSET") as sink:
        for _ in range(10):
            sink.send(5)
    octets = (tmp_path / "all").read_bytes()
    mails = octets.split(b"X-Client-Addr: ")[1:]
    assert len(mails) == 50
    assert all(mail.endswith(b"\n\n.dot\ntext\n\n") for mail in mails)


@pytest.mark.full
def test_a_dump_that_cannot_be_written_is_a_451(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with RunningSink(tmp_path, "-D", "file/all") as sink:
        for _ in range(2):
            with pytest.raises(smtplib.SMTPDataError) as refused:
                sink.send(1)
            assert refused.value.smtp_code == 451
    assert sink.report["mails"] == 0
    assert sink.stderr.count("the dump file/all can't be written: File exists") == 1


# --- privileges ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_it_runs_as_another_user_in_another_root(tmp_path: Path) -> None:
    root = tmp_path / "jail"
    root.mkdir()
    root.chmod(0o777)
    with RunningSink(tmp_path, "-u", "nobody", "-R", str(root), "-D", "all") as sink:
        sink.send(2)
    assert (root / "all").read_bytes().count(b"X-Mail-Args: ") == 2
    assert (root / "all").stat().st_uid != 0
    assert [path.name for path in root.iterdir()] == ["all"]


# --- behind a front end --------------------------------------------------------------------------------------------------


def test_front_ends_name_their_clients_and_hold_no_room_without_one(tmp_path: Path) -> None:
    """With one session at most, those that never get one give their room back."""
    with RunningSink(tmp_path, "--proxy", "127.0.0.0/8", "-m", "1", "-D", "mails", "-v") as sink:
        for octets in (b"EHLO client.example.org\r\n", b"PROXY TCP4 x\r\n", b""):
            with sink.connect() as sock:
                sock.sendall(octets)
                sock.shutdown(socket.SHUT_WR)
                with contextlib.suppress(ConnectionResetError):
                    assert sock.recv(100) == b""
        with sink.connect() as sock, sock.makefile("rwb") as stream:
            stream.write(b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 25\r\n")
            stream.flush()
            assert stream.readline().startswith(b"220 ")
            for line in (b"HELO client.example.org", b"MAIL FROM:<a@example.com>", b"RCPT TO:<b@example.org>", b"DATA"):
                stream.write(line + b"\r\n")
                stream.flush()
                assert stream.readline()[:1] in b"23"
            stream.write(b"Subject: x\r\n\r\nx\r\n.\r\nQUIT\r\n")
            stream.flush()
            assert stream.readline().startswith(b"250 ")
            assert stream.readline().startswith(b"221 ")
        sink.stop()
    assert sink.report["connections"] == 1
    assert (tmp_path / "mails").read_text().startswith("X-Client-Addr: 192.0.2.7\n")
    assert "[192.0.2.7:4711] C: HELO client.example.org" in sink.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="for root")
def test_root_is_told_the_option_that_names_a_user(tmp_path: Path) -> None:
    with RunningSink(tmp_path) as sink:
        sink.stop()
    assert "runs as root: say -u USER (-u root to stay root)" in sink.stderr
    with RunningSink(tmp_path, "-u", "root") as sink:
        sink.stop()
    assert "runs as root" not in sink.stderr
