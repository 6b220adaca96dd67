"""What a worker counts and logs of its connections: the one place that knows metric names and log lines of the edge.

Owns no state but resolved cell numbers. One ListenerAccount for each listener, made at start, shared by its connections.
"""

from __future__ import annotations

from smtpd._parser import VERB_NAMES
from smtpd._tally import PairCells, PairCounts, Tally
from smtpd.log.maillog import MailLog
from smtpd.metrics._cells import Cells
from smtpd.metrics.catalogue import BY_NAME
from smtpd.metrics.slab import CellIndex
from smtpd.proto.dialogue import END_OF_DATA
from smtpd.proto.events import Refusal
from smtpd.proto.session import Session

_CODES = frozenset(BY_NAME["smtpd_replies_total"].labels[0].values)
# How the log names stages, as Postfix does.
COMMANDS = {
    "connect": "CONNECT", "helo": "HELO", "mail": "MAIL", "rcpt": "RCPT", "data": "DATA", "body": "END-OF-MESSAGE",
}  # fmt: skip
_RESULTS = ("accepted", "rejected", "deferred", "discarded")


class ListenerAccount:
    """Counters of one listener. Sizes are octets, durations seconds. `keeps_mail` False: what is taken counts as discarded."""

    def __init__(
        self, listener: str, cells: Cells, index: CellIndex, log: MailLog, is_logging: bool, keeps_mail: bool = True
    ) -> None:
        self.listener = listener
        self.log = log
        self.is_logging = is_logging
        self._cells = cells
        self._index = index
        self._connections = index.counter("smtpd_connections_total", listener=listener)
        self._active = index.gauge("smtpd_connections_active", listener=listener)
        self._active_count = 0
        self._messages = {r: index.counter("smtpd_messages_total", listener=listener, result=r) for r in _RESULTS}
        self._message_bytes = {r: index.counter("smtpd_message_bytes_total", listener=listener, result=r) for r in _RESULTS}
        self._recipients = {r: index.counter("smtpd_recipients_total", listener=listener, result=r) for r in _RESULTS}
        taken = "accepted" if keeps_mail else "discarded"
        self._accepted = self._messages[taken]
        self._accepted_bytes = self._message_bytes[taken]
        self._accepted_recipients = self._recipients[taken]
        self._size = index.histogram("smtpd_message_size_bytes", listener=listener)
        self._session_s = index.histogram("smtpd_session_seconds", listener=listener)
        self._end_of_data_s = index.histogram("smtpd_end_of_data_seconds", listener=listener)
        self._pairs = PairCells()
        self._ended: dict[str, int] = {}  # cells of reasons seen so far

    def count_tally(self, tally: Tally, counts: PairCounts | None) -> None:
        """Count what a session did in this turn: commands and replies, and per session for its last log line."""
        cells = self._cells
        pairs = self._pairs
        for i in range(tally.count):
            pair = tally.at(i)
            place = pairs.find(pair)
            if place < 0:
                place = self._resolve(pair)
            cells.inc(pairs.reply_at(place))
            command = pairs.command_at(place)
            if command >= 0:
                cells.inc(command)
            if counts is not None:
                counts.add(pair)
        tally.clear()

    def _resolve(self, pair: int) -> int:
        """Remember the cells of the reply and of the command, -1 for a reply that is none's; return their place."""
        verb, code = divmod(pair, 1000) if pair >= 0 else (END_OF_DATA, -pair)
        reply = self._index.counter("smtpd_replies_total", code=str(code) if str(code) in _CODES else "other")
        command = self._index.counter("smtpd_commands_total", command=VERB_NAMES[verb]) if verb < END_OF_DATA else -1
        self._pairs.put(pair, reply, command)
        return self._pairs.find(pair)

    def connected(self, client: str) -> None:
        self._cells.inc(self._connections)
        self._active_count += 1
        self._cells.set(self._active, self._active_count)
        if self.is_logging:
            self.log.connect(client)

    def disconnected(self, client: str, reason: str, seconds: float, counts: PairCounts | None) -> None:
        self._active_count -= 1
        self._cells.set(self._active, self._active_count)
        ended = self._ended.get(reason)
        if ended is None:
            ended = self._index.counter("smtpd_sessions_ended_total", listener=self.listener, reason=reason)
            self._ended[reason] = ended
        self._cells.inc(ended)
        self._cells.observe(self._session_s, seconds)
        if self.is_logging:
            self.log.disconnect(client, summarize(counts.as_dict() if counts is not None else {}))

    def denied(self, reason: str, code: int) -> None:
        """A connection was turned away before its session; `code` of the reply, 0 = without a word."""
        self._cells.inc(self._index.counter("smtpd_connections_denied_total", listener=self.listener, reason=reason))
        if code:
            self._cells.inc(self._index.counter("smtpd_replies_total", code=str(code)))

    def lost(self, stage: str, client: str) -> None:
        if self.is_logging:
            self.log.lost_connection(stage, client)

    def timed_out(self, stage: str, client: str) -> None:
        if self.is_logging:
            self.log.timeout(stage, client)

    def held(self, queue_id: str, client: str, reason: str) -> None:
        """A mail is in custody, held as a check wants it."""
        if self.is_logging:
            self.log.info("smtpd", f"{queue_id}: hold: END-OF-MESSAGE from {client}: {reason}")

    def discarded(
        self, reverse_path: bytes, recipient_count: int, queue_id: str, client: str, size_bytes: int, reason: str
    ) -> None:
        """A mail was answered with 250 and dropped, as a check wants it."""
        cells = self._cells
        cells.inc(self._messages["discarded"])
        cells.add(self._message_bytes["discarded"], size_bytes)
        cells.add(self._recipients["discarded"], recipient_count)
        if self.is_logging:
            self.log.client(queue_id, client)
            self.log.info("smtpd", f"{queue_id}: discarded: from=<{reverse_path.decode('ascii', 'replace')}>, {reason}")

    def failed(self, client: str, text: str) -> None:
        self.log.error("smtpd", f"internal fault in a session with {client}: {text}")

    def violated(self, kind: str) -> None:
        self._cells.inc(self._index.counter("smtpd_protocol_violations_total", kind=kind))

    def accepted(
        self,
        reverse_path: bytes,
        recipient_count: int,
        queue_id: str,
        client: str,
        message_id: bytes,
        size_bytes: int,
        seconds: float,
    ) -> None:
        """A mail is in custody (or discarded, where the spool keeps nothing)."""
        cells = self._cells
        cells.inc(self._accepted)
        cells.add(self._accepted_bytes, size_bytes)
        cells.add(self._accepted_recipients, recipient_count)
        cells.observe(self._size, size_bytes)
        cells.observe(self._end_of_data_s, seconds)
        if self.is_logging:
            log = self.log
            log.client(queue_id, client)
            log.message_id(queue_id, message_id)
            log.queued(queue_id, reverse_path, size_bytes, recipient_count)

    def refused(self, session: Session, stage: str, refusal: Refusal, client: str, queue_id: str = "") -> None:
        """A command or a whole mail was refused; at the body stage the mail and its recipients are counted."""
        cells = self._cells
        reply = refusal.reply
        reason = refusal.reason
        if stage == "connect" and reason in ("pregreet", "dnsbl"):
            cells.inc(self._index.counter("smtpd_connections_denied_total", listener=self.listener, reason=reason))
        if reason == "pregreet":
            self.violated("early_talker")
            reason = "other"
        cells.inc(self._index.counter("smtpd_rejections_total", listener=self.listener, stage=stage, reason=reason))
        if stage == "body":
            result = "deferred" if reply.code < 500 else "rejected"
            cells.inc(self._messages[result])
            cells.add(self._message_bytes[result], refusal.size_bytes)
            cells.add(self._recipients[result], refusal.recipient_count)
        if self.is_logging and refusal.reason != "syntax":
            protocol = "LMTP" if session.rules.is_lmtp else "ESMTP" if session.is_extended else "SMTP"
            command = COMMANDS[stage]
            text = reply.text
            self.log.reject(queue_id, command, client, text, refusal.sender, refusal.recipient, protocol, session.helo)


def summarize(counts: dict[int, int]) -> dict[str, tuple[int, int]]:
    """Turn counted (verb, code) pairs into (successful, all) by verb, as Postfix's disconnect line wants them."""
    table: dict[str, tuple[int, int]] = {}
    for pair, count in counts.items():
        verb, code = divmod(pair, 1000)
        if verb <= 0 or code == 354:
            continue
        verb %= END_OF_DATA
        name = "unknown" if VERB_NAMES[verb] == "other" else VERB_NAMES[verb]
        ok, total = table.get(name, (0, 0))
        table[name] = (ok + (count if code < 400 else 0), total + count)
    return table
