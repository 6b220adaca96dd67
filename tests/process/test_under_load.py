"""The whole server under load of real mail: reloads, workers that come and go, a graceful stop. Nobody is
refused or cut off."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway import Gateway, wait_until
from mail_clients import MailLoad

CLIENTS = 3


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    server = Gateway(tmp_path)
    try:
        server.start()
        yield server
    finally:
        if server.process is not None:
            server.kill()


def test_ten_reloads_under_load_cost_no_mail_and_no_connection(gateway: Gateway) -> None:
    with MailLoad(gateway, CLIENTS) as load:
        for number in range(10):
            gateway.settings["hostname"] = f"mx{number}.example.net"
            gateway.write_config()
            gateway.signal(signal.SIGHUP)
            load.wait_acknowledged(15)
    assert load.trouble == []
    delivered = load.await_mails()
    assert sorted(delivered) == sorted(load.acknowledged)
    wait_until("the old workers are gone", lambda: len(gateway.worker_pids()) == 2, 20)
    assert gateway.metric("smtpd_messages_total", result="accepted") == len(delivered)
    assert gateway.stop() == 0


def test_workers_come_and_go_under_load_without_a_lost_mail_or_connection(gateway: Gateway) -> None:
    with MailLoad(gateway, CLIENTS) as load:
        for number in (signal.SIGTTIN, signal.SIGTTOU, signal.SIGTTOU, signal.SIGTTIN):
            gateway.signal(number)
            load.wait_acknowledged(20)
    assert load.trouble == []
    assert sorted(load.await_mails()) == sorted(load.acknowledged)
    assert gateway.stop() == 0


def test_a_stop_under_load_finishes_what_was_begun_and_loses_nothing(gateway: Gateway) -> None:
    with MailLoad(gateway, CLIENTS) as load:
        load.wait_acknowledged(50)
        gateway.signal(signal.SIGTERM)
        assert gateway.running.wait(30) == 0
    gateway.start()
    delivered = load.await_mails()
    assert sorted(set(delivered)) == sorted(load.acknowledged)
    assert gateway.stop() == 0


def test_a_fast_stop_under_load_loses_nothing(gateway: Gateway) -> None:
    with MailLoad(gateway, CLIENTS) as load:
        load.wait_acknowledged(50)
        gateway.signal(signal.SIGINT)
        assert gateway.running.wait(30) == 0
    gateway.start()
    load.await_mails()
    assert gateway.stop() == 0
