"""Rates of a fleet through a real Redis: hosts add up what they counted, and go on alone while it is away."""

import pytest
from check_rig import Counts, Lines
from redis_server import RedisServer

from smtpd.limits import sharing
from smtpd.limits._clients import MAIL_RATE, RECIPIENT_RATE
from smtpd.limits.clients import ClientLimits, make_client_table
from smtpd.net.fleet import fleet_of
from smtpd.net.loop import Loop
from smtpd.net.side import SideThread
from smtpd.settings import LimitsSettings, RedisSettings

CLIENT = "192.0.2.1"


class Host:
    """A host with a table of its own; a rate of an hour never refills while a test runs."""

    def __init__(self, url):
        self.loop = Loop()
        self.side = SideThread(self.loop)
        self.log = Lines()
        self.counts = Counts()
        self.table = make_client_table()
        self.table.open_bank(0)
        self.limits = ClientLimits(self.table, 0, LimitsSettings(mail_rate="3/h", recipient_rate="100/h"))
        settings = RedisSettings(url=url, timeout=10.0)
        self.fleet = fleet_of(settings, self.side, self.loop, self.log, self.counts, self.counts)
        self.limits.share(self.loop, self.side, self.fleet, settings.timeout)
        self.row, _ = self.limits.enter(CLIENT, False)

    def take(self, rate=MAIL_RATE):
        return self.limits.take(self.row, rate)

    def settle(self):
        """Until all that was counted has been told and answered."""
        shared = self.limits._shared
        for _ in range(1000):
            if not shared._is_due:
                return
            self.loop.turn(0.05)
        raise AssertionError("never told")

    def close(self):
        self.limits.leave(self.row)
        assert self.side.close(10)
        self.loop.close()


@pytest.fixture
def redis(tmp_path):
    server = RedisServer(tmp_path / "redis")
    yield server
    server.close()


@pytest.fixture
def hosts(redis):
    hosts = [Host(redis.url), Host(redis.url)]
    yield hosts
    for host in hosts:
        host.close()


@pytest.mark.peer("redis-server")
def test_what_one_host_counts_holds_on_the_other(hosts):
    one, two = hosts
    assert one.take()
    assert one.take()
    one.settle()
    assert two.take()  # its own bucket was full
    two.settle()
    assert not two.take()  # and now it knows of all three
    assert one.take()  # whoever doesn't ask again doesn't know yet
    one.settle()
    assert not one.take()
    assert two.take(RECIPIENT_RATE)  # each rate by itself


@pytest.mark.peer("redis-server")
def test_clients_are_apart(hosts):
    one, two = hosts
    for _ in range(3):
        assert one.take()
    one.settle()
    other, _ = two.limits.enter("198.51.100.1", False)
    assert two.limits.take(other, MAIL_RATE)
    two.settle()
    assert two.limits.take(other, MAIL_RATE)
    two.limits.leave(other)


@pytest.mark.peer("redis-server")
def test_redis_away_leaves_each_host_its_own_rate(hosts, redis):
    redis.close()
    for host in hosts:
        assert [host.take() for _ in range(4)] == [True, True, True, False]
        host.settle()
        host.loop.turn(0)
        assert host.counts.total("smtpd_redis_away") == 1
        assert "goes on alone" in host.log.lines[0]


@pytest.mark.peer("redis-server")
def test_many_counts_are_one_script_and_their_number_is_bounded(hosts, redis, monkeypatch):
    monkeypatch.setattr(sharing, "WAITING", 2)
    one = hosts[0]
    rows = [one.limits.enter(f"198.51.100.{number}", False)[0] for number in range(4)]
    for row in rows:
        assert one.limits.take(row, RECIPIENT_RATE)
        assert one.limits.take(row, RECIPIENT_RATE)
    assert sorted(one.limits._shared._counts.values()) == [2, 2]
    one.settle()
    assert redis.say(b"DBSIZE\r\n") == b":2"
    for row in rows:
        one.limits.leave(row)


def test_only_answers_of_the_script_are_taken():
    assert sharing._take([b"5", b"0"], 2) == [5, 0]
    for result in (None, [b"1"], [b"-1", b"0"], [b"x", b"0"], 5):
        with pytest.raises((ValueError, TypeError)):
            sharing._take(result, 2)


def test_a_bucket_is_only_lowered():
    table = make_client_table()
    row = table.find(5, 0)
    table.lower(row, MAIL_RATE, 10)
    assert not table.take(row, MAIL_RATE, 0, 10, 1, 1)
    table.lower(row, MAIL_RATE, 5)
    assert not table.take(row, MAIL_RATE, 0, 10, 1, 1)
    assert table.take(row, MAIL_RATE, 10, 10, 1, 1)
    table.lower(-1, MAIL_RATE, 10)
    table.lower(row, 99, 10)
