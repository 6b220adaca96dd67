"""What each command does: handlers take the session and the reader, and return the reply, or None when a check has to ask.

The order of commands was already judged by `states.py`; octets that never belong into a command line by `session.py`.
"""

from __future__ import annotations

from collections.abc import Callable

from smtpd import _parser as p
from smtpd._parser import CommandReader
from smtpd._scan import PathScan
from smtpd.mail.address import AddressError, parse_path
from smtpd.mail.envelope import Recipient
from smtpd.mail.reply import Reply
from smtpd.mail.verdict import GO_ON, Verdict
from smtpd.proto import events as ev
from smtpd.proto import replies, states
from smtpd.proto.content import on_data
from smtpd.proto.dialogue import Dialogue
from smtpd.proto.events import Event
from smtpd.proto.params import ParameterError, parse_mail_parameters, parse_rcpt_parameters
from smtpd.proto.policy import pause
from smtpd.proto.transaction import NO_PARAMETERS, begin_transaction

HELO_LENGTH = 255  # RFC 5321 4.5.3.1.2
# In C variables of the module (commands.pxd), for the path of every mail.
_SCAN = PathScan()
_SENDER_OK, _RECIPIENT_OK = replies.SENDER_OK, replies.RECIPIENT_OK
_MAIL, _RCPT = states.MAIL, states.RCPT
_GO_ON = GO_ON
_HELO, _EHLO, _LHLO = p.VERB_HELO, p.VERB_EHLO, p.VERB_LHLO
_LINE_8BIT, _HELO_LENGTH = p.LINE_8BIT, HELO_LENGTH
_GREETED = states.GREETED
_NO_PARAMETERS = NO_PARAMETERS
_RECIPIENT = Recipient

Handler = Callable[[Dialogue, CommandReader], Reply | None]


def on_helo(session: Dialogue, reader: CommandReader) -> Reply | None:
    verb = reader.verb
    is_lmtp = session.rules.is_lmtp
    if is_lmtp != (verb == _LHLO):
        return replies.USE_LHLO if is_lmtp else replies.USE_EHLO
    name = reader.argument
    if not name or len(name) > _HELO_LENGTH or reader.flags & _LINE_8BIT:
        if verb == p.VERB_HELO:
            return replies.HELO_SYNTAX
        return replies.EHLO_SYNTAX if verb == p.VERB_EHLO else replies.LHLO_SYNTAX
    if session.policy is None:
        session.helo = name
        return greet_back(session, verb)
    previous, session.helo = session.helo, name
    verdict = session.policy.judge(session, ev.STAGE_HELO)
    if verdict is None:
        pause(session, ev.STAGE_HELO, verb, previous)
        return None
    return judge_helo(session, verdict, verb, previous)


def judge_helo(session: Dialogue, verdict: Verdict, verb: int, previous: bytes) -> Reply:
    if verdict.reply is not None:
        reply = session.reject(ev.STAGE_HELO, verdict.reply, verdict.reason)
        session.helo = previous
        return reply
    return greet_back(session, verb)


def greet_back(session: Dialogue, verb: int) -> Reply:
    session.is_extended = verb != _HELO
    session.reset()
    session.state = _GREETED
    return session.rules.ehlo_reply if session.is_extended else session.rules.helo_reply


def on_mail(session: Dialogue, reader: CommandReader) -> Reply | None:
    rules = session.rules
    if rules.mail_limit and session.mail_count >= rules.mail_limit:
        return replies.TOO_MANY_MAILS
    try:
        if _SCAN.read(reader.argument, False):
            path = _SCAN.mailbox
            parameters = parse_mail_parameters(_SCAN.rest, rules) if _SCAN.rest else _NO_PARAMETERS
        else:
            parsed = parse_path(reader.argument, b"FROM", True)
            path = parsed.mailbox
            parameters = parse_mail_parameters(parsed.rest, rules)
            if not parameters.is_smtputf8 and not path.isascii():
                return session.reject(ev.STAGE_MAIL, replies.NEEDS_SMTPUTF8, "syntax")
    except ParameterError as error:
        return session.reject(ev.STAGE_MAIL, error.reply, "syntax")
    except AddressError as error:
        if error.kind == "keyword":
            return replies.MAIL_SYNTAX
        return session.reject(ev.STAGE_MAIL, replies.bad_reverse_path(error.text), "syntax")
    if parameters is not _NO_PARAMETERS and rules.size_limit and parameters.size_bytes > rules.size_limit:
        return session.reject(ev.STAGE_MAIL, replies.TOO_BIG, "size")
    session.transaction = begin_transaction(path, parameters)
    verdict = rules.checks.at_mail(session) if rules.has_checks else _GO_ON
    if verdict is None:
        ask(session, states.PAUSED_MAIL, ev.STAGE_MAIL)
        return None
    if session.policy is not None and verdict.reply is None:
        verdict = session.policy.judge(session, ev.STAGE_MAIL)
        if verdict is None:
            ask(session, states.PAUSED_MAIL, ev.STAGE_MAIL)
            return None
    return judge_mail(session, verdict)


def judge_mail(session: Dialogue, verdict: Verdict) -> Reply:
    if verdict.reply is not None:
        reply = session.reject(ev.STAGE_MAIL, verdict.reply, verdict.reason)
        session.transaction = None
        if session.policy is not None:
            session.policy.end_transaction()
        return reply
    session.state = _MAIL
    session.mail_count += 1
    return _SENDER_OK


def on_rcpt(session: Dialogue, reader: CommandReader) -> Reply | None:
    rules = session.rules
    transaction = session.transaction
    assert transaction is not None
    if rules.recipient_limit and len(transaction.recipients) >= rules.recipient_limit:
        return session.reject(ev.STAGE_RCPT, replies.TOO_MANY_RECIPIENTS, "other")
    notify, orcpt = 0, b""
    try:
        if _SCAN.read(reader.argument, True):
            path, domain, rest = _SCAN.mailbox, _SCAN.domain(), _SCAN.rest
        else:
            is_smtputf8 = transaction.parameters.is_smtputf8
            parsed = parse_path(reader.argument, b"TO", is_smtputf8)
            path, domain, rest = parsed.mailbox, parsed.domain, parsed.rest
        if rest:
            notify, orcpt = parse_rcpt_parameters(rest, rules)
    except ParameterError as error:
        return session.reject(ev.STAGE_RCPT, error.reply, "syntax")
    except AddressError as error:
        if error.kind == "keyword":
            return replies.RCPT_SYNTAX
        if error.kind == "utf8":
            return session.reject(ev.STAGE_RCPT, replies.NEEDS_SMTPUTF8, "syntax")
        return session.reject(ev.STAGE_RCPT, replies.bad_forward_path(error.text), "syntax")
    if not domain:  # RFC 5321 4.5.1: postmaster alone
        path, domain = rules.postmaster.path, rules.postmaster.domain
        recipient = Recipient(path, "", notify, orcpt)
    else:
        recipient = _RECIPIENT(path, domain, notify, orcpt)
    verdict = rules.checks.at_rcpt(session, recipient) if rules.has_checks else _GO_ON
    if verdict is None:
        ask(session, states.PAUSED_RCPT, ev.STAGE_RCPT, recipient)
        return None
    if session.policy is not None and verdict.reply is None:
        verdict = session.policy.judge(session, ev.STAGE_RCPT, recipient)
        if verdict is None:
            ask(session, states.PAUSED_RCPT, ev.STAGE_RCPT, recipient)
            return None
    return judge_rcpt(session, verdict, recipient)


def judge_rcpt(session: Dialogue, verdict: Verdict, recipient: Recipient) -> Reply:
    if verdict.reply is not None:
        return session.reject(ev.STAGE_RCPT, verdict.reply, verdict.reason, recipient.path)
    assert session.transaction is not None
    if not recipient.domain:
        recipient = Recipient(recipient.path, session.rules.postmaster.domain, recipient.notify, recipient.orcpt)
    session.transaction.recipients.append(recipient)
    session.state = _RCPT
    return _RECIPIENT_OK


def ask(session: Dialogue, paused: int, stage: str, recipient: Recipient | None = None) -> None:
    session.token += 1
    session.paused = paused
    session.pending = recipient
    session.events.append(Event(ev.ASK, recipient, session.token, stage))


def on_rset(session: Dialogue, reader: CommandReader) -> Reply | None:
    if reader.argument:
        return replies.NO_ARGUMENT_ALLOWED
    session.reset()
    return replies.OK


def on_quit(session: Dialogue, reader: CommandReader) -> Reply | None:
    return replies.NO_ARGUMENT_ALLOWED if reader.argument else replies.GOODBYE


def on_vrfy(session: Dialogue, reader: CommandReader) -> Reply | None:
    return replies.CANNOT_VERIFY if reader.argument else replies.BAD_ARGUMENT


def on_starttls(session: Dialogue, reader: CommandReader) -> Reply | None:
    return replies.NO_ARGUMENT_ALLOWED if reader.argument else replies.TLS_NOT_AVAILABLE


def on_forbidden(session: Dialogue, reader: CommandReader) -> Reply | None:
    session.violation("forbidden_command")
    return replies.FORBIDDEN_COMMAND


def constant(reply: Reply) -> Handler:
    """A handler that looks at nothing."""
    return lambda session, reader: reply


def handler_table() -> list[Handler]:
    """The handlers by verb."""
    table: list[Handler] = [constant(replies.UNKNOWN_COMMAND)] * p.VERB_COUNT
    table[p.VERB_FORBIDDEN] = on_forbidden
    table[p.VERB_HELO] = table[p.VERB_EHLO] = table[p.VERB_LHLO] = on_helo
    table[p.VERB_MAIL] = on_mail
    table[p.VERB_RCPT] = on_rcpt
    table[p.VERB_DATA] = on_data
    table[p.VERB_RSET] = on_rset
    table[p.VERB_QUIT] = on_quit
    table[p.VERB_VRFY] = on_vrfy
    table[p.VERB_STARTTLS] = on_starttls
    table[p.VERB_NOOP] = constant(replies.OK)
    table[p.VERB_HELP] = constant(replies.HELP)
    table[p.VERB_EXPN] = table[p.VERB_ETRN] = table[p.VERB_AUTH] = constant(replies.NOT_IMPLEMENTED)
    table[p.VERB_XCLIENT] = constant(replies.XCLIENT_REFUSED)
    return table


HANDLERS = handler_table()
