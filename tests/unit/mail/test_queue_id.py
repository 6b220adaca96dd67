"""Queue ids and the texts that are made for each mail."""

import pytest

from smtpd._text import join_number, join_pieces, make_line
from smtpd.mail.queue_id import ALPHABET, LENGTH, QueueIdMaker, encode_number, parse_queue_id


def test_ids_hold_clock_node_and_shard_and_are_in_order_of_time():
    times = iter([5_000_000, 6_000_999, 1_700_000_000_123_456_789])
    maker = QueueIdMaker(4095, 17, clock=lambda: next(times))
    ids = [maker.next_id() for _ in range(3)]
    assert [parse_queue_id(one) for one in ids] == [(5000, 4095, 17), (6000, 4095, 17), (1_700_000_000_123_456, 4095, 17)]
    assert ids == sorted(ids)
    assert {len(one) for one in ids} == {LENGTH}


def test_a_clock_that_stands_still_or_goes_back_repeats_no_id():
    times = iter([9_000_000, 9_000_000, 1_000, 9_001_000])
    maker = QueueIdMaker(0, 0, clock=lambda: next(times))
    assert [parse_queue_id(maker.next_id())[0] for _ in range(4)] == [9000, 9001, 9002, 9003]
    assert maker.last_us == 9003


def test_floor_is_never_reached_again():
    maker = QueueIdMaker(0, 0, floor_us=1 << 56)
    assert parse_queue_id(maker.next_id())[0] == (1 << 56) + 1


def test_number_has_its_width_or_an_error():
    assert encode_number(0, 3) == "000"
    assert encode_number(52 * 52 - 1, 2) == ALPHABET[-1] * 2
    assert join_number(53, 4, "tail") == "0011tail"
    with pytest.raises(OverflowError):
        encode_number(52, 1)
    for arguments in [(-1, 3, ""), (1, -3, ""), (1, 3, "ä"), (1, 3, None)]:
        with pytest.raises(ValueError, match="negative"):
            join_number(*arguments)


def test_line_has_head_text_and_line_end():
    assert make_line(b"250 ", "text") == b"250 text\r\n"
    for arguments in [(b"250 ", "ä"), (None, "x"), (b"x", None)]:
        with pytest.raises(ValueError, match="ASCII"):
            make_line(*arguments)


def test_pieces_are_joined_in_order():
    assert join_pieces(()) == b""
    assert join_pieces((b"a", b"", b"b\0c")) == b"ab\0c"
    for pieces in [(b"a", None), (b"a", "b")]:
        with pytest.raises(TypeError):
            join_pieces(pieces)
