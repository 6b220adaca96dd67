"""Next hops by DNS, against a name server on loopback (RFC 5321 5.1, RFC 7505)."""

import dns.rcode
import pytest
from name_server import NameServer

from smtpd.net import lookup
from smtpd.net.hops import MISSING, Hop, LookupFailure, OwnHost
from smtpd.net.loop import Loop
from smtpd.net.resolver import Resolver
from smtpd.net.side import SideThread
from smtpd.settings import DnsSettings


class Rig:
    def __init__(self):
        self.loop = Loop()
        self.side = SideThread(self.loop)
        self.server = NameServer()
        self.answers = []
        self.resolver = self.make()

    def make(self, own=None, timeout_s=10.0, **options):
        self.resolver = Resolver(
            self.loop, self.side, DnsSettings(servers=[self.server.address], timeout=timeout_s), own, **options
        )
        return self.resolver

    def start(self, next_hop, domain=""):
        return self.resolver.find(next_hop, domain, lambda hops, failure: self.answers.append((hops, failure)))

    def find(self, next_hop, domain=""):
        """(hops, None) or ([], failure) of one look-up."""
        before = len(self.answers)
        self.start(next_hop, domain)
        assert len(self.answers) == before  # never at once
        self.until(before + 1)
        return self.answers[-1]

    def until(self, count):
        for _ in range(500):
            if len(self.answers) >= count:
                break
            self.loop.turn(0.05)
        self.loop.turn(0)
        assert len(self.answers) == count

    def addresses(self, domain):
        hops, failure = self.find("mx:", domain)
        assert failure is None
        return [hop.address for hop in hops]

    def failure(self, domain):
        hops, failure = self.find("mx:", domain)
        assert hops == []
        return failure.is_permanent, failure.dsn


@pytest.fixture
def rig():
    rig = Rig()
    yield rig
    assert rig.side.close(10)
    rig.server.close()
    rig.loop.close()


def add_two(rig):
    rig.server.add("d.example", "MX", "20 b.example.", "10 a.example.")
    rig.server.add("a.example", "A", "127.0.0.2")
    rig.server.add("b.example", "A", "127.0.0.3")


def test_hosts_come_by_preference_with_their_names(rig):
    add_two(rig)
    assert rig.find("mx:", "D.Example.") == (
        [Hop("a.example", "127.0.0.2", 25), Hop("b.example", "127.0.0.3", 25)],
        None,
    )
    assert rig.find("mx:d.example", "other.example")[0][0].target == ("127.0.0.2", 25)


def test_hosts_of_equal_preference_come_in_any_order(rig):
    rig.server.add("d.example", "MX", "10 a.example.", "10 b.example.", "30 c.example.")
    for number, name in enumerate("abc", 2):
        rig.server.add(f"{name}.example", "A", f"127.0.0.{number}")
    orders = {tuple(rig.addresses("d.example")) for _ in range(100)}
    assert orders == {("127.0.0.2", "127.0.0.3", "127.0.0.4"), ("127.0.0.3", "127.0.0.2", "127.0.0.4")}
    assert rig.server.asked.count(("d.example", "MX")) == 1  # the others came from the cache


def test_both_families_come_by_turns(rig):
    rig.server.add("d.example", "MX", "10 a.example.")
    rig.server.add("a.example", "A", "127.0.0.2", "127.0.0.3")
    rig.server.add("a.example", "AAAA", "2001:db8::1")
    addresses = rig.addresses("d.example")
    assert addresses[0] == "2001:db8::1"
    assert set(addresses[1:]) == {"127.0.0.2", "127.0.0.3"}


def test_domain_without_mx_is_its_own_mail_host(rig):
    rig.server.add("d.example", "A", "127.0.0.9")
    assert rig.find("mx:", "d.example") == ([Hop("d.example", "127.0.0.9", 25)], None)


def test_cnames_are_followed_for_domain_and_host(rig):
    rig.server.add("alias.example", "CNAME", "d.example.")
    rig.server.add("d.example", "MX", "10 mail.example.")
    rig.server.add("mail.example", "CNAME", "a.example.")
    rig.server.add("a.example", "A", "127.0.0.2")
    assert rig.find("mx:", "alias.example") == ([Hop("mail.example", "127.0.0.2", 25)], None)


def test_null_mx_takes_no_mail(rig):
    rig.server.add("d.example", "MX", "0 .")
    rig.server.add("d.example", "A", "127.0.0.9")
    assert rig.failure("d.example") == (True, "5.1.10")


def test_names_that_lead_nowhere_are_permanent(rig):
    rig.server.add("text.example", "TXT", "x")
    rig.server.add("d.example", "MX", "10 none.example.", "20 text.example.")
    assert rig.failure("none.example") == (True, "5.1.2")
    assert rig.failure("text.example") == (True, "5.4.4")
    assert rig.failure("d.example") == (True, "5.4.4")
    assert rig.failure("..") == (True, "5.1.2")
    assert rig.failure("x" * 64 + ".example") == (True, "5.1.2")
    assert rig.failure("-\udc80.example") == (True, "5.1.2")


def test_failing_dns_is_temporary(rig):
    rig.server.rcodes["fail.example"] = dns.rcode.SERVFAIL
    rig.server.rcodes["no.example"] = dns.rcode.REFUSED
    rig.server.add("d.example", "MX", "10 fail.example.", "20 none.example.")
    for domain in ("fail.example", "no.example", "d.example"):
        assert rig.failure(domain) == (False, "4.4.3")


def test_silent_dns_is_temporary(rig):
    rig.make(timeout_s=0.3)
    rig.server.silent |= {"d.example", "dead.example", ("half.example", "A")}
    rig.server.add("e.example", "MX", "10 dead.example.")
    assert rig.failure("d.example") == (False, "4.4.3")
    assert rig.failure("e.example") == (False, "4.4.3")


def test_hosts_without_address_are_passed_over(rig):
    rig.server.rcodes["fail.example"] = dns.rcode.SERVFAIL
    rig.server.add("d.example", "MX", "5 fail.example.", "7 none.example.", "8 .", "10 a.example.")
    rig.server.add("a.example", "A", "127.0.0.2")
    assert rig.addresses("d.example") == ["127.0.0.2"]


def test_host_whose_addresses_do_not_come_is_passed_over(rig):
    rig.make(timeout_s=1.0)
    rig.server.silent.add("dead.example")
    rig.server.add("d.example", "MX", "5 dead.example.", "10 a.example.")
    rig.server.add("a.example", "A", "127.0.0.2")
    assert rig.addresses("d.example") == ["127.0.0.2"]


@pytest.mark.parametrize(
    "own",
    [
        OwnHost(names=frozenset({"b.example"})),
        OwnHost(endpoints=frozenset({("127.0.0.3", 25)})),
    ],
)
def test_only_hosts_preferred_to_us_are_used(rig, own):
    rig.make(own)
    rig.server.add("d.example", "MX", "10 a.example.", "20 b.example.", "20 c.example.", "30 e.example.")
    for number, name in enumerate("abce", 2):
        rig.server.add(f"{name}.example", "A", f"127.0.0.{number}")
    assert rig.addresses("d.example") == ["127.0.0.2"]


def test_mail_that_would_come_back_is_permanent(rig):
    rig.make(OwnHost(endpoints=frozenset({("0.0.0.0", 25)})))
    add_two(rig)
    assert rig.failure("d.example") == (True, "5.4.6")
    assert rig.failure("[127.0.0.1]") == (True, "5.4.6")
    rig.server.add("far.example", "A", "192.0.2.1")
    assert rig.addresses("far.example") == ["192.0.2.1"]


def test_configured_host_that_is_us_is_temporary(rig):
    rig.make(OwnHost(endpoints=frozenset({("127.0.0.1", 2525), ("::1", 2525)})))
    hops, failure = rig.find("localhost:2525")
    assert hops == []
    assert (failure.is_permanent, failure.dsn) == (False, "4.4.6")


def test_address_literals_need_no_look_up(rig):
    assert rig.find("mx:", "[192.0.2.1]")[0] == [Hop("192.0.2.1", "192.0.2.1", 25)]
    assert rig.find("mx:", "[IPv6:2001:DB8::1]")[0] == [Hop("2001:db8::1", "2001:db8::1", 25)]
    for domain in ("[192.0.2]", "[2001:db8::1]", "[x", "[]"):
        assert rig.failure(domain) == (True, "5.1.2")
    assert rig.server.asked == []


def test_addresses_and_paths_of_the_configuration(rig):
    assert rig.find("127.0.0.1:24")[0] == [Hop("127.0.0.1", "127.0.0.1", 24)]
    assert rig.find("[::1]:24")[0][0].target == ("::1", 24)
    assert rig.find("unix:/run/lmtp")[0][0].target == "/run/lmtp"


def test_configured_hosts_are_found_in_dns_and_in_the_hosts_file(rig):
    rig.server.add("mail.example", "A", "127.0.0.4")
    assert rig.find("mail.example:26") == ([Hop("mail.example", "127.0.0.4", 26)], None)
    assert rig.find("localhost:26")[0]
    _, failure = rig.find("none.example:26")
    assert (failure.is_permanent, failure.dsn) == (False, "4.4.4")


def test_without_aiodns_hosts_are_found_but_no_mx(rig, monkeypatch):
    monkeypatch.setattr(lookup, "find_missing", lambda: MISSING)
    assert rig.find("localhost:26")[0]
    assert rig.find("mx:", "d.example") == ([], LookupFailure(False, "4.3.5", MISSING))


def test_international_domain_is_asked_for_in_a_labels(rig):
    rig.server.add("xn--bcher-kva.example", "A", "127.0.0.6")
    assert rig.addresses("Bücher.example") == ["127.0.0.6"]


def test_equal_questions_are_asked_once(rig):
    add_two(rig)
    searches = [rig.start("mx:", "d.example") for _ in range(50)]
    searches[7].cancel()
    rig.until(49)
    assert rig.server.asked.count(("d.example", "MX")) == 1
    searches[8].cancel()
    assert all(failure is None for _, failure in rig.answers)


def count_look_ups(rig, monkeypatch):
    """Names that went to the side thread: c-ares has a cache of its own, by the servers' TTL."""
    names = []
    find_mx = rig.resolver._client.find_mx
    monkeypatch.setattr(rig.resolver._client, "find_mx", lambda name: names.append(name) or find_mx(name))
    return names


def test_answers_are_kept_for_their_time_within_bounds(rig, monkeypatch):
    assert lookup._clamp(1.0) == 300.0
    assert lookup._clamp(1e6) == 3600.0
    names = count_look_ups(rig, monkeypatch)
    rig.server.add("d.example", "A", "127.0.0.9", ttl=1)
    rig.addresses("d.example")
    rig.loop.now += 250
    rig.addresses("d.example")
    assert names == ["d.example"]
    rig.loop.now += 301
    rig.addresses("d.example")
    assert names == ["d.example"] * 2


def test_cache_is_bounded(rig, monkeypatch):
    rig.make(cache_max=3)
    names = count_look_ups(rig, monkeypatch)
    for number in range(6):
        rig.server.add(f"d{number}.example", "A", "127.0.0.9")
        rig.addresses(f"d{number}.example")
    assert len(rig.resolver._cache) == 3
    rig.addresses("d5.example")
    assert len(names) == 6
    rig.addresses("d0.example")
    assert names[6:] == ["d0.example"]
