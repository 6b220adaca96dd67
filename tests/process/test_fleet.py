"""Two gateways that share a greylist and rates through a real Redis, and go on alone while it is away."""

from __future__ import annotations

import smtplib
from pathlib import Path

import pytest
from gateway import Gateway, running_gateway, wait_until
from redis_server import RedisServer


def say(gateway: Gateway, sender: str) -> str:
    """The first reply that refuses, "" if none does."""
    with smtplib.SMTP(gateway.host, gateway.port, timeout=30, source_address=("127.0.0.1", 0)) as client:
        client.ehlo("client.example.org")
        for code, text in (client.mail(sender), client.rcpt("bob@example.net")):
            if code >= 400:
                return f"{code} {text.decode()}"
    return ""


@pytest.mark.full
@pytest.mark.peer("redis-server")
def test_two_gateways_know_the_same_senders_and_clients(tmp_path: Path) -> None:
    redis = RedisServer(tmp_path / "redis")
    settings = {
        "workers": 1,
        "redis": {"url": redis.url, "timeout": "10 s", "retry": "100 ms"},
        "policy": {"trusted": [], "check": [{"name": "greylist", "delay": "1 s"}]},
    }
    try:
        with running_gateway(tmp_path / "one", settings) as one, running_gateway(tmp_path / "two", settings) as two:
            assert say(one, "alice@example.org").startswith("450 4.7.1 Greylisted")
            wait_until("the other one takes the second try", lambda: say(two, "alice@example.org") == "", 30.0)
            assert say(one, "alice@example.org") == ""
            redis.close()
            assert say(one, "carol@example.org").startswith("450 4.7.1 Greylisted")
            wait_until("it is seen that Redis is away", lambda: one.metric("smtpd_redis_away") == 1, 30.0)
            redis.start()
            wait_until(
                "Redis is asked again",
                lambda: say(one, "carol@example.org") is not None and not one.metric("smtpd_redis_away"),
                30.0,
            )
    finally:
        redis.close()


@pytest.mark.full
@pytest.mark.peer("redis-server")
def test_two_gateways_hold_one_rate(tmp_path: Path) -> None:
    redis = RedisServer(tmp_path / "redis")
    settings = {
        "workers": 1,
        "redis": {"url": redis.url, "timeout": "10 s"},
        "limits": {"mail_rate": "300/d", "junk_commands": 0},
        "policy": {"trusted": []},
    }
    try:
        with running_gateway(tmp_path / "one", settings) as one, running_gateway(tmp_path / "two", settings) as two:
            assert take_mails(one, 299) == 299
            taken = 0
            refused = False
            while not refused and taken < 300:  # by itself the second one would take three hundred
                mails = take_mails(two, 1)
                taken += mails
                refused = not mails
            assert refused
    finally:
        redis.close()


def take_mails(gateway: Gateway, count: int) -> int:
    """How many of so many MAIL commands of one session are taken."""
    with smtplib.SMTP(gateway.host, gateway.port, timeout=30, source_address=("127.0.0.1", 0)) as client:
        client.ehlo("client.example.org")
        taken = 0
        for _ in range(count):
            taken += client.mail("alice@example.org")[0] == 250
            client.rset()
    return taken
