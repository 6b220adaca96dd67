"""`smtpd load` as a command, aimed at a next hop of the tests: what it sends, what it says of it, how it ends."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import next_hop
import pytest
from gateway import wait_until
from next_hop import NextHop

COMMAND = [sys.executable, "-m", "smtpd", "load", "--json", "-", "--seed", "1"]


@pytest.fixture
def hop() -> Iterator[NextHop]:
    hop = NextHop()
    yield hop
    hop.close()


def load(*arguments: str, code: int = 0) -> dict[str, Any]:
    """Run it; return its report."""
    result = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60)
    assert result.returncode == code, result.stderr
    report: dict[str, Any] = json.loads(result.stdout)
    assert report["mails"]["sent"] == sum(report["mails"][name] for name in ("accepted", "partial", "failed"))
    return report


# --- what is sent -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [("--no-pipelining",), ("--bdat",), ("-d",), ("--workers", "2", "-s", "2")])
def test_every_octet_arrives(hop: NextHop, tmp_path: Path, options: tuple[str, ...]) -> None:
    hop.extensions.append(b"CHUNKING")
    contents = [
        b"..\r\n", b"..\r\n.a\r\n\r\n.\r\nb\r\n", b"Subject: 8-bit\r\n\r\n\xc3\xa9\xff\x00\r\n", b"\r\n",
        b"A: b\r\n\r\n" + b"." * 5000 + b"\r\n" + b"y" * 300_000 + b"\r\n",
    ]  # fmt: skip
    for number, content in enumerate(contents):
        (tmp_path / f"{number}.eml").write_bytes(content if number % 2 else content.removesuffix(b"\r\n"))
    report = load("-m", "10", "-F", str(tmp_path), *options, hop.name)
    assert sorted(mail.body for mail in hop.mails) == sorted(contents * 2)
    assert report["mails"] == {"sent": 10, "accepted": 10, "partial": 0, "failed": 0, "unsent": 0, "resent": 0}
    assert report["octets"] == 2 * sum(map(len, contents))
    assert report["errors"] == {}
    assert hop.connections == report["connections"]["opened"] == (1 if "-d" in options else 10)
    assert (b"DATA" in hop.commands) == ("--bdat" not in options)


def test_mails_of_many_to_many(hop: NextHop) -> None:
    load("-m", "4", "-r", "2", "-f", "s{1-2}@example.org", "-t", "r{n}@example.org", "-S", "hello {n}", "-l", "50", hop.name)
    found = {(mail.reverse_path, *mail.recipients) for mail in hop.mails}
    assert found == {
        (b"s%d@example.org" % (n % 2 + 1), b"r%d@example.org" % (2 * n), b"r%d@example.org" % (2 * n + 1)) for n in range(4)
    }
    assert {len(mail.body.partition(b"\r\n\r\n")[2]) for mail in hop.mails} == {50}
    ids = {line for mail in hop.mails for line in mail.body.split(b"\r\n") if line.startswith((b"Message-ID", b"Subject"))}
    assert len(ids) == 8


def test_processes_share_the_numbers_and_the_sessions(hop: NextHop) -> None:
    report = load("--workers", "3", "-s", "3", "-m", "11", "-d", "-t", "r{n}@example.org", hop.name)
    assert sorted(mail.recipients[0] for mail in hop.mails) == sorted(b"r%d@example.org" % n for n in range(11))
    assert report["workers"] == len(report["load_maker"]["cpu_shares"]) == 3
    assert hop.connections == 3
    for phase in ("mail", "rcpt", "data", "end_of_data", "transaction", "mail_total"):
        assert report["latency_ms"][phase]["count"] == 11
    assert sum(row["accepted"] for row in report["series"]) == 11


def test_a_connection_may_carry_so_many(hop: NextHop) -> None:
    load("-m", "7", "--mails-per-connection", "3", hop.name)
    assert [mail.connection for mail in hop.mails].count(hop.mails[0].connection) == 3
    assert hop.connections == 3
    assert hop.count("quit") == 3


def test_an_old_client(hop: NextHop) -> None:
    load("-o", "-l", "20", "-M", "old.example", hop.name)
    assert hop.commands[0] == b"HELO old.example"
    assert len(hop.mails[0].body) == 20


def test_lmtp_over_a_unix_socket(tmp_path: Path) -> None:
    hop = NextHop(is_lmtp=True, path=str(tmp_path / "lmtp"))
    hop.replies[b"2r@example.org"] = b"550 5.1.1 No such user\r\n"
    report = load("-L", "-m", "2", "-r", "3", "-t", "r@example.org", hop.name, code=1)
    hop.close()
    assert hop.commands[0].startswith(b"LHLO ")
    assert report["mails"]["partial"] == 2
    assert report["recipients"] == {"accepted": 4, "failed": 2}
    assert report["errors"] == {"rcpt 550": 2}
    assert report["error_examples"] == {"rcpt 550": "550 5.1.1 No such user"}
    assert report["latency_ms"]["end_of_data"]["count"] == 4


def test_what_was_asked_for_and_is_not_there_is_said(hop: NextHop) -> None:
    del hop.extensions[:]
    notes = load("--bdat", hop.name)["notes"]
    assert [note for note in notes if "PIPELINING" in note or "CHUNKING" in note] == notes[:2]


# --- the open loop ----------------------------------------------------------------------------------------------------


def test_an_open_loop_sends_what_was_due(hop: NextHop) -> None:
    report = load("--rate", "40", "--duration", "0.5", "-d", hop.name)
    assert report["mode"] == "open"
    assert report["mails"]["accepted"] == 20
    assert report["latency_ms"]["mail_total"]["count"] == 20


# --- trouble ----------------------------------------------------------------------------------------------------------


def test_refusals_are_counted_by_phase_and_code(hop: NextHop) -> None:
    hop.on["mail"] = [b"451 4.3.0 Not now\r\n", None]
    hop.on["end"] = [b"552 5.3.4 Too much\r\n"]
    report = load("-m", "3", "--no-pipelining", hop.name, code=1)
    assert report["errors"] == {"end_of_data 552": 1, "mail 451": 1}
    assert report["error_examples"]["end_of_data 552"] == "552 5.3.4 Too much"
    assert report["mails"]["failed"] == 2
    assert report["mails"]["accepted"] == 1


@pytest.mark.parametrize("options", [("--no-pipelining",), ("-d",)])
def test_a_refusal_before_the_content_has_left_is_counted(hop: NextHop, options: tuple[str, ...]) -> None:
    hop.on["data"] = [b"354 Go on\r\n550 5.7.1 Not wanted\r\n", None]
    report = load("-m", "2", *options, hop.name, code=1)
    assert report["errors"] == {"end_of_data 550": 1}
    assert report["error_examples"]["end_of_data 550"] == "550 5.7.1 Not wanted"
    assert (report["mails"]["failed"], report["mails"]["accepted"]) == (1, 1)


def test_lost_connections_are_counted_by_place(hop: NextHop) -> None:
    hop.on["end"] = [next_hop.close, None]
    report = load("-m", "2", hop.name, code=1)
    assert report["errors"] == {"end_of_data lost": 1}


def test_a_kept_connection_that_ends_is_no_failure(hop: NextHop) -> None:
    hop.on["mail"] = [None, None, next_hop.close]
    report = load("-m", "4", "-d", hop.name)
    assert report["mails"]["accepted"] == 4
    assert report["mails"]["resent"] == 1


def test_a_silent_target_is_no_hang(hop: NextHop) -> None:
    hop.on["greeting"] = next_hop.hang
    report = load("-m", "50", "-s", "3", "--timeout", "0.2s", hop.name, code=69)
    assert report["gave_up"]
    assert report["errors"]["greeting timeout"] == 3


def test_no_target_at_all() -> None:
    with NextHopGone() as name:
        report = load("-m", "50", name, code=69)
    assert report["errors"] == {"connect refused": 3}
    assert report["mails"]["accepted"] == 0


class NextHopGone:
    """A port that refuses."""

    def __enter__(self) -> str:
        self._unheard = socket.socket()
        self._unheard.bind(("127.0.0.1", 0))  # and kept: a port that is given back may be anybody's
        return f"127.0.0.1:{self._unheard.getsockname()[1]}"

    def __exit__(self, *failure: object) -> None:
        self._unheard.close()


def test_garbage_is_a_protocol_error(hop: NextHop) -> None:
    hop.on["end"] = [next_hop.garbage, None]
    assert load("-m", "2", hop.name, code=1)["errors"] == {"protocol": 1}


def test_the_first_interruption_finishes_and_reports(hop: NextHop) -> None:
    process = subprocess.Popen([*COMMAND, "--rate", "50", "--duration", "1h", "-d", hop.name], stdout=subprocess.PIPE, text=True)
    wait_until("some mails came", lambda: len(hop.mails) >= 3, 30)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    report = json.loads(output)
    assert process.returncode == 0
    assert report["interrupted"]
    assert report["mails"]["accepted"] == report["mails"]["sent"] == len(hop.mails) >= 3


def test_the_second_interruption_ends_at_once(hop: NextHop) -> None:
    hop.on["end"] = next_hop.sit
    process = subprocess.Popen([*COMMAND, "-m", "2", hop.name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until("a mail is under way", lambda: hop.count("end") > 0, 30)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert "no more mails are begun" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "ended without their figures" in json.loads(output)["notes"][-1]


@pytest.mark.full
def test_a_plot(hop: NextHop, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "load.png"
    load("--plot", str(path), hop.name)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_the_table_is_for_people(hop: NextHop) -> None:
    hop.on["rcpt"] = b"550 5.1.1 \x1b[2J\r\n"
    result = subprocess.run(
        [sys.executable, "-m", "smtpd", "load", "-m", "2", hop.name], capture_output=True, text=True, timeout=60
    )
    assert "closed loop, 1 session, 1 process" in result.stdout
    assert "rcpt 550" in result.stdout
    assert "\x1b" not in result.stdout
    assert result.stderr == ""
