"""`smtpd queue list|show` as an operator calls it, beside a running worker or none."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway import PROGRAM
from queue_desk import Desk, fill
from queue_rig import envelope_of, put_all


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    place = Desk(tmp_path)
    yield place
    place.rig.close()


@pytest.mark.parametrize("is_running", [True, False])
def test_list_and_show_on_a_running_and_a_stopped_server(desk: Desk, is_running: bool) -> None:
    first, second, third = fill(desk)
    if is_running:
        desk.rig.serve()
    else:
        desk.rig.close()
    assert [mail["queue_id"] for mail in desk.list_json()] == [first, second, third]
    assert [mail["queue_id"] for mail in desk.list_json("--domain", "example.org")] == [first]
    assert [mail["queue_id"] for mail in desk.list_json("--domain", ".example.net")] == [second]
    assert [mail["queue_id"] for mail in desk.list_json("--sender", "<>")] == [second]
    assert [mail["queue_id"] for mail in desk.list_json("--sender", "s@EXAMPLE.com", "--older", "1 h")] == [first]
    assert [mail["queue_id"] for mail in desk.list_json("--state", "active")] == [third]
    [totals] = desk.list_json("--totals")
    oldest = totals.pop("oldest_arrival_time")
    assert totals == {"messages": 3, "message_size": 18, "active": 1, "deferred": 1, "held": 1}
    assert abs(oldest - (time.time() - 7200)) < 60
    done = desk.run("show", "--json", first)
    shown = json.loads(done.stdout)
    assert done.exit_code == 0
    assert [recipient["status"] for recipient in shown["recipients"]] == ["sent", "deferred"]


def test_a_listing_for_people_names_who_waits_and_why(desk: Desk) -> None:
    first, second, third = fill(desk)
    desk.rig.serve()
    done = desk.run("list")
    assert (done.exit_code, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("Queue ID")
    assert lines[1].split()[:2] == [first, "6"]
    assert lines[2].strip() == "(disk full)"
    assert lines[3].strip() == "b@example.org"
    assert lines[4].startswith(second + "!")
    assert lines[4].endswith("MAILER-DAEMON")
    assert lines[5].strip() == "(expired, last: \\x1b[2J\\nno)"  # nothing steers the terminal
    assert lines[7].startswith(third + "*")
    assert lines[8].strip() == "é@example.net"
    assert lines[9].startswith("-- 1 KiB in 3 mails (1 active, 1 deferred, 1 held), the oldest of ")
    shown = desk.run("show", second).stdout
    assert "\x1b" not in shown
    assert "state:        held" in shown
    assert "client.example[192.0.2.1] helo=helo.example" in shown


def test_an_empty_queue(desk: Desk) -> None:
    desk.rig.close()
    assert desk.run("list").stdout == "Mail queue is empty\n"
    assert desk.list_json() == []
    assert desk.list_json("--totals")[0]["messages"] == 0


def test_what_is_not_there_and_what_makes_no_sense(desk: Desk) -> None:
    desk.rig.close()
    done = desk.run("show", "no\x1bsuch")
    assert (done.exit_code, done.stdout, done.stderr) == (65, "", "smtpd: no\\x1bsuch is not in the queue\n")
    assert desk.run("list", "--older", "soon").exit_code == 64
    assert desk.run("list", "--state", "lost").exit_code == 64
    desk.config.write_text("nonsense = 1")
    done = desk.run("list")
    assert done.exit_code == 78
    assert "nonsense" in done.stderr


def test_a_list_that_is_not_whole_says_so(desk: Desk) -> None:
    fill(desk)  # held by this process, which has no socket
    done = desk.run("list", "--json")
    assert done.exit_code == 75
    assert done.stdout == ""
    assert "can't be asked" in done.stderr


def test_a_pager_that_is_quit_early_is_no_failure(desk: Desk) -> None:
    put_all(desk.rig, [envelope_of(b"s@example.com", b"a@example.org")] * 3000)
    desk.rig.serve()
    command = f"set -o pipefail; {PROGRAM} queue list -c {desk.config} | head -n 2"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 2
