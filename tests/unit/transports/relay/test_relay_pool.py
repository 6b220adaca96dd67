"""Connections to next hops: kept and renewed, how many, to which of several, set aside and tried again, shared with others."""

from __future__ import annotations

import dataclasses
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import next_hop
import pytest
from name_server import NameServer
from next_hop import Action, NextHop
from relay_rig import LONG_S, PATIENCE_S, RelayRig, Sent

from smtpd.mail.outcome import DEFERRED, DELIVERED, UNDELIVERABLE
from smtpd.net.hop_table import ROWS, HopTable
from smtpd.net.hops import Hop, LookupFailure
from smtpd.net.resolver import Resolver
from smtpd.settings.delivery import DnsSettings
from smtpd.transports.relay.health import HopHealth
from smtpd.transports.relay.pool import Pool
from smtpd.transports.relay.transport import RelayTransport


@pytest.fixture
def rig() -> Iterator[RelayRig]:
    rig = RelayRig()
    yield rig
    rig.close()


@pytest.fixture
def hop() -> Iterator[NextHop]:
    with NextHop() as hop:
        yield hop


@pytest.fixture
def other() -> Iterator[NextHop]:
    with NextHop() as hop:
        yield hop


@pytest.fixture
def down() -> Iterator[str]:
    """The name of a next hop that refuses connections."""
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{unheard.getsockname()[1]}"


def deliver(rig: RelayRig, transport: RelayTransport, key: str = "") -> Sent:
    sent = rig.send(transport, key=key)
    rig.await_done(sent)
    return sent


# --- kept connections ------------------------------------------------------------------------------------------------


def test_a_connection_is_kept_for_the_next_mail(rig: RelayRig, hop: NextHop) -> None:
    transport = rig.make(hop.name)
    assert [deliver(rig, transport).statuses for _ in range(3)] == [[DELIVERED]] * 3
    assert [mail.connection for mail in hop.mails] == [1, 1, 1]
    assert rig.connections(hop.name) == 1


def test_a_kept_connection_is_closed_when_no_mail_comes(rig: RelayRig, hop: NextHop) -> None:
    transport = rig.make(hop.name, connection_idle=0.001)
    assert deliver(rig, transport).statuses == [DELIVERED]
    rig.await_closed(transport)
    assert hop.count("quit") == 1
    assert rig.connections(hop.name) == 0


def test_a_connection_takes_so_many_mails_and_no_more(rig: RelayRig, hop: NextHop) -> None:
    transport = rig.make(hop.name, mails_per_connection=2)
    for _ in range(5):
        deliver(rig, transport)
    assert [mail.connection for mail in hop.mails] == [1, 1, 2, 2, 3]


def test_an_old_connection_is_not_used_again(rig: RelayRig, hop: NextHop) -> None:
    transport = rig.make(hop.name, connection_age=0.001, quit_timeout=0.1)
    for _ in range(3):
        deliver(rig, transport)
        rig.await_closed(transport)
    assert [mail.connection for mail in hop.mails] == [1, 2, 3]


def test_a_next_hop_that_closes_kept_connections_is_not_blamed(rig: RelayRig, hop: NextHop) -> None:
    transport = rig.make(hop.name)
    deliver(rig, transport)
    hop.drop_connections()
    rig.await_closed(transport)
    assert deliver(rig, transport).statuses == [DELIVERED]
    assert rig.warnings == []
    assert transport.window("") == 10  # one failure would warn of nothing, but halve it


def test_a_kept_connection_that_says_421_is_not_blamed(rig: RelayRig, hop: NextHop) -> None:
    is_kept = threading.Event()

    def say_goodbye(talk: next_hop.Conversation) -> None:
        talk.sock.sendall(b"250 2.0.0 Taken\r\n")
        is_kept.wait(PATIENCE_S)
        talk.sock.sendall(b"421 4.4.2 Idle for too long\r\n")
        next_hop.close(talk)

    hop.on["end"] = [say_goodbye]
    transport = rig.make(hop.name)
    deliver(rig, transport)
    is_kept.set()
    rig.await_closed(transport)
    assert deliver(rig, transport).statuses == [DELIVERED]
    assert rig.warnings == []
    assert transport.window("") == 10  # one failure would warn of nothing, but halve it


@pytest.mark.parametrize("last_words", [b"", b"421 4.4.2 Idle for too long\r\n"], ids=["silent", "421"])
def test_a_mail_on_a_stale_connection_goes_over_a_new_one_without_counting(
    rig: RelayRig, hop: NextHop, last_words: bytes
) -> None:
    """The next hop has closed, but that is seen only when the mail was sent."""

    def go(talk: next_hop.Conversation) -> None:
        talk.sock.sendall(last_words)
        next_hop.close(talk)

    hop.on["mail"] = [None, go]
    transport = rig.make(hop.name)
    deliver(rig, transport)
    second = deliver(rig, transport)
    assert second.statuses == [DELIVERED]
    assert [mail.connection for mail in hop.mails] == [1, 2]
    assert rig.warnings == []
    assert transport.window("") == 10
    assert transport.unconfirmed == 0


def test_when_one_kept_connection_is_stale_the_others_are_not_tried_either(rig: RelayRig, hop: NextHop) -> None:
    """The stale one has not had a mail yet: it came when there was none left for it."""
    is_late = threading.Event()
    hop.on["greeting"] = [None, lambda talk: is_late.wait(PATIENCE_S) and None]
    transport = rig.make(hop.name, route={"connections": 2})
    rig.await_done(*[rig.send(transport) for _ in range(5)])
    assert transport.connections == 2
    is_late.set()
    rig.await_free(transport)
    before = hop.count("mail")
    assert before == 5
    hop.on["mail"] = [next_hop.close]
    sent = rig.send(transport)
    rig.await_done(sent)
    assert sent.statuses == [DELIVERED]
    used = [mail.connection for mail in hop.mails]
    assert used in ([1] * 5 + [3], [2] * 5 + [3])
    assert hop.count("mail") == before + 2
    assert rig.warnings == []


def keep_connections(rig: RelayRig, transport: RelayTransport) -> Pool:
    """Have several connections kept, to a next hop that is known to be quick."""
    rig.await_done(*[rig.send(transport) for _ in range(4)])
    pool = transport._pools[""]
    rig.run_until(lambda: len(pool._idle) == len(pool.links) >= 2)
    pool.sweep(rig.loop.now)  # the last one may have found some that took long on a busy machine
    pool._mail_s = 0.0
    return pool


def test_mails_follow_each_other_on_one_connection_to_a_quick_next_hop(rig: RelayRig, hop: NextHop) -> None:
    transport = rig.make(hop.name)
    pool = keep_connections(rig, transport)
    assert transport._timer is not None
    transport._timer.cancel()  # the sweep would give the second mail another connection
    queue = [rig.send(transport) for _ in range(2)]
    assert (pool.busy_links, len(pool._pending)) == (1, 1)
    rig.await_done(*queue)
    assert [sent.statuses for sent in queue] == [[DELIVERED]] * 2
    assert hop.mails[-1].connection == hop.mails[-2].connection
    assert pool.busy_links == 0


def test_no_mail_waits_long_behind_one_that_hangs(rig: RelayRig, hop: NextHop) -> None:
    transport = rig.make(hop.name)
    keep_connections(rig, transport)
    hop.on["data"] = [next_hop.hang]
    hanging = rig.send(transport)
    rig.run_until(lambda: not hop.on["data"])  # it is this mail that hangs, not the other
    behind = rig.send(transport)
    rig.await_done(behind)
    assert behind.statuses == [DELIVERED]
    assert not hanging.is_done


def test_no_mail_waits_for_a_connection_that_is_known_to_hang(rig: RelayRig, hop: NextHop) -> None:
    transport = rig.make(hop.name)
    pool = keep_connections(rig, transport)
    hop.on["data"] = [next_hop.hang]
    hanging = rig.send(transport)
    assert transport._timer is not None
    transport._timer.cancel()  # no other sweep than this one
    rig.run_until(lambda: not hop.on["data"])  # it is this mail that hangs, not one that overtakes it
    pool.sweep(rig.loop.now + 1.5)
    for _ in range(3):
        following = rig.send(transport)
        assert (pool.busy_links, len(pool._pending)) == (2, 0)
        rig.await_done(following)
        assert following.statuses == [DELIVERED]
    assert not hanging.is_done
    (stalled,) = (link for link in pool.links if link.is_stalled)
    assert stalled.load == 1


def test_a_mail_is_sent_again_only_once_that_way(rig: RelayRig, hop: NextHop) -> None:
    transport = rig.make(hop.name)
    deliver(rig, transport)
    hop.on["mail"] = next_hop.close
    assert deliver(rig, transport).statuses == [DEFERRED]
    assert hop.connections == 2


# --- how many --------------------------------------------------------------------------------------------------------


def test_the_number_of_connections_grows_while_mails_go_through_up_to_the_limit(rig: RelayRig, hop: NextHop) -> None:
    transport = rig.make(hop.name, route={"connections": 8})
    assert transport.window("") == 10
    queue = [rig.send(transport) for _ in range(100)]
    most = 0

    def watch() -> bool:
        nonlocal most
        most = max(most, rig.connections(hop.name))
        return all(sent.is_done for sent in queue)

    rig.run_until(watch)
    assert most == 8
    assert transport.window("") == 16
    assert all(sent.statuses == [DELIVERED] for sent in queue)


def test_the_window_halves_with_each_failure_and_is_never_less_than_one(rig: RelayRig, hop: NextHop) -> None:
    hop.on["greeting"] = b"421 4.3.2 Too busy\r\n"
    transport = rig.make(hop.name, retry_next_hop=0.001)
    rig.run_until(lambda: deliver(rig, transport).statuses == [DEFERRED] and hop.connections >= 5)
    hop.on["greeting"] = None
    rig.run_until(lambda: deliver(rig, transport).statuses == [DELIVERED])
    assert transport.window("") == 2


def test_the_host_has_no_more_connections_than_it_may_and_those_without_one_get_theirs(rig: RelayRig, hop: NextHop) -> None:
    """Two workers, one connection for both: the one that keeps it lets it go for the other, which has mail."""
    first = rig.make(hop.name, column=0, route={"connections": 1}, quit_timeout=0.1)
    second = rig.make(hop.name, column=1, route={"connections": 1}, quit_timeout=0.1)
    deliver(rig, first)
    most = 0
    queue = [rig.send(second) for _ in range(4)]

    def watch() -> bool:
        nonlocal most
        most = max(most, rig.connections(hop.name))
        return all(sent.is_done for sent in queue)

    rig.run_until(watch)
    assert most == 1
    assert [mail.connection for mail in hop.mails] == [1, 2, 2, 2, 2]


def test_a_busy_worker_does_not_keep_the_only_connection_for_ever(rig: RelayRig, hop: NextHop) -> None:
    first = rig.make(hop.name, column=0, route={"connections": 1}, quit_timeout=0.1)
    second = rig.make(hop.name, column=1, route={"connections": 1}, quit_timeout=0.1)
    asked = []

    def go_on(sent: Sent) -> None:
        if not asked or not asked[0].is_done:
            rig.loop.ready(lambda: rig.send(first, then=go_on))

    for _ in range(3):
        rig.send(first, then=go_on)
    rig.run_until(lambda: first.connections)
    asked.append(rig.send(second))
    rig.await_done(asked[0])
    assert asked[0].statuses == [DELIVERED]


def test_without_room_in_the_table_each_process_has_its_own_limit(rig: RelayRig, hop: NextHop) -> None:
    table = HopTable()
    try:
        for row in range(ROWS):
            table._cells[row] = 7
        transports = [rig.make(hop.name, column=column, table=table, route={"connections": 1}) for column in range(2)]
        queue = [rig.send(transport) for transport in transports for _ in range(3)]
        rig.await_done(*queue)
        assert all(sent.statuses == [DELIVERED] for sent in queue)
        assert hop.connections == 2
        for transport in transports:
            transport.close()
    finally:
        table.close()


# --- faults that are not the next hop's ---------------------------------------------------------------------------------


def test_a_next_hop_without_the_tls_of_one_route_is_good_for_others(rig: RelayRig, hop: NextHop) -> None:
    strict, lax = rig.make(hop.name, route={"tls": "require"}), rig.make(hop.name, column=1)
    assert deliver(rig, strict).outcome.dsn == "4.7.4"
    assert deliver(rig, lax).statuses == [DELIVERED]
    refused = deliver(rig, strict).outcome
    assert (refused.status, hop.connections) == (DEFERRED, 2)  # without asking again


@pytest.mark.parametrize("answer", [next_hop.close, next_hop.reset, b"421 4.3.2 Bye\r\n", b"220 Go\r\n250-injected\r\n"])
def test_where_tls_is_optional_its_failure_leads_to_plain_text(rig: RelayRig, hop: NextHop, answer: Action) -> None:
    hop.extensions.append(b"STARTTLS")
    hop.on["starttls"] = answer
    assert deliver(rig, rig.make(hop.name, route={"tls": "may"})).statuses == [DELIVERED]
    assert (hop.count("starttls"), hop.connections) == (1, 2)
    assert rig.warnings == []


def test_a_source_address_of_the_other_kind_blames_no_next_hop(rig: RelayRig, hop: NextHop) -> None:
    assert deliver(rig, rig.make(hop.name, route={"source_address": "::1"})).outcome.dsn == "4.4.4"
    assert deliver(rig, rig.make(hop.name)).statuses == [DELIVERED]
    assert rig.warnings == []


# --- which of several ------------------------------------------------------------------------------------------------


def test_in_order_the_second_is_used_when_the_first_is_down(rig: RelayRig, hop: NextHop, down: str) -> None:
    transport = rig.make(down, hop.name)
    assert [deliver(rig, transport).statuses for _ in range(3)] == [[DELIVERED]] * 3
    assert len(hop.mails) == 3


def test_in_order_the_first_gets_everything_while_it_works(rig: RelayRig, hop: NextHop, other: NextHop) -> None:
    transport = rig.make(hop.name, other.name, mails_per_connection=1)
    for _ in range(4):
        deliver(rig, transport)
    assert (len(hop.mails), len(other.mails)) == (4, 0)


def test_spread_gives_both_their_share(rig: RelayRig, hop: NextHop, other: NextHop) -> None:
    transport = rig.make(hop.name, other.name, mails_per_connection=1, route={"balance": "spread"})
    for _ in range(6):
        deliver(rig, transport)
    assert (len(hop.mails), len(other.mails)) == (3, 3)


def test_spread_goes_on_with_the_one_that_works(rig: RelayRig, hop: NextHop, down: str) -> None:
    transport = rig.make(hop.name, down, mails_per_connection=1, route={"balance": "spread"})
    assert [deliver(rig, transport).statuses for _ in range(4)] == [[DELIVERED]] * 4


def test_no_mail_waits_for_a_next_hop_that_is_being_tried_while_another_works(
    rig: RelayRig, hop: NextHop, other: NextHop
) -> None:
    hop.on["greeting"] = [b"421 4.3.2 Down\r\n", next_hop.hang]
    transport = rig.make(hop.name, other.name, retry_next_hop=0.001, connection_idle=0.001)
    assert deliver(rig, transport).statuses == [DELIVERED]
    rig.await_closed(transport)
    assert deliver(rig, transport).statuses == [DELIVERED]  # the probe of the first hangs
    assert len(other.mails) == 2
    rig.run_until(lambda: hop.connections == 2)  # its thread may be behind


# --- set aside -------------------------------------------------------------------------------------------------------


def test_what_one_worker_learns_all_know(rig: RelayRig, hop: NextHop) -> None:
    hop.on["greeting"] = [b"421 4.3.2 Closed for lunch\r\n"]
    first, second = rig.make(hop.name, column=0), rig.make(hop.name, column=1)
    deliver(rig, first)
    told = deliver(rig, second)
    assert told.outcome.text == "next hop set aside for a while: Closed for lunch"
    assert hop.connections == 1
    assert second.window("") == 1000  # whatever waits there is told the same


def test_one_connection_of_one_worker_tries_it_and_its_success_sets_all_going(rig: RelayRig, hop: NextHop) -> None:
    gate = threading.Event()

    def wait(talk: next_hop.Conversation) -> None:
        gate.wait(PATIENCE_S)

    hop.on["greeting"] = [b"421 4.3.2 Down\r\n", wait]
    first = rig.make(hop.name, column=0, retry_next_hop=0.05)
    second = rig.make(hop.name, column=1, retry_next_hop=LONG_S)
    deliver(rig, first)
    rig.run_until(lambda: not first.health_of(Hop("127.0.0.1", "127.0.0.1", hop.port)).is_set_aside(rig.loop.now))
    probe = [rig.send(second) for _ in range(6)]
    rig.run_until(lambda: hop.connections > 1)
    assert second.connections == 1  # only one of the six
    assert rig.send(first).is_done  # the other worker keeps away meanwhile
    gate.set()
    rig.await_done(*probe)
    assert [sent.statuses for sent in probe] == [[DELIVERED]] * 6
    assert deliver(rig, first).statuses == [DELIVERED]


def test_a_probe_that_fails_sets_it_aside_again(rig: RelayRig, hop: NextHop) -> None:
    hop.on["greeting"] = b"421 4.3.2 Down\r\n"
    transport = rig.make(hop.name, retry_next_hop=0.3)
    deliver(rig, transport)
    health = transport.health_of(Hop("127.0.0.1", "127.0.0.1", hop.port))
    rig.run_until(lambda: not health.is_set_aside(rig.loop.now))
    assert deliver(rig, transport).outcome.text == "Down"
    assert health.is_set_aside(rig.loop.now)
    assert hop.connections == 2


def test_a_probe_that_is_given_up_leaves_it_to_be_tried_by_others(rig: RelayRig, hop: NextHop) -> None:
    hop.on["greeting"] = [b"421 4.3.2 Down\r\n", next_hop.hang]
    first, second = rig.make(hop.name, column=0, retry_next_hop=0.05), rig.make(hop.name, column=1)
    deliver(rig, first)
    rig.run_until(lambda: not first.health_of(Hop("127.0.0.1", "127.0.0.1", hop.port)).is_set_aside(rig.loop.now))
    probe = rig.send(second)
    rig.run_until(lambda: hop.connections == 2)
    second.close()
    assert probe.outcome.text == "this host is shutting down"
    assert deliver(rig, first).statuses == [DELIVERED]


def test_a_mail_at_which_the_next_hop_breaks_off_does_not_set_it_aside(rig: RelayRig, hop: NextHop) -> None:
    hop.on["end"] = [next_hop.reset, next_hop.reset]
    transport = rig.make(hop.name)
    assert [deliver(rig, transport).statuses for _ in range(3)] == [[DEFERRED], [DEFERRED], [DELIVERED]]
    assert not [warning for warning in rig.warnings if "set aside" in warning]


def test_a_next_hop_that_breaks_off_at_every_mail_is_set_aside(rig: RelayRig, hop: NextHop) -> None:
    hop.on["mail"] = next_hop.close
    transport = rig.make(hop.name)
    for _ in range(3):
        deliver(rig, transport)
    assert "lost connection" in rig.send(transport).outcome.text
    assert rig.send(transport).outcome.text.startswith("next hop set aside for a while: lost connection")
    assert hop.connections == 3


def test_mail_that_waits_is_told_when_all_connections_die_together(rig: RelayRig, hop: NextHop) -> None:
    hop.on["mail"] = next_hop.hang
    transport = rig.make(hop.name)
    queue = [rig.send(transport) for _ in range(20)]
    rig.run_until(lambda: hop.count("mail") == 5)
    hop.close()
    rig.await_done(*queue)
    assert [sent.statuses for sent in queue] == [[DEFERRED]] * 20
    rig.await_closed(transport)
    assert rig.connections(hop.name) == 0


def test_mail_that_comes_from_within_an_answer_is_taken(rig: RelayRig, hop: NextHop) -> None:
    """As the scheduler does: the next mail is given while the outcome of the one before is being told."""
    transport = rig.make(hop.name, mails_per_connection=2)
    all_sent = []

    def go_on(sent: Sent) -> None:
        all_sent.append(sent)
        if len(all_sent) < 30:
            rig.send(transport, then=go_on)

    rig.send(transport, then=go_on)
    rig.run_until(lambda: len(all_sent) == 30)
    assert all(sent.statuses == [DELIVERED] for sent in all_sent)
    assert len(hop.mails) == 30


def test_a_thousand_mails_for_a_dead_next_hop_are_told_without_deep_calls(rig: RelayRig, down: str) -> None:
    transport = rig.make(down)
    count = 0

    def go_on(sent: Sent) -> None:
        nonlocal count
        count += 1
        if count < 1000:
            rig.loop.ready(lambda: rig.send(transport, then=go_on))

    rig.send(transport, then=go_on)
    rig.run_until(lambda: count == 1000)
    assert len(rig.warnings) == 1


# --- the end ---------------------------------------------------------------------------------------------------------


def test_close_ends_everything_at_once_and_what_comes_later_too(rig: RelayRig, hop: NextHop) -> None:
    hop.on["mail"] = [None, next_hop.hang]
    hop.on["greeting"] = [None, next_hop.hang]  # the other connection never takes a mail
    transport = rig.make(hop.name, route={"connections": 2})
    deliver(rig, transport)
    queue = [rig.send(transport) for _ in range(8)]
    rig.run_until(lambda: hop.count("mail") == 2 and hop.connections == 2)
    transport.close()
    assert [sent.outcome.text for sent in queue] == ["this host is shutting down"] * 8
    assert rig.send(transport).outcome.text == "this host is shutting down"
    assert rig.send(transport, key="new.example").outcome.text == "this host is shutting down"
    rig.await_closed(transport)
    assert rig.connections(hop.name) == 0


def test_close_while_connecting_and_while_looking_up(rig: RelayRig) -> None:
    with next_hop.full_backlog() as name:
        connecting = rig.make(name)
        first = rig.send(connecting)
        rig.run_until(lambda: connecting.connections)
        connecting.close()
        assert first.statuses == [DEFERRED]
        assert rig.connections(name) == 0
    looking_up = rig.make("localhost:1")
    second = rig.send(looking_up)
    looking_up.close()
    assert second.statuses == [DEFERRED]


def test_close_from_within_an_answer(rig: RelayRig, hop: NextHop) -> None:
    transport = rig.make(hop.name)
    first = rig.send(transport, then=lambda sent: transport.close())
    others = [rig.send(transport) for _ in range(20)]
    rig.await_done(first, *others)
    assert first.statuses == [DELIVERED]
    rig.await_closed(transport)
    assert rig.connections(hop.name) == 0


def test_a_kept_connection_gets_quit_at_close(rig: RelayRig, hop: NextHop) -> None:
    transport = rig.make(hop.name)
    deliver(rig, transport)
    transport.close()
    rig.await_closed(transport)
    assert hop.count("quit") == 1


# --- by domain, by name, by path -------------------------------------------------------------------------------------


class Searches:
    """Stands in for look-ups: answers as it is told, by domain."""

    def __init__(self, transport: RelayTransport, rig: RelayRig) -> None:
        self.answers: dict[str, tuple[list[Hop], LookupFailure | None]] = {}
        self.asked: list[str] = []
        self._rig = rig
        transport._host = dataclasses.replace(transport._host, resolver=cast(Resolver, self))

    def find(self, next_hop: str, key: str, done: Callable[[list[Hop], LookupFailure | None], object]) -> None:
        self.asked.append(key)
        self._rig.loop.ready(lambda: done(*self.answers[key]))


def test_domains_have_pools_of_their_own_which_are_forgotten(rig: RelayRig, hop: NextHop) -> None:
    transport = rig.make("mx:", connection_idle=0.001)
    searches = Searches(transport, rig)
    hops = [Hop("mx.example", "127.0.0.1", hop.port)]
    queue = []
    for number in range(20):
        searches.answers[f"d{number}.example"] = (hops, None)
        queue.append(rig.send(transport, key=f"d{number}.example"))
    assert transport.is_per_domain
    rig.await_done(*queue)
    assert all(sent.statuses == [DELIVERED] for sent in queue)
    rig.run_until(lambda: not transport._pools)
    assert transport._timer is None
    assert rig.connections(hop.name) == 0


def test_domains_that_share_a_next_hop_share_its_connections_too(rig: RelayRig, hop: NextHop) -> None:
    """One domain keeps the only connection; it lets go of it for the other."""
    transport = rig.make("mx:", route={"connections": 1})
    searches = Searches(transport, rig)
    searches.answers = dict.fromkeys(("a.example", "b.example"), ([Hop("mx.example", "127.0.0.1", hop.port)], None))
    assert deliver(rig, transport, "a.example").statuses == [DELIVERED]
    assert deliver(rig, transport, "b.example").statuses == [DELIVERED]


def test_a_look_up_that_fails_defers_and_one_that_succeeds_later_delivers(rig: RelayRig, hop: NextHop) -> None:
    transport = rig.make("mx:")
    searches = Searches(transport, rig)
    searches.answers["a.example"] = ([], LookupFailure(False, "4.4.3", "no answer"))
    queue = [rig.send(transport, key="a.example") for _ in range(3)]
    rig.await_done(*queue)
    assert [sent.outcome.dsn for sent in queue] == ["4.4.3"] * 3
    searches.answers["a.example"] = ([], LookupFailure(True, "5.1.2", "no such domain"))
    assert deliver(rig, transport, "a.example").statuses == [UNDELIVERABLE]
    searches.answers["a.example"] = ([Hop("mx.example", "127.0.0.1", hop.port)], None)
    assert deliver(rig, transport, "a.example").statuses == [DELIVERED]


def test_a_look_up_that_fails_later_takes_no_next_hop_away(rig: RelayRig, hop: NextHop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smtpd.transports.relay.pool._KNOWN_HOPS_S", 0.0)
    transport = rig.make("mx:", mails_per_connection=1)
    searches = Searches(transport, rig)
    searches.answers["a.example"] = ([Hop("mx.example", "127.0.0.1", hop.port)], None)
    deliver(rig, transport, "a.example")
    searches.answers["a.example"] = ([], LookupFailure(False, "4.4.3", "no answer"))
    asked = len(searches.asked)
    assert [deliver(rig, transport, "a.example").statuses for _ in range(3)] == [[DELIVERED]] * 3
    assert 1 <= len(searches.asked) - asked <= 2  # one may have been under way


def test_of_several_next_hops_one_that_cannot_be_looked_up_is_passed_over(rig: RelayRig, hop: NextHop) -> None:
    transport = rig.make("name.invalid:25", hop.name)
    assert deliver(rig, transport).statuses == [DELIVERED]


def test_dns_that_is_down_defers_and_mail_goes_when_it_is_back(
    rig: RelayRig, hop: NextHop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smtpd.net.lookup.FAILURE_TTL_S", 0.0)
    names = NameServer()
    try:
        names.silent.add("d.example")
        dns = DnsSettings(servers=[names.address], timeout=0.5)
        transport = rig.make("mx:", dns=dns, mx_port=hop.port)
        queue = [rig.send(transport, key="d.example") for _ in range(3)]
        rig.await_done(*queue)
        assert {sent.outcome.dsn for sent in queue} == {"4.4.3"}
        names.silent.clear()
        names.add("d.example", "MX", "10 mx.d.example.")
        names.add("mx.d.example", "A", "127.0.0.1")
        rig.run_until(lambda: deliver(rig, transport, "d.example").statuses == [DELIVERED])
        assert hop.mails
    finally:
        names.close()


def test_lmtp_over_a_unix_socket_with_an_outcome_for_each_recipient(rig: RelayRig, tmp_path: Path) -> None:
    with NextHop(is_lmtp=True, path=str(tmp_path / "lmtp.sock")) as hop:
        hop.on["end"] = [None, b"452 4.2.2 Full\r\n", b"550 5.2.1 Off\r\n"]
        transport = rig.make(hop.name, lmtp=True)
        sent = rig.send(transport, b"a@example.net", b"b@example.net", b"c@example.net", b"d@example.net")
        rig.await_done(sent)
        assert sent.statuses == [DELIVERED, DEFERRED, UNDELIVERABLE, DELIVERED]
        assert sent.outcomes[0].relay == f"localhost[{tmp_path}/lmtp.sock]"
        assert hop.commands[0] == b"LHLO out.example.org"
        transport.close()
        rig.await_closed(transport)


# --- health ----------------------------------------------------------------------------------------------------------


def test_a_next_hop_with_living_connections_is_set_aside_only_after_some_failures() -> None:
    health = HopHealth(Hop("h", "192.0.2.1", 25), None, 0)
    health.live = 1
    assert [health.note_failure(10.0, 30.0, "gone", False) for _ in range(3)] == [False, False, True]
    assert health.is_set_aside(39.0)
    health.note_success()
    assert not health.is_set_aside(39.0)
    assert not health.note_failure(10.0, 30.0, "gone", False)


def test_broken_tls_is_tried_again_after_a_while() -> None:
    health = HopHealth(Hop("h", "192.0.2.1", 25), None, 0)
    health.note_broken_tls(100.0)
    assert health.is_plain(100.0)
    assert not health.is_plain(800.0)
