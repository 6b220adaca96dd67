"""The client session against next hops that say anything: any split gives the same events, and no answer is made up."""

from __future__ import annotations

from client_rig import Client, mail_to
from fuzz.octets import cuts, split
from hypothesis import given
from hypothesis import strategies as st

from smtpd.mail.outcome import DELIVERED, PENDING
from smtpd.proto.client import events as ev
from smtpd.proto.client.rules import ClientRules

_REPLIES = [
    b"220 go\r\n", b"250 ok\r\n", b"250 ok\r\n", b"250-2.0.0 a\r\n250 b\r\n", b"354 go\r\n", b"354 go\r\n", b"421 down\r\n",
    b"450 4.2.1 x\r\n", b"452 4.5.3 x\r\n", b"503 x\r\n", b"550 5.1.1 x\r\n", b"554\n", b"nonsense\r\n", b"250-", b"2", b"\r\n",
]  # fmt: skip
_OFFERS = [b"PIPELINING", b"CHUNKING", b"DSN", b"STARTTLS", b"LIMITS RCPTMAX=2 MAILMAX=3", b"SIZE 10"]

offers = st.lists(st.sampled_from(_OFFERS), unique=True)
turns = st.lists(st.lists(st.sampled_from(_REPLIES[:6]) | st.sampled_from(_REPLIES), max_size=4).map(b"".join), max_size=25)


def run(offer: list[bytes], is_lmtp: bool, has_pieces: bool, hear_all: list[list[bytes]]) -> tuple[object, ...]:
    """Send mails whenever the session takes one; return all that was sent, told and decided."""
    client = Client(ClientRules(b"out.example.org", is_lmtp=is_lmtp))
    mails = []
    lines = [b"mx.example.net", *offer]
    hello = b"".join(b"250-" + line + b"\r\n" for line in lines[:-1]) + b"250 " + lines[-1] + b"\r\n"
    for pieces in [[b"220 mx\r\n"], [hello], *hear_all]:
        for piece in pieces:
            buffer = bytearray(piece)
            client.session.receive(buffer, 0, len(buffer))
        client.take()
        if client.told and client.told[-1][0] == ev.WANTS_BODY:
            client.session.feed(b".x\r", False)
            client.session.feed(b"\n", True)
        if client.told and client.told[-1][0] == ev.START_TLS:
            client.session.tls_started()
        if client.session.can_send:
            mails.append(mail_to(b"b@x.org", b"c@x.org", b"d@x.org", body=None if has_pieces else b"x\r\n"))
            client.session.send(mails[-1])
        client.take()
    client.session.fail(0, "4.4.2", "lost")
    client.take()
    done = [mail for kind, mail in client.told if kind == ev.DONE]
    assert sorted(map(id, done)) == sorted(map(id, mails))
    assert [kind for kind, _ in client.told].count(ev.CLOSED) == 1
    assert client.told[-1][0] == ev.CLOSED
    assert not client.session.is_final_reply_due
    for mail in mails:
        assert PENDING not in [outcome.status for outcome in mail.outcomes]
        assert all(outcome.status != DELIVERED or 200 <= outcome.code < 300 for outcome in mail.outcomes)
        assert set(mail.put_off) <= {i for i, outcome in enumerate(mail.outcomes) if outcome.status != DELIVERED}
    # START_TLS may be told or not where octets that must not be there follow the reply: they may come with it or after it.
    kinds = [kind for kind, _ in client.told if kind != ev.START_TLS]
    return client.sent, kinds, [mail.outcomes for mail in mails], [mail.put_off for mail in mails]


@given(offers, st.booleans(), st.booleans(), turns, cuts)
def test_any_split_gives_the_same(offer, is_lmtp, has_pieces, said, positions):
    whole = run(offer, is_lmtp, has_pieces, [[octets] for octets in said])
    assert run(offer, is_lmtp, has_pieces, [split(octets, positions) for octets in said]) == whole
