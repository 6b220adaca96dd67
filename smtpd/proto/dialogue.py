"""What every handler of a command sees: the session's state, and the one place where replies are queued and counted.

Base of `session.Session`, apart so that commands and content can be modules of their own. Limits on errors and junk
are held here, where the replies pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smtpd import _parser as p
from smtpd._tally import Tally
from smtpd.mail.envelope import Recipient
from smtpd.mail.reply import Reply
from smtpd.proto import events as ev
from smtpd.proto import replies, states
from smtpd.proto.events import Event, Refusal, make_event
from smtpd.proto.rules import Rules
from smtpd.proto.states import PAUSED_DELAY, PAUSED_NOT
from smtpd.proto.transaction import Transaction

if TYPE_CHECKING:
    from smtpd.proto.conduct import Conduct, Step
    from smtpd.proto.policy import SessionPolicy

END_OF_DATA = 100
_CONNECTED, _GREETED, _CLOSED = states.CONNECTED, states.GREETED, states.CLOSED
_PAUSED_NOT = PAUSED_NOT
_CLOSE = ev.CLOSE
_QUIT = p.VERB_QUIT


class Peer:
    """Who is at the other end, as the driver knows it. `name` is "unknown" without a verified one.

    `is_balancer`: a front end that did not say for whom it speaks. `is_trusted`: no limits for one client hold. `row` is where
    this client is counted, -1 = nowhere.
    """

    __slots__ = ("address", "is_balancer", "is_trusted", "name", "port", "row", "session_id")

    def __init__(self, address: str, port: int = 0, name: str = "unknown", *, is_balancer: bool = False) -> None:
        self.address = address
        self.port = port
        self.name = name
        self.is_balancer = is_balancer
        self.is_trusted = False
        self.row = -1
        self.session_id = ""  # given when something needs it


class Dialogue:
    """`tally` collects verb * 1000 + reply code of each command for the driver, who takes and empties it.

    A reply that no command asked for (greeting, 421) is -code, the answer to the end of DATA (verb + END_OF_DATA) * 1000 + code.
    Verbs are numbers of `_parser.VERB_NAMES`.
    """

    __slots__ = (
        "conduct",
        "error_count",
        "events",
        "helo",
        "is_draining",
        "is_extended",
        "is_tls",
        "junk_count",
        "mail_count",
        "more_output",
        "output",
        "paused",
        "peer",
        "pending",
        "policy",
        "rules",
        "state",
        "step",
        "tally",
        "token",
        "transaction",
    )  # fmt: skip

    def __init__(self, rules: Rules, peer: Peer) -> None:
        self._begin(rules, peer)

    def _begin(self, rules: Rules, peer: Peer) -> None:
        self.rules = rules
        self.peer = peer
        self.state = _CONNECTED
        self.paused = _PAUSED_NOT
        self.helo = b""
        self.is_extended = False
        self.is_tls = False
        self.is_draining = False
        self.transaction: Transaction | None = None
        self.tally = Tally()
        self.output: bytes | None = None  # the first reply to be sent: mostly the only one
        self.more_output: list[bytes] = []
        self.events: list[Event] = []
        self.token = 0
        self.pending: Recipient | tuple[str, int] | tuple[str, int, bytes] | None = None
        self.conduct: Conduct | None = None  # set by the driver before `start`
        self.step: Step | None = None  # of the conduct, for the last command
        self.policy: SessionPolicy | None = None  # set by the driver before `start`
        self.error_count = 0
        self.junk_count = 0
        self.mail_count = 0

    @property
    def is_between_transactions(self) -> bool:
        return (self.state <= _GREETED or self.state == states.REFUSED) and not self.paused

    def put(self, wire: bytes) -> None:
        """Queue octets for the peer; `Session.take_output` hands them out."""
        if self.output is None:
            self.output = wire
        else:
            self.more_output.append(wire)

    def abort(self, reply: Reply | None, reason: str) -> None:
        """End the session from outside: a timer (`reply` says so) or a peer that is gone (None)."""
        if self.state == _CLOSED:
            return
        self.drop_body()
        self.paused = _PAUSED_NOT
        self.token += 1
        if reply is not None:
            self.put(reply.wire)
            self.tally.add(-reply.code)
        self.close(reason)

    # --- one place that sends and counts -----------------------------------------------------------------------------

    def answer(self, verb: int, reply: Reply | None) -> None:
        """Queue the reply and count it; None: a later `resume` answers."""
        if reply is None:
            return
        self.put(reply.wire)
        self.tally.add(verb * 1000 + reply.code)
        if reply.is_error:
            self._count_error(reply)
        if reply.closes:
            self.drop_body()
            self.close("conduct" if self.step is not None else "quit" if verb == _QUIT else "too_many_errors")
        elif self.is_draining and self.is_between_transactions:
            self.abort(replies.SHUTTING_DOWN, "shutdown")
        elif self.error_count:
            self._check_errors()

    def _count_error(self, reply: Reply) -> None:
        if reply is not replies.SPOOL_FAILED and reply is not replies.SPOOL_FULL:  # not the client's doing
            self.error_count += 1

    def _check_errors(self) -> None:
        if self.state == states.CLOSED or self.paused:
            return
        hard = self.rules.hard_errors
        if hard and self.error_count >= hard:
            self.abort(replies.TOO_MANY_ERRORS, "too_many_errors")
            return
        if not 0 < self.rules.soft_errors <= self.error_count:
            return
        self.token += 1
        self.paused = PAUSED_DELAY
        self.events.append(Event(ev.DELAY, None, self.token))

    def count_junk(self) -> bool:
        """Count a command that moves no mail; True when that was one too many and the session is over."""
        self.junk_count += 1
        if self.rules.junk_limit and self.junk_count > self.rules.junk_limit:
            self.abort(replies.TOO_MUCH_JUNK, "too_many_errors")
            return True
        return False

    def close(self, reason: str) -> None:
        self.state = _CLOSED
        self.transaction = None
        self.events.append(make_event(_CLOSE, reason, 0))

    def violation(self, kind: str) -> None:
        self.events.append(Event(ev.VIOLATION, kind))

    def reject(self, stage: str, reply: Reply, reason: str, recipient: bytes | None = None) -> Reply:
        """Tell the driver of a refusal with what the transaction is so far; return the reply as it is to be said."""
        if self.rules.footer is not None and reply is not replies.SPOOL_FAILED and reply is not replies.SPOOL_FULL:
            reply = self.rules.footer.put_behind(reply, self.peer)
        transaction = self.transaction
        sender, count, size_bytes = None, 0, 0
        if transaction is not None:
            sender, count = transaction.reverse_path, len(transaction.recipients)
            size_bytes = transaction.decoder.size_bytes if transaction.decoder is not None else 0
        self.events.append(Event(ev.REJECT, Refusal(reply, reason, recipient, sender, count, size_bytes), 0, stage))
        return reply

    def drop_body(self) -> None:
        """Tell the driver that what it has of the body is void."""
        transaction = self.transaction
        if transaction is not None and transaction.is_reported:
            transaction.is_reported = False
            self.events.append(Event(ev.BODY_ABORT))

    def reset(self) -> None:
        """Leave the transaction; a new MAIL makes a new one."""
        self.drop_body()
        if self.policy is not None:
            self.policy.end_transaction()
        self.transaction = None
        if self.state != _CONNECTED:
            self.state = _GREETED
