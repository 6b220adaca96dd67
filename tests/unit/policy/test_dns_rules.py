"""Sender and recipient domains, names of clients, HELO: each answer of DNS and what is said to it."""

import pytest
from asker import TableAsker, run, wire

from smtpd.net.dns_records import DnsRecords
from smtpd.policy.dns.asking import FromMemory, NotKnownError, answer_from_memory
from smtpd.policy.dns.client_name import find_client_name, judge_client_name, reverse_name
from smtpd.policy.dns.domains import judge_recipient, judge_sender
from smtpd.policy.dns.helo import HeloRules
from smtpd.settings import DnsSettings

DOMAINS = {
    ("mx.example", "MX"): ["mail.mx.example"],
    ("a.example", "A"): ["192.0.2.1"],
    ("six.example", "AAAA"): ["2001:db8::1"],
    ("null.example", "MX"): [""],
    ("text.example", "TXT"): ["x"],
    ("half.example", "TXT"): ["x"],
}


@pytest.mark.parametrize(
    ("domain", "sender", "recipient"),
    [
        ("mx.example", "", ""),
        ("a.example", "", ""),
        ("six.example", "", ""),
        ("", "", ""),
        ("[192.0.2.1]", "", ""),
        ("null.example", "550 5.7.27", "556 5.1.10"),
        ("absent.example", "550 5.1.8", "550 5.1.2"),
        ("text.example", "550 5.1.8", "550 5.1.2"),
        ("broken.example", "451 4.1.8", "450 4.1.2"),
        ("half.example", "451 4.1.8", "450 4.1.2"),
    ],
)
def test_domains(domain, sender, recipient):
    asker = TableAsker(DOMAINS, failing=["broken.example", ("half.example", "AAAA")])
    assert wire(run(judge_sender(asker, domain))) == sender
    assert wire(run(judge_recipient(asker, domain))) == recipient


CLIENT = "1.2.0.192.in-addr.arpa"


@pytest.mark.parametrize(
    ("records", "failing", "name", "plain", "confirmed"),
    [
        ({}, [], "", "550 5.7.25", "550 5.7.25"),
        ({(CLIENT, "PTR"): ["h.example"], ("h.example", "A"): ["192.0.2.1"]}, [], "h.example", "", ""),
        ({(CLIENT, "PTR"): ["x.example", "h.example"], ("h.example", "A"): ["192.0.2.9", "192.0.2.1"]}, [], "h.example", "", ""),
        ({(CLIENT, "PTR"): ["h.example"], ("h.example", "A"): ["192.0.2.9"]}, [], "", "", "550 5.7.25"),
        ({(CLIENT, "PTR"): ["h.example"], ("h.example", "AAAA"): ["2001:db8::1"]}, [], "", "", "550 5.7.25"),
        ({(CLIENT, "PTR"): [""]}, [], "", "550 5.7.25", "550 5.7.25"),
        ({(CLIENT, "PTR"): ["h.example"]}, ["h.example"], "", "", "450 4.7.25"),
        ({}, [CLIENT], "", "450 4.7.25", "450 4.7.25"),
    ],
)
def test_client_names(records, failing, name, plain, confirmed):
    asker = TableAsker(records, failing)
    assert run(find_client_name(asker, "192.0.2.1")).name == name
    assert wire(run(judge_client_name(asker, "192.0.2.1", False))) == plain
    assert wire(run(judge_client_name(asker, "192.0.2.1", True))) == confirmed


def test_client_name_by_ipv6_and_of_nobody():
    reverse = reverse_name("2001:db8::1")
    assert reverse == "1.0.0.0" + ".0" * 20 + ".8.b.d.0.1.0.0.2.ip6.arpa"
    asker = TableAsker({(reverse, "PTR"): ["h.example"], ("h.example", "AAAA"): ["2001:0db8:0::1"]})
    assert run(find_client_name(asker, "2001:db8::1")).name == "h.example"
    assert reverse_name("::ffff:192.0.2.1") == CLIENT
    for nobody in ("", "/run/socket"):
        assert run(judge_client_name(asker, nobody, True)) is None


@pytest.mark.parametrize(
    ("helo", "reply"),
    [
        (b"a.example", ""),
        (b"A.Example.", ""),
        (b"under_score.example", ""),
        (b"mx1.example.net", "550 5.7.1"),
        (b"MX1.example.NET.", "550 5.7.1"),
        (b"localhost", "504 5.5.2"),
        (b"192.0.2.1", "501 5.5.2"),
        (b"2001:db8::1", "501 5.5.2"),
        (b"-a.example", "501 5.5.2"),
        (b"a..example", "501 5.5.2"),
        (b"a.example.1", "501 5.5.2"),
        (b"a b.example", "501 5.5.2"),
        (b"\xff.example", "501 5.5.2"),
        (b"a" * 64 + b".example", "501 5.5.2"),
        (b"[192.0.2.1]", ""),
        (b"[192.0.2.2]", "550 5.7.1"),
        (b"[IPv6:2001:db8::1]", "550 5.7.1"),
        (b"[nonsense]", "501 5.5.2"),
    ],
)
def test_helo(helo, reply):
    rules = HeloRules(frozenset({"mx1.example.net"}))
    assert wire(run(rules.judge(TableAsker(), helo, "192.0.2.1"))) == reply


@pytest.mark.parametrize(
    ("helo", "reply"),
    [(b"a.example", ""), (b"mx.example", ""), (b"absent.example", "550 5.7.1"), (b"broken.example", "450 4.7.1")],
)
def test_helo_that_must_resolve(helo, reply):
    rules = HeloRules(frozenset(), needs_record=True)
    assert wire(run(rules.judge(TableAsker(DOMAINS, ["broken.example"]), helo, "192.0.2.1"))) == reply


def test_helo_literals_by_rule():
    def said(literal, helo, client="192.0.2.1"):
        return wire(run(HeloRules(frozenset(), literal=literal).judge(TableAsker(), helo, client)))

    assert said("accept", b"[192.0.2.2]") == ""
    assert said("reject", b"[192.0.2.1]") == "550 5.7.1"
    assert said("match", b"[192.0.2.2]", client="") == ""


def test_rule_from_memory_answers_at_once_or_says_that_it_must_ask():
    records = DnsRecords(None, DnsSettings(), lambda: 0.0)
    memory = FromMemory(records)
    with pytest.raises(NotKnownError):
        answer_from_memory(judge_sender(memory, "mx.example"))
    assert answer_from_memory(judge_sender(memory, "")) is None
