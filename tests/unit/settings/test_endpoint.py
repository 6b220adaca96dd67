"""Addresses as the configuration writes them."""

from __future__ import annotations

import pytest

from smtpd.settings.endpoint import Endpoint, parse_endpoint, parse_filter_address


@pytest.mark.parametrize(
    ("text", "endpoint", "is_local"),
    [
        ("127.0.0.1:25", Endpoint(host="127.0.0.1", port=25), True),
        ("127.8.9.1:25", Endpoint(host="127.8.9.1", port=25), True),
        ("0.0.0.0:0", Endpoint(host="0.0.0.0", port=0), False),
        ("[::1]:65535", Endpoint(host="::1", port=65535), True),
        ("[::]:25", Endpoint(host="::", port=25), False),
        ("[2001:DB8:0::1]:25", Endpoint(host="2001:db8::1", port=25), False),
        ("unix:/run/smtpd/lmtp", Endpoint(path="/run/smtpd/lmtp"), True),
        ("unix:rel:5", Endpoint(path="rel:5"), True),
    ],
)
def test_good(text: str, endpoint: Endpoint, is_local: bool) -> None:
    assert parse_endpoint(text) == endpoint
    assert endpoint.is_local is is_local
    assert parse_endpoint(str(endpoint)) == endpoint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the port is missing"),
        ("25", "the port is missing"),
        ("127.0.0.1", "the port is missing"),
        ("::1", "in brackets"),
        ("::1:25", "in brackets"),
        ("[::1]", "not a number"),
        ("127.0.0.1:", "not a number"),
        ("127.0.0.1:smtp", "not a number"),
        ("127.0.0.1:65536", "not a number"),
        ("127.0.0.1:-1", "not a number"),
        ("127.0.0.1:٢٥", "not a number"),
        ("127.0.0.1:" + "1" * 5000, "not a number"),
        (":25", r'write "0\.0\.0\.0:25"'),
        ("*:25", r'write "0\.0\.0\.0:25"'),
        ("localhost:25", "not an IP address"),
        ("127.0.0.256:25", "not an IP address"),
        ("[127.0.0.1]:25", "for IPv6 addresses only"),
        ("unix:", "is missing"),
        ("unix:/a\nb", "control characters"),
        ("unix:/" + "é" * 60, "at most 107 bytes"),
    ],
)
def test_bad(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_endpoint(text)


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("inet:127.0.0.1:8891", Endpoint(host="127.0.0.1", port=8891)),
        ("inet6:[::1]:8891", Endpoint(host="::1", port=8891)),
        ("127.0.0.1:8891", Endpoint(host="127.0.0.1", port=8891)),
        ("[::1]:8891", Endpoint(host="::1", port=8891)),
        ("unix:/run/filter.sock", Endpoint(path="/run/filter.sock")),
    ],
)
def test_addresses_of_filters(text: str, endpoint: Endpoint) -> None:
    assert parse_filter_address(text) == endpoint


@pytest.mark.parametrize("text", ["inet:[::1]:8891", "inet6:127.0.0.1:8891", "inet:unix:/x", "inet:8891@127.0.0.1", "inet:"])
def test_what_is_no_address_of_a_filter(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_filter_address(text)
