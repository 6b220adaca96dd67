"""Content on its way out: dots, line ends that are none, and pieces of any size."""

from __future__ import annotations

import pytest

from smtpd._wire import BodyEncoder


def encode(*pieces: bytes, is_stuffing: bool = True) -> bytes:
    encoder = BodyEncoder(is_stuffing)
    return b"".join(encoder.feed(piece) for piece in pieces) + encoder.finish()


@pytest.mark.parametrize("content", [b"", b"a\r\n", b"a.b\r\n\r\nc.\r\n", b"x" * 5000 + b"\r\n"])
def test_unchanged_content_is_the_same_object(content):
    encoder = BodyEncoder(True)
    assert encoder.feed(content) is content
    assert encoder.finish() == b""


@pytest.mark.parametrize(
    ("content", "wire"),
    [
        (b".", b"..\r\n"),
        (b".\r\n", b"..\r\n"),
        (b"..\r\n", b"...\r\n"),
        (b"a\r\n.\r\nb", b"a\r\n..\r\nb\r\n"),
        (b"a\n.\nb\n", b"a\r\n..\r\nb\r\n"),
        (b"a\r.\r\n", b"a .\r\n"),
        (b"a\n.\r\n", b"a\r\n..\r\n"),
        (b"a\r\n.\nMAIL FROM:<>\n", b"a\r\n..\r\nMAIL FROM:<>\r\n"),
        (b"a\r.\rb", b"a . b\r\n"),
        (b"a\r\r\n", b"a \r\n"),
        (b"a\r", b"a \r\n"),
        (b"\r", b" \r\n"),
        (b"\n", b"\r\n"),
    ],
)
def test_content_as_it_leaves(content, wire):
    assert encode(content) == wire
    assert encode(*(content[i : i + 1] for i in range(len(content)))) == wire
    assert encode(content, is_stuffing=False) == wire.replace(b"\r\n..", b"\r\n.").removeprefix(b"." * wire.startswith(b"."))


def test_dot_behind_a_cut():
    assert encode(b"a\r\n", b".b\r\n") == b"a\r\n..b\r\n"
    assert encode(b"a\r", b"\n.b\r\n") == b"a\r\n..b\r\n"
    assert encode(b"a", b".b\r\n") == b"a.b\r\n"


def test_encoder_begins_anew_after_the_end():
    encoder = BodyEncoder(True)
    encoder.feed(b"a")
    encoder.finish()
    assert encoder.feed(b".") == b".."
