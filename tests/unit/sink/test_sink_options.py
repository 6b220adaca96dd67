"""Words of the command line: addresses as smtp-sink takes them, C escapes, replies."""

from __future__ import annotations

import socket

import pytest

from smtpd.sink.options import Behaviour, check_reply, listen_addresses, option_rules, unescape


@pytest.mark.parametrize(
    ("text", "octets"),
    [("", b""), (r"a\n\t\\b", b"a\n\t\\b"), (r"\a\b\f\r\v", b"\a\b\f\r\v"), (r"\101\0\377", b"A\0\xff"), ("é", "é".encode())],
)
def test_c_escapes_become_octets(text: str, octets: bytes) -> None:
    assert unescape(text) == octets


@pytest.mark.parametrize("text", [r"\q", r"\777"])
def test_other_escapes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\\"):
        unescape(text)


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("127.0.0.1:2525", ["127.0.0.1:2525"]),
        ("inet:127.0.0.1:2525", ["127.0.0.1:2525"]),
        ("127.0.0.1:smtp", ["127.0.0.1:25"]),
        ("[::1]:2525", ["[::1]:2525"]),
        ("unix:/tmp/x", ["unix:/tmp/x"]),
    ],
)
def test_addresses_are_smtp_sinks(text: str, addresses: list[str]) -> None:
    assert listen_addresses(text, ipv4=False, ipv6=False) == addresses


def test_without_a_host_it_is_every_interface() -> None:
    assert listen_addresses(":2525", ipv4=True, ipv6=False) == ["0.0.0.0:2525"]
    assert listen_addresses("inet::2525", ipv4=False, ipv6=True) == ["[::]:2525"]
    assert set(listen_addresses(":2525", ipv4=False, ipv6=False)) == {"0.0.0.0:2525", "[::]:2525"}


def test_a_name_is_looked_up() -> None:
    expected = {f"{entry[4][0]}:25" for entry in socket.getaddrinfo("localhost", 25, socket.AF_INET, socket.SOCK_STREAM)}
    assert set(listen_addresses("localhost:25", ipv4=True, ipv6=False)) == expected


@pytest.mark.parametrize(
    "text", ["2525", "127.0.0.1", "127.0.0.1:", "127.0.0.1:nosuchservice", "127.0.0.1:65536", "127.0.0.1:-1", "[::1:25"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        listen_addresses(text, ipv4=False, ipv6=False)


@pytest.mark.parametrize("text", ["250 Ok", "450", "4500 x", "x", "", "550 \r\n250 x"])
def test_a_hard_reply_begins_with_5(text: str) -> None:
    with pytest.raises(ValueError, match="is not a reply"):
        check_reply(text, "5")
    with pytest.raises(ValueError, match="is not a reply"):
        option_rules(Behaviour(hard_reply=text))


@pytest.mark.parametrize("text", ["RCPT", "RCPT:", "RCPT:soon", "XYZZY:1", "RCPT:1:0", "RCPT:1:100", "RCPT:exponential 1 s:5"])
def test_a_delay_needs_a_command_and_a_time(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        option_rules(Behaviour(delays=(text,)))
