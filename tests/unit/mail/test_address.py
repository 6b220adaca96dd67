"""Paths by the grammar of RFC 5321 and 6531: what is taken, what is refused, and what the refusal says."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd.mail.address import AddressError, ParsedPath, has_untrusted_routing, normal_domain, parse_path


def forward(path: bytes, smtputf8: bool = False) -> ParsedPath:
    return parse_path(b"TO:" + path, b"TO", smtputf8)


def refusal(path: bytes, smtputf8: bool = False) -> tuple[str, str]:
    with pytest.raises(AddressError) as caught:
        forward(path, smtputf8)
    assert caught.value.text.isprintable()
    assert caught.value.text.isascii()
    return caught.value.kind, caught.value.text


def why(path: bytes, smtputf8: bool = False) -> str:
    kind, text = refusal(path, smtputf8)
    assert kind == "syntax"
    return text


def test_common_path_with_parameters() -> None:
    parsed = forward(b"<Alice@Example.ORG>  NOTIFY=NEVER ORCPT=rfc822;a")
    assert parsed == ParsedPath(b"Alice@Example.ORG", b"Alice", "example.org", b"NOTIFY=NEVER ORCPT=rfc822;a", False)


def test_null_reverse_path_is_a_value_and_no_recipient() -> None:
    assert parse_path(b"FROM:<> SIZE=1", b"FROM", False) == ParsedPath(b"", b"", "", b"SIZE=1", False)
    assert why(b"<>") == "address is empty"


@pytest.mark.parametrize("argument", [b"", b"TO", b"TO <a@b>", b"TO :<a@b>", b"FROM:<a@b>", b"<a@b>"])
def test_missing_keyword(argument: bytes) -> None:
    with pytest.raises(AddressError) as caught:
        parse_path(argument, b"TO", False)
    assert caught.value.kind == "keyword"


@pytest.mark.parametrize("path", [b"a@b", b" <a@b>", b"\t a@b", b"<a@b.>"])
def test_tolerated_forms(path: bytes) -> None:
    assert forward(path + b" X=1")[:4] == (b"a@b", b"a", "b", b"X=1")


@pytest.mark.parametrize("path", [b"<postmaster>", b"<PostMaster> X=1", b"postmaster", b"<@relay.example:postmaster>"])
def test_postmaster_needs_no_domain(path: bytes) -> None:
    parsed = forward(path)
    assert parsed.mailbox.lower() == b"postmaster"
    assert parsed.domain == ""


def test_postmaster_as_sender_needs_a_domain() -> None:
    with pytest.raises(AddressError, match="domain is missing"):
        parse_path(b"FROM:<postmaster>", b"FROM", False)


@pytest.mark.parametrize("path", [b"<@a,@b.example:u@d>", b"<@a:u@d>"])
def test_source_route_is_stripped(path: bytes) -> None:
    assert forward(path) == ParsedPath(b"u@d", b"u", "d", b"", True)


@pytest.mark.parametrize("path", [b"<@a>", b"<@a,b:u@d>", b"<@a:>", b"<@:u@d>", b"<@a@b:u@d>"])
def test_broken_source_route(path: bytes) -> None:
    assert "missing" in why(path)


@pytest.mark.parametrize(
    ("path", "local"),
    [
        (b'<"john doe"@d>', b"john doe"),
        (b'<"a\\"b\\\\c"@d>', b'a"b\\c'),
        (b'<"u@other"@d>', b"u@other"),
        (b'<"<>"@d>', b"<>"),
        (b'<""@d>', b""),
        (b"<#!$%&'*+-/=?^_`{|}~@d>", b"#!$%&'*+-/=?^_`{|}~"),
        (b"<-oQ/tmp/x@d>", b"-oQ/tmp/x"),
        (b"<${run{id}}@d>", b"${run{id}}"),
    ],
)
def test_local_parts(path: bytes, local: bytes) -> None:
    parsed = forward(path)
    assert parsed.local == local
    assert parsed.mailbox == path[1:-1]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (b">[[D", "unbalanced '>'"),
        (b"<a@b>>", "unbalanced '>'"),
        (b"a@b>", "unbalanced '>'"),
        (b"<a@b", "unbalanced '<'"),
        (b"<", "unbalanced '<'"),
        (b"<" * 1000, "unbalanced '<'"),
        (b"<" * 1000 + b"a@b>", "unbalanced '<'"),
        (b'<"a>"@b', "unbalanced '<'"),
        (b"<<a@b>>", "'<' inside the address"),
        (b"", "address is missing"),
        (b"  ", "address is missing"),
        (b"<a>", "domain is missing"),
        (b"<a@>", "domain is missing"),
        (b"<@>", "local part is missing, or the source route has no ':'"),
        (b"<a@b>c", "something follows '>'"),
        (b"<a@b c>", "blank inside the address"),
        (b"<a b@c>", "blank inside the address"),
        (b"<a@b@c>", "'@' is not allowed in the domain"),
        (b"<a:b@c>", "':' is not allowed in the local part"),
        (b"[[", "'[' is not allowed in the local part"),
        (b"<a(comment)@b>", "comments are not accepted"),
        (b"<(comment)a@b>", "comments are not accepted"),
        (b"<a@b(comment)>", "comments are not accepted"),
        (b"<a..b@c>", "local part has a '.' at its start or end, or two in a row"),
        (b"<.a@c>", "local part has a '.' at its start or end, or two in a row"),
        (b"<a.@c>", "local part has a '.' at its start or end, or two in a row"),
        (b"<a@b..c>", "domain is empty or has an empty label"),
        (b"<a@.>", "domain is empty or has an empty label"),
        (b"<a@-b>", "a label of the domain starts or ends with '-', or has a character that no domain has"),
        (b"<a@b-.c>", "a label of the domain starts or ends with '-', or has a character that no domain has"),
        (b"<a\0@b>", "control character in the local part"),
        (b"<a\r@b>", "control character in the local part"),
        (b"<a@b\x1b[2J>", "control character in the domain"),
        (b'<"a\tb"@b>', "quoted local part does not end, or has a control character"),
        (b'<"a@b>', "quoted local part does not end, or has a control character"),
        (b'<"' + b'\\"' * 1000 + b"@b>", "quoted local part does not end, or has a control character"),
        (b'<"a"b@c>', "'b' is not allowed in the local part"),
        (b"<" + b"a" * 257 + b"@b>", "local part is longer than 256 octets"),
        (b"<a@" + b"b" * 64 + b">", "a label of the domain is longer than 63 characters"),
        (b"<a@" + b"b." * 128 + b"b>", "domain is longer than 255 characters"),
        (b"<a@[192.0.2.1>", "unbalanced '['"),
    ],
)
def test_refusals_say_what_is_wrong(path: bytes, text: str) -> None:
    assert why(path) == text


@pytest.mark.parametrize(
    ("path", "domain"),
    [
        (b"<a@[192.0.2.1]>", "[192.0.2.1]"),
        (b"<a@[IPv6:2001:DB8:0:0::1]>", "[ipv6:2001:db8::1]"),
        (b"<a@[ipv6:::1]>", "[ipv6:::1]"),
        (b"<a@[IPv6:::ffff:192.0.2.1]>", "[ipv6:::ffff:192.0.2.1]"),
    ],
)
def test_address_literals(path: bytes, domain: str) -> None:
    parsed = forward(path)
    assert (parsed.domain, parsed.mailbox) == (domain, path[1:-1])


@pytest.mark.parametrize(
    "literal",
    [b"[]", b"[192.0.2]", b"[192.0.2.256]", b"[192.0.2.01]", b"[IPv6:1]", b"[2001:db8::1]", b"[IPv6:fe80::1%eth0]", b"[IPv6:]",
     b"[tag:text]", b"[192.0.2.1 ]", b"[\xc3\xa9]"],
)  # fmt: skip
def test_address_literals_are_validated(literal: bytes) -> None:
    assert why(b"<a@" + literal + b">", smtputf8=True).startswith("not a valid address literal")


def test_internationalized_address() -> None:
    parsed = forward("<usér@Bücher.example>".encode(), smtputf8=True)
    assert parsed.domain == "xn--bcher-kva.example"
    assert parsed.local == "usér".encode()
    assert parsed.mailbox == "usér@Bücher.example".encode()


def test_mixed_normal_forms_compare_equal() -> None:
    composed, decomposed = (unicodedata.normalize(form, "é@é.example").encode() for form in ("NFC", "NFD"))
    one, other = (forward(b"<" + path + b">", smtputf8=True) for path in (composed, decomposed))
    assert one.mailbox != other.mailbox
    assert (one.local, one.domain) == (other.local, other.domain)


@pytest.mark.parametrize("path", ["<usér@example.org>", "<user@bücher.example>", '<"é"@a>'])
def test_not_ascii_without_smtputf8(path: str) -> None:
    assert refusal(path.encode())[0] == "utf8"


@pytest.mark.parametrize("octets", [b"\xc0\xaf", b"\xe0\x80\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xff", b"\xc3"])
def test_invalid_utf8(octets: bytes) -> None:
    assert why(b"<a" + octets + b"@b.example>", smtputf8=True) == "invalid UTF-8"
    assert why(b"<a@b" + octets + b".example>", smtputf8=True) == "invalid UTF-8"


@pytest.mark.parametrize("character", ["\u202e", "\u2066", "\u200f", "\u0085", "\u2028"])
def test_direction_and_line_controls_in_local_part(character: str) -> None:
    assert why(f"<a{character}b@c.example>".encode(), smtputf8=True) == "control character in the local part"


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("Example.ORG", "example.org"),
        ("example.org.", "example.org"),
        ("under_score.example", "under_score.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
        ("bücher。example。", "xn--bcher-kva.example"),
        ("[IPv6:2001:DB8::0]", "[ipv6:2001:db8::]"),
    ],
)
def test_normal_domain(text: str, normal: str) -> None:
    assert normal_domain(text) == normal
    assert normal_domain(normal) == normal


@pytest.mark.parametrize(
    "text", ["", ".", "a b", "a..b", "*.example", "\u2100.example", "☃.example", "é" * 300, "[192.0.2.1", "[1.2.3.45"]
)
def test_not_a_domain(text: str) -> None:
    with pytest.raises(AddressError):
        normal_domain(text)


@pytest.mark.parametrize("local", [b"user%other", b"other!user", b"user@other"])
def test_untrusted_routing(local: bytes) -> None:
    assert has_untrusted_routing(local)
    assert not has_untrusted_routing(local.translate(None, b"%!@"))


OCTETS = st.lists(
    st.sampled_from(
        [b"<", b">", b"@", b'"', b"\\", b"(", b"[", b"]", b":", b",", b".", b" ", b"a", b"b.c", b"\0", b"\xc3\xa9", b"\xff", b"-"]
    )
).map(b"".join)


def parse_or_refuse(path: bytes, smtputf8: bool) -> ParsedPath | AddressError:
    try:
        return forward(path, smtputf8)
    except AddressError as error:
        return error


@given(OCTETS, st.booleans())
def test_any_octets_give_a_path_or_a_refusal(path: bytes, smtputf8: bool) -> None:
    parsed = parse_or_refuse(path, smtputf8)
    if isinstance(parsed, AddressError):
        assert parsed.text.isascii()
        assert parsed.text.isprintable()
        return
    assert parsed.mailbox in path
    assert bool(parsed.domain) == (b"@" in parsed.mailbox)
    assert parsed.domain.isascii()
    assert not set(parsed.mailbox) & set(b"\0\r\n")
    assert smtputf8 or parsed.mailbox.isascii()


def count_steps(path: bytes) -> int:
    """How many Python lines a refusal or a path costs."""
    steps = 0

    def trace(frame: object, event: str, argument: object) -> object:
        nonlocal steps
        steps += event == "line"
        return trace

    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        forward(path, smtputf8=True)
    except AddressError:
        pass
    finally:
        sys.settrace(None)
    return steps


@pytest.mark.parametrize(
    "unit", [b"<", b">", b"<>", b'"', b'\\"', b"@", b"@a,", b"@a:", b"(", b"[", b"a.", b".", b"\xc3\xa9", b" "]
)
def test_hostile_paths_take_steps_in_proportion(unit: bytes) -> None:
    for head in (b"", b"<", b'<"', b"<a@", b"<a@["):
        small, large = (count_steps(head + (unit * 2048)[:size]) for size in (200, 2000))
        assert large <= 12 * small
