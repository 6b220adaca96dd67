"""All connections of one process: gives each mail that is due to a session that is free, until nothing is due any more.

Owns sessions as places: `sessions` of them, each with a connection that is kept, that is new for each mail, or none yet.
Knows no schedule (offer.py) and no octets (maker.py). Ends by itself: `is_over`, and `on_over` is called. Compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from smtpd.load.connection import Connection, ConnectionOwner, Wiring
from smtpd.load.maker import MailMaker
from smtpd.load.offer import NEVER, Offer
from smtpd.load.recorder import SCHEDULE_LAG
from smtpd.mail.outcome import Outcome
from smtpd.net.loop import Timer
from smtpd.proto.client.transmission import Transmission

SWEEP_S = 0.25
QUIT_S = 2.0  # for the replies to QUIT, at the end
_FIRST_FAILURES = 3  # connections in a row before the first that works: then it isn't there
_FIRST_WAIT_S = 20.0
_LAST_WAIT_S = 60.0  # without a session that works: then it is there no more
_BACK_OFF_S = 0.02
_BACK_OFF_MOST_S = 1.0
_SCHEDULE_LAG = SCHEDULE_LAG


class Crew(ConnectionOwner):
    """One process's; number `share` of `shares`. All times are monotonic seconds. `gave_up` is why it ended early, or ""."""

    __slots__ = (
        "_again", "_connect", "_connections", "_drain_until", "_failures", "_free", "_free_since", "_idle", "_is_filling",
        "_is_stopping", "_maker", "_offer", "_on_over", "_pause_s", "_random", "_random_pause_s", "_ready_at", "_recorder",
        "_sessions", "_share", "_shares", "_started_at", "_timer", "_wiring", "drain_s", "ends_at", "gave_up", "is_over",
        "is_quitting", "mails_per_connection",
    )  # fmt: skip

    def __init__(
        self,
        wiring: Wiring,
        offer: Offer,
        maker: MailMaker,
        sessions: int,
        connect: Callable[[ConnectionOwner, Wiring], Connection],
        on_over: Callable[[], object],
        share: int = 0,
        shares: int = 1,
    ) -> None:
        self._wiring = wiring
        self._recorder = wiring.recorder
        self._offer = offer
        self._maker = maker
        self._connect = connect
        self._on_over = on_over
        self._sessions = sessions
        self._share = share
        self._shares = shares
        self.mails_per_connection = 0  # no limit
        self.ends_at = NEVER
        self.drain_s = 30.0
        self.gave_up = ""
        self.is_over = False
        self.is_quitting = False
        self._pause_s = 0.0
        self._random_pause_s = 0.0
        self._random = Random(share)
        self._free = 0
        self._free_since = 0.0  # when the last of them that was taken came back
        self._idle: list[Connection] = []
        self._connections: set[Connection] = set()
        self._again: list[tuple[int, float]] = []
        self._is_filling = False
        self._is_stopping = False
        self._timer: Timer | None = None
        self._failures = 0
        self._ready_at = 0.0
        self._started_at = 0.0
        self._drain_until = NEVER

    def pause_between(self, fixed_s: float, random_s: float) -> None:
        """Each session waits so long between its mails: `fixed_s` and at most `random_s` more."""
        self._pause_s = fixed_s
        self._random_pause_s = random_s

    def start(self, ramp_up_s: float = 0.0) -> None:
        """Begin; the sessions one after the other over `ramp_up_s`."""
        loop = self._wiring.loop
        now = self._wiring.now()
        self._started_at = self._ready_at = now
        loop.call_at(now + SWEEP_S, self._sweep)
        if ramp_up_s <= 0:
            self._free = self._sessions
            self._fill()
            return
        all_sessions = self._sessions * self._shares
        for i in range(self._sessions):
            loop.call_at(now + ramp_up_s * (i * self._shares + self._share) / all_sessions, self._free_one)

    def stop(self) -> None:
        """Begin no more mails but those that are due; end when they are done, or when `drain_s` is over."""
        now = self._wiring.now()
        self._offer.stop(now)
        self._drain_until = min(self._drain_until, now + self.drain_s)
        self._fill()

    @property
    def under_way(self) -> int:
        """Sessions that carry a mail."""
        return sum(connection.has_mail for connection in self._connections)

    # --- mails -------------------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Give what is due to sessions that are free; never nested."""
        if self._is_filling:
            return
        self._is_filling = True
        offer = self._offer
        while self._free > 0:
            if self._again:
                number, intended_at = self._again.pop()
                self._free -= 1
                self._begin(number, intended_at)
                continue
            now = self._wiring.now()
            if now >= self.ends_at:
                offer.stop(self.ends_at)
            if offer.next_at > now:
                break
            number = self._share + offer.taken * self._shares
            intended_at = offer.take(now)
            if offer.is_open:
                if intended_at < self._free_since:
                    self._recorder.starved += 1
                else:
                    self._recorder.record(_SCHEDULE_LAG, now - intended_at)
            self._free -= 1
            self._begin(number, intended_at)
        self._is_filling = False
        if self._free > 0:
            self._wait()

    def _begin(self, number: int, intended_at: float) -> None:
        transmission = self._maker.make(number)
        if self._idle:
            connection = self._idle.pop()
            connection.take(number, intended_at, transmission)
            return
        connection = self._connect(self, self._wiring)
        self._connections.add(connection)
        connection.take(number, intended_at, transmission)
        connection.open()

    def _wait(self) -> None:
        """Nothing is due now: wait for the next, or end."""
        next_at = self._offer.next_at
        if next_at == NEVER:
            if not self._again:
                self._quit_idle()
                self._maybe_end()
            return
        timer = self._timer
        if timer is not None and timer.fn is not None and timer.when <= next_at:
            return
        if timer is not None:
            timer.cancel()
        self._timer = self._wiring.loop.call_at(next_at, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        self._fill()

    def _free_one(self) -> None:
        """A session has no mail any more."""
        if self._free == 0:
            self._free_since = self._wiring.now()
        self._free += 1
        self._fill()

    def _free_later(self) -> None:
        pause_s = self._pause_s
        if self._random_pause_s:
            pause_s += self._random.uniform(0.0, self._random_pause_s)
        if pause_s > 0 and self._offer.next_at != NEVER:
            self._wiring.loop.call_at(self._wiring.now() + pause_s, self._free_one)
        else:
            self._free_one()

    # --- what connections say ----------------------------------------------------------------------------------------

    def on_idle(self, connection: Connection) -> None:
        self._failures = 0
        if (self.mails_per_connection and connection.mails >= self.mails_per_connection) or self._is_stopping:
            connection.quit()
            return
        self._idle.append(connection)
        self._free_later()

    def on_done(self, connection: Connection, transmission: Transmission) -> None:
        at = self._wiring.loop.now
        accepted = connection.count_recipients(transmission)
        failed = len(transmission.recipients) - accepted
        sent_at = connection.sent_at
        if accepted:
            self._failures = 0
            self._ready_at = at
        self._recorder.note_mail(accepted, failed, transmission.size_bytes, at, at - sent_at, at - connection.intended_at)

    def on_again(self, connection: Connection) -> None:
        self._recorder.resent += 1
        self._again.append((connection.number, connection.intended_at))

    def on_closed(self, connection: Connection, reason: Outcome | None) -> None:
        self._connections.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
            self._maybe_end()
            return
        if connection.is_ready:
            self._free_later()
            return
        self._failures += 1
        now = self._wiring.now()
        self._look_for_hope(now)
        self._wiring.loop.call_at(now + min(_BACK_OFF_S * self._failures, _BACK_OFF_MOST_S), self._free_one)

    # --- the end -----------------------------------------------------------------------------------------------------

    def _look_for_hope(self, now: float) -> None:
        """Give up on a target that isn't there."""
        if not self._recorder.connections_ready:
            if self._failures >= _FIRST_FAILURES or now - self._started_at >= _FIRST_WAIT_S:
                self.give_up("no session with the target could be begun")
        elif now - self._ready_at >= _LAST_WAIT_S:
            self.give_up(f"no mail was accepted and no session begun for {_LAST_WAIT_S:.0f} s")

    def give_up(self, text: str) -> None:
        """End now; what is under way has failed."""
        if self.gave_up or self._is_stopping:
            return
        self.gave_up = text
        self._offer.stop(self._wiring.now())
        self._end_drain()

    def _sweep(self) -> None:
        if self.is_over:
            return
        loop = self._wiring.loop
        now = loop.now
        loop.call_at(now + SWEEP_S, self._sweep)
        for connection in list(self._connections):
            connection.check_deadline(now)
        if now >= self.ends_at and self._drain_until == NEVER:
            self._offer.stop(self.ends_at)
            self._drain_until = self.ends_at + self.drain_s
        if now >= self._drain_until:
            self._end_drain()
        elif self._free > 0:
            self._fill()

    def _end_drain(self) -> None:
        """Whatever is not done now will not be."""
        if self._is_stopping:
            return
        self._is_stopping = True
        now = self._wiring.now()
        self._recorder.unsent += self._offer.count_due(now) + len(self._again)
        self._again.clear()
        for connection in list(self._connections):
            if connection.has_mail:
                connection.break_off("cut off", "the run was over")
        self._quit_idle()
        self._maybe_end()

    def _quit_idle(self) -> None:
        """Say QUIT on all that have no mail."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            self._free -= 1  # comes back when it is closed
            connection.quit()

    def _maybe_end(self) -> None:
        if self.is_over or self._offer.next_at != NEVER or self._again:
            return
        if any(connection.has_mail for connection in self._connections):
            return
        if self._connections:
            if not self.is_quitting:
                self.is_quitting = True
                self._wiring.loop.call_at(self._wiring.now() + QUIT_S, self._end)
            return
        self._end()

    def _end(self) -> None:
        if self.is_over:
            return
        self.is_over = True
        if self._timer is not None:
            self._timer.cancel()
        self._on_over()
