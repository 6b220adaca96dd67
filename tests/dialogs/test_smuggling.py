"""The whole smuggling matrix against the session: one mail or a refusal, never a second envelope.

Each false end of data stands in front of a pipelined envelope, in DATA and in a BDAT chunk, with both settings of bare_newline;
whole, octet by octet, and cut in two at each point. The octets that would be relayed hold no end that a next hop could take.
"""

from __future__ import annotations

import re

import pytest
from dialogs.dialog import Dialog, split_replies
from dialogs.run import Mail
from dialogs.session_run import SessionWay
from false_ends import FALSE_ENDS

START = b"EHLO a.example\r\n", b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\n"
ENVELOPE = b"MAIL FROM:<evil@example.com>\r\nRCPT TO:<victim@example.net>\r\nDATA\r\nevil\r\n"
NEWLINES = ("normalize", "reject")


def converse(bare_newline: str, pieces: list[bytes], step: int = 1 << 30) -> tuple[list[bytes], list[Mail]]:
    """Send the pieces after EHLO; return the codes of the replies to them, and the mails in custody."""
    way = SessionWay(Dialog("smuggling", {"bare_newline": bare_newline}), is_octet_by_octet=step == 1)
    way.send(START[0])
    way.receive(False)
    for piece in pieces:
        way.send(piece)
    replies, rest = split_replies(way.receive(False))
    assert rest == b""
    assert way.server is not None
    return [reply[:3] for reply in replies], way.server.mails


def check(octets: bytes, codes: list[bytes], mails: list[Mail], expected: list[bytes], is_refused: bool) -> None:
    assert codes == [*expected, b"550" if is_refused else b"250"], octets
    assert [mail.reverse_path for mail in mails] == ([] if is_refused else [b"a@example.com"])
    for mail in mails:
        assert mail.forward_paths == [b"b@example.net"]
        assert not re.search(rb"\r(?!\n)|(?<!\r)\n", mail.body)


@pytest.mark.parametrize("bare_newline", NEWLINES)
@pytest.mark.parametrize("name", FALSE_ENDS)
def test_data(name: str, bare_newline: str) -> None:
    sent, stored = FALSE_ENDS[name]
    content = b"text" + sent + ENVELOPE + b".\r\n"
    has_bare = re.search(rb"\r(?!\n)|(?<!\r)\n", content) is not None
    is_refused = has_bare and bare_newline == "reject"
    head = [START[1], b"DATA\r\n"]
    expected = [b"250", b"250", b"354"]
    ways = [[content], *([content[:cut], content[cut:]] for cut in range(1, len(content)))]
    for pieces in ways:
        codes, mails = converse(bare_newline, [*head, *pieces])
        check(content, codes, mails, expected, is_refused)
        assert all(mail.body == b"text" + stored + ENVELOPE for mail in mails)
    codes, mails = converse(bare_newline, [*head, content], step=1)
    check(content, codes, mails, expected, is_refused)


@pytest.mark.parametrize("bare_newline", NEWLINES)
@pytest.mark.parametrize("name", FALSE_ENDS)
def test_chunk(name: str, bare_newline: str) -> None:
    """In a chunk not even CRLF.CRLF ends anything."""
    content = b"text" + FALSE_ENDS[name][0] + b"\r\n.\r\n" + ENVELOPE
    has_bare = re.search(rb"\r(?!\n)|(?<!\r)\n", content) is not None
    is_refused = has_bare and bare_newline == "reject"
    for cut in range(len(content) + 1):
        stream = b"BDAT %d\r\n" % cut + content[:cut] + b"BDAT %d LAST\r\n" % (len(content) - cut) + content[cut:]
        codes, mails = converse(bare_newline, [START[1], stream])
        check(content, codes, mails, [b"250", b"250", b"250"], is_refused)
    codes, mails = converse(bare_newline, [START[1], stream], step=1)
    check(content, codes, mails, [b"250", b"250", b"250"], is_refused)


@pytest.mark.parametrize("bare_newline", NEWLINES)
def test_what_follows_the_true_end_is_a_mail_of_its_own(bare_newline: str) -> None:
    """The matrix can tell: a real second envelope is seen as one."""
    stream = b"text\r\n.\r\n" + ENVELOPE.partition(b"DATA")[0]
    codes, mails = converse(bare_newline, [START[1], b"DATA\r\n", stream, b"DATA\r\n", b"evil\r\n.\r\n"])
    assert codes == [b"250", b"250", b"354", b"250", b"250", b"250", b"354", b"250"]
    assert [mail.reverse_path for mail in mails] == [b"a@example.com", b"evil@example.com"]
