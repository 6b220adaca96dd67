"""Content by DATA and by BDAT: from the command to the answer for the whole mail.

Content that breaks a limit is read to its true end and answered there, so that framing is never lost; the driver is told
BODY_ABORT at once. A refused BDAT chunk is swallowed by a transaction of its own, and the session's real one comes back after it.
"""

from __future__ import annotations

from smtpd import _parser as p
from smtpd._parser import BodyDecoder, CommandReader
from smtpd.mail.envelope import Envelope
from smtpd.mail.reply import Reply
from smtpd.mail.verdict import Verdict
from smtpd.proto import events as ev
from smtpd.proto import replies, states
from smtpd.proto.conduct import hold, maybe_cut, meet
from smtpd.proto.dialogue import END_OF_DATA, Dialogue
from smtpd.proto.events import make_event
from smtpd.proto.policy import judge_session, pause
from smtpd.proto.replies import queued
from smtpd.proto.trace import protocol_name
from smtpd.proto.transaction import (
    NO_PARAMETERS,
    Transaction,
    begin_transaction,
    check_content_limits,
    check_whole_content,
)

CHUNK_DIGITS = 18  # a size of more is not counted by anybody
CHUNK_SLACK_BYTES = 1 << 20  # a declared chunk that exceeds twice the limit by this is not swallowed
# In C variables of the module (content.pxd), for the path of every mail.
_START_DATA = replies.START_DATA
_ENVELOPE = Envelope
_CONTENT, _GREETED, _PAUSED_BODY = states.CONTENT, states.GREETED, states.PAUSED_BODY
_BEGIN, _CHUNK, _END = ev.BODY_BEGIN, ev.BODY_CHUNK, ev.BODY_END
_BDAT, _DATA_END = p.VERB_BDAT, p.VERB_DATA + END_OF_DATA


def on_data(session: Dialogue, reader: CommandReader) -> Reply | None:
    transaction = session.transaction
    assert transaction is not None
    if reader.argument:
        return replies.NO_ARGUMENT_ALLOWED
    if session.policy is not None:
        refusal = judge_session(session, ev.STAGE_DATA, p.VERB_DATA)
        if refusal is not None or session.paused:
            return refusal
    return start_data(session, transaction)


def start_data(session: Dialogue, transaction: Transaction) -> Reply:
    begin_content(session, transaction)
    assert transaction.decoder is not None
    transaction.decoder.start_data()
    session.state = _CONTENT
    return _START_DATA


def begin_content(session: Dialogue, transaction: Transaction) -> None:
    transaction.decoder = BodyDecoder.__new__(BodyDecoder)
    transaction.is_reported = True
    session.events.append(make_event(_BEGIN, transaction, 0))


def make_envelope(session: Dialogue, transaction: Transaction) -> Envelope:
    """The envelope of a transaction whose body begins; the driver puts the time in."""
    parameters = transaction.parameters
    peer = session.peer
    return _ENVELOPE(
        transaction.reverse_path,
        transaction.recipients,
        peer.address,
        peer.name,
        session.helo,
        protocol_name(session.rules.is_lmtp, session.is_extended, parameters.is_smtputf8, session.is_tls),
        0.0,  # the driver knows the time
        session.rules.listener,
        peer.port,
        parameters.is_smtputf8,
        parameters.body,
        parameters.ret,
        parameters.envid,
    )


def begin_chunk(session: Dialogue, argument: bytes, refusal: Reply | None) -> Reply | None:
    """BDAT size [LAST] (RFC 3030): the chunk is read whatever the answer will be, or the framing would be lost.

    `refusal` is the answer where that is known already."""
    words = argument.split()
    is_last = len(words) == 2 and words[1].upper() == b"LAST"
    if not words or not words[0].isdigit() or len(words[0]) > CHUNK_DIGITS or (len(words) > 1 and not is_last):
        return session.reject(ev.STAGE_DATA, replies.BAD_CHUNK_SIZE, "syntax")
    size_bytes = int(words[0])
    limit = session.rules.size_limit
    if limit and size_bytes > 2 * limit + CHUNK_SLACK_BYTES:
        return session.reject(ev.STAGE_DATA, replies.TOO_BIG_CLOSING, "size")
    if not size_bytes and not is_last and session.count_junk():
        return None
    transaction = session.transaction
    if not session.rules.offers_chunking or session.state not in (states.RCPT, states.CHUNKS) or transaction is None:
        transaction = make_swallower(session, transaction)
    elif refusal is not None:
        transaction = make_swallower(session, transaction)
        transaction.failure = refusal
    elif transaction.decoder is None:
        begin_content(session, transaction)
    decoder = transaction.decoder
    assert decoder is not None
    transaction.is_chunked = True
    transaction.is_last_chunk = is_last
    transaction.chunk_bytes = size_bytes
    if limit and decoder.raw_bytes + size_bytes > limit:
        fail_content(session, transaction, replies.TOO_BIG, "size")
    session.transaction = transaction
    decoder.start_chunk(size_bytes)
    if decoder.is_done:
        end_chunk(session, transaction)
    else:
        session.state = states.CONTENT
    return None


def make_swallower(session: Dialogue, refused: Transaction | None) -> Transaction:
    """A transaction that only takes a refused chunk; the state goes back to where it was."""
    swallower = begin_transaction(b"", NO_PARAMETERS)
    swallower.decoder = BodyDecoder()
    swallower.fail(replies.BAD_SEQUENCE if session.rules.offers_chunking else replies.NOT_IMPLEMENTED, "syntax")
    swallower.recipients = refused.recipients if refused is not None else []
    swallower.chunk_owner = (refused, session.state)
    return swallower


def take_content(session: Dialogue, data: bytearray, position: int, end: int) -> int:
    transaction = session.transaction
    assert transaction is not None
    decoder = transaction.decoder
    assert decoder is not None
    position = decoder.take(data, position, end)
    if session.step is not None and maybe_cut(session, decoder.raw_bytes):
        return end
    if transaction.failure is None:
        refusal = check_content_limits(decoder, session.rules, transaction.size_limit)
        if refusal is not None:
            fail_content(session, transaction, refusal[0], refusal[1])
        elif decoder.chunk:
            session.events.append(make_event(_CHUNK, decoder.chunk, 0))
    if decoder.is_done:
        if transaction.is_chunked:
            end_chunk(session, transaction)
        else:
            end_content(session, transaction)
    return position


def fail_content(session: Dialogue, transaction: Transaction, reply: Reply, reason: str) -> None:
    transaction.fail(reply, reason)
    session.drop_body()


def end_chunk(session: Dialogue, transaction: Transaction) -> None:
    """A BDAT chunk is complete."""
    if transaction.chunk_owner is not None:
        session.transaction, session.state = transaction.chunk_owner
        assert transaction.failure is not None
        session.answer(p.VERB_BDAT, transaction.failure)
        return
    if transaction.is_last_chunk:
        assert transaction.decoder is not None
        rest = transaction.decoder.finish()
        if rest and transaction.failure is None:
            session.events.append(make_event(_CHUNK, rest, 0))
        end_content(session, transaction)
        return
    session.state = states.CHUNKS
    if transaction.failure is not None:
        session.answer(p.VERB_BDAT, transaction.failure)
    else:
        session.answer(p.VERB_BDAT, replies.chunk_taken(transaction.chunk_bytes))


def end_content(session: Dialogue, transaction: Transaction) -> None:
    decoder = transaction.decoder
    assert decoder is not None
    if decoder.bare_lf_count:
        session.violation("bare_lf")
    if decoder.bare_cr_count:
        session.violation("bare_cr")
    if decoder.nul_count:
        session.violation("nul")
    if decoder.long_line_count:
        session.violation("line_too_long")
    if transaction.failure is None:
        refusal = check_whole_content(decoder, session.rules)
        if refusal is not None:
            fail_content(session, transaction, refusal[0], refusal[1])
    if transaction.failure is None and session.conduct is not None:
        verb = p.VERB_BDAT if transaction.is_chunked else p.VERB_DATA
        if meet(session, ev.STAGE_BODY, verb, b""):
            return
        settle_content(session, transaction)
        hold(session)
        return
    if session.policy is not None and transaction.failure is None:
        verdict = session.policy.judge(session, ev.STAGE_BODY)
        if verdict is None:
            pause(session, ev.STAGE_BODY, p.VERB_DATA)
            return
        judge_content(session, transaction, verdict)
    settle_content(session, transaction)


def judge_content(session: Dialogue, transaction: Transaction, verdict: Verdict) -> None:
    if verdict.reply is not None:
        fail_content(session, transaction, verdict.reply, verdict.reason)


def settle_content(session: Dialogue, transaction: Transaction) -> None:
    """Answer a failure; ask the driver for custody of the rest."""
    if transaction.failure is not None:
        finish_body(session, Verdict(transaction.failure, transaction.failure_reason))
        return
    session.token += 1
    session.paused = _PAUSED_BODY
    session.events.append(make_event(_END, None, session.token))


def finish_body(session: Dialogue, verdict: Verdict) -> None:
    """The answer to the whole content; whatever it is, the transaction is over."""
    transaction = session.transaction
    assert transaction is not None
    verb = _BDAT if transaction.is_chunked else _DATA_END
    transaction.is_reported = False  # the driver has settled the body with its verdict, or dropped it with the failure
    refusal = None
    if verdict.reply is None:
        session.error_count = session.junk_count = 0
    else:
        refusal = session.reject(ev.STAGE_BODY, verdict.reply, verdict.reason)
    session.transaction = None
    session.state = _GREETED
    if session.policy is not None:
        session.policy.end_transaction()
    if not session.rules.is_lmtp:
        session.answer(verb, queued(verdict.queue_id) if refusal is None else refusal)
        return
    answers = verdict.replies or [
        refusal or replies.queued_for(verdict.queue_id, recipient.path) for recipient in transaction.recipients
    ]
    for reply in answers[:-1]:  # the last one decides about errors, so that one bad mail is one error
        session.put(reply.wire)
        session.tally.add(-reply.code)
    session.answer(verb, answers[-1])
