"""One client floods, another sends mail: every mail of the other is taken, memory stays bounded, and with the limits off as well
the server lives and is itself again afterwards. No times are looked at; `python -m bench.floods` does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from gateway import Gateway, running_gateway, wait_until

from bench.floods import FLOODER, ROOT, send_mail
from bench.processes import end, memory_bytes, open_files

MAILS = 30
GROWTH_BYTES = 24 << 20
NO_LIMITS = dict.fromkeys(("connections", "connections_per_client", "soft_errors", "hard_errors", "junk_commands"), 0)
CONNECTIONS = {"hold": 300, "connect-close": 1, "trickle": 300, "pipeline": 20, "noops": 20, "single-noops": 20, "recipients": 20}
IN_SHORT = {("noops", True), ("pipeline", True), ("trickle", True), ("noops", False)}  # the others take their time


@contextmanager
def flooding(kind: str, gateway: Gateway, count: int = 0) -> Iterator[None]:
    command = [
        sys.executable,
        "-m",
        "bench.flooder",
        kind,
        gateway.host,
        str(gateway.port),
        FLOODER,
        str(count or CONNECTIONS[kind]),
    ]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL)
    try:
        yield
        assert process.poll() is None, "the flood has ended by itself"
    finally:
        end(process)


def felt(gateway: Gateway) -> float:
    """What has reached the server so far, of whatever kind."""
    names = ("smtpd_connections_total", "smtpd_connections_denied_total", "smtpd_commands_total")
    return sum(map(gateway.metric, names))


@pytest.mark.parametrize(
    ("kind", "is_limited"),
    [
        pytest.param(
            kind, is_limited, id=f"{kind}-limits-{'on' if is_limited else 'off'}",
            marks=() if (kind, is_limited) in IN_SHORT else pytest.mark.full,
        )
        for kind in CONNECTIONS for is_limited in (True, False)
    ],
)  # fmt: skip
def test_the_other_clients_mail_is_taken_and_memory_stays_bounded(tmp_path: Path, kind: str, is_limited: bool) -> None:
    settings: dict[str, Any] = {"workers": 1, "policy": {"trusted": ["192.0.2.1"]}, "log": {"level": "warning"}}
    if not is_limited:
        settings["limits"] = NO_LIMITS
    with running_gateway(tmp_path, settings) as gateway:
        (worker,) = gateway.worker_pids()
        send_mail(gateway.host, gateway.port)
        before, files = memory_bytes(worker, "RssAnon"), open_files(worker)
        with flooding(kind, gateway):
            wait_until("the flood is felt", lambda: felt(gateway) > 200, 30)
            for _ in range(MAILS):
                send_mail(gateway.host, gateway.port)
        assert gateway.worker_pids() == [worker]
        assert memory_bytes(worker, "RssAnon") - before < GROWTH_BYTES
        wait_until("the flood's connections are gone", lambda: open_files(worker) <= files + 2, 30)
        send_mail(gateway.host, gateway.port)
        gateway.await_mails("bob", MAILS + 2)
        assert gateway.metric("smtpd_worker_restarts_total") == 0


def test_a_client_that_reads_no_replies_is_not_read_from_either(tmp_path: Path) -> None:
    """Its pipelined commands stay in its own window and ours: neither the output nor the input grows here."""
    with running_gateway(tmp_path, {"workers": 1, "limits": NO_LIMITS}) as gateway, flooding("pipeline", gateway, 2):
        (worker,) = gateway.worker_pids()
        wait_until("it is at work", lambda: gateway.metric("smtpd_commands_total", command="mail") > 1000, 30)

        def stands_still() -> bool:
            before = gateway.metric("smtpd_commands_total")
            used = cpu_ticks(worker)
            send_mail(gateway.host, gateway.port)
            return gateway.metric("smtpd_commands_total") - before <= 6 and cpu_ticks(worker) - used <= 20

        wait_until("only the other client is served", stands_still, 30)
        assert gateway.metric("smtpd_worker_buffer_bytes") < GROWTH_BYTES


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
