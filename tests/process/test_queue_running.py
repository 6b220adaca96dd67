"""`smtpd queue` on a real server with two workers: what it changes is what is delivered, and the figures follow."""

import json
import signal
import smtplib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway import PROGRAM, Gateway, running_gateway, wait_until

from smtpd.control.client import QueueReader
from smtpd.control.wire import QueueEntry, Request


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    with running_gateway(tmp_path, {"delivery": {"lifetime": "1 h"}}) as server:
        yield server


def queue(gateway: Gateway, *arguments: str, code: int = 0) -> str:
    command = [str(PROGRAM), "queue", arguments[0], "-c", str(gateway.config), *arguments[1:]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, (done.stdout, done.stderr, gateway.log_text())
    return done.stdout


def queue_json(gateway: Gateway, *arguments: str) -> Any:
    return json.loads(queue(gateway, arguments[0], "--json", *arguments[1:]))


def listed(gateway: Gateway) -> list[QueueEntry]:
    """Return the queue, without a process for each look."""
    return list(QueueReader(str(gateway.settings["run_dir"]), str(gateway.spool)).entries(Request("list")))


def send(gateway: Gateway, *users: str) -> None:
    for user in users:  # a connection each, so that both workers get some
        with smtplib.SMTP(gateway.host, gateway.port, "client.example", timeout=20) as smtp:
            smtp.sendmail("s@example.com", [f"{user}@example.org"], f"Subject: {user}\r\n\r\ntext of {user}\r\n")


def await_deferred(gateway: Gateway, count: int) -> dict[str, str]:
    """Return queue ids by user once so many wait."""
    wait_until("all are deferred", lambda: sum(mail.queue_name == "deferred" for mail in listed(gateway)) == count, 30)
    return {mail.recipients[0].address.partition("@")[0]: mail.queue_id for mail in listed(gateway)}


def await_figures(gateway: Gateway, **wanted: float) -> None:
    def figures() -> dict[str, float]:
        return {state: gateway.metric("smtpd_queue_messages", state=state) for state in wanted}

    wait_until(f"the gauges show {wanted}", lambda: figures() == wanted, 30)


def test_a_suspended_route_keeps_its_mail_and_a_reload_knows_it(gateway: Gateway) -> None:
    queue(gateway, "suspend", "maildir-1")
    send(gateway, *(f"u{number}" for number in range(8)))
    ids = await_deferred(gateway, 8)
    await_figures(gateway, active=0, deferred=8, held=0)
    before = set(gateway.worker_pids())
    gateway.signal(signal.SIGHUP)
    wait_until("the new workers alone are there", lambda: not before & set(gateway.worker_pids()), 30)
    send(gateway, "u8")
    ids = await_deferred(gateway, 9)
    assert gateway.mail_paths("u8") == []
    assert queue_json(gateway, "hold", ids["u0"], ids["u1"])["changed"] == 2
    assert queue_json(gateway, "delete", ids["u2"])["changed"] == 1
    await_figures(gateway, active=0, deferred=6, held=2)
    assert queue(gateway, "show", "--body", ids["u1"]) == "text of u1\n"
    assert "Subject: u1" in queue(gateway, "show", ids["u1"])
    assert queue_json(gateway, "resume", "maildir-1")["due"] == 6
    for number in range(3, 9):
        gateway.await_mails(f"u{number}")
    assert queue_json(gateway, "release", "--state", "held")["changed"] == 2
    wait_until("the log says so", lambda: f"{ids['u1']}: released from hold by command" in gateway.log_text(), 30)
    gateway.await_mails("u0")
    gateway.await_mails("u1")
    assert gateway.mail_paths("u2") == []
    await_figures(gateway, active=0, deferred=0, held=0)
    assert listed(gateway) == []


def test_what_was_changed_while_it_was_stopped_is_known_at_the_next_start(gateway: Gateway) -> None:
    queue(gateway, "suspend", "maildir-1")
    send(gateway, "a", "b", "c", "d")
    ids = await_deferred(gateway, 4)
    assert gateway.stop() == 0
    assert queue_json(gateway, "hold", ids["a"])["changed_ids"] == [ids["a"]]
    assert queue_json(gateway, "delete", ids["b"])["changed_ids"] == [ids["b"]]
    assert queue_json(gateway, "resume", "maildir-1")["due"] == 2
    gateway.start()
    gateway.await_mails("c")
    gateway.await_mails("d")
    await_figures(gateway, active=0, deferred=0, held=1)
    assert [mail.queue_id for mail in listed(gateway)] == [ids["a"]]
