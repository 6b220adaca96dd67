"""Reloads, upgrades and workers ended by TERM under 50 connections a second.

Nobody is refused, reset or answered wrongly, no mail is lost or doubled. A few rounds here, 50 where the test is marked `full`,
SMTPD_CHANGE_ROUNDS times as many in `make soak`.
"""

import os
import random
import signal
from pathlib import Path

import pytest
from gateway import Gateway, wait_until
from mail_clients import MailLoad
from successor import upgrade

CONNECTIONS_A_SECOND = 50.0
CLIENTS = 8
MAILS_BETWEEN = 10
FACTOR = int(os.environ.get("SMTPD_CHANGE_ROUNDS", "1"))


def reload(gateway: Gateway, number: int) -> None:
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
    gateway = Gateway(tmp_path, {"log": {"level": "warning"}})
    try:
        gateway.start()
        with MailLoad(gateway, CLIENTS, per_second=CONNECTIONS_A_SECOND) as load:
            for number, action in enumerate(actions):
                load.wait_acknowledged(MAILS_BETWEEN)
                if action == "reload":
                    reload(gateway, number)
                elif action == "upgrade":
                    upgrade(gateway)
                else:
                    end_a_worker(gateway, chance)
            load.wait_acknowledged(MAILS_BETWEEN)
        assert load.trouble == [], gateway.log_text()
        assert sorted(load.await_mails()) == sorted(load.acknowledged)
        assert gateway.stop() == 0
    finally:
        if gateway.process is not None:
            gateway.kill()
