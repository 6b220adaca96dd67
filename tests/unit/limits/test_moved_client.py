"""A connection that turns out to be another client's (XCLIENT): both rows and the host's total are right, refused or not."""

from __future__ import annotations

from typing import Any

import pytest

from smtpd.limits._clients import key_of
from smtpd.limits.clients import CLIENT_LIMIT, NO_ROW, RATE, ClientLimits, make_client_table
from smtpd.settings import LimitsSettings


class Host:
    """One worker that counts."""

    def __init__(self, **limits: Any) -> None:
        self.table = make_client_table()
        self.table.open_bank(0)
        self.limits = ClientLimits(self.table, 0, LimitsSettings(**limits))

    def count(self, address: str) -> int:
        return int(self.table.connections(self.table.find(key_of(address), 1)))


def test_the_old_row_is_left_and_the_new_one_entered() -> None:
    host = Host()
    row, _ = host.limits.enter("127.0.0.1", False)
    new, denial = host.limits.move(row, "192.0.2.9", False)
    assert (host.count("127.0.0.1"), host.count("192.0.2.9"), denial) == (0, 1, "")
    assert host.table.host_connections() == 1
    host.limits.leave(new)
    assert (host.count("192.0.2.9"), host.table.host_connections()) == (0, 0)


@pytest.mark.parametrize(
    ("limits", "reason"), [({"connections_per_client": 1}, CLIENT_LIMIT), ({"connection_rate": "1/h"}, RATE)]
)
def test_who_is_refused_is_counted_for_the_host_until_it_has_gone(limits: dict[str, Any], reason: str) -> None:
    host = Host(**limits)
    host.limits.enter("192.0.2.9", False)
    row, _ = host.limits.enter("127.0.0.1", False)
    assert host.limits.move(row, "192.0.2.9", False) == (NO_ROW, reason)
    assert (host.count("127.0.0.1"), host.count("192.0.2.9"), host.table.host_connections()) == (0, 1, 2)
    host.limits.leave(NO_ROW)
    assert host.table.host_connections() == 1


def test_trusted_clients_are_counted_for_the_host_alone_and_a_full_host_lets_them_stay() -> None:
    host = Host(connections=1, connections_per_client=1)
    row, denial = host.limits.enter("127.0.0.1", True)
    assert (row, denial) == (NO_ROW, "")
    row, denial = host.limits.move(row, "192.0.2.9", False)
    assert (denial, host.count("192.0.2.9")) == ("", 1)
    assert host.limits.move(row, "192.0.2.10", True) == (NO_ROW, "")
    assert (host.count("192.0.2.9"), host.table.host_connections()) == (0, 1)
