"""DNS for checks against knot and a server that fails: what each answer means, and how long it is kept."""

import asyncio
import socket
import threading

import dns.rcode
import pytest
from dns_rig import DnsRig
from name_server import NameServer
from zone_server import ZoneServer, free_port

from smtpd.net import dns_records
from smtpd.net.dns_records import ABSENT, EMPTY, DnsRecords
from smtpd.settings import DnsSettings

ZONE = """\
a A 192.0.2.1
a A 192.0.2.2
a AAAA 2001:db8::1
www CNAME a
@ MX 20 Second
@ MX 10 first
null MX 0 .
one PTR Host.Example.
text TXT "v=spf1 " "-all"
big TXT """ + " ".join(f'"{n:0>200}"' for n in range(20)) + "\n"  # fmt: skip


@pytest.fixture(scope="module")
def zones(tmp_path_factory):
    server = ZoneServer(tmp_path_factory.mktemp("knot"), {"z.example": ZONE, "broken.example": None})
    yield server
    server.close()


@pytest.fixture
def rig(zones):
    rig = DnsRig(zones.address)
    yield rig
    rig.close()


@pytest.fixture
def server():
    server = NameServer()
    yield server
    server.close()


@pytest.fixture
def faulty(server):
    rig = DnsRig(server.address, timeout=0.6, check_timeout=2.0)
    yield rig
    rig.close()


@pytest.mark.peer("knot")
def test_records_of_every_kind(rig):
    assert sorted(rig.ask("A.z.example.", "A").records) == ["192.0.2.1", "192.0.2.2"]
    assert rig.ask("a.z.example", "AAAA").records == ("2001:db8::1",)
    assert sorted(rig.ask("www.z.example", "A").records) == ["192.0.2.1", "192.0.2.2"]
    assert rig.ask("z.example", "MX").records == ("first.z.example", "second.z.example")
    assert rig.ask("null.z.example", "MX").records == ("",)
    assert rig.ask("one.z.example", "PTR").records == ("host.example",)
    assert rig.ask("text.z.example", "TXT").records == ("v=spf1 -all",)


@pytest.mark.peer("knot")
def test_absent_empty_and_failed_are_told_apart(rig):
    assert rig.ask("nobody.z.example", "A") == ABSENT
    assert rig.ask("text.z.example", "A") == EMPTY
    broken = rig.ask("a.broken.example", "A")
    assert (broken.is_failed, broken.is_absent, broken.records) == (True, False, ())


@pytest.mark.peer("knot")
def test_truncated_answer_is_asked_for_over_tcp(rig):
    [text] = rig.ask("big.z.example", "TXT").records
    assert len(text) == 4000


@pytest.mark.peer("knot")
def test_hanging_server_is_a_failure_and_coming_back_is_seen(tmp_path):
    zones = ZoneServer(tmp_path / "knot", {"z.example": ZONE})
    rig = DnsRig(zones.address, timeout=0.6, check_timeout=2.0)
    try:
        zones.pause()
        assert rig.ask("a.z.example", "A").is_failed
        zones.go_on()
        assert rig.ask("a.z.example", "A").is_failed  # kept for a while
        rig.now += dns_records.FAILURE_TTL_S + 1
        assert len(rig.ask("a.z.example", "A").records) == 2
    finally:
        rig.close()
        zones.close()


def test_server_that_is_down_is_a_failure():
    rig = DnsRig(f"127.0.0.1:{free_port()}", timeout=0.6)
    assert rig.ask("a.example", "A").is_failed
    rig.close()


def test_garbage_is_a_failure():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as garbler:
        garbler.bind(("127.0.0.1", 0))

        def garble():
            while True:
                data, peer = garbler.recvfrom(4096)
                if not data:
                    return
                garbler.sendto(data[:2] + b"\x81\x80" + b"\xff" * 40, peer)

        thread = threading.Thread(target=garble)
        thread.start()
        rig = DnsRig(f"127.0.0.1:{garbler.getsockname()[1]}", timeout=0.6, check_timeout=2.0)
        answer = rig.ask("a.example", "A")
        rig.close()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", garbler.getsockname())
        thread.join(10)
    assert answer.is_failed


def test_connection_that_ends_midway_is_a_failure():
    """Truncated over UDP, and over TCP the connection ends after half of the answer."""
    port = free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
        udp.bind(("127.0.0.1", port))
        tcp.bind(("127.0.0.1", port))
        tcp.listen()

        def truncate():
            while True:
                data, peer = udp.recvfrom(4096)
                if not data:
                    return
                udp.sendto(data[:2] + bytes([data[2] | 0x82, 0x80]) + data[4:10] + b"\0\0" + _question_of(data), peer)

        def break_off():
            while True:
                connection, _ = tcp.accept()
                with connection:
                    if not connection.recv(4096):
                        return
                    connection.sendall(b"\x01\x00\xab\xcd\x81")

        threads = [threading.Thread(target=truncate), threading.Thread(target=break_off)]
        for thread in threads:
            thread.start()
        rig = DnsRig(f"127.0.0.1:{port}", timeout=1.0, check_timeout=3.0)
        answer = rig.ask("a.example", "TXT")
        rig.close()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", udp.getsockname())
        socket.create_connection(("127.0.0.1", port)).close()
        for thread in threads:
            thread.join(10)
    assert answer.is_failed


def _question_of(data):
    """The question section alone: header 12, name, type and class."""
    end = data.index(b"\0", 12) + 5
    return data[12:end]


def test_answers_are_kept_for_their_ttl(server, faulty):
    server.add("a.example", "A", "192.0.2.1", ttl=60)
    assert faulty.dns.known("a.example", "A") is None
    answer = faulty.ask("a.example", "A")
    faulty.now += 59
    assert faulty.ask("a.example", "A") is answer
    assert faulty.dns.known("a.example", "A") is answer
    faulty.now += 2
    assert faulty.dns.known("a.example", "A") is None
    again = faulty.ask("a.example", "A")
    assert again == answer
    assert again is not answer  # c-ares keeps answers too, by the real clock: the server need not be asked again


def test_long_ttl_is_cut_and_absence_kept_for_the_bound(server, faulty):
    server.add("a.example", "A", "192.0.2.1", ttl=10_000_000)
    faulty.ask("a.example", "A")
    assert faulty.ask("b.example", "A") == ABSENT
    faulty.now += 299
    assert faulty.dns.known("b.example", "A") == ABSENT
    faulty.now += 2
    assert faulty.dns.known("b.example", "A") is None
    faulty.now += dns_records.TTL_MOST_S - 300
    assert faulty.dns.known("a.example", "A") is None


def test_equal_questions_are_asked_once_and_survive_who_gives_up(server, faulty):
    server.add("a.example", "A", "192.0.2.1")

    async def ask_many():
        tasks = [asyncio.ensure_future(faulty.dns.ask("a.example", "A")) for _ in range(20)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, *others = faulty.run(ask_many)
    assert isinstance(first, asyncio.CancelledError)
    assert {answer.records for answer in others} == {("192.0.2.1",)}
    assert server.asked == [("a.example", "A")]


class HangingChannel:
    """Never answers; `most` is how many questions were under way at once."""

    def __init__(self):
        self.running = 0
        self.most = 0

    async def query(self, name, kind):
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.Event().wait()
        finally:
            self.running -= 1


def test_places_are_bounded_and_waiting_counts_as_time():
    channel = HangingChannel()
    records = DnsRecords(channel, DnsSettings(check_timeout=0.2, check_queries=2))

    async def ask_many():
        return await asyncio.gather(*(records.ask(f"n{number}.example", "A") for number in range(10)))

    assert all(answer.is_failed for answer in asyncio.run(ask_many()))
    assert (channel.most, channel.running) == (2, 0)


def test_cache_has_a_size(server):
    rig = DnsRig(server.address, cache_answers=3)
    for number in range(5):
        rig.ask(f"n{number}.example", "A")
    assert [rig.dns.known(f"n{number}.example", "A") for number in range(5)] == [None, None, ABSENT, ABSENT, ABSENT]
    rig.close()


def test_servfail_and_refusal_are_failures(server, faulty):
    server.rcodes["s.example"] = dns.rcode.SERVFAIL
    server.rcodes["r.example"] = dns.rcode.REFUSED
    assert faulty.ask("s.example", "MX").is_failed
    assert faulty.ask("r.example", "MX").is_failed


@pytest.mark.parametrize("name", ["", ".", "a..b", "x" * 64 + ".example", "ä.example", "a." * 130])
def test_what_is_no_name_is_absent_without_asking(server, faulty, name):
    assert faulty.ask(name, "A") == ABSENT
    assert server.asked == []


def test_without_aiodns_every_question_fails_with_the_reason(server, faulty, monkeypatch):
    monkeypatch.setattr(dns_records, "find_missing", lambda: "not installed")
    answer = faulty.ask("a.example", "A")
    assert (answer.is_failed, answer.text, server.asked) == (True, "not installed", [])
