"""The checks that ask DNS, against knot: from memory the second time, and what is said when DNS is down, hangs or is broken."""

import pytest
from asker import wire
from check_rig import CheckRig, question, recipient_of
from zone_server import ZoneServer, free_port

from smtpd.policy.dns import checks
from smtpd.policy.dns.checks import Helo, RecipientDomain, ReverseDns, SenderDomain
from smtpd.policy.dns.dnsbl import Dnsbl, ListsFailedError
from smtpd.settings import Settings
from smtpd.settings.dns_checks import DnsblSettings, DnsListSettings

ORG = """\
@ MX 10 mail
mail A 192.0.2.25
null MX 0 .
client A 192.0.2.1
"""
REVERSE = """\
1 PTR client.example.org.
2 PTR client.example.org.
"""
LIST = """\
1.2.0.192 A 127.0.0.2
1.2.0.192 TXT "seen in a trap"
3.2.0.192 A 127.0.0.200
4.2.0.192 A 127.255.255.254
bad.example A 127.0.0.2
2.0.0.127 A 127.0.0.2
1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2 A 127.0.0.3
"""
WHITE = "1.2.0.192 A 127.0.0.5\n"


@pytest.fixture(scope="module")
def zones(tmp_path_factory):
    zones = {
        "example.org": ORG, "2.0.192.in-addr.arpa": REVERSE, "l.example": LIST, "white.example": WHITE, "broken.example": None,
    }  # fmt: skip
    server = ZoneServer(tmp_path_factory.mktemp("knot"), zones)
    yield server
    server.close()


@pytest.fixture
def rig(zones):
    rig = CheckRig(zones.address)
    yield rig
    rig.close()


@pytest.fixture
def deaf():
    """DNS that isn't there."""
    rig = CheckRig(f"127.0.0.1:{free_port()}")
    yield rig
    rig.close()


def lists(*zones, **more):
    return {"lists": [DnsListSettings(zone=zone) if isinstance(zone, str) else zone for zone in zones], **more}


@pytest.mark.peer("knot")
def test_sender_domain_is_known_the_second_time(rig):
    check = rig.make(SenderDomain)
    for sender, reply in (
        (b"alice@example.org", ""),
        (b"alice@mail.example.org", ""),
        (b"alice@null.example.org", "550 5.7.27"),
        (b"alice@absent.example.org", "550 5.1.8"),
        (b"alice@a.broken.example", "451 4.1.8"),
    ):
        asked = question("mail", sender=sender)
        assert wire(rig.ask(check, asked)) == reply
        assert rig.asked_side
        check._kept.clear()  # only what DNS said is left
        assert wire(rig.ask(check, asked)) == reply
        assert not rig.asked_side
    assert rig.ask(check, question("mail", sender=b"")) is None
    assert not rig.asked_side


@pytest.mark.peer("knot")
def test_recipient_domain_that_takes_no_mail(rig):
    check = rig.make(RecipientDomain)
    assert rig.ask(check, question(recipient=recipient_of("bob@example.org"))) is None
    assert wire(rig.ask(check, question(recipient=recipient_of("bob@null.example.org")))) == "556 5.1.10"


@pytest.mark.peer("knot")
def test_reverse_dns_with_and_without_confirmation(rig):
    plain, confirmed = rig.make(ReverseDns), rig.make(ReverseDns, confirmed=True)
    said = {
        address: (wire(rig.ask(plain, question(address=address))), wire(rig.ask(confirmed, question(address=address))))
        for address in ("192.0.2.1", "192.0.2.2", "192.0.2.3")
    }
    assert said == {"192.0.2.1": ("", ""), "192.0.2.2": ("", "550 5.7.25"), "192.0.2.3": ("550 5.7.25", "550 5.7.25")}


@pytest.mark.peer("knot")
def test_postmaster_is_always_heard(rig):
    postmaster = [recipient_of("Postmaster@example.net"), recipient_of("postmaster")]
    for check in (rig.make(ReverseDns), rig.make(Helo), rig.make(Dnsbl, **lists("l.example"))):
        for recipient in postmaster:
            assert rig.ask(check, question(address="192.0.2.3", helo=b"x", recipient=recipient)) is None
        assert rig.ask(rig.make(Helo), question(helo=b"x")) is not None


@pytest.mark.peer("knot")
def test_helo_knows_our_names(rig):
    check = rig.make(Helo, own_names=["mx.example.net"], resolvable=True)
    for helo, reply in (
        (b"mx1.example.net", "550 5.7.1"), (b"mx.example.net", "550 5.7.1"), (b"mail.example.org", ""),
        (b"nobody.example.org", "550 5.7.1"), (b"x.broken.example", "450 4.7.1"),
    ):  # fmt: skip
        assert wire(rig.ask(check, question(helo=helo))) == reply


@pytest.mark.peer("knot")
def test_listed_client_hears_which_list_and_why(rig):
    check = rig.make(Dnsbl, **lists("l.example"))
    verdict = rig.ask(check, question())
    assert verdict.reply.text == b"550 5.7.1 Service unavailable; client [192.0.2.1] blocked using l.example; seen in a trap"
    assert verdict.reason == "dnsbl"
    quiet = rig.make(Dnsbl, **lists("l.example", reason=False))
    assert rig.ask(quiet, question()).reply.text.endswith(b"blocked using l.example")
    assert not rig.asked_side
    assert wire(rig.ask(check, question(address="2001:db8::1"))) == "550 5.7.1"
    assert rig.ask(check, question(address="192.0.2.9")) is None


@pytest.mark.peer("knot")
def test_only_configured_codes_count(rig):
    check = rig.make(Dnsbl, **lists(DnsListSettings(zone="l.example", codes=["127.0.0.[2..11]"])))
    assert rig.ask(check, question(address="192.0.2.3")) is None
    assert rig.ask(rig.make(Dnsbl, **lists("l.example")), question(address="192.0.2.3")) is not None


@pytest.mark.peer("knot")
def test_error_of_a_list_is_logged_once_and_counted(rig):
    check = rig.make(Dnsbl, **lists(DnsListSettings(zone="l.example", codes=["127.0.0.0/8"])))
    for _ in range(3):
        assert rig.ask(check, question(address="192.0.2.4")) is None
    rig.until(lambda: rig.counts.total("smtpd_dns_list_errors_total") == 3)
    assert rig.log.lines == ["check check: the list l.example is passed over: answers 127.255.255.254"]


@pytest.mark.peer("knot")
def test_white_list_and_thresholds(rig):
    white = DnsListSettings(zone="white.example", weight=-2)
    black = DnsListSettings(zone="l.example", weight=3)
    sender = DnsListSettings(zone="l.example", weight=1, of="sender")
    check = rig.make(Dnsbl, **lists(white, black, sender, reject_at=2, defer_at=1))
    assert wire(rig.ask(check, question())) == "450 4.7.1"
    bad = rig.ask(check, question(sender=b"x@bad.example"))
    assert wire(bad) == "550 5.7.1"
    alone = rig.make(Dnsbl, **lists(sender))
    assert b"domain bad.example blocked using l.example" in rig.ask(alone, question(sender=b"x@bad.example")).reply.text


@pytest.mark.peer("knot")
def test_verdicts_are_kept_for_a_moment_by_what_they_are_about(rig):
    check = rig.make(Dnsbl, **lists("l.example"))
    first = rig.ask(check, question())
    assert rig.ask(check, question(sender=b"other@example.org")) is first
    assert not rig.asked_side
    assert rig.ask(check, question(address="192.0.2.9")) is None
    check._kept["192.0.2.1"] = (0.0, None)  # its moment is over
    assert rig.ask(check, question()).reply.text == first.reply.text
    by_sender = rig.make(Dnsbl, **lists(DnsListSettings(zone="l.example", of="sender")))
    assert rig.ask(by_sender, question()) is None
    assert rig.ask(by_sender, question(sender=b"x@bad.example")) is not None


@pytest.mark.peer("knot")
def test_kept_verdicts_are_bounded(rig, monkeypatch):
    monkeypatch.setattr(checks, "KEPT", 2)
    check = rig.make(ReverseDns)
    for number in (1, 2, 3, 1):
        rig.ask(check, question(address=f"192.0.2.{number}"))
        assert len(check._kept) <= 2


def test_dns_that_is_down_defers_by_kind_and_lists_fail_open(deaf):
    assert wire(deaf.ask(deaf.make(SenderDomain), question("mail"))) == "451 4.1.8"
    assert wire(deaf.ask(deaf.make(ReverseDns), question())) == "450 4.7.25"
    assert wire(deaf.ask(deaf.make(Helo, resolvable=True), question())) == "450 4.7.1"
    assert deaf.ask(deaf.make(Dnsbl, **lists("l.example")), question()) is None


def test_lists_that_fail_may_be_a_failure_of_the_check(deaf):
    check = deaf.make(Dnsbl, **lists("l.example", unreachable="error"))
    with pytest.raises(ListsFailedError, match=r"l\.example"):
        deaf.ask(check, question())
    heavy = deaf.make(Dnsbl, **lists("l.example", unreachable="error", reject_at=2))
    assert deaf.ask(heavy, question()) is None  # it could not have tipped the scales


@pytest.mark.peer("knot")
def test_hanging_dns_is_seen_in_time(tmp_path):
    zones = ZoneServer(tmp_path / "knot", {"example.org": ORG})
    rig = CheckRig(zones.address)
    try:
        zones.pause()
        assert wire(rig.ask(rig.make(SenderDomain), question("mail"))) == "451 4.1.8"
        zones.go_on()
        assert rig.ask(rig.make(SenderDomain), question("mail", sender=b"a@mail.example.org")) is None
    finally:
        rig.close()
        zones.close()


@pytest.mark.parametrize(
    ("settings", "key", "text"),
    [
        ({}, "lists", "no list"),
        (lists("l.example", reject_at=2, defer_at=2), "defer_at", "not below"),
        (lists(DnsListSettings(zone="l.example", codes=["10.0.0.1"])), "lists", 'l.example: "10.0.0.1" is outside'),
        (lists(DnsListSettings(zone="l.example", of="sender"), stage="connect"), "lists", "no sender"),
    ],
)
def test_faults_of_settings(settings, key, text):
    [(found, why)] = Dnsbl.find_faults(DnsblSettings(**settings), Settings())
    assert found == key
    assert text in why


def test_sound_settings_have_no_fault():
    assert list(Dnsbl.find_faults(DnsblSettings(**lists("l.example", reject_at=2, defer_at=1)), Settings())) == []
