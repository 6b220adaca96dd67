"""One transaction and every order in which its replies can come; without PIPELINING, with it, with CHUNKING, and by LMTP."""

from __future__ import annotations

import pytest
from client_rig import BODY, RELAY, mail_to

from smtpd.mail.outcome import DEFERRED, DELIVERED, UNDELIVERABLE
from smtpd.proto.client import events as ev

MAIL = b"MAIL FROM:<a@example.org>\r\n"
RCPT = b"RCPT TO:<b@example.net>\r\n"
RCPT_C = b"RCPT TO:<c@example.net>\r\n"
STUFFED = b"Subject: x\r\n\r\n..dot\r\n...\r\ntext\r\n.\r\n"
OK = b"250 2.0.0 ok\r\n"
GO = b"354 go\r\n"
BDAT = b"BDAT %d LAST\r\n" % len(BODY) + BODY


def statuses(mail):
    return [outcome.status for outcome in mail.outcomes]


def test_one_command_at_a_time(ready_client):
    client = ready_client(b"X")
    mail = mail_to(b"b@example.net", b"c@example.net")
    seen = []
    assert client.send(mail) == MAIL
    for octets, answer in [(OK, RCPT), (OK, RCPT_C), (OK, b"DATA\r\n"), (GO, STUFFED)]:
        seen.append(client.session.timeout_kind)
        assert not client.session.can_send
        assert client.hear(octets) == answer
    assert seen == ["mail", "recipient", "recipient", "data"]
    assert client.session.timeout_kind == "end_of_data"
    assert client.session.is_final_reply_due
    assert not client.session.can_send
    assert client.hear(b"250-2.6.0 taken\r\n250 2.6.0 as 17\r\n") == b""
    assert client.kinds() == [ev.DONE]
    outcome = mail.outcomes[1]
    assert (outcome.status, outcome.code, outcome.dsn, outcome.text) == (DELIVERED, 250, "2.6.0", "taken as 17")
    assert (outcome.relay, outcome.passes_dsn) == (RELAY, False)
    assert client.session.can_send
    assert not client.session.is_final_reply_due


def test_whole_transaction_at_once(ready_client):
    client = ready_client(b"PIPELINING")
    mail = mail_to(b"b@example.net", b"c@example.net")
    assert client.send(mail) == MAIL + RCPT + RCPT_C + b"DATA\r\n"
    assert client.hear(OK * 3) == b""
    assert client.hear(GO) == STUFFED
    assert client.hear(OK) == b""
    assert statuses(mail) == [DELIVERED, DELIVERED]
    assert client.kinds() == [ev.DONE]


def test_pipelining_can_be_left_unused(ready_client):
    assert ready_client(b"PIPELINING", uses_pipelining=False).send(mail_to()) == MAIL


def test_bdat_at_once(ready_client):
    client = ready_client(b"PIPELINING", b"CHUNKING")
    mail = mail_to()
    assert client.send(mail) == MAIL + RCPT + BDAT
    assert client.session.is_final_reply_due
    client.hear(OK * 3)
    assert statuses(mail) == [DELIVERED]
    assert client.session.can_send


def test_bdat_one_command_at_a_time(ready_client):
    client = ready_client(b"CHUNKING")
    mail = mail_to()
    client.send(mail)
    assert client.hear(OK) == RCPT
    assert client.hear(OK) == BDAT
    client.hear(OK)
    assert statuses(mail) == [DELIVERED]


def test_chunking_can_be_left_unused(ready_client):
    assert ready_client(b"PIPELINING", b"CHUNKING", uses_chunking=False).send(mail_to()) == MAIL + RCPT + b"DATA\r\n"


def test_bdat_counts_what_is_sent(ready_client):
    client = ready_client(b"PIPELINING", b"CHUNKING")
    assert client.send(mail_to(body=b".\na\rb")) == MAIL + RCPT + b"BDAT 8 LAST\r\n.\r\na b\r\n"


def test_pieces_go_by_data(ready_client):
    client = ready_client(b"PIPELINING", b"CHUNKING")
    mail = mail_to(body=None)
    assert client.send(mail) == MAIL + RCPT + b"DATA\r\n"
    client.hear(OK + OK + GO)
    assert client.kinds() == [ev.WANTS_BODY]
    assert client.session.timeout_kind == "block"
    client.session.feed(b"a\r", False)
    assert client.take() == b"a"
    assert not client.session.can_send
    assert not client.session.is_final_reply_due
    client.session.feed(b"\n.b", True)
    assert client.session.is_final_reply_due
    assert client.session.timeout_kind == "end_of_data"
    assert client.take() == b"\r\n..b\r\n.\r\n"
    client.session.feed(b"late", True)
    assert client.take() == b""
    client.hear(OK)
    assert statuses(mail) == [DELIVERED]


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["defer", "bounce"])
def test_mail_refused(ready_client, word):
    client = ready_client(b"X", refused_early=word)
    mail = mail_to()
    client.send(mail)
    assert client.hear(b"550 5.7.1 not you\r\n") == b""
    assert client.kinds() == [ev.DONE]
    assert statuses(mail) == [DEFERRED if word == "defer" else UNDELIVERABLE]
    assert mail.outcomes[0].code == 550
    assert client.session.can_send


@pytest.mark.parametrize("after", [b"503 no mail\r\n503 no rcpt\r\n", OK + b"554 no\r\n", b"503 no mail\r\n354 go\r\n"])
def test_mail_refused_with_all_behind_it(ready_client, after):
    client = ready_client(b"PIPELINING")
    mail = mail_to()
    client.send(mail)
    answer = client.hear(b"451 4.3.0 later\r\n" + after)
    if b"354" in after:
        assert answer == b".\r\n"
        assert not client.session.is_final_reply_due
        assert not client.session.can_send
        client.hear(b"554 5.5.1 nothing\r\n")
        assert client.session.can_send
    elif after.startswith(OK):  # a transaction seems to be open after all
        assert answer == b"RSET\r\n"
    else:
        assert answer == b""
        assert client.session.can_send
    assert client.kinds() == [ev.DONE]
    assert (mail.outcomes[0].status, mail.outcomes[0].code, mail.outcomes[0].dsn) == (DEFERRED, 451, "4.3.0")


def test_out_of_sequence_says_nothing_about_the_mail(ready_client):
    client = ready_client(b"X", refused_early="bounce")
    mail = mail_to()
    client.send(mail)
    client.hear(b"503 5.5.1 nested MAIL\r\n")
    assert client.kinds() == [ev.DONE, ev.CLOSED]
    assert statuses(mail) == [DEFERRED]


def test_some_recipients_refused(ready_client):
    for extensions in ([b"X"], [b"PIPELINING"], [b"PIPELINING", b"CHUNKING"]):
        client = ready_client(*extensions)
        mail = mail_to(b"b@x.org", b"c@x.org", b"d@x.org")
        client.send(mail)
        for octets in (OK, b"550 5.1.1 unknown\r\n", b"450 busy\r\n", b"251 forwards\r\n"):
            client.hear(octets)
        if b"CHUNKING" not in extensions:
            client.hear(GO)
        client.hear(OK)
        assert client.kinds() == [ev.DONE]
        assert [(o.status, o.code, o.dsn) for o in mail.outcomes] == [
            (UNDELIVERABLE, 550, "5.1.1"), (DEFERRED, 450, "4.0.0"), (DELIVERED, 250, "2.0.0")
        ]  # fmt: skip
        assert mail.put_off == []
        assert client.session.can_send


def test_all_recipients_refused_one_by_one(ready_client):
    client = ready_client(b"X")
    mail = mail_to()
    client.send(mail)
    client.hear(OK)
    assert client.hear(b"550 no\r\n") == b"RSET\r\n"
    assert client.session.timeout_kind == "quit"
    assert client.kinds() == [ev.DONE]
    assert not client.session.can_send
    client.hear(OK)
    assert client.kinds() == [ev.READY]
    assert client.session.can_send


def test_all_recipients_refused_and_data_too(ready_client):
    client = ready_client(b"PIPELINING")
    mail = mail_to()
    client.send(mail)
    assert client.hear(OK + b"550 5.1.1 no\r\n554 5.5.1 no recipients\r\n") == b"RSET\r\n"
    assert statuses(mail) == [UNDELIVERABLE]
    assert mail.outcomes[0].dsn == "5.1.1"


def test_all_recipients_refused_and_data_taken(ready_client):
    client = ready_client(b"PIPELINING")
    mail = mail_to()
    client.send(mail)
    assert client.hear(OK + b"450 4.2.1 no\r\n354 go\r\n") == b".\r\n"
    assert client.session.timeout_kind == "end_of_data"
    assert client.hear(OK) == b""  # even if it says that it took nothing for nobody
    assert statuses(mail) == [DEFERRED]
    assert client.kinds() == [ev.DONE]
    assert client.session.can_send


def test_lmtp_takes_data_without_a_recipient(ready_client):
    client = ready_client(b"PIPELINING", is_lmtp=True)
    mail = mail_to()
    client.send(mail)
    assert client.hear(OK + b"550 5.1.1 no\r\n354 go\r\n") == b""
    assert client.kinds() == [ev.DONE, ev.CLOSED]
    assert statuses(mail) == [UNDELIVERABLE]


@pytest.mark.parametrize("is_lmtp", [False, True])
def test_all_recipients_refused_and_bdat_too(ready_client, is_lmtp):
    client = ready_client(b"PIPELINING", b"CHUNKING", is_lmtp=is_lmtp)
    mail = mail_to(b"b@x.org", b"c@x.org")
    client.send(mail)
    assert client.hear(OK + b"550 5.1.1 no\r\n450 later\r\n503 5.5.1 no recipients\r\n") == b"RSET\r\n"
    assert statuses(mail) == [UNDELIVERABLE, DEFERRED]


@pytest.mark.parametrize(("octets", "status"), [(b"554 5.6.0 no\r\n", UNDELIVERABLE), (b"452 4.3.1 full\r\n", DEFERRED)])
@pytest.mark.parametrize("extensions", [[b"X"], [b"PIPELINING"]])
def test_data_refused(ready_client, octets, status, extensions):
    client = ready_client(*extensions)
    mail = mail_to()
    client.send(mail)
    client.hear(OK)
    client.hear(OK)
    assert client.hear(octets) == b"RSET\r\n"
    assert statuses(mail) == [status]


@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize(("octets", "status"), [(b"554 5.7.1 spam\r\n", UNDELIVERABLE), (b"451 x\r\n", DEFERRED)])
def test_content_refused(ready_client, is_chunked, octets, status):
    client = ready_client(b"PIPELINING", *[b"CHUNKING"] * is_chunked)
    mail = mail_to()
    client.send(mail)
    client.hear(OK + OK)
    if not is_chunked:
        client.hear(GO)
    assert client.hear(octets) == (b"RSET\r\n" if is_chunked else b"")
    assert statuses(mail) == [status]
    assert client.kinds() == [ev.DONE]


def test_rset_refused(ready_client):
    client = ready_client(b"X")
    client.send(mail_to())
    client.hear(OK)
    client.hear(b"550 no\r\n")
    client.kinds()
    assert client.hear(b"500 no\r\n") == b"QUIT\r\n"
    assert client.kinds() == [ev.CLOSED]


# --- too many --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("octets", "is_put_off"), [
    (b"452 4.5.3 too many\r\n", True), (b"452 too many\r\n", True), (b"552 too many\r\n", True), (b"552 5.5.3 x\r\n", True),
    (b"452 4.2.2 mailbox full\r\n", False), (b"552 5.2.2 mailbox full\r\n", False), (b"450 4.5.3x\r\n", False),
])  # fmt: skip
def test_too_many_recipients(ready_client, octets, is_put_off):
    client = ready_client(b"PIPELINING")
    mail = mail_to(b"b@x.org", b"c@x.org")
    client.send(mail)
    client.hear(OK + OK + octets + GO)
    client.hear(OK)
    assert mail.put_off == ([1] if is_put_off else [])
    assert statuses(mail) == [DELIVERED, UNDELIVERABLE if octets.startswith(b"552 5.2.2") else DEFERRED]


def test_too_many_at_the_first_recipient_is_not_put_off(ready_client):
    client = ready_client(b"PIPELINING")
    mail = mail_to()
    client.send(mail)
    client.hear(OK + b"452 4.5.3 too many\r\n503 no\r\n")
    assert statuses(mail) == [DEFERRED]
    assert mail.put_off == []


def test_limit_of_recipients_is_kept(ready_client):
    client = ready_client(b"PIPELINING", b"LIMITS RCPTMAX=2")
    mail = mail_to(b"b@example.net", b"c@example.net", b"d@x.org", b"e@x.org")
    assert client.send(mail) == MAIL + RCPT + RCPT_C + b"DATA\r\n"
    client.hear(OK * 3 + GO)
    client.hear(OK)
    assert statuses(mail) == [DELIVERED, DELIVERED, DEFERRED, DEFERRED]
    assert mail.put_off == [2, 3]
    assert mail.outcomes[2].dsn == "4.5.3"


def test_limit_of_mails_is_kept(ready_client):
    client = ready_client(b"PIPELINING", b"LIMITS MAILMAX=1")
    client.send(mail_to())
    assert client.session.is_spent
    client.hear(OK + OK + GO)
    assert not client.session.can_send
    client.hear(OK)
    assert not client.session.can_send


def test_too_many_mails(ready_client):
    client = ready_client(b"X")
    first, second = mail_to(), mail_to()
    for mail in (first, second):
        client.send(mail)
        client.hear(b"452 4.5.3 too many mails\r\n")
    assert statuses(first) == statuses(second) == [DEFERRED]
    assert first.put_off == []  # a new connection would do no better
    assert second.put_off == [0]
    assert client.session.is_spent


# --- LMTP ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_chunked", [False, True])
def test_one_final_reply_for_each_recipient(ready_client, is_chunked):
    client = ready_client(b"PIPELINING", b"DSN", *[b"CHUNKING"] * is_chunked, is_lmtp=True)
    mail = mail_to(b"b@x.org", b"c@x.org", b"d@x.org", b"e@x.org")
    client.send(mail)
    client.hear(OK + OK + b"550 5.1.1 unknown\r\n" + OK + OK)
    if not is_chunked:
        client.hear(GO)
    client.hear(OK)
    assert client.kinds() == []
    assert client.session.is_final_reply_due
    client.hear(b"452 4.2.2 full\r\n")
    assert client.hear(b"550-5.7.1 no\r\n550 5.7.1 never\r\n") == b""
    assert client.kinds() == [ev.DONE]
    assert [(o.status, o.dsn, o.passes_dsn) for o in mail.outcomes] == [
        (DELIVERED, "2.0.0", True), (UNDELIVERABLE, "5.1.1", False), (DEFERRED, "4.2.2", False), (UNDELIVERABLE, "5.7.1", False)
    ]  # fmt: skip
    assert client.session.can_send


def test_lmtp_goes_down_among_the_final_replies(ready_client):
    client = ready_client(b"PIPELINING", is_lmtp=True)
    mail = mail_to(b"b@x.org", b"c@x.org", b"d@x.org")
    client.send(mail)
    client.hear(OK * 4 + GO)
    client.hear(OK + b"421 4.3.2 down\r\n")
    assert not client.session.can_send
    client.hear(OK)
    assert statuses(mail) == [DELIVERED, DEFERRED, DELIVERED]
    assert client.kinds() == [ev.DONE, ev.CLOSED]


def test_lmtp_is_lost_among_the_final_replies(ready_client):
    client = ready_client(b"PIPELINING", is_lmtp=True)
    mail = mail_to(b"b@x.org", b"c@x.org")
    client.send(mail)
    client.hear(OK * 3 + GO)
    client.hear(OK)
    client.session.fail(0, "4.4.2", "lost")
    client.take()
    assert [(o.status, o.text) for o in mail.outcomes] == [(DELIVERED, "ok"), (DEFERRED, "lost")]
    assert client.kinds() == [ev.DONE, ev.CLOSED]


# --- hostile ---------------------------------------------------------------------------------------------------------

STEPS = [OK, OK, GO, OK]


@pytest.mark.parametrize("step", range(4))
@pytest.mark.parametrize("extensions", [[b"X"], [b"PIPELINING"]])
def test_421_anywhere(ready_client, step, extensions):
    client = ready_client(*extensions, refused_early="bounce")
    mail = mail_to()
    client.send(mail)
    for octets in STEPS[:step]:
        client.hear(octets)
    assert client.hear(b"421 4.3.2 down\r\n") == b""
    assert client.kinds() == [ev.DONE, ev.CLOSED]
    assert (mail.outcomes[0].status, mail.outcomes[0].code) == (DEFERRED, 421)


@pytest.mark.parametrize("step", range(4))
def test_what_was_lost_is_deferred(ready_client, step):
    client = ready_client(b"X")
    mail = mail_to()
    client.send(mail)
    for octets in STEPS[:step]:
        client.hear(octets)
    assert client.session.is_final_reply_due == (step == 3)
    client.session.fail(0, "4.4.2", "lost")
    client.take()
    assert client.kinds() == [ev.DONE, ev.CLOSED]
    assert (mail.outcomes[0].status, mail.outcomes[0].text, mail.outcomes[0].relay) == (DEFERRED, "lost", RELAY)


@pytest.mark.parametrize(
    ("before", "octets"),
    [
        ([], b"354 go\r\n"),
        ([], b"nonsense\r\n"),
        ([OK], b"354 go\r\n"),
        ([OK, OK], OK),  # 250 before the content
        ([OK, OK], b"250 go\r\n"),
        ([OK, OK, GO], b"354 go on\r\n"),
        ([OK, OK, GO], b"250-a\r\n550 b\r\n"),
        ([OK, OK], GO + OK),  # 250 before the dot
        ([OK, OK], GO + b"550 no\r\n"),
        ([], OK + OK),  # the second belongs to no command
        ([OK, OK, GO], OK + OK),
    ],
)
def test_out_of_step(ready_client, before, octets):
    client = ready_client(b"X", refused_early="bounce")
    mail = mail_to()
    client.send(mail)
    for earlier in before:
        client.hear(earlier)
    assert client.hear(octets) == b""
    assert client.kinds() == [ev.DONE, ev.CLOSED]
    is_true = octets == OK + OK and len(before) == 3  # what was said before it went out of step counts
    assert statuses(mail) == [DELIVERED if is_true else DEFERRED]
    assert client.reason.status == DEFERRED


def test_all_replies_before_the_content_with_pipelining(ready_client):
    client = ready_client(b"PIPELINING")
    mail = mail_to()
    client.send(mail)
    assert client.hear(OK + OK + GO + OK) == b""
    assert statuses(mail) == [DEFERRED]
    assert client.kinds() == [ev.DONE, ev.CLOSED]


@pytest.mark.parametrize("octets", [b"452 4.3.1 full\r\n", b"552 5.3.4 too big\r\n", b"421 down\r\n", OK, b"354 more\r\n"])
def test_reply_in_the_middle_of_content(ready_client, octets):
    client = ready_client(b"X")
    mail = mail_to(body=None)
    client.send(mail)
    for earlier in (OK, OK, GO):
        client.hear(earlier)
    client.session.feed(b"a\r\n", False)
    client.take()
    client.kinds()
    client.hear(octets)
    assert client.kinds() == [ev.DONE, ev.CLOSED]
    assert statuses(mail) == [DEFERRED]
    assert mail.outcomes[0].code == (int(octets[:3]) if octets >= b"4" else 0)
    client.session.feed(b"b\r\n", True)
    assert client.take() == b""


def hear_with_unsent(client, octets, unsent_bytes):
    buffer = bytearray(octets)
    client.session.receive(buffer, 0, len(buffer), unsent_bytes)
    client.take()


@pytest.mark.parametrize("octets", [OK, b"452 4.3.1 full\r\n", b"552 5.3.4 too big\r\n", b"421 down\r\n"])
@pytest.mark.parametrize("is_lmtp", [False, True])
def test_final_reply_while_the_end_has_not_left(ready_client, octets, is_lmtp):
    client = ready_client(b"PIPELINING", is_lmtp=is_lmtp)
    mail = mail_to()
    client.send(mail)
    client.hear(OK + OK + GO)
    hear_with_unsent(client, octets, 1)
    assert client.kinds() == [ev.DONE, ev.CLOSED]
    assert statuses(mail) == [DEFERRED]


def test_final_reply_while_only_the_next_mail_has_not_left(ready_client):
    client = ready_client(b"PIPELINING")
    first, second = mail_to(), mail_to()
    client.send(first)
    client.hear(OK + OK + GO)
    unsent = client.send(second)
    hear_with_unsent(client, OK, len(unsent))
    assert statuses(first) == [DELIVERED]
    hear_with_unsent(client, OK + OK + GO, 0)
    hear_with_unsent(client, OK, 0)
    assert statuses(second) == [DELIVERED]


def test_chunk_may_be_refused_before_it_has_left(ready_client):
    for recipient_reply in (OK, b"550 5.7.1 no\r\n"):
        client = ready_client(b"PIPELINING", b"CHUNKING")
        mail = mail_to()
        client.send(mail)
        hear_with_unsent(client, OK + recipient_reply + b"552 5.3.4 no\r\n", 10)
        assert statuses(mail) == [UNDELIVERABLE]
        assert client.kinds() == [ev.DONE]
    client = ready_client(b"PIPELINING", b"CHUNKING")
    mail = mail_to()
    client.send(mail)
    hear_with_unsent(client, OK + OK + OK, 10)
    assert client.kinds() == [ev.DONE, ev.CLOSED]
    assert statuses(mail) == [DEFERRED]


def test_text_is_bounded(ready_client):
    client = ready_client(b"X")
    mail = mail_to()
    client.send(mail)
    for _ in range(30):
        client.hear(b"550-" + b"\xff" * 1000 + b"\r\n")
    client.hear(b"550 end\r\n")
    assert len(mail.outcomes[0].text) == 1000


def test_endless_reply(ready_client):
    client = ready_client(b"X")
    mail = mail_to()
    client.send(mail)
    client.hear(b"250-x\r\n" * 201)
    assert client.kinds() == [ev.DONE, ev.CLOSED]
    assert "too many lines" in client.reason.text
