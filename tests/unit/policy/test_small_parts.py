"""Footers, sets of networks, who has passed pregreet, and replies that a check may give."""

from __future__ import annotations

import mmap
import re

import pytest

from smtpd.mail.reply import Reply
from smtpd.policy.footer import Footer, SessionIds
from smtpd.policy.networks import NetworkSet, NetworkTable
from smtpd.policy.pregreet import PassTable
from smtpd.policy.refusals import check_reply
from smtpd.proto.dialogue import Peer


def test_a_footer_stands_behind_the_last_line_or_on_lines_of_its_own() -> None:
    ids, peer = SessionIds(), Peer("192.0.2.1")
    one = Footer("; see {client} at {hostname}", "mx.example.net", ids)
    assert one.put_behind(Reply(b"550 5.7.1 No"), peer).text == b"550 5.7.1 No; see 192.0.2.1 at mx.example.net"
    two = Footer("\nSession {session}\nAsk us", "mx.example.net", ids)
    made = two.put_behind(Reply(b"421-4.7.0 One\r\n421 4.7.0 Two", closes=True), peer)
    assert made.closes
    assert check_reply(made) == ""
    assert re.fullmatch(
        rb"421-4\.7\.0 One\r\n421-4\.7\.0 Two\r\n421-4\.7\.0 Session [0-9a-z]+-[0-9]+\r\n421 4\.7\.0 Ask us", made.text
    )
    assert ids.of(peer) == ids.of(peer) != ids.of(Peer("192.0.2.1"))


def test_networks_hold_for_mapped_addresses_and_none_for_sockets() -> None:
    networks = NetworkSet(["192.0.2.0/24", "2001:db8::1"])
    assert all(address in networks for address in ("192.0.2.0", "192.0.2.255", "::ffff:192.0.2.1", "2001:db8::1"))
    assert not any(address in networks for address in ("192.0.3.0", "2001:db8::2", "", "::"))
    table = NetworkTable({"10.0.0.0/8": "wide", "10.1.0.0/16": "narrow"})
    assert (table.get("10.1.2.3"), table.get("10.2.2.3"), table.get("11.0.0.1")) == ("narrow", "wide", None)
    assert not NetworkSet([])


def test_who_passed_is_remembered_for_a_time_and_by_ipv6_network() -> None:
    table = PassTable(mmap.mmap(-1, 8 * 64))
    assert not table.has("192.0.2.1", 1000.0)
    table.put("192.0.2.1", 2000.0)
    table.put("2001:db8::1", 2000.0)
    assert table.has("192.0.2.1", 1999.0)
    assert table.has("2001:db8::ffff", 1999.0)
    assert not table.has("192.0.2.1", 2000.0)
    assert not table.has("2001:db8:0:1::1", 1000.0)
    table.close()


@pytest.mark.parametrize(
    "text",
    [b"250 2.0.0 Ok", b"550 5.7.1 \xff", b"550-5.7.1 One\r\n450 4.7.1 Two", b"550 5.7.1 One\r\n550 5.7.1 Two", b"550-5.7.1 One",
     b"550 5.7.1 a\nb", b"550 " + b"x" * 5000],
)  # fmt: skip
def test_what_may_not_stand_on_the_wire_is_found(text: bytes) -> None:
    assert check_reply(Reply(text)) != ""


def test_replies_of_several_lines_may() -> None:
    assert check_reply(Reply(b"550-5.7.1 One\r\n550 5.7.1 Two")) == ""
