"""Whatever a peer sends stays in one printable, bounded piece of one line, in every format."""

from __future__ import annotations

import json
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd.log.escape import clean_bytes, clean_text, in_brackets
from smtpd.log.maillog import make_shape
from smtpd.log.shape import Shape
from smtpd.log.stamp import WARNING
from smtpd.settings import LogSettings

FORMATS = ("postfix", "logfmt", "json")
HOSTILE = [
    b"a\r\nNov 24 00:00:00 mx postfix/smtpd[1]: forged",
    b"\x1b[2J\x1b]0;title\x07",
    b'"quoted\\"" status=sent',
    b"> to=<victim@example.org>, status=sent (x",
    b"\xff\xfe not UTF-8 \x80",
    "bidi \u202e and \u2028 separators \u0085".encode(),
    b"nul \x00 tab \t vertical \x0b",
    b"%s%n{0}$(id)`id`",
    b"\xed\xa0\x80 surrogate, overlong \xc0\xae",
    b'"}\n{"event":"forged"',
    b"",
    b"=",
    b"x" * 100_000,
    b"\x00" * 100_000,
    "\U0001f600\u202e".encode() * 10_000,
]


def lines(shape: Shape, data: bytes) -> list[str]:
    """One line of every event that carries a peer's octets, with `data` everywhere."""
    text = data.decode("utf-8", "surrogateescape")
    client = f"{text}[192.0.2.1]"
    return [
        shape.connect(client),
        shape.disconnect(client, {"ehlo": (1, 1), "mail": (0, 2)}),
        shape.lost_connection("DATA", client),
        shape.timeout("DATA", client),
        shape.client("QID", client),
        shape.message_id("QID", data),
        shape.queued("QID", data, 5, 1),
        shape.delivered("QID", data, text, 1.0, (0.0, 0.1, 0.2, 0.7), "4.4.1", "deferred", text, "maildir"),
        shape.held("QID", text),
        shape.reject("", "RCPT", client, b"550 5.7.1 " + data, data, data, "ESMTP", data),
        shape.message(WARNING, "smtpd", text, {"peer": text}),
    ]


def make(format_name: str, destination: str = "stderr") -> Shape:
    return make_shape(LogSettings(format=format_name, destination=destination), "mx.example.net")


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("data", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_octets_stay_in_their_line(format_name: str, data: bytes) -> None:
    for line in lines(make(format_name), data):
        assert line.isprintable()
        assert len(line.encode()) < 16_384


@pytest.mark.parametrize("format_name", FORMATS)
@given(data=st.binary(max_size=60))
def test_any_octets_stay_in_their_line(format_name: str, data: bytes) -> None:
    for line in lines(make(format_name), data):
        assert line.isprintable()
        assert len(line) < 4096


@given(data=st.binary(max_size=60))
def test_json_is_one_object_with_the_cleaned_text(data: bytes) -> None:
    records = [json.loads(line) for line in lines(make("json"), data)]
    assert records[6]["from"] == records[7]["to"] == records[9]["helo"] == clean_bytes(data)
    assert {record["event"] for record in records} >= {"connect", "delivery", "reject", "message"}


@given(data=st.binary(max_size=60))
def test_logfmt_values_end_where_they_should(data: bytes) -> None:
    line = make("logfmt").queued("QID", data, 5, 1)
    words = dict(word.split("=", 1) for word in split_logfmt(line))
    assert words["from"] == clean_bytes(data)
    assert (words["size"], words["nrcpt"], words["event"]) == ("5", "1", "queued")


def split_logfmt(line: str) -> list[str]:
    """Words of the line; quoting by double quotes with backslash escapes, as shells and logfmt parsers have it."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="")
    lexer.whitespace_split, lexer.quotes, lexer.commenters = True, '"', ""
    return list(lexer)


@given(data=st.binary(max_size=60))
def test_an_address_cannot_leave_its_brackets(data: bytes) -> None:
    line = make("postfix").queued("QID", data, 5, 1)
    assert line.split("from=<", 1)[1].partition(">")[2] == ", size=5, nrcpt=1 (queue active)"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"a@example.org", "a@example.org"),
        ("bücher@пример.example".encode(), "bücher@пример.example"),
        (b"a\r\nb", "a\\r\\nb"),
        (b"\x1b[31m", "\\x1b[31m"),
        (b"\xff", "\\xff"),
        ("\u202e".encode(), "\\u202e"),
        (b"a\x7fb", "a\\x7fb"),
        (b"back\\slash", "back\\slash"),
    ],
)
def test_readable_text_stays_readable(data: bytes, text: str) -> None:
    assert clean_bytes(data) == text
    assert in_brackets(data) == text


def test_brackets_are_escaped_only_in_brackets() -> None:
    assert clean_bytes(b"<a@b>") == "<a@b>"
    assert in_brackets(b"<a@b>") == "\\x3ca@b\\x3e"


def test_what_is_too_long_is_marked() -> None:
    assert clean_bytes(b"x" * 300) == "x" * 300
    assert clean_bytes(b"x" * 301) == "x" * 300 + "..."
    assert clean_text("\n" * 601, 600) == "\\n" * 300 + "..."
    assert clean_text("ü" * 600) == "ü" * 600


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_syslog_datagram_has_its_header_in_every_format(format_name: str) -> None:
    for line in lines(make(format_name, "syslog"), b"x@example.org")[:-1]:
        assert line.startswith("<22>")
    assert lines(make(format_name, "syslog"), b"x")[-1].startswith("<20>")


@pytest.mark.parametrize("data", [b"from=<a@b>, size=9", b"x=<y=<z", b"to=<a@b>, status=sent (", b"=<" * 500])
def test_nothing_of_others_looks_like_a_field(data: bytes) -> None:
    """pflogsumm looks for `from=<…>, size=…` anywhere in a line."""
    shape = make("postfix")
    for line, harmless in zip(lines(shape, data), lines(shape, b"x"), strict=True):
        assert line.count("=<") == harmless.count("=<")
