"""Routes: the first that matches wins."""

import pytest

from smtpd.delivery import router as router_module
from smtpd.delivery.router import Router
from smtpd.mail.envelope import Envelope, Recipient
from smtpd.settings import BounceSettings, RouteSettings


def make_router(*patterns: list[str]) -> Router:
    return Router(
        RouteSettings(domains=domains, transport="discard", name=f"r{number}") for number, domains in enumerate(patterns)
    )


def name_of(router: Router, domain: str) -> str | None:
    route = router.route_for(domain)
    return route.name if route is not None else None


@pytest.mark.parametrize(
    ("domain", "name"),
    [
        ("example.org", "r0"),
        ("a.example.org", "r1"),
        ("b.a.example.org", "r1"),
        ("special.example.org", "r1"),  # r2 names it, but comes later
        ("example.net", "r2"),
        ("x.example.net", None),
        ("org", None),
        ("notexample.org", None),
        (".example.org", "r1"),
        ("", None),
        ("[127.0.0.1]", None),
    ],
)
def test_first_match(domain: str, name: str | None) -> None:
    router = make_router(["example.org"], [".example.org"], ["special.example.org", "example.net"])
    assert name_of(router, domain) == name
    assert router.has_route(domain) is (name is not None)


def test_star_takes_the_rest_but_only_in_its_turn() -> None:
    router = make_router(["example.org"], ["*"], ["late.example"])
    assert name_of(router, "example.org") == "r0"
    assert name_of(router, "late.example") == "r1"
    assert name_of(router, "[IPv6:::1]") == "r1"


def test_a_nearer_subdomain_does_not_beat_an_earlier_route() -> None:
    router = make_router([".org"], [".example.org"], ["a.example.org"])
    assert name_of(router, "a.example.org") == "r0"


def test_patterns_are_compared_without_case() -> None:
    assert name_of(make_router(["Example.ORG"]), "example.org") == "r0"


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router_module, "_CACHE_MAX", 10)
    router = make_router(["*"])
    for number in range(100):
        assert router.has_route(f"d{number}.example")
    assert len(router._cache) <= 10


def by_sender() -> Router:
    sections = [
        RouteSettings(domains=["*"], transport="discard", name="ours", senders=["example.com", ".example.com"]),
        RouteSettings(domains=["example.org"], transport="discard", name="theirs"),
        RouteSettings(domains=["example.net"], transport="discard", name="any", senders=["*"]),
    ]
    return Router(sections, BounceSettings(enabled=True, next_hop=["mx:"]))


@pytest.mark.parametrize(
    ("sender", "domain", "name"),
    [
        (b"a@example.com", "example.org", "ours"),
        (b"a@EXAMPLE.com", "example.org", "ours"),
        (b"a@sub.example.com", "nowhere.example", "ours"),
        (b"a@notexample.com", "example.org", "theirs"),
        (b'"a@example.com"@evil.example', "example.org", "theirs"),
        (b"a@evil.example", "nowhere.example", None),
        (b"a@evil.example", "example.net", "any"),
        (b"", "example.org", "theirs"),
        (b"", "example.net", None),  # nobody is no sender, not even any
        (b"a@\xff\xfe", "example.org", "theirs"),
        (b"a@[192.0.2.1]", "example.org", "theirs"),
    ],
)
def test_a_route_with_senders_takes_mail_of_these_only(sender: bytes, domain: str, name: str | None) -> None:
    route = by_sender().route_for(domain, sender)
    assert (route.name if route is not None else None) == name


def test_a_domain_that_some_senders_may_reach_has_a_route() -> None:
    router = by_sender()
    assert router.has_route("nowhere.example")
    assert not make_router(["example.org"]).has_route("nowhere.example")


def test_bounces_take_their_own_route_which_no_other_mail_takes() -> None:
    router = by_sender()
    envelope = Envelope(b"", [Recipient(b"a@example.org", "example.org")], "192.0.2.1", "h", b"h", "ESMTP", 0.0, via="bounce")
    route = router.route_of(envelope, "example.org")
    assert route is router.routes[-1]
    assert route.settings.next_hop == ["mx:"]
    envelope.via = ""
    assert router.route_of(envelope, "example.org") is router.routes[1]
    assert make_router(["*"]).route_of(envelope, "x.example") is not None


def test_mail_of_bounces_has_no_route_when_they_are_switched_off() -> None:
    envelope = Envelope(b"", [Recipient(b"a@example.org", "example.org")], "192.0.2.1", "h", b"h", "ESMTP", 0.0, via="bounce")
    assert make_router(["*"]).route_of(envelope, "example.org") is None
