"""The connections to one destination: opens them, gives them mails, keeps them for a while, and learns how many are good.

The number grows by one with each mail that goes through while others wait, and halves with each connection that fails (additive
increase, multiplicative decrease), up to `connections` of the route, counted for the whole host in net.hop_table. A next hop that
fails is set aside for all workers; after a while one connection of one worker tries it. Several next hops are tried in order, or
in turn. Loop thread only.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from smtpd.mail.outcome import DEFERRED, DELIVERED, UNDELIVERABLE, Outcome
from smtpd.net.hops import Hop, LookupFailure
from smtpd.net.resolver import Search
from smtpd.net.transcript import Transcript
from smtpd.proto.client.transmission import CONTENT_ENDED, Transmission
from smtpd.transports.relay.delivery import Delivery
from smtpd.transports.relay.health import HopHealth
from smtpd.transports.relay.link import Link

if TYPE_CHECKING:
    import ssl

    from smtpd.transports.relay.transport import RelayTransport

_FIRST_WINDOW = 5.0
_PIPELINED = 2  # mails on one connection: one whose reply is due and the next behind it
_FULL_HOST_PAUSE_S = 0.05  # before looking again whether the host has a connection to spare
_KNOWN_HOPS_S = 60.0  # before next hops are looked up again
_FLUSH_WINDOW = 1000  # when there is nowhere to go, whatever waits is told so


class Pool:
    """See the module's head. `key` is the domain, where next hops depend on it."""

    def __init__(self, transport: RelayTransport, key: str) -> None:
        self._transport = transport
        self._key = key
        self.loop = transport.loop
        self.files = transport.files
        self.rules = transport.rules
        self.plain_rules = transport.plain_rules
        self.timeouts = transport.timeouts
        self.source_address = transport.source_address
        self.tls_name = transport.tls_name
        self.idle_s = transport.idle_s
        self.transcript: Transcript | None = None
        self.links: set[Link] = set()
        self._idle: list[Link] = []
        self._pending: deque[Delivery] = deque()
        self._healths: list[HopHealth] = []
        self._search: Search | None = None
        self._known_until = -1.0
        self._turn = 0
        self._window = _FIRST_WINDOW
        self._is_waiting_for_host = False
        self._last_failure: Outcome | None = None
        self._is_stuck = False  # no next hop may be tried now
        self._is_closed = False

    # --- the transport's side ----------------------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        return not self.links and not self._pending and self._search is None

    @property
    def is_tls_optional(self) -> bool:
        return self._transport.is_tls_optional

    def tls_context(self) -> ssl.SSLContext:
        return self._transport.tls_context()

    def window(self) -> int:
        """Return how many mails may be under way."""
        if self._is_stuck:
            return _FLUSH_WINDOW
        return max(1, int(self._window)) * _PIPELINED

    def start(self, delivery: Delivery) -> None:
        """Take a mail."""
        while self._idle:
            link = self._idle.pop()
            if self._is_fresh(link):
                link.send(delivery)
                return
            link.quit()
        self._pending.append(delivery)
        self._open_more()

    def sweep(self, now: float) -> None:
        """About once a second: deadlines, and connections kept for too long."""
        for link in list(self.links):
            link.check_deadline(now)
        for link in list(self._idle):
            if now - link.idle_since >= self.idle_s or not self._is_fresh(link):
                self._idle.remove(link)
                link.quit()

    def close(self) -> None:
        """End everything now; each mail that is under way gets its outcome."""
        self._is_closed = True
        if self._search is not None:
            self._search.cancel()
            self._search = None
        for link in list(self.links):
            link.break_off("4.3.2", "this host is shutting down")
        self._fail_pending(Outcome(DEFERRED, 0, "4.3.2", "this host is shutting down", "none"))

    # --- opening -----------------------------------------------------------------------------------------------------

    def _open_more(self) -> None:
        """Open connections for what waits, as far as the window allows."""
        if self._is_closed or not self._pending:
            return
        now = self.loop.now
        if self._search is None and now >= self._known_until and not self._transport.is_fixed(self._healths):
            self._look_up()
        if not self._healths:
            return
        opening = sum(1 for link in self.links if not link.is_ready)
        while len(self._pending) > opening and len(self.links) < max(1, int(self._window)):
            health = self._choose(now)
            if health is None:
                if not self.links:
                    self._give_up(now)
                return
            if not health.take_connection(self._transport.most_connections):
                self._wait_for_host()
                return
            health.begin_probe(now, self._transport.retry_s)
            self._is_stuck = False
            self.links.add(Link(self, health))
            opening += 1
        if len(self._pending) > opening:
            self._fill_pipelines()

    def _choose(self, now: float) -> HopHealth | None:
        """Return the next hop to connect to: the first in order, or the next in turn, that is not set aside."""
        healths = self._healths
        if self._transport.is_spread:
            self._turn += 1
            start = self._turn % len(healths)
            healths = healths[start:] + healths[:start]
        return next((health for health in healths if not health.is_set_aside(now)), None)

    def _look_up(self) -> None:
        self._search = self._transport.find_hops(self._key, self._on_hops)

    def _on_hops(self, hops: list[Hop], failure: LookupFailure | None) -> None:
        self._search = None
        self._known_until = self.loop.now + _KNOWN_HOPS_S
        if failure is not None or not hops:
            status, dsn, text = DEFERRED, "4.4.4", "no next hop"
            if failure is not None:
                status = UNDELIVERABLE if failure.is_permanent else DEFERRED
                dsn, text = failure.dsn, failure.text
            self._known_until = 0.0
            self._healths = []
            self._fail_pending(Outcome(status, 0, dsn, text, "none"))
            return
        known = {health.hop: health for health in self._healths}
        self._healths = [known.get(hop) or self._transport.health_of(hop) for hop in hops]
        self._open_more()

    def _wait_for_host(self) -> None:
        """The host has as many connections to this next hop as it may; another worker's will end."""
        if self._fill_pipelines() or self._is_waiting_for_host:
            return
        self._is_waiting_for_host = True
        self.loop.call_later(_FULL_HOST_PAUSE_S, self._stop_waiting)

    def _stop_waiting(self) -> None:
        self._is_waiting_for_host = False
        self._open_more()

    def _fill_pipelines(self) -> bool:
        """Send what waits behind mails whose reply is due. Whether nothing waits any more."""
        for link in list(self.links):
            if not self._pending:
                break
            if link.is_ready and link.load < _PIPELINED and link.session.can_send and self._is_fresh(link):
                link.send(self._pending.popleft())
        return not self._pending

    def _give_up(self, now: float) -> None:
        """No next hop may be tried: tell all that wait why."""
        self._is_stuck = True
        failure = self._last_failure
        if failure is None or failure.status != UNDELIVERABLE:
            text = next((health.text for health in self._healths if health.text), "next hop is set aside")
            if failure is None or failure.text != text:
                failure = Outcome(DEFERRED, 0, "4.4.1", f"next hop set aside for a while: {text}", "none")
        self._last_failure = None
        self._fail_pending(failure)

    def _fail_pending(self, outcome: Outcome) -> None:
        pending, self._pending = self._pending, deque()
        for delivery in pending:
            delivery.fail(outcome)
            delivery.finish()

    # --- a link's reports --------------------------------------------------------------------------------------------

    def on_ready(self, link: Link) -> None:
        """A connection takes mails."""
        self._give_work(link)

    def on_done(self, link: Link, delivery: Delivery, transmission: Transmission) -> None:
        """A mail on a connection is over, one way or another."""
        transport = self._transport
        session = link.session
        is_broken = session.is_closed
        if transmission.is_8bit_unannounced:
            transport.unannounced_8bit += 1
        is_unconfirmed = is_broken and _is_unconfirmed(transmission)
        if is_unconfirmed:
            transport.unconfirmed += 1
            transport.warn(f"{delivery.item.queue_id}: the reply to the end of the message is lost, it may be delivered twice")
        outcomes = transmission.outcomes
        if not is_broken:
            if any(outcome.status == DELIVERED for outcome in outcomes):
                self._note_success(link)
            elif link.health.failures or link.health.is_probing:
                link.health.note_success()  # it refuses this mail, but it works
        is_finished = delivery.take(outcomes, transmission.put_off if not self._is_closed else [])
        if not is_finished:
            self._pending.appendleft(delivery)
        self._give_work(link)
        if is_finished:
            delivery.finish()
        self._open_more()

    def on_closed(self, link: Link, reason: Outcome | None) -> None:
        """A connection is over; what was under way on it is done."""
        self.links.discard(link)
        if link in self._idle:
            self._idle.remove(link)
        health = link.health
        health.give_connection()
        if link.is_ready:
            health.live -= 1
        if reason is not None and not self._is_closed:
            self._note_failure(link, reason)
        elif not link.is_ready:
            health.end_probe()
        if self._pending:
            self.loop.ready(self._open_more)

    def _note_success(self, link: Link) -> None:
        link.health.note_success()
        self._last_failure = None
        if self._pending and self._window < self._transport.most_connections:
            self._window += 1.0

    def _note_failure(self, link: Link, reason: Outcome) -> None:
        """A connection failed, or the next hop refused to talk."""
        if link.is_ready and link.mails and not link.load and reason.code == 0 and link in self._idle:
            return  # closed while it was kept
        self._window = max(1.0, self._window / 2)
        self._last_failure = reason
        transport = self._transport
        if link.health.is_plain and transport.is_tls_optional and reason.dsn == "4.7.5" and not link.is_ready:
            return  # the next one is in plain text
        if link.health.note_failure(self.loop.now, transport.retry_s, reason.text):
            transport.warn(f"next hop {link.relay} is set aside for {transport.retry_s:g} s: {reason.text}")

    def _is_fresh(self, link: Link) -> bool:
        transport = self._transport
        is_young = self.loop.now - link.began_at < transport.age_s
        return is_young and (not transport.most_mails or link.mails < transport.most_mails)

    def _give_work(self, link: Link) -> None:
        """Let a connection have what waits, or keep it."""
        session = link.session
        if session.is_closed or not link.is_ready:
            return
        while self._pending and link.load < _PIPELINED and session.can_send and self._is_fresh(link):
            link.send(self._pending.popleft())
        if not link.load and link not in self._idle:
            if self._is_fresh(link) and not self._is_closed and not session.is_spent and session.can_send:
                self._idle.append(link)
            else:
                link.quit()


def _is_unconfirmed(transmission: Transmission) -> bool:
    """Whether all of a mail was sent and the reply to it never came (RFC 1047)."""
    if transmission.content_state != CONTENT_ENDED:
        return False
    return any(
        transmission.outcomes[place].status == DEFERRED and not transmission.outcomes[place].code
        for place in transmission.accepted
    )
