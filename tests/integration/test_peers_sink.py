"""Real senders against `smtpd sink`: Postfix's smtp-source and swaks meet what its options promise."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from peers import require_peer
from sink_rig import RunningSink


def source(sink: RunningSink, *options: str) -> subprocess.CompletedProcess[str]:
    program = require_peer("postfix", "smtp-source")
    command = [program, "-f", "a@example.com", "-t", "b@example.org", *options, sink.address]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def swaks(sink: RunningSink, *options: str) -> subprocess.CompletedProcess[str]:
    program = require_peer("swaks", "swaks")
    server = ["--server", sink.host, "--port", str(sink.port), "--timeout", "30"]
    command = [program, *server, "--from", "a@example.com", "--to", "b@example.org", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def test_smtp_source_loses_no_mail_on_many_sessions(tmp_path: Path) -> None:
    with RunningSink(tmp_path, "--workers", "2") as sink:
        assert source(sink, "-d", "-s", "10", "-m", "500", "-l", "4096").returncode == 0
    assert sink.report["mails"] == 500
    assert sink.report["commands"]["mail"] == 500


def test_smtp_source_tells_of_the_share_that_was_refused(tmp_path: Path) -> None:
    with RunningSink(tmp_path, "-r", "RCPT:25", "--seed", "3") as sink:
        ended = source(sink, "-A", "-m", "200")
    refused = ended.stderr.count("recipient rejected: 450 4.3.0 Error: command failed")
    assert 30 < refused < 70
    assert sink.report["rejects"] == {"rcpt": refused}
    assert sink.report["mails"] == 200 - refused


def test_smtp_source_speaks_lmtp(tmp_path: Path) -> None:
    with RunningSink(tmp_path, "-L") as sink:
        assert source(sink, "-L", "-m", "20", "-r", "3").returncode == 0
    assert (sink.report["mails"], sink.report["recipients"], sink.report["commands"]["lhlo"]) == (20, 60, 20)


def test_smtp_source_of_old_need_not_greet(tmp_path: Path) -> None:
    with RunningSink(tmp_path, "-D", "all") as sink:
        assert source(sink, "-o", "-m", "3").returncode == 0
    assert (sink.report["mails"], "helo" in sink.report["commands"]) == (3, False)
    octets = (tmp_path / "all").read_bytes()
    assert octets.count(b"\nX-Mail-Args: <a@example.com>\n") == 3
    assert b"X-Helo-Args" not in octets
    assert octets.count(b"\nReceived: from [127.0.0.1] (") == 3


@pytest.mark.parametrize(
    ("options", "stage"),
    [(["-q", "CONNECT"], "greeting"), (["-Q", "MAIL"], "421 4.3.2"), (["-f", "."], "500 5.3.0"), (["-A", "0"], "550 5.3.0")],
)
def test_smtp_source_fails_where_it_is_told_to(tmp_path: Path, options: list[str], stage: str) -> None:
    with RunningSink(tmp_path, *options) as sink:
        ended = source(sink, "-m", "1")
    assert ended.returncode != 0
    assert stage in ended.stderr or "lost connection" in ended.stderr or stage == "greeting"
    assert sink.report["mails"] == 0


def test_swaks_sees_a_late_reply_and_the_hidden_extension(tmp_path: Path) -> None:
    with RunningSink(tmp_path, "-w", "normal 300 ms +- 10 ms", "-N", "--seed", "1") as sink:
        ended = swaks(sink)
    assert ended.returncode == 0, ended.stdout
    assert "250-SIZE" in ended.stdout
    assert "DSN" not in ended.stdout
    assert sink.report["mails"] == 1


def test_swaks_is_cut_off_within_the_content(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text('[[rule]]\nat = ["data"]\ncut = "1 KiB"\nthen = "close"\nreply = "421 4.3.2 Enough"\n')
    with RunningSink(tmp_path, "--scenario", "s.toml") as sink:
        ended = swaks(sink, "--body", "x" * 100_000)
    assert ended.returncode != 0
    assert sink.report["mails"] == 0
    assert sink.report["replies"]["421"] == 1
