"""The list and the table of plain ints that sessions are counted with."""

import pytest

from smtpd._tally import PairCells, PairCounts, Tally


def test_tally_keeps_its_pairs_in_order_until_it_is_cleared():
    tally = Tally()
    pairs = [6_250, -421, 106_250, *range(40)]
    for pair in pairs:
        tally.add(pair)
    assert [tally.at(i) for i in range(tally.count)] == pairs
    with pytest.raises(IndexError):
        tally.at(len(pairs))
    tally.clear()
    assert tally.count == 0
    tally.add(7)
    assert (tally.count, tally.at(0)) == (1, 7)


def test_every_pair_has_its_own_cells():
    table = PairCells()
    pairs = [verb * 1000 + code for verb in range(20) for code in (250, 354, 421, 450, 452, 500, 503, 550, 554)] + [-421, -220, 0]
    for n, pair in enumerate(pairs):
        assert table.find(pair) == -1
        table.put(pair, n, -n)
    for n, pair in enumerate(pairs):
        place = table.find(pair)
        assert (table.reply_at(place), table.command_at(place)) == (n, -n)


def test_table_says_when_it_is_full_and_stays_good():
    table = PairCells()
    assert all(table.put(pair, pair, -1) for pair in range(384))
    assert not table.put(1000, 1, 1)
    assert table.put(5, 77, -1)
    assert table.reply_at(table.find(5)) == 77
    assert table.find(1000) == -1


def test_counts_are_kept_by_pair_in_the_order_of_arrival():
    counts = PairCounts()
    assert counts.as_dict() == {}
    for pair in [6_250, -220, *range(20), 6_250, 6_250, 19]:
        counts.add(pair)
    expected = {6_250: 3, -220: 1, **dict.fromkeys(range(20), 1), 19: 2}
    assert counts.as_dict() == expected
    assert list(counts.as_dict()) == list(expected)
