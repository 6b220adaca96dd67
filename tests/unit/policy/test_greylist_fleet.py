"""Greylisting through a real Redis: the same rules, shared by hosts, and alone while it is down, hangs, or answers nonsense."""

import socket
import threading

import pytest
from check_rig import CheckRig, question, recipient_of
from redis_server import RedisServer

from smtpd.net.fleet import FleetAwayError
from smtpd.policy.greylist import fleet as fleet_module
from smtpd.policy.greylist.check import Greylist
from smtpd.policy.greylist.sender import make_key
from smtpd.settings import RedisSettings, SpoolSettings


class FleetRig(CheckRig):
    """One host of a fleet. Redis goes by its own clock, so times are short here and nothing is waited for by the clock."""

    def __init__(self, folder, url, timeout_s=10.0, **settings):
        super().__init__(spool=SpoolSettings(path=str(folder)), redis=RedisSettings(url=url, timeout=timeout_s, retry=5.0))
        self.now_s = 1000.0
        self.check = self.make(Greylist, **{"delay": 300.0, **settings})
        self.fleet._clock = lambda: self.now_s

    @property
    def fleet(self):
        return self.check._store._fleet

    def say(self, recipient="bob@example.net", address="192.0.2.1"):
        return self.ask(self.check, question(address=address, recipient=recipient_of(recipient))) is None

    def away(self):
        self.loop.turn(0)
        return self.counts.total("smtpd_redis_away")


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.close()


@pytest.fixture
def clean(redis):
    assert redis.say(b"FLUSHALL\r\n") == b"+OK"
    return redis


def backdate(redis, rig, seconds, recipient=b"bob@example.net", network="192.0.2.0/24"):
    """Let the first try of a triplet have been so long ago."""
    client = make_key(network)
    key = f"smtpd:grey:{{{client.hex()}}}:{make_key(network, b'alice@example.org', recipient).hex()}"
    first = float(redis_value(redis, key))
    assert redis.say(f"SET {key} {first - seconds} KEEPTTL\r\n".encode()) == b"+OK"


def redis_value(redis, key):
    with socket.create_connection(("127.0.0.1", redis.port), timeout=10) as connection, connection.makefile("rb") as lines:
        connection.sendall(f"GET {key}\r\n".encode())
        assert lines.readline().startswith(b"$")
        return lines.readline().strip().decode()


@pytest.mark.peer("redis-server")
def test_hosts_share_what_they_know(clean, tmp_path):
    one, two = FleetRig(tmp_path / "1", clean.url), FleetRig(tmp_path / "2", clean.url)
    assert not one.say()
    backdate(clean, one, 299)
    assert not two.say()
    backdate(clean, one, 2)
    assert two.say()
    assert one.say()
    assert not one.say(recipient="carol@example.net")
    one.close()
    two.close()


@pytest.mark.peer("redis-server")
def test_second_try_that_is_too_late_is_a_first_one(clean, tmp_path):
    rig = FleetRig(tmp_path, clean.url, retry_window=7200.0)
    assert not rig.say()
    backdate(clean, rig, 7300)
    assert not rig.say()
    assert not rig.say()
    rig.close()


@pytest.mark.peer("redis-server")
def test_client_that_passed_often_is_known(clean, tmp_path):
    rig = FleetRig(tmp_path, clean.url, known_after=1)
    assert not rig.say()
    backdate(clean, rig, 301)
    assert rig.say()
    assert rig.say(recipient="new@example.net")
    assert rig.asked_side
    assert rig.say(recipient="newer@example.net")
    assert not rig.asked_side
    assert not rig.say(address="198.51.100.1")
    rig.close()


@pytest.mark.peer("redis-server")
def test_redis_down_and_back(tmp_path):
    redis = RedisServer(tmp_path / "redis")
    rig = FleetRig(tmp_path, redis.url)
    assert not rig.say()
    assert rig.away() == 0
    redis.close()
    assert not rig.say()  # known to Redis alone: put off once more, by this host
    rig.until(lambda: rig.away() == 1)
    assert "this host goes on alone" in rig.log.lines[-1]
    redis.start()
    rig.now_s += 4
    assert not rig.say()
    assert rig.away() == 1  # left alone for a while
    rig.now_s += 2
    assert not rig.say()
    rig.until(lambda: rig.away() == 0)
    assert rig.log.lines[-1] == "Redis answers: greylists and rates are shared"
    rig.close()
    redis.close()


@pytest.mark.peer("redis-server")
def test_redis_that_hangs_costs_one_wait(tmp_path):
    redis = RedisServer(tmp_path / "redis")
    rig = FleetRig(tmp_path, redis.url, timeout_s=2.0)
    assert not rig.say()
    redis.pause()
    assert not rig.say()
    rig.until(lambda: rig.away() == 1)
    assert rig.log.lines[-1].endswith("no answer in time") or "Timeout" in rig.log.lines[-1]
    with pytest.raises(FleetAwayError, match="a moment ago"):
        rig.run(lambda: rig.fleet.run("return 1", [], [], int))
    redis.go_on()
    rig.now_s += 6
    assert not rig.say()
    rig.until(lambda: rig.away() == 0)
    rig.close()
    redis.close()


@pytest.mark.parametrize(
    "octets",
    [b"", b"garbage without an end", b"garbage\r\n" * 5, b"*2\r\n:5\r\n", b"*2\r\n:-5\r\n:0\r\n", b"$3\r\nabc\r\n",
     b"-ERR no\r\n", b"\xff\xfe\r\n", b"*99999999\r\n", b"*1\r\n:0\r\n"],
)  # fmt: skip
def test_nonsense_and_ends_midway_mean_that_it_is_away(tmp_path, octets):
    """A server that answers the same to each question, and then ends the connection."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        ends = threading.Event()

        def serve():
            while True:
                connection, _ = listener.accept()
                with connection:
                    if ends.is_set():
                        return
                    if connection.recv(65536):
                        connection.sendall(octets)

        thread = threading.Thread(target=serve)
        thread.start()
        rig = FleetRig(tmp_path, f"redis://127.0.0.1:{listener.getsockname()[1]}/0")
        assert not rig.say()
        rig.until(lambda: rig.away() == 1)
        rig.close()
        ends.set()
        socket.create_connection(listener.getsockname()).close()
        thread.join(10)


def test_only_answers_of_the_script_are_taken():
    assert fleet_module._take([0, 1]).is_client_known
    for result in (None, [1], ["a", 0], [-1, 0], [0, 2], [0, 1, 2], b"ab"):
        with pytest.raises((ValueError, TypeError)):
            fleet_module._take(result)
