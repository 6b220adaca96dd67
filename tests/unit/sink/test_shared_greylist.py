"""The greylist that all workers share: exact for many triples, forgetful for too many."""

from __future__ import annotations

from smtpd.sink.shared import SharedGreylist


def test_each_triple_keeps_the_time_when_it_came_first() -> None:
    grey = SharedGreylist()
    for number in range(1000):
        assert grey.first_seen("192.0.2.1", b"a", b"%d" % number, float(number + 1)) == number + 1
    for number in range(1000):
        assert grey.first_seen("192.0.2.1", b"a", b"%d" % number, 1e6) == number + 1


def test_addresses_are_the_same_in_any_case() -> None:
    grey = SharedGreylist()
    grey.first_seen("192.0.2.1", b"FROM:<A@example.com>", b"TO:<B@example.org>", 1.0)
    assert grey.first_seen("192.0.2.1", b"from:<a@EXAMPLE.com>", b"to:<b@example.ORG>", 2.0) == 1.0


def test_when_all_places_are_taken_the_oldest_near_by_is_forgotten() -> None:
    grey = SharedGreylist(places=256)
    for number in range(400):
        grey.first_seen("", b"", b"%d" % number, float(number + 1))
    assert grey.first_seen("", b"", b"399", 1e6) == 400.0
