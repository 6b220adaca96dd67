"""Dovecot's LMTP as the next hop: a good and a bad recipient in each mail, over a port and over a socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway import running_gateway
from peer_next_hops import DovecotStore, dovecot_store
from relayed_mail import assert_each_once, attempts, await_attempt, await_removed, relay_settings, sample_mails, send_mails

GOOD = "box@example.org"
ALSO_GOOD = "other@example.org"
BAD = "nobody@example.org"


@pytest.fixture(scope="module")
def store() -> Iterator[DovecotStore]:
    with dovecot_store(GOOD, ALSO_GOOD) as running:
        yield running


@pytest.fixture(autouse=True)
def _no_mail(store: DovecotStore) -> None:
    store.clear()


def relay_and_compare(store: DovecotStore, next_hop: str, folder: Path, count: int, timeout_s: float = 60.0) -> None:
    mails = sample_mails(count)
    with running_gateway(folder, relay_settings(next_hop, "lmtp")) as gateway:
        send_mails(gateway, mails, [GOOD, BAD, ALSO_GOOD])
        await_removed(gateway, count, timeout_s)
        lines = attempts(gateway)
    for user, status, text in (
        (GOOD, "sent", f"<{GOOD}> "),
        (ALSO_GOOD, "sent", f"<{ALSO_GOOD}> "),
        (BAD, "bounced", f"<{BAD}> User doesn't exist: {BAD}"),
    ):
        own = [line for line in lines if line.to == user]
        assert len(own) == count
        assert {line.status for line in own} == {status}
        assert [line.text for line in own if text not in line.text] == []
    assert {line.dsn for line in lines if line.to == BAD} == {"5.1.1"}
    assert_each_once(store.mailbox(GOOD), mails)
    assert_each_once(store.mailbox(ALSO_GOOD), mails)
    assert store.mailbox(BAD) == []


def test_200_mails_over_a_port(store: DovecotStore, tmp_path: Path) -> None:
    relay_and_compare(store, f"{store.host}:{store.port}", tmp_path, 200)


def test_100_mails_over_a_socket(store: DovecotStore, tmp_path: Path) -> None:
    relay_and_compare(store, f"unix:{store.socket}", tmp_path, 100)


def test_mail_waits_while_the_store_is_down(store: DovecotStore, tmp_path: Path) -> None:
    mails = sample_mails(40)
    with running_gateway(tmp_path, relay_settings(f"unix:{store.socket}", "lmtp")) as gateway:
        store.stop()
        send_mails(gateway, mails, [GOOD])
        await_attempt(gateway, "deferred")
        store.start()
        await_removed(gateway, len(mails))
    assert_each_once(store.mailbox(GOOD), mails)


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("way", "count"), [("port", 1000), ("socket", 3000)])
def test_thousands_of_mails(store: DovecotStore, tmp_path: Path, way: str, count: int) -> None:
    next_hop = f"{store.host}:{store.port}" if way == "port" else f"unix:{store.socket}"
    relay_and_compare(store, next_hop, tmp_path, count, 400.0)
