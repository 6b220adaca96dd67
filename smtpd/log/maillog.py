"""A worker's log: one method for each event. A line is formatted by the calling thread, gathered until the end of the turn, and
written by a log thread, so that no destination ever holds up the loop.

The queue between them is bounded; when it is full because the destination is stuck, whole turns of lines are dropped, counted,
and reported once it takes lines again. Formats are in `shape.py` and `fields.py`, destinations in `output.py`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

from smtpd.log.fields import FieldShape
from smtpd.log.output import SYSLOG_PATH, Output, is_writable, open_output
from smtpd.log.shape import Delays, PostfixShape, Shape
from smtpd.log.stamp import ERROR, INFO, WARNING, Stamp
from smtpd.settings import LogSettings

MAX_LINES = 200_000  # in the queue: a few seconds at full speed
MAX_CHARACTERS = 16 * 1024 * 1024
_GATHER_S = 0.02  # the thread lets lines gather, so that a busy loop is woken from its GIL 50 times a second, not 5,000
_POLL_S = 0.25
_CLOSE = 0
_REOPEN = 1


def make_shape(settings: LogSettings, hostname: str) -> Shape:
    """Return the shape of the configured format and destination; it carries this process's pid."""
    is_syslog = settings.destination == "syslog"
    stamp = Stamp(settings.syslog_name, hostname, is_syslog)
    if settings.format == "postfix":
        return PostfixShape(stamp)
    return FieldShape(stamp, settings.format == "json", is_syslog)


class MailLog:
    """Made and started in the worker, after the fork. `on_dropped(count)` is called on the loop thread when lines were lost.

    `client` is "name[address]" everywhere. Octets and texts from peers are escaped here; pass them as they came.
    """

    def __init__(
        self,
        settings: LogSettings,
        hostname: str,
        on_dropped: Callable[[int], object] | None = None,
        *,
        syslog_path: str = SYSLOG_PATH,
    ) -> None:
        self._settings = settings
        self._shape = make_shape(settings, hostname)
        self._on_dropped = on_dropped
        self._syslog_path = syslog_path
        self._lines: list[str] = []
        self._queue: SimpleQueue[list[str] | int] = SimpleQueue()
        self._put_lines = self._put_characters = 0  # written by the loop thread only
        self._taken_lines = self._taken_characters = 0  # written by the log thread only
        self._overflowed = 0  # lines dropped at the queue, by the loop thread
        self._lost = 0  # lines dropped at the destination, by the log thread
        self._complaint = ""
        self._counted = 0
        self._announced = 0
        self._is_closing = threading.Event()
        self._give_up_at_s = float("inf")
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        # level "warning" leaves out the lines of each connection and mail
        self._is_terse = settings.level == "warning" or settings.destination == "none"

    # --- life ------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the log thread."""
        self._thread.start()

    def end_turn(self) -> None:
        """Hand over the lines of this turn."""
        lines = self._lines
        if self._overflowed + self._lost != self._announced:
            self._account_losses()
        if not lines:
            return
        self._lines = []
        count = len(lines)
        characters = 0
        for line in lines:
            characters += len(line)
        if not self._has_room(count, characters):
            self._overflowed += count
            self._account_losses()
            return
        self._put_lines += count
        self._put_characters += characters
        self._queue.put(lines)

    @property
    def waiting(self) -> int:
        """Lines that were not handed over yet."""
        return len(self._lines)

    def reopen(self) -> None:
        """Open the destination anew: a file that was rotated. Lines logged before this go to the old one."""
        self.end_turn()
        self._queue.put(_REOPEN)

    def close(self, timeout_s: float) -> None:
        """Write what is queued, for at most `timeout_s`, and end the thread."""
        self.end_turn()
        self._give_up_at_s = time.monotonic() + timeout_s
        self._is_closing.set()
        self._queue.put(_CLOSE)
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    @property
    def dropped(self) -> int:
        """Lines lost so far."""
        return self._overflowed + self._lost

    # --- events ----------------------------------------------------------------------------------------------------------

    def connect(self, client: str) -> None:
        if not self._is_terse:
            self._lines.append(self._shape.connect(client))

    def disconnect(self, client: str, counts: dict[str, tuple[int, int]]) -> None:
        """`counts` has (successful, all) commands by verb, in the order that is shown."""
        if not self._is_terse:
            self._lines.append(self._shape.disconnect(client, counts))

    def lost_connection(self, stage: str, client: str) -> None:
        """The client went away; `stage` is the last command's name, or CONNECT."""
        if not self._is_terse:
            self._lines.append(self._shape.lost_connection(stage, client))

    def timeout(self, stage: str, client: str) -> None:
        if not self._is_terse:
            self._lines.append(self._shape.timeout(stage, client))

    def client(self, queue_id: str, client: str) -> None:
        """A mail has been received: from whom."""
        if not self._is_terse:
            self._lines.append(self._shape.client(queue_id, client))

    def message_id(self, queue_id: str, message_id: bytes) -> None:
        """`message_id` is the field's value with its brackets; b"" when there is none."""
        if not self._is_terse:
            self._lines.append(self._shape.message_id(queue_id, message_id))

    def queued(self, queue_id: str, sender: bytes, size_bytes: int, recipient_count: int) -> None:
        """A mail is in custody; `sender` is the reverse-path without brackets."""
        if not self._is_terse:
            self._lines.append(self._shape.queued(queue_id, sender, size_bytes, recipient_count))

    def delivered(
        self,
        queue_id: str,
        to: bytes,
        relay: str,
        delay_s: float,
        delays: Delays,
        dsn: str,
        status: str,
        text: str,
        transport: str,
    ) -> None:
        """An attempt for one recipient; `status` is sent, deferred or bounced.

        `delays` are seconds before the queue, in it, connecting, and transmitting; `transport` the name in the configuration.
        """
        if not self._is_terse:
            self._lines.append(self._shape.delivered(queue_id, to, relay, delay_s, delays, dsn, status, text, transport))

    def removed(self, queue_id: str) -> None:
        """Nothing is left to do for this mail."""
        if not self._is_terse:
            self._lines.append(self._shape.removed(queue_id))

    def expired(self, queue_id: str, sender: bytes, text: str) -> None:
        """The lifetime of what is left of a mail is over; `text` says what becomes of that ("returned to sender")."""
        if not self._is_terse:
            self._lines.append(self._shape.expired(queue_id, sender, text))

    def held(self, queue_id: str, text: str) -> None:
        """The mail waits for an operator; `text` says why."""
        if not self._is_terse:
            self._lines.append(self._shape.held(queue_id, text))

    def reported(self, queue_id: str, text: str, report_id: str) -> None:
        """The sender is told of a mail: `text` says of what ("sender non-delivery notification"), `report_id` is the new mail."""
        if not self._is_terse:
            self._lines.append(self._shape.reported(queue_id, text, report_id))

    def reject(
        self,
        queue_id: str,
        stage: str,
        client: str,
        reply: bytes,
        sender: bytes | None,
        recipient: bytes | None,
        protocol: str,
        helo: bytes,
        dry_run: str = "",
    ) -> None:
        """A command or mail was refused, or would have been by the check `dry_run`. `queue_id` "" = none yet; `stage` as in
        "RCPT"; `reply` without its line end."""
        if not self._is_terse:
            self._lines.append(self._shape.reject(queue_id, stage, client, reply, sender, recipient, protocol, helo, dry_run))

    def info(self, component: str, text: str, **fields: object) -> None:
        """Something worth knowing that is no mail; `component` is the program's name in the line."""
        self._lines.append(self._shape.message(INFO, component, text, fields))

    def warning(self, component: str, text: str, **fields: object) -> None:
        self._lines.append(self._shape.message(WARNING, component, text, fields))

    def error(self, component: str, text: str, **fields: object) -> None:
        self._lines.append(self._shape.message(ERROR, component, text, fields))

    # --- losses ----------------------------------------------------------------------------------------------------------

    def _has_room(self, lines: int, characters: int) -> bool:
        """So much more fits into the queue."""
        return (
            self._put_lines - self._taken_lines + lines <= MAX_LINES
            and self._put_characters - self._taken_characters + characters <= MAX_CHARACTERS
        )

    def _account_losses(self) -> None:
        """Count new losses; report them once the destination takes lines again."""
        dropped = self._overflowed + self._lost
        if dropped != self._counted:
            if self._on_dropped is not None:
                self._on_dropped(dropped - self._counted)
            self._counted = dropped
        elif not self._complaint and self._has_room(MAX_LINES // 2, MAX_CHARACTERS // 2):
            count = dropped - self._announced
            self._announced = dropped
            self.warning("log", f"{count} log line{'s were' if count != 1 else ' was'} lost, the destination took no more")

    # --- log thread ------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        output = open_output(self._settings.destination, self._wait_for, self._syslog_path)
        queue = self._queue
        while True:
            item = queue.get()
            self._is_closing.wait(_GATHER_S)
            lines: list[str] = []
            while True:
                if isinstance(item, list):
                    lines += item
                else:
                    self._write(output, lines)
                    lines = []
                    if item == _CLOSE:
                        output.close()
                        return
                    output.reopen()
                    self._complaint = output.complaint
                if queue.empty() or len(lines) > MAX_LINES // 8:
                    break
                item = queue.get()
            self._write(output, lines)

    def _write(self, output: Output, lines: list[str]) -> None:
        if lines:
            lost = output.write(lines)
            self._complaint = output.complaint
            self._lost += lost
            self._taken_lines += len(lines)
            self._taken_characters += sum(map(len, lines))

    def _wait_for(self, fd: int) -> bool:
        """Wait for a stuck destination: for ever, or until the time to close is over."""
        while not is_writable(fd, _POLL_S):
            if time.monotonic() > self._give_up_at_s:
                return False
        return True
