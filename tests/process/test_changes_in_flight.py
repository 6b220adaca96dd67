"""Reloads with a new certificate, upgrades and workers ended by TERM under 50 connections a second, half of them with TLS.

Nobody is refused, reset or answered wrongly, no mail is lost or doubled. A few rounds here, 50 where the test is marked `full`,
SMTPD_CHANGE_ROUNDS times as many in `make soak`.
"""

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import pytest
from gateway import Gateway, wait_until
from mail_clients import MailLoad
from successor import upgrade
from tls_files import Authority

from bench.processes import is_alive, tree_pids

CONNECTIONS_A_SECOND = 50.0
CLIENTS = 8
MAILS_BETWEEN = 10
FACTOR = int(os.environ.get("SMTPD_CHANGE_ROUNDS", "1"))


def reload(gateway: Gateway, number: int, authority: Authority) -> None:
    """HUP with another host name and a new certificate."""
    authority.issue("mx", gateway.host)
    generation = gateway.status()["generation"]
    gateway.settings["hostname"] = f"mx{number}.example.net"
    gateway.write_config()
    gateway.signal(signal.SIGHUP)
    wait_until("the new generation serves", lambda: gateway.status()["generation"] > generation, 60)


def end_a_worker(gateway: Gateway, chance: random.Random) -> None:
    """TERM to a worker that serves; return when its slot has another one."""
    workers = [worker for worker in gateway.status()["workers"] if worker["state"] == "ready"]
    victim = chance.choice(workers)
    os.kill(victim["pid"], signal.SIGTERM)

    def is_replaced() -> bool:
        status = gateway.status()
        return any(
            worker["slot"] == victim["slot"]
            and worker["state"] == "ready"
            and worker["pid"] != victim["pid"]
            and worker["generation"] == status["generation"]
            for worker in status["workers"]
        )

    wait_until("another worker serves its slot", is_replaced, 60)


@pytest.mark.parametrize(
    ("reloads", "upgrades", "kills"),
    [
        pytest.param(2, 2, 3, id="few"),
        pytest.param(
            20 * FACTOR, 10 * FACTOR, 20 * FACTOR, id="many", marks=[pytest.mark.full, pytest.mark.timeout(600 * FACTOR)]
        ),
    ],
)
def test_no_client_notices_reloads_upgrades_and_workers_that_end(tmp_path: Path, reloads: int, upgrades: int, kills: int) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    actions = ["reload"] * reloads + ["upgrade"] * upgrades + ["kill"] * kills
    chance.shuffle(actions)
    authority = Authority(tmp_path)
    gateway = Gateway(tmp_path, {"log": {"level": "warning"}})
    gateway.settings["listener"][0]["tls"] = "starttls"
    gateway.settings["tls"] = {"certificate": [authority.issue("mx", gateway.host).settings]}
    gateway.write_config()
    try:
        gateway.start()
        context = authority.client_context()
        with MailLoad(gateway, CLIENTS, per_second=CONNECTIONS_A_SECOND, context=context) as load:
            for number, action in enumerate(actions):
                load.wait_acknowledged(MAILS_BETWEEN)
                if action == "reload":
                    reload(gateway, number, authority)
                elif action == "upgrade":
                    upgrade(gateway)
                else:
                    end_a_worker(gateway, chance)
            load.wait_acknowledged(MAILS_BETWEEN)
        assert load.trouble == [], gateway.log_text()
        assert sorted(load.await_mails()) == sorted(load.acknowledged)
        assert gateway.metric("smtpd_tls_handshakes_total", result="ok") > 0
        assert gateway.stop() == 0
    finally:
        if gateway.process is not None:
            gateway.kill()


@pytest.mark.full
def test_both_programs_killed_at_any_moment_of_an_upgrade_lose_no_mail(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    gateway = Gateway(tmp_path, {"log": {"level": "warning"}})
    try:
        gateway.start()
        with MailLoad(gateway, 3) as load:
            for _ in range(4):
                load.wait_acknowledged(MAILS_BETWEEN)
                gateway.signal(signal.SIGUSR2)
                time.sleep(chance.uniform(0.3, 3.0))  # the random moment, not a wait for anything
                gateway.kill()  # the new program too: it is a child of the old one, or its workers' master by now
                named = gateway.run_dir / "smtpd.pid"
                if named.exists() and is_alive(pid := int(named.read_text() or 0)):
                    for process in reversed(tree_pids(pid)):
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(process, signal.SIGKILL)
                    wait_until("the new program is gone", lambda pid=pid: not is_alive(pid), 20)
                await_start(gateway)
            load.wait_acknowledged(MAILS_BETWEEN)
        load.await_mails()
        assert gateway.stop() == 0
    finally:
        if gateway.process is not None:
            gateway.kill()


def await_start(gateway: Gateway) -> None:
    """Start it until it isn't told that workers of the killed programs still have the port."""

    def is_ready() -> bool:
        if gateway.process is None or gateway.running.poll() is not None:
            gateway.start(wait=False)
        try:
            return gateway.http("/readyz")[0] == 200
        except OSError:
            return False

    wait_until("the server is ready", is_ready, 60)
