"""One session's way through the checks: asks them stage by stage, in order, and hands the verdict to the session.

Checks that answer from memory are asked on the spot. Neighbours that have to ask run at the same time on the side thread, each
within its limit, and their answers count in the order of the file: an early refusal cancels the rest, a late or second answer
does nothing. A plain check is asked only when all before it have let the stage pass, so none counts (or greylists) what another
refuses. Whatever a check raises is its `on_error`. Owns the memories of the checks and the changes of the transaction. Never
raises for a check's fault; never touches a socket, which is the driver's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from smtpd import _io
from smtpd.mail.changes import Change
from smtpd.mail.envelope import Recipient
from smtpd.mail.verdict import END_ALL, END_STAGE, GO_ON, Verdict
from smtpd.net.loop import Loop, Timer
from smtpd.net.side import Question as SideQuestion
from smtpd.net.side import SideThread
from smtpd.policy.check import BODY, CONNECT, HELO, MAIL, RCPT, STAGES, Pause
from smtpd.policy.coroutines import Held
from smtpd.policy.draft import Draft, find_bad_change
from smtpd.policy.overrides import PolicyClass, judge_class
from smtpd.policy.pipeline import DEFER, ERROR, OK, REASONS, REJECT, TIMEOUT, Entry, Plan
from smtpd.policy.question import Client, Question, make_question
from smtpd.policy.refusals import check_reply
from smtpd.proto.dialogue import Dialogue

_NUMBER = {stage: number for number, stage in enumerate(STAGES)}
_IN_MAIL = _NUMBER[MAIL]
_GO_ON = GO_ON


class Driver(Protocol):
    """What an inspection needs of the connection."""

    def resume(self, token: int, verdict: Verdict | None) -> None:
        """Go on with the session that waits with this token."""
        ...

    def say(self, wire: bytes) -> None:
        """Send octets before the greeting."""
        ...

    def has_input(self) -> bool:
        """Whether the client has sent something that nobody has read."""
        ...


class Observer(Protocol):
    """Told of answers: log lines of a gateway, rows of `smtpd explain`. `sees_all` False: not of those without objection.

    `verdict` is what the answer came to, `on_error` included; None = the next check has its say."""

    sees_all: bool

    def answered(self, inspection: Inspection, entry: Entry, result: int, verdict: Verdict | None, failure: str) -> None: ...


class Asked:
    """One question that is open, or was. `verdict` counts once `result` is not negative."""

    __slots__ = ("entry", "failure", "result", "run", "side", "started_at", "timer", "verdict")

    def __init__(self, entry: Entry, run: int) -> None:
        self.entry = entry
        self.run = run
        self.side: SideQuestion | None = None
        self.timer: Timer | None = None
        self.started_at = _io.monotonic_s()
        self.verdict: Verdict | None = None
        self.result = -1
        self.failure = ""


class Inspection:
    """`plan` says what is asked, `client` who it is about. One for each session; see `smtpd.proto.policy.SessionPolicy`."""

    __slots__ = (
        "_asked",
        "_entries",
        "_found",
        "_is_exempt_at_connect",
        "_is_mail_exempt",
        "_kept",
        "_kept_at_connect",
        "_loop",
        "_observer",
        "_parameters",
        "_position",
        "_recipients",
        "_run",
        "_sees_all",
        "_side",
        "_token",
        "_verdict",
        "changes",
        "client",
        "content",
        "driver",
        "is_exempt",
        "is_over",
        "memories",
        "plan",
        "policy_class",
        "queue_id",
        "recipient",
        "reverse_path",
        "stage",
    )  # fmt: skip

    def __init__(
        self, plan: Plan, client: Client, loop: Loop, side: SideThread, observer: Observer, driver: Driver | None = None
    ) -> None:
        self.plan = plan
        self.client = client
        self.driver = driver
        self.stage = ""
        self.recipient: Recipient | None = None
        self.reverse_path: bytes | None = None
        self.queue_id = ""
        self.content: Draft | None = None
        self.policy_class: PolicyClass | None = None  # of the transaction, None before its first recipient
        self.changes: list[Change] = []  # of the transaction
        self.memories: dict[int, tuple[Entry, dict[str, Any]]] = {}
        self.is_exempt = False  # no check is asked any more
        self.is_over = False
        self._is_mail_exempt = False  # the same until the transaction ends
        self._kept: list[Change] = []  # of connect and helo: for each mail of the session
        self._kept_at_connect = 0  # how many of them are connect's: they outlive STARTTLS
        self._is_exempt_at_connect = False
        self._found: list[Change] = []  # of this stage, void if it refuses
        self._parameters: Any = None
        self._recipients: tuple[Recipient, ...] = ()
        self._loop = loop
        self._side = side
        self._observer = observer
        self._sees_all = observer.sees_all
        self._entries: list[Entry] = []
        self._position = 0
        self._asked: list[Asked] = []
        self._run = 0  # which stage of which command answers belong to
        self._token = 0
        self._verdict: Verdict | None = None  # there before the token was

    # --- the session's calls -----------------------------------------------------------------------------------------

    def judge(self, session: Dialogue, stage: str, recipient: Recipient | None = None) -> Verdict | None:
        """See smtpd.proto.policy.SessionPolicy."""
        number = _NUMBER[stage]
        if stage == MAIL:
            self._begin_transaction(session)
        elif stage == RCPT:
            if self.plan.overrides is not None:
                refusal = self._judge_class(session, recipient)
                if refusal is not None:
                    return refusal
        elif stage in (CONNECT, HELO):
            self._note_session(session)
        entries = self.plan.stages[number]
        is_exempt = self.is_exempt if number < _IN_MAIL else self._is_mail_exempt
        if stage == BODY:
            if (not self.changes and (not entries or is_exempt)) or not self.plan.keeps_mail:
                return _GO_ON
            self._begin_stage(stage, session, [] if is_exempt else entries)
            return None  # the driver brings the content first
        if not entries or is_exempt:
            return _GO_ON
        self._begin_stage(stage, session, entries)
        self.recipient = recipient
        return self._advance()

    def end_transaction(self) -> None:
        """See smtpd.proto.policy.SessionPolicy."""
        self._cancel()
        if self.reverse_path is None:
            return
        self.reverse_path = None
        self._parameters = None
        self._recipients = ()
        self.recipient = None
        self.policy_class = None
        self.content = None
        self.queue_id = ""
        self._is_mail_exempt = self.is_exempt
        if self.changes:
            self.changes = []
        for entry, memory in list(self.memories.values()):
            entry.check.end_transaction(memory)

    def begin_anew(self, session: Dialogue) -> None:
        """See smtpd.proto.policy.SessionPolicy."""
        self.end_transaction()
        self._end_memories()
        self._kept = self._kept[: self._kept_at_connect]
        self.is_exempt = self._is_mail_exempt = self._is_exempt_at_connect
        self._note_session(session)

    # --- the driver's calls ------------------------------------------------------------------------------------------

    def wait_for(self, token: int) -> None:
        """The session waits with this token for the stage it has asked about."""
        self._token = token
        if self._verdict is not None:
            verdict, self._verdict = self._verdict, None
            self._finish(verdict)

    def judge_content(self, token: int, queue_id: str, content: Draft | None, failure: Verdict | None = None) -> None:
        """The content is there for stage body (or `failure` says why not)."""
        self._token = token
        self.queue_id = queue_id
        self.content = content
        if failure is None and content is not None:
            content.apply(self.changes)
        verdict = failure or self._advance()
        if verdict is not None:
            self._finish(verdict)

    def give_up(self) -> None:
        """The session goes on without an answer: it took too long, or the client is gone."""
        self._cancel()

    def end(self) -> None:
        """The session is over."""
        if self.is_over:
            return
        self.is_over = True
        self._cancel()
        self.end_transaction()
        self._end_memories()
        self.driver = None

    def _end_memories(self) -> None:
        for entry, memory in list(self.memories.values()):
            entry.check.end_session(memory)
        self.memories.clear()

    # --- a stage -----------------------------------------------------------------------------------------------------

    def _note_session(self, session: Dialogue) -> None:
        client = self.client
        client.helo = session.helo
        client.protocol = "LMTP" if session.rules.is_lmtp else "ESMTP" if session.is_extended else "SMTP"
        client.tls = session.tls

    def _begin_transaction(self, session: Dialogue) -> None:
        self.end_transaction()
        self._note_session(session)
        transaction = session.transaction
        assert transaction is not None
        self.reverse_path = transaction.reverse_path
        self._parameters = transaction.parameters
        self._is_mail_exempt = self.is_exempt
        if self._kept:
            self.changes = list(self._kept)

    def _judge_class(self, session: Dialogue, recipient: Recipient | None) -> Verdict | None:
        transaction = session.transaction
        assert recipient is not None and transaction is not None and self.plan.overrides is not None
        wanted = self.plan.overrides.find(recipient.domain or session.rules.postmaster.domain)
        if not transaction.recipients:
            self.policy_class = None  # whoever set it was refused later
        refusal = judge_class(wanted, self.policy_class, session.is_tls, transaction.parameters.size_bytes)
        if refusal is not None:
            return refusal
        self.policy_class = wanted
        if wanted.size_limit:
            limit = session.rules.size_limit
            transaction.size_limit = min(limit, wanted.size_limit) if limit else wanted.size_limit
        else:
            transaction.size_limit = 0
        return None

    def _begin_stage(self, stage: str, session: Dialogue, entries: list[Entry]) -> None:
        self._cancel()
        self.stage = stage
        self.recipient = None
        self._entries = entries
        self._position = 0
        self._token = 0
        self._verdict = None
        if session.transaction is not None:
            self._recipients = tuple(session.transaction.recipients)

    def _advance(self) -> Verdict | None:
        """Ask on from `_position`; None when a question is open now."""
        entries = self._entries
        while self._position < len(entries):
            entry = entries[self._position]
            if self.policy_class is not None and not self._is_on(entry):
                self._position += 1
            elif entry.is_async:
                self._ask_side()
                return None
            else:
                self._position += 1
                verdict = self._ask_at_once(entry)
                if self._asked:
                    return None
                if verdict is not None:
                    return verdict
        return self._end_stage(_GO_ON)

    def _is_on(self, entry: Entry) -> bool:
        policy_class = self.policy_class
        assert policy_class is not None
        if entry.is_conditional:
            return entry.name in policy_class.on
        return not policy_class.off or entry.name not in policy_class.off

    def _question(self, entry: Entry) -> Question:
        return make_question(
            self.stage,
            self.client,
            self.reverse_path,
            self._parameters,
            self.recipient,
            self._recipients,
            self.queue_id,
            self.content,
            self,
            entry,
        )

    def memory_of(self, entry: Entry) -> dict[str, Any]:
        """Of policy.question.Memories."""
        kept = self.memories.get(entry.number)
        if kept is None:
            kept = self.memories[entry.number] = (entry, {})
        return kept[1]

    def _ask_at_once(self, entry: Entry) -> Verdict | None:
        """Ask a plain function. What it can't answer now is in `_asked` then."""
        started_at = _io.monotonic_s()
        try:
            answer = entry.check.ask(self._question(entry))
        except Exception as error:  # noqa: BLE001 whatever a check raises is its on_error
            return self._weigh(entry, None, ERROR, started_at, _text_of(error))
        if answer is None:
            return self._weigh(entry, None, OK, started_at)
        if isinstance(answer, Verdict):
            return self._weigh(entry, answer, OK, started_at)
        asked = Asked(entry, self._run)
        self._asked = [asked]
        if isinstance(answer, Pause):
            self._pause(asked, answer)
        else:
            held = Held(answer)
            asked.side = self._side.ask(held.take, self._answer_for(asked), entry.timeout_s, entry.name)
        return None

    def _ask_side(self) -> None:
        """Ask the next check, and its neighbours that may run beside it."""
        entries = self._entries
        position = self._position
        first = True
        while position < len(entries):
            entry = entries[position]
            if self.policy_class is None or self._is_on(entry):
                if not entry.is_async or not (first or (entry.is_independent and self._asked[-1].entry.is_independent)):
                    break
                first = False
                asked = Asked(entry, self._run)
                self._asked.append(asked)
                asked.side = self._side.ask(self._coroutine_of(entry), self._answer_for(asked), entry.timeout_s, entry.name)
            position += 1
        self._position = position

    def _coroutine_of(self, entry: Entry) -> Callable[[], Awaitable[Any]]:
        question = self._question(entry)
        self.memory_of(entry)  # now: the side thread makes none
        ask: Any = entry.check.ask
        return lambda: ask(question)

    def _answer_for(self, asked: Asked) -> Callable[[Any, BaseException | None], None]:
        return lambda verdict, error: self._on_answer(asked, verdict, error)

    def _pause(self, asked: Asked, pause: Pause) -> None:
        if pause.teaser and self.driver is not None:
            self.driver.say(pause.teaser)

        def go_on() -> None:
            has_talked = self.driver is not None and self.driver.has_input()
            try:
                verdict, error = pause.then(has_talked), None
            except Exception as raised:  # noqa: BLE001 as in _ask_at_once
                verdict, error = None, raised
            self._on_answer(asked, verdict, error)

        asked.timer = self._loop.call_later(pause.wait_s, go_on)

    # --- answers -----------------------------------------------------------------------------------------------------

    def _on_answer(self, asked: Asked, verdict: Any, error: BaseException | None) -> None:
        """An answer has come, on the loop thread; perhaps too late, or for the second time."""
        if asked.run != self._run or asked.result >= 0 or self.is_over:
            return
        asked.side = asked.timer = None
        if error is not None:
            asked.result = TIMEOUT if type(error) is TimeoutError else ERROR
            asked.failure = _text_of(error)
        elif verdict is None or isinstance(verdict, Verdict):
            asked.result = OK
            asked.verdict = verdict
        else:
            asked.result = ERROR
            asked.failure = f"answered {type(verdict).__name__} instead of a verdict"
        self._use_answers()

    def _use_answers(self) -> None:
        """Take answers in order as far as they are there."""
        while self._asked:
            asked = self._asked[0]
            if asked.result < 0:
                return
            self._asked.pop(0)
            verdict = self._weigh(asked.entry, asked.verdict, asked.result, asked.started_at, asked.failure)
            if verdict is not None:
                self._finish(verdict)
                return
        verdict = self._advance()
        if verdict is not None:
            self._finish(verdict)

    def _weigh(self, entry: Entry, verdict: Verdict | None, result: int, started_at: float, failure: str = "") -> Verdict | None:
        """Count one answer and keep its changes. None: the next check has its say; else the verdict of the whole stage."""
        if verdict is not None:
            if verdict.reply is not None:
                failure = check_reply(verdict.reply)
                result = ERROR if failure else DEFER if verdict.reply.code < 500 else REJECT
                if not failure and verdict.reason not in REASONS:
                    verdict = Verdict(verdict.reply, "other", note=verdict.note)
            elif verdict.changes:
                failure = find_bad_change(verdict.changes)
                if failure:
                    result = ERROR
                elif self.content is not None and not entry.is_dry_run:
                    self.content.apply(verdict.changes)
        if failure:
            verdict = entry.failure
        entry.count(result, _io.monotonic_s() - started_at)
        if result != OK or verdict is not None or self._sees_all:
            self._observer.answered(self, entry, result, verdict, failure)
        if verdict is None or entry.is_dry_run:
            return None
        if verdict.reply is not None:
            return self._end_stage(verdict)
        if verdict.changes:
            self._found += verdict.changes
        if verdict.ending == END_ALL:
            if self.stage in (CONNECT, HELO):
                self.is_exempt = True
            else:
                self._is_mail_exempt = True
        if verdict.ending in (END_STAGE, END_ALL):
            return self._end_stage(_GO_ON)
        return None

    def _end_stage(self, verdict: Verdict) -> Verdict:
        """The stage has its verdict: changes count, unless it is a refusal; open questions don't any more."""
        self._cancel()
        if self._found:
            if verdict.reply is None:
                if self.stage in (CONNECT, HELO):
                    self._kept += self._found
                else:
                    self.changes += self._found
            self._found = []
        if self.stage == CONNECT:
            self._kept_at_connect = len(self._kept)
            self._is_exempt_at_connect = self.is_exempt
        return verdict

    def _finish(self, verdict: Verdict) -> None:
        """Give the verdict to the session that waits, or keep it until the session does."""
        token, self._token = self._token, 0
        if not token:
            self._verdict = verdict
        elif self.driver is not None:
            self.driver.resume(token, verdict)

    def _cancel(self) -> None:
        self._run += 1
        self._verdict = None
        asked, self._asked = self._asked, []
        for one in asked:
            if one.side is not None:
                one.side.cancel()
            if one.timer is not None:
                one.timer.cancel()


def _text_of(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
