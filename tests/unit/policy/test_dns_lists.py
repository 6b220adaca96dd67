"""DNS lists: which answers count, how they are weighed, and that a list's errors never make a listing."""

import pytest
from asker import TableAsker, run

from smtpd.policy.dns.codes import Codes
from smtpd.policy.dns.lists import DnsList, find_reason, query_name, score

DEFAULT = Codes(["127.0.0.0/24"])


@pytest.mark.parametrize(
    ("pattern", "takes", "refuses"),
    [
        ("127.0.0.2", ["127.0.0.2"], ["127.0.0.3", "127.0.1.2"]),
        ("127.0.0.[2..11]", ["127.0.0.2", "127.0.0.11"], ["127.0.0.1", "127.0.0.12"]),
        ("127.0.[1;3..4].[0..255]", ["127.0.1.0", "127.0.4.255"], ["127.0.2.1", "127.1.1.1"]),
        ("127.0.0.0/24", ["127.0.0.0", "127.0.0.255"], ["127.0.1.0"]),
        ("127.0.0.0/8", ["127.9.9.9"], ["127.255.255.254", "127.255.255.1", "192.0.2.1", "::1", "x"]),
        ("127.255.255.254", [], ["127.255.255.254"]),
    ],
)
def test_patterns(pattern, takes, refuses):
    codes = Codes([pattern])
    assert [record for record in takes + refuses if codes.matches(record)] == takes


@pytest.mark.parametrize(
    "pattern",
    ["", "127.0.0", "127.0.0.256", "127.0.0.[11..2]", "127.0.0.[2", "10.0.0.2", "[126;127].0.0.2", "10.0.0.0/8", "127.0.0.1/8",
     "127.0.0.[]", "127.0.0.x", "127.0.0.0/x", "127.0.0.0.1"],
)  # fmt: skip
def test_bad_patterns_are_faults(pattern):
    with pytest.raises(ValueError, match="is "):
        Codes([pattern])


@pytest.mark.parametrize(
    ("of", "subject", "name"),
    [
        ("client", "192.0.2.1", "1.2.0.192.l.example"),
        ("client", "::ffff:192.0.2.1", "1.2.0.192.l.example"),
        ("client", "2001:db8::1", "1.0.0.0" + ".0" * 20 + ".8.b.d.0.1.0.0.2.l.example"),
        ("client", "", ""),
        ("client", "/run/x", ""),
        ("sender", "Bad.Example.", "bad.example.l.example"),
        ("sender", "", ""),
        ("helo", "[192.0.2.1]", ""),
        ("helo", "192.0.2.1", ""),
        ("helo", "localhost", ""),
        ("helo", "a..b", ""),
        ("sender", "a." * 125 + "b", ""),
    ],
)
def test_names_that_are_asked_about(of, subject, name):
    assert query_name(DnsList("l.example", DEFAULT, of=of), subject) == name


def test_weights_are_summed_once_a_list_and_white_lists_take_away():
    lists = [
        DnsList("one.example", DEFAULT, 2),
        DnsList("two.example", Codes(["127.0.0.9"]), 5),
        DnsList("white.example", DEFAULT, -3),
        DnsList("names.example", DEFAULT, 4, "sender"),
    ]
    asker = TableAsker(
        {
            ("1.2.0.192.one.example", "A"): ["127.0.0.2", "127.0.0.3"],
            ("1.2.0.192.two.example", "A"): ["127.0.0.2"],  # not a code that counts
            ("1.2.0.192.white.example", "A"): ["127.0.0.2"],
            ("bad.example.names.example", "A"): ["127.0.0.2"],
        }
    )
    found = run(score(asker, lists, {"client": "192.0.2.1", "sender": "bad.example", "helo": ""}))
    assert found.points == 3
    assert [(entry.zone, name) for entry, name in found.hits] == [
        ("names.example", "bad.example.names.example"),
        ("one.example", "1.2.0.192.one.example"),
    ]
    assert (found.missing, found.errors) == (0, ())


@pytest.mark.parametrize("record", ["127.255.255.254", "127.255.255.255", "192.0.2.80", "0.0.0.0"])
def test_error_codes_are_errors_of_the_list(record):
    asker = TableAsker({("1.2.0.192.l.example", "A"): ["127.0.0.2", record]})
    found = run(score(asker, [DnsList("l.example", Codes(["127.0.0.0/8"]), 2)], {"client": "192.0.2.1"}))
    assert (found.points, found.hits, found.missing) == (0, (), 2)
    assert found.errors == (("l.example", f"answers {record}"),)


def test_failing_list_is_told_and_white_ones_miss_nothing():
    asker = TableAsker({("1.2.0.192.up.example", "A"): ["127.0.0.2"]}, ["1.2.0.192.down.example", "1.2.0.192.white.example"])
    lists = [DnsList("down.example", DEFAULT, 3), DnsList("up.example", DEFAULT), DnsList("white.example", DEFAULT, -1)]
    found = run(score(asker, lists, {"client": "192.0.2.1"}))
    assert (found.points, found.missing) == (1, 3)
    assert [zone for zone, _ in found.errors] == ["down.example", "white.example"]


def test_reason_is_printable_and_short():
    asker = TableAsker({("n.example", "TXT"): ["seen\r\n250 ok \xff" + "x" * 300]})
    reason = run(find_reason(asker, "n.example"))
    assert reason.startswith("seen??250 ok ?x")
    assert len(reason) == 200
    assert run(find_reason(asker, "other.example")) == ""
