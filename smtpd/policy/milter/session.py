"""One conversation with a filter, without its socket: which events are told, what is expected, what was answered.

Owns the order of events and the state of a transaction: what the filter doesn't want isn't told, and what it answered holds for
the rest of the recipient, the transaction or the session. The driver sends what `tell` returns and, if an answer is due, gives
packets to `take` until it returns one. Raises WireError; after that the conversation is over.
"""

from __future__ import annotations

from smtpd.policy.milter import negotiation, wire
from smtpd.policy.milter.answer import Answer, read_answer
from smtpd.policy.milter.changes import Changes
from smtpd.policy.milter.negotiation import Agreement
from smtpd.policy.milter.wire import Packet, WireError

GO_ON = Answer(wire.CONTINUE)
ACCEPTED = Answer(wire.ACCEPT)

# How far an answer holds.
_OF_SESSION = frozenset((wire.CONNECT, wire.HELO))
_ENDING = frozenset((wire.SHUTDOWN, wire.CONNECTION_FAILURE))


class MilterSession:
    """`decision` is what holds for everything to come (ACCEPT, or a refusal of the whole session), None while nothing does;
    `mail_decision` the same for the transaction. `changes` are the transaction's, complete when END_OF_BODY is answered."""

    __slots__ = ("_due", "_skipped", "agreement", "body_limit", "changes", "decision", "is_in_mail", "mail_decision")

    def __init__(self, body_limit: int = 0) -> None:
        self.agreement: Agreement | None = None
        self.body_limit = body_limit
        self.decision: Answer | None = None
        self.mail_decision: Answer | None = None
        self.changes = Changes()
        self.is_in_mail = False  # the filter was told of a MAIL that it did not see the end of
        self._due = b""  # the event whose answer is awaited
        self._skipped: set[bytes] = set()

    # --- what is said ------------------------------------------------------------------------------------------------

    def open(self) -> bytes:
        """The first octets; an answer is due, which `take` reads into `agreement`."""
        self._due = wire.NEGOTIATE
        return wire.make_offer(negotiation.OFFER)

    def wants(self, command: bytes) -> bool:
        """Whether the event has to be told now."""
        assert self.agreement is not None
        if self.decision is not None or command in self._skipped:
            return False
        if self.mail_decision is not None and command not in (wire.MAIL, *_OF_SESSION):
            return False
        return command == wire.END_OF_BODY or self.agreement.wants(command)

    def tell(self, command: bytes, packet: bytes, macros: list[tuple[bytes, bytes]]) -> bytes:
        """Return the octets that tell an event for which `wants` is true; `is_due` says whether an answer must be awaited."""
        assert self.agreement is not None
        if self._due:
            raise AssertionError("the event before is not answered")
        before = b""
        if command == wire.MAIL:
            before = self.end_mail()
        if command not in _OF_SESSION:
            self.is_in_mail = True
        if command == wire.END_OF_BODY or self.agreement.answers(command):
            self._due = command
        return before + wire.make_macros(command, macros) + packet

    @property
    def is_due(self) -> bool:
        """An answer is awaited."""
        return bool(self._due)

    def end_mail(self) -> bytes:
        """The transaction is over, whatever became of it; returns what has to be said (ABORT, or nothing)."""
        was_in_mail, self.is_in_mail = self.is_in_mail, False
        self.mail_decision = None
        self.changes = Changes()
        self._skipped.clear()
        return wire.make_packet(wire.ABORT) if was_in_mail and self.agreement is not None else b""

    def end_session(self, *, may_reuse: bool) -> bytes:
        """The SMTP session is over; returns what has to be said. With `may_reuse`, and where the filter's version has it, the
        connection is then as new."""
        last = self.end_mail()
        self.decision = None
        is_kept = may_reuse and self.agreement is not None and self.agreement.version >= 6
        return last + wire.make_packet(wire.QUIT_NEW_CONNECTION if is_kept else wire.QUIT)

    # --- what is heard -----------------------------------------------------------------------------------------------

    def take(self, packet: Packet) -> Answer | None:
        """Read a packet: the answer to the event that was told, or None when it is still to come."""
        wire.check_answer(packet)
        due, letter = self._due, packet.letter
        if not due:
            raise WireError(f"answer {letter.decode()!r}, which nobody had asked for")
        if due == wire.NEGOTIATE:
            return self._agree(packet)
        assert self.agreement is not None
        if letter == wire.PROGRESS:
            return None
        if letter == wire.SET_MACROS:
            self.agreement.set_macros(packet)
            return None
        if letter in wire.CHANGES:
            if due != wire.END_OF_BODY:
                raise WireError(f"change {letter.decode()!r} before the end of the mail")
            self.changes.take(packet, self.agreement, self.body_limit)
            return None
        if letter not in wire.VERDICTS:
            raise WireError(f"answer {letter.decode()!r} out of its place")
        self._due = b""
        return self._conclude(due, read_answer(packet))

    def _agree(self, packet: Packet) -> Answer | None:
        self.agreement = Agreement(wire.parse_offer(packet))
        self._due = b""
        return GO_ON

    def _conclude(self, due: bytes, answer: Answer) -> Answer:
        letter = answer.letter
        if letter == wire.SKIP:
            if due == wire.END_OF_BODY:
                raise WireError("SKIP at the end of the mail")
            self._skipped.add(due)
            return GO_ON
        if due == wire.END_OF_BODY:
            self.is_in_mail = False
        if letter == wire.DISCARD and due in _OF_SESSION:
            raise WireError("DISCARD before a mail")
        if letter == wire.CONTINUE or (due == wire.RCPT and answer.refuses and letter not in _ENDING):
            return answer  # a refused recipient is no refused mail
        if due in _OF_SESSION or letter in _ENDING:
            self.decision = answer
        else:
            self.mail_decision = answer
        return answer
