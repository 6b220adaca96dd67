"""SPF, DKIM, ARC and DMARC: keys and records from knot, mails signed by dkimpy, and what is said, noted and removed."""

import base64
import os
import signal
import sys

import dkim
import pytest
from asker import TableAsker, run, wire
from check_rig import CheckRig, question
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from name_server import NameServer
from zone_server import ZoneServer, free_port

from smtpd.mail.changes import ChangeHeader, Hold, InsertHeader
from smtpd.policy.auth.alignment import DmarcResult, from_domains, judge
from smtpd.policy.auth.check import Auth
from smtpd.policy.auth.pool import VerifierError, VerifierPool
from smtpd.policy.auth.results import make_field, remove_forged
from smtpd.policy.auth.signatures import Key, Order, Signature, Verification, key_names, verify
from smtpd.policy.auth.spf import SpfEvaluator, SpfResult
from smtpd.settings import Settings
from smtpd.settings.auth import AuthSettings

MAIL = b"From: Alice <alice@example.org>\r\nTo: bob@example.net\r\nSubject: hello\r\n\r\ntext\r\n"


def make_key(bits=2048):
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return private, "v=DKIM1; k=rsa; p=" + base64.b64encode(public).decode()


PRIVATE, PUBLIC = make_key()
SMALL_PRIVATE, SMALL_PUBLIC = make_key(1024)


def sign(mail=MAIL, domain=b"example.org", selector=b"s1", private=PRIVATE):
    return dkim.sign(mail, selector, domain, private, include_headers=[b"from", b"subject"]) + mail


def order(message, keys, **more):
    return Order(message, keys, more.get("signatures", 5), more.get("key_bits", 1024), True, more.get("arc", False))


KEYS = {"s1._domainkey.example.org": Key(PUBLIC.encode())}


# --- signatures ----------------------------------------------------------------------------------------------------------


def test_signature_that_holds():
    [found] = verify(order(sign(), KEYS)).signatures
    assert (found.result, found.domain, found.selector, len(found.start)) == ("pass", "example.org", "s1", 8)


@pytest.mark.parametrize(
    ("message", "keys", "result"),
    [
        (sign().replace(b"text", b"Text"), KEYS, "fail"),
        (sign().replace(b"Subject: hello", b"Subject: hullo"), KEYS, "fail"),
        (sign(), {}, "permerror"),
        (sign(), {"s1._domainkey.example.org": Key(b"", True)}, "temperror"),
        (sign(), {"s1._domainkey.example.org": Key(b"nonsense")}, "fail"),
        (sign(), {"s1._domainkey.example.org": Key(b"v=DKIM1; p=!!")}, "fail"),
        (b"DKIM-Signature: nonsense\r\n" + MAIL, KEYS, "permerror"),
        (b"DKIM-Signature: v=1; a=rsa-sha256; d=\xff; s=x; h=from; bh=; b=\r\n" + MAIL, KEYS, "permerror"),
    ],
)
def test_signature_that_does_not_hold(message, keys, result):
    [found] = verify(order(message, keys)).signatures
    assert found.result == result


def test_small_key_does_not_count():
    message = sign(private=SMALL_PRIVATE)
    keys = {"s1._domainkey.example.org": Key(SMALL_PUBLIC.encode())}
    assert verify(order(message, keys)).signatures[0].result == "pass"
    assert verify(order(message, keys, key_bits=2048)).signatures[0].result != "pass"


def test_number_of_signatures_is_bounded():
    message = sign(sign(sign()))
    assert len(verify(order(message, KEYS, signatures=2)).signatures) == 2
    assert key_names(message, 2, True, False) == ["s1._domainkey.example.org"]
    many = b"".join(b"DKIM-Signature: d=%d.example; s=x\r\n" % n for n in range(100)) + MAIL
    assert key_names(many, 3, True, False) == [f"x._domainkey.{n}.example" for n in range(3)]
    assert key_names(many, 3, False, True) == []


def test_arc_chain():
    private = PRIVATE
    signed = MAIL
    results = b"Authentication-Results: mx.example.org; spf=pass smtp.mailfrom=x@example.org\r\n" + MAIL
    fields = dkim.arc_sign(results, b"s1", b"example.org", private, b"mx.example.org", include_headers=[b"from", b"subject"])
    signed = b"".join(fields) + results
    assert verify(order(signed, KEYS, arc=True)).arc == "pass"
    assert verify(order(signed.replace(b"hello", b"hullo"), KEYS, arc=True)).arc == "fail"
    assert verify(order(MAIL, KEYS, arc=True)).arc == "none"
    assert verify(order(signed, {"s1._domainkey.example.org": Key(b"", True)}, arc=True)).arc == "temperror"
    assert key_names(signed, 5, True, True) == ["s1._domainkey.example.org"]


# --- the processes -------------------------------------------------------------------------------------------------------


class PoolRig(CheckRig):
    def __init__(self, **more):
        super().__init__()
        self.pool = VerifierPool(self.side, 1, **more)

    def verify(self, message=None, timeout_s=30.0):
        return self.run(lambda: self.pool.verify(order(message or sign(), KEYS)), timeout_s)


@pytest.fixture
def pool():
    rig = PoolRig()
    yield rig
    rig.close()


def test_process_is_used_again_and_replaced_when_it_died(pool):
    assert pool.verify().signatures[0].result == "pass"
    [process] = pool.pool._idle
    assert pool.verify().signatures[0].result == "pass"
    assert pool.pool._idle == [process]
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(VerifierError):
        pool.verify()
    assert pool.verify().signatures[0].result == "pass"
    assert pool.pool._idle != [process]


def test_process_that_takes_too_long_is_killed(pool):
    pool.verify()
    [process] = pool.pool._idle
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(TimeoutError):
        pool.verify(timeout_s=0.3)
    assert pool.verify().signatures[0].result == "pass"
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    "program", ["", "print('garbage without an end' * 99)", "import os; os.write(1, b'\\0\\0\\0\\3abc'); input()"]
)
def test_process_that_answers_nonsense_is_a_failure(program):
    rig = PoolRig(command=(sys.executable, "-c", program))
    with pytest.raises(VerifierError):
        rig.verify()
    rig.close()


# --- SPF -----------------------------------------------------------------------------------------------------------------

ZONE = f"""\
@ TXT "v=spf1 ip4:192.0.2.0/24 include:other.example.org mx -all"
@ MX 10 mail
mail A 198.51.100.25
other TXT "v=spf1 ip6:2001:db8::/32 ~all"
soft TXT "v=spf1 ~all"
none A 192.0.2.1
bad TXT "v=spf1 foo:bar -all"
loop TXT "v=spf1 include:loop.example.org -all"
broken TXT "v=spf1 include:x.broken.example -all"
strict TXT "v=spf1 -all"
_dmarc TXT "v=DMARC1; p=reject; sp=quarantine"
s1._domainkey TXT {" ".join(f'"{PUBLIC[i : i + 200]}"' for i in range(0, len(PUBLIC), 200))}
"""


@pytest.fixture(scope="module")
def zones(tmp_path_factory):
    server = ZoneServer(tmp_path_factory.mktemp("knot"), {"example.org": ZONE, "broken.example": None})
    yield server
    server.close()


@pytest.fixture
def rig(zones):
    rig = CheckRig(zones.address)
    yield rig
    rig.close()


@pytest.mark.peer("knot")
@pytest.mark.parametrize(
    ("address", "sender", "result"),
    [
        ("192.0.2.1", "a@example.org", "pass"),
        ("198.51.100.25", "a@example.org", "pass"),
        ("2001:db8::1", "a@example.org", "pass"),
        ("203.0.113.1", "a@example.org", "fail"),
        ("192.0.2.1", "a@soft.example.org", "softfail"),
        ("192.0.2.1", "a@none.example.org", "none"),
        ("192.0.2.1", "a@absent.example.org", "none"),
        ("192.0.2.1", "a@bad.example.org", "permerror"),
        ("192.0.2.1", "a@loop.example.org", "permerror"),
        ("192.0.2.1", "a@broken.example.org", "temperror"),
        ("192.0.2.1", "", "pass"),
        ("", "a@example.org", "none"),
        ("192.0.2.1", "a@[192.0.2.1]", "none"),
    ],
)
def test_spf(rig, address, sender, result):
    evaluator = SpfEvaluator(rig.make(Auth)._spf._records)
    found = rig.run(lambda: evaluator.evaluate(address, sender, "example.org"))
    assert found.result == result
    assert found.is_helo == (not sender)
    evaluator.close()


# --- DMARC ---------------------------------------------------------------------------------------------------------------

POLICY = {("_dmarc.example.org", "TXT"): ["v=DMARC1; p=reject; sp=quarantine; adkim=r"]}
PASS = SpfResult("pass", "example.org")


def dmarc(header, spf=None, signatures=(), records=POLICY, failing=()):
    return run(judge(TableAsker(records, failing), header, spf, list(signatures)))


def by(domain, result="pass"):
    return Signature(result, domain, "s1")


@pytest.mark.parametrize(
    ("sender", "spf", "signatures", "result", "wish"),
    [
        ("a@example.org", PASS, [], "pass", "reject"),
        ("a@example.org", None, [by("example.org")], "pass", "reject"),
        ("a@example.org", None, [by("sub.example.org")], "pass", "reject"),
        ("a@example.org", SpfResult("pass", "evil.example"), [by("evil.example")], "fail", "reject"),
        ("a@example.org", SpfResult("fail", "example.org"), [by("example.org", "fail")], "fail", "reject"),
        ("a@sub.example.org", None, [], "fail", "quarantine"),
        ("a@sub.example.org", None, [by("org")], "fail", "quarantine"),  # nobody speaks for a public suffix
        ("a@example.org", SpfResult("temperror", "example.org"), [], "temperror", "reject"),
        ("a@example.org", None, [by("example.org", "temperror")], "temperror", "reject"),
        ("a@other.example", PASS, [], "none", "none"),
    ],
)
def test_dmarc(sender, spf, signatures, result, wish):
    found = dmarc(f"From: {sender}\r\n".encode(), spf, signatures)
    assert (found.result, found.wish) == (result, wish)


def test_dmarc_records_that_are_bad_or_missing():
    header = b"From: a@example.org\r\n"

    def said(*records, failing=()):
        return dmarc(header, records={("_dmarc.example.org", "TXT"): list(records)}, failing=failing).result

    assert said("v=DMARC1; p=maybe") == "permerror"
    assert said("v=DMARC1; p=none", "v=DMARC1; p=reject") == "none"
    assert said("v=spf1 -all", "v=DMARC1; p=none") == "fail"
    assert said(failing=["_dmarc.example.org"]) == "temperror"
    test_mode = dmarc(header, records={("_dmarc.example.org", "TXT"): ["v=DMARC1; p=reject; t=y"]})
    assert (test_mode.result, test_mode.wish) == ("fail", "quarantine")


@pytest.mark.parametrize(
    ("header", "domains"),
    [
        (b"From: Alice <a@Example.org>\r\n", ["example.org"]),
        (b"from:\r\n =?utf-8?q?x=40y?= <a@example.org>\r\n", ["example.org"]),
        (b'From: "a@evil.example" <a@example.org>\r\n', ["example.org"]),
        (b"From: a@example.org, b@example.org\r\n", ["example.org"]),
        (b"From: a@example.org\r\nFrom: b@example.net\r\n", ["example.org", "example.net"]),
        (b"From: a@b\xc3\xbccher.example\r\n", ["xn--bcher-kva.example"]),
        (b"From: nobody\r\n", [""]),
        (b"From: \r\n", [""]),
        (b"From: a@-bad-.example\r\n", [""]),
        (b"Subject: x\r\n", []),
    ],
)
def test_from_domains(header, domains):
    assert from_domains(header) == domains


def test_from_that_hides_its_domain_is_refused_where_dmarc_may_refuse():
    assert dmarc(b"From: a@example.org\r\nFrom: b@example.net\r\n") == DmarcResult(
        "permerror", wish="reject", text="From names several domains"
    )
    assert dmarc(b"Subject: x\r\n").text == "no usable From"


# --- the field -----------------------------------------------------------------------------------------------------------


def test_field():
    value = make_field(
        "mx1.example.net", "a@example.org", "h.example", SpfResult("pass", "example.org"),
        Verification(
            [Signature("pass", "example.org", "s1", "AbCd/+12"), Signature("fail", "x;y", "", "", 'a "bad" \r\n one')],
            has_dkim=True,
            arc="pass",
        ),
        DmarcResult("pass", "example.org", "reject"),
    )  # fmt: skip
    assert value == (
        b"mx1.example.net;\r\n\tspf=pass smtp.mailfrom=a@example.org;"
        b"\r\n\tdkim=pass header.d=example.org header.s=s1 header.b=AbCd/+12;"
        b'\r\n\tdkim=fail reason="a \\"bad\\" ?? one" header.d="x;y";\r\n\tarc=pass;\r\n\tdmarc=pass header.from=example.org'
    )
    assert make_field("h", "", "x", None, None, None) == b"h;\r\n\tnone"


@pytest.mark.parametrize(
    ("value", "is_ours"),
    [
        (b" mx1.example.net; spf=pass", True),
        (b"\r\n\tMX1.example.NET;\r\n spf=pass", True),
        (b' (c) "mx1.example.net" 1; spf=pass', True),
        (b" mx1.example.net", True),
        (b" mx1.example.net.; spf=pass", True),
        (b" amx1.example.net; spf=pass", False),
        (b" mx1.example.net.example; spf=pass", False),
        (b" other.example; spf=pass (mx1.example.net)", False),
    ],
)
def test_forged_fields_are_found(value, is_ours):
    header = b"Authentication-Results:" + value + b"\r\n"
    assert bool(remove_forged(header, "mx1.example.net")) == is_ours


def test_forged_fields_are_removed_from_the_last_on():
    header = b"".join(b"Authentication-Results: %s; x\r\n" % name for name in (b"h.example", b"o.example", b"h.example"))
    assert [change.nth for change in remove_forged(header, "h.example")] == [3, 1]


# --- the check -----------------------------------------------------------------------------------------------------------


class Content:
    def __init__(self, mail):
        self.header = mail.partition(b"\r\n\r\n")[0] + b"\r\n"
        self.size_bytes = len(mail)
        self._mail = mail

    async def __aiter__(self):
        for start in range(0, len(self._mail), 100):
            yield self._mail[start : start + 100]


def body(mail, address="192.0.2.1", sender=b"alice@example.org", **more):
    return question("body", address, sender=sender, content=Content(mail), **more)


def field_of(verdict):
    [value] = [change.value for change in verdict.changes if isinstance(change, InsertHeader)]
    return value.decode().replace("\r\n\t", " ")


@pytest.mark.peer("knot")
def test_good_mail_gets_one_field(rig):
    verdict = rig.ask(rig.make(Auth), body(b"Authentication-Results: mx1.example.net; dmarc=pass\r\n" + sign()))
    assert verdict.reply is None
    forged, ours = verdict.changes
    assert forged == ChangeHeader(b"Authentication-Results", 1, None)
    assert ours.index == 0
    text = field_of(verdict)
    assert text.startswith(
        "mx1.example.net; spf=pass smtp.mailfrom=alice@example.org; dkim=pass header.d=example.org header.s=s1 "
    )
    assert text.endswith("; dmarc=pass header.from=example.org")


@pytest.mark.peer("knot")
def test_spf_refuses_at_mail_and_is_asked_once(rig):
    check = rig.make(Auth, spf="reject")
    assert check.stages == ("mail", "body")
    assert wire(rig.ask(check, question("mail", "203.0.113.1", sender=b"a@example.org"))) == "550 5.7.23"
    memory = {}
    assert rig.ask(check, question("mail", sender=b"a@strict.example.org", memory=memory)) is not None
    assert memory["spf"].result == "fail"
    check.end_transaction(memory)
    assert memory == {}
    assert rig.ask(check, question("mail", sender=b"a@soft.example.org")) is None
    assert rig.make(Auth).stages == ("body",)


@pytest.mark.peer("knot")
def test_dmarc_refuses_or_holds_or_notes(rig):
    evil = {"address": "203.0.113.1", "sender": b"x@soft.example.org"}
    assert wire(rig.ask(rig.make(Auth, dmarc="reject"), body(MAIL, **evil))) == "550 5.7.26"
    noted = rig.ask(rig.make(Auth), body(MAIL, **evil))
    assert noted.reply is None
    assert "dmarc=fail" in field_of(noted)
    held = rig.ask(rig.make(Auth, quarantine="hold"), body(MAIL, **evil))
    assert held.changes[-1] == Hold("DMARC policy of example.org: reject")
    twice = MAIL + b""
    twice = b"From: b@example.net\r\n" + twice
    assert wire(rig.ask(rig.make(Auth, dmarc="reject"), body(twice))) == "550 5.7.26"


@pytest.mark.peer("knot")
def test_mail_that_is_too_large_is_not_refused_for_it(rig):
    check = rig.make(Auth, dmarc="reject", size_limit=1024)
    verdict = rig.ask(check, body(sign() + b"x" * 2000, address="203.0.113.1", sender=b"x@soft.example.org"))
    text = field_of(verdict)
    assert "dkim=" not in text
    assert 'dmarc=temperror reason="too large to verify its signatures"' in text


def test_dns_that_is_down_refuses_nobody():
    rig = CheckRig(f"127.0.0.1:{free_port()}")
    text = field_of(rig.ask(rig.make(Auth, spf="reject", dmarc="reject"), body(sign())))
    assert "spf=temperror" in text
    assert 'dkim=temperror reason="key not available"' in text
    assert "dmarc=temperror" in text
    rig.close()


def test_dns_that_is_silent_refuses_nobody():
    server = NameServer()
    server.silent.update({"example.org", "s1._domainkey.example.org", "_dmarc.example.org"})
    rig = CheckRig(server.address)
    text = field_of(rig.ask(rig.make(Auth), body(sign())))
    assert "spf=temperror" in text
    rig.close()
    server.close()


@pytest.mark.peer("knot")
def test_dead_process_is_a_failure_of_the_check(rig, monkeypatch):
    check = rig.make(Auth)
    check._pool._command = (sys.executable, "-c", "")
    with pytest.raises(VerifierError):
        rig.ask(check, body(sign()))


def test_faults_of_settings(monkeypatch):
    [(key, _)] = Auth.find_faults(AuthSettings(spf="off", dkim=False), Settings())
    assert key == "dmarc"
    assert list(Auth.find_faults(AuthSettings(), Settings())) == []
