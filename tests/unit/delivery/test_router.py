"""Routes: the first that matches wins."""

import pytest

from smtpd.delivery import router as router_module
from smtpd.delivery.router import Router
from smtpd.settings import RouteSettings


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
