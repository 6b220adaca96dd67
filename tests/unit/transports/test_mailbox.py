"""Names of mailboxes: reversible, and inside the root whatever the local part holds."""

import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from smtpd.mail.envelope import Recipient
from smtpd.transports.mailbox import PIECE_OCTETS, escape_name, local_part, mailbox_of, unescape_name


@given(st.binary(max_size=700))
@example(b"")
@example(b".")
@example(b"..")
@example(b"../../etc/passwd")
@example(b"-oQ/tmp/x")
@example(b"%empty")
@example(b"%2F")
@example(b"a" * 200)
@example(b"a" * 199 + b"%")
@example(b"a" * 200 + b".")
@example(b"a" * 64_000)
def test_any_name_comes_back_and_is_made_of_harmless_folders(name: bytes) -> None:
    pieces = escape_name(name)
    assert unescape_name(pieces) == name
    for piece in pieces:
        assert piece
        assert "/" not in piece
        assert "\0" not in piece
        assert piece[0] not in ".-"
        assert len(os.fsencode(piece)) <= PIECE_OCTETS + 1
        assert piece == piece.translate(dict.fromkeys([*range(33), 127]))


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_two_names_never_share_a_folder_even_where_case_is_folded(one: bytes, other: bytes) -> None:
    folded = [tuple(piece.casefold() for piece in escape_name(name)) for name in (one, other)]
    assert (one == other) == (folded[0] == folded[1])


@given(st.binary(min_size=201, max_size=500))
def test_no_mailbox_lies_within_another(name: bytes) -> None:
    pieces = escape_name(name)
    for depth in range(1, len(pieces)):
        assert pieces[depth - 1].endswith("%")
        with pytest.raises(ValueError, match="not a mailbox name"):
            unescape_name(pieces[:depth])


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        (b"alice", "alice"),
        (b"alice+tag", "alice+tag"),
        (b"Alice", "%41lice"),
        (b".hidden", "%2Ehidden"),
        (b"-rf", "%2Drf"),
        (b"a/b", "a%2Fb"),
        (b"a\0\n", "a%00%0A"),
        ("é".encode(), "%C3%A9"),
        (b"100%", "100%25"),
        (b"", "%empty"),
    ],
)
def test_known_names(name: bytes, folder: str) -> None:
    assert escape_name(name) == (folder,)


@pytest.mark.parametrize(
    "pieces", [(), ("",), ("%",), ("%2",), ("%61",), ("%2f",), ("a", "b"), ("A",), (".",), ("a%",), ("a b",), ("é",)]
)
def test_what_escaping_never_makes_is_refused(pieces: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"not a mailbox name|ascii"):
        unescape_name(pieces)


@pytest.mark.parametrize(
    ("path", "local"),
    [
        (b"alice@example.org", b"alice"),
        (b"postmaster", b"postmaster"),
        (b'"alice"@example.org', b"alice"),
        (b'"a b"@example.org', b"a b"),
        (b'"a\\"b\\\\c"@example.org', b'a"b\\c'),
        (b'"a@b"@example.org', b"a@b"),
        (b'""@example.org', b""),
        (b"../../etc/passwd@example.org", b"../../etc/passwd"),
    ],
)
def test_local_parts_are_unquoted(path: bytes, local: bytes) -> None:
    assert local_part(path) == local


def test_the_domain_comes_first_and_is_escaped_too() -> None:
    assert mailbox_of(Recipient(b"u@[127.0.0.1]", "[127.0.0.1]")) == ("%5B127.0.0.1%5D", "u")
    assert mailbox_of(Recipient(b"u@..", "..")) == ("%2E.", "u")


def test_case_of_a_local_part_does_not_make_another_mailbox() -> None:
    found = {
        mailbox_of(Recipient(path, "example.org")) for path in (b"Alice@example.org", b"ALICE@Example.org", b"alice@example.org")
    }
    assert found == {("example.org", "alice")}
