"""What a transcript shows of a dialogue: every line, no content, no credentials, however the octets are cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd.control.follower import Follower

Turn = tuple[str, bytes]

PLAIN: list[Turn] = [
    ("S", b"220 mx\r\n"), ("C", b"EHLO c\r\n"), ("S", b"250-mx\r\n250-SIZE\r\n250 PIPELINING\r\n"),
    ("C", b"MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nDATA\r\n"), ("S", b"250 ok\r\n250 ok\r\n354 go\r\n"),
    ("C", b"Subject: secret\r\n\r\nMAIL\r\n..\r\n.\r\nQUIT\r\n"), ("S", b"250 queued\r\n221 bye\r\n"),
]  # fmt: skip
PLAIN_SHOWN = [
    "S 220 mx", "C EHLO c", "S 250-mx", "S 250-SIZE", "S 250 PIPELINING", "C MAIL FROM:<a@x>", "C RCPT TO:<b@y>", "C DATA",
    "S 250 ok", "S 250 ok", "S 354 go", "C (32 octets of content)", "C QUIT", "S 250 queued", "S 221 bye",
]  # fmt: skip


def show(turns: list[Turn], follower: Follower | None = None, cut: int = 1 << 20) -> list[str]:
    follower = follower or Follower()
    shown = []
    for who, data in turns:
        for at in range(0, len(data), cut):
            piece = data[at : at + cut]
            lines = follower.from_client(piece) if who == "C" else follower.from_server(piece)
            shown += [f"{who} {line}" for line in lines]
    return shown


@pytest.mark.parametrize("cut", [1, 2, 3, 7, 1 << 20])
def test_a_whole_session(cut: int) -> None:
    assert show(PLAIN, cut=cut) == PLAIN_SHOWN


@pytest.mark.parametrize("cut", [1, 5, 1 << 20])
def test_chunks_are_counted_and_may_look_like_anything(cut: int) -> None:
    turns = [
        ("C", b"BDAT 12\r\nRSET\r\n.\r\nsecBDAT 6 LAST\r\nret\r\n\nBDAT 0 LAST\r\nBDAT x\r\nNOOP\r\n"),
        ("S", b"250 ok\r\n"),
    ]
    assert show(turns, cut=cut) == [
        "C BDAT 12", "C (12 octets of content)", "C BDAT 6 LAST", "C (6 octets of content)", "C BDAT 0 LAST", "C BDAT x",
        "C NOOP", "S 250 ok",
    ]  # fmt: skip


def test_data_that_is_refused_leads_back_to_commands() -> None:
    turns = [
        ("C", b"MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nDATA\r\n"), ("S", b"250 ok\r\n550 no\r\n"), ("S", b"503 no\r\n"),
        ("C", b"RSET\r\n"), ("S", b"250 ok\r\n"),
    ]  # fmt: skip
    assert show(turns)[-2:] == ["C RSET", "S 250 ok"]


def test_content_that_comes_too_early_is_not_shown() -> None:
    shown = show([("C", b"DATA\r\nsecret\r\n"), ("C", b"more\r\n.\r\nQUIT\r\n")])
    assert shown == ["C DATA", "C (17 octets of content)", "C QUIT"]


def test_credentials_are_not_shown() -> None:
    turns = [
        ("C", b"auth plain AHNlY3JldA==\r\n"), ("S", b"235 ok\r\n"), ("C", b"AUTH LOGIN\r\n"), ("S", b"334 VXNlcg==\r\n"),
        ("C", b"c2VjcmV0\r\n"), ("S", b"535 no\r\n"), ("C", b"NOOP\r\n"),
    ]  # fmt: skip
    assert show(turns) == [
        "C auth plain (hidden)", "S 235 ok", "C AUTH LOGIN", "S 334 VXNlcg==", "C (hidden)", "S 535 no", "C NOOP",
    ]  # fmt: skip


def test_a_dialogue_that_went_on_before_is_shown_from_its_next_reply() -> None:
    turns = [("C", b"secret text\r\n"), ("C", b".\r\n"), ("S", b"250 queued\r\n"), ("C", b"NOOP\r\n"), ("S", b"250 ok\r\n")]
    assert show(turns, Follower(is_begun=True)) == [
        "C (16 octets of content)", "S 250 queued", "C NOOP", "S 250 ok",
    ]  # fmt: skip
    idle = [("C", b"NOOP\r\n"), ("S", b"250 ok\r\n"), ("C", b"QUIT\r\n")]
    assert show(idle, Follower(is_begun=True)) == ["S (6 octets not shown)", "S 250 ok", "C QUIT"]


def test_endless_lines_are_shown_in_part() -> None:
    follower = Follower()
    for _ in range(100):
        for line in follower.from_client(b"x" * 1000) + follower.from_server(b"y" * 1000):
            assert len(line) <= 4096
    assert follower.from_client(b"\n")


@pytest.mark.parametrize("cut", [1, 1000, 4096, 4097, 5000, 1 << 20])
@pytest.mark.parametrize("before", [b"AUTH PLAIN ", b"AUTH LOGIN\r\n", b"DATA ", b"BDAT 5", b"X"])
def test_the_rest_of_an_endless_line_is_not_shown(before: bytes, cut: int) -> None:
    turns = [("C", before)]
    if before.endswith(b"\n"):
        turns.append(("S", b"334 VXNlcg==\r\n"))
    turns += [
        ("C", b"A" * 9000 + b"secret" * 900 + b"\r\n"),
        ("S", b"500 too long\r\n"),
        ("C", b"NOOP\r\n"),
        ("S", b"250 ok\r\n"),
    ]
    shown = show(turns, cut=cut)
    assert not any("secret" in line for line in shown)
    assert shown[-3:] == ["S 500 too long", "C NOOP", "S 250 ok"]


@given(st.lists(st.binary(max_size=30), max_size=8), st.integers(1, 20))
def test_the_content_never_leaks(pieces: list[bytes], cut: int) -> None:
    text = b"\r\n".join(b"secret" + piece.replace(b"\r", b"").replace(b"\n", b"") for piece in pieces)
    turns = [("C", b"DATA\r\n"), ("S", b"354 go\r\n"), ("C", text + b"\r\n.\r\nQUIT\r\n"), ("S", b"250 ok\r\n")]
    shown = show(turns, cut=cut)
    assert not any("secret" in line for line in shown)
    assert shown[-2:] == ["C QUIT", "S 250 ok"]
