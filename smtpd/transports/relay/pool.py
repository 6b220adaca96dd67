"""The connections to one destination: opens them, gives them mails, keeps them for a while, and learns how many are good.

The number grows by one with each mail that goes through while more are under way than it, and halves with each connection that
fails (additive increase, multiplicative decrease), up to `connections` of the route, counted for the whole host in net.hop_table;
where that is reached, connections are let go for those who have mail and none. A next hop that takes mails quickly gets a second
one on a connection before another connection. One that fails is set aside for all workers; after a while one connection of one
worker tries it, and mail that can go elsewhere doesn't wait for that. Several are tried in order, or in turn. Loop thread only.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from smtpd.mail.outcome import DEFERRED, DELIVERED, UNDELIVERABLE, Outcome
from smtpd.net.hops import Hop, LookupFailure
from smtpd.net.resolver import Search
from smtpd.proto.client.transmission import CONTENT_ENDED, Transmission
from smtpd.transports.relay.delivery import Delivery
from smtpd.transports.relay.health import HopHealth
from smtpd.transports.relay.link import Link

if TYPE_CHECKING:
    import ssl

    from smtpd.transports.relay.transport import RelayTransport

_FIRST_WINDOW = 5.0
_FIRST_WINDOW_OF_MANY = 1.0  # where each domain has a pool: a hundred that hang may not take all that is to be delivered at once
_QUICK_S = 0.05  # a next hop that takes a mail in less: better a second mail on a connection than another connection
_STALLED_S = 1.0  # a quick next hop that takes so long for a mail: no other one is put behind it
_PIPELINED = 2  # mails on one connection: one whose reply is due and the next behind it
_FULL_HOST_PAUSES_S = (0.05, 0.4)  # before looking again whether the host has a connection to spare: at first, at last
_LEAST_USE_S = 1.0  # before a connection is let go for others who have none; no less than their wish counts
_GIVEN_AWAY_S = 1.0  # how long it is theirs: more than the longest of their pauses
_KNOWN_HOPS_S = 60.0  # before next hops are looked up again
_LOOK_UP_AGAIN_S = 10.0  # where that fails, and those of before are good enough
_FLUSH_WINDOW = 1000  # when there is nowhere to go, whatever waits is told so
_UNFIT = ("4.7.4", "4.7.5")  # what the session says of a next hop without the TLS that the route requires
_CLOSING = Outcome(DEFERRED, 0, "4.3.2", "this host is shutting down", "none")


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
        self.transcript_for = transport.transcript_for
        self.links: set[Link] = set()
        self.busy_links = 0  # those with mails under way; the links count themselves
        self._stalled_links = 0  # of these, at the last sweep
        self._idle: list[Link] = []
        self._pending: deque[Delivery] = deque()
        self._under_way = 0  # mails, pending ones too
        self._healths: list[HopHealth] = []
        self._search: Search | None = None
        self._known_until = -1.0
        self._turn = 0
        self._window = _FIRST_WINDOW_OF_MANY if transport.is_per_domain else _FIRST_WINDOW
        self._mail_s = 1.0  # how long a mail takes, in the mean of the last ones
        self._is_waiting_for_host = False
        self._full_host_pause_s = _FULL_HOST_PAUSES_S[0]
        self._no_more_until = 0.0  # a connection was let go, which is others' for now
        self._failures: dict[HopHealth, Outcome] = {}  # of each next hop the last one, since it last took a mail
        self._is_stuck = False  # no next hop may be tried now
        self._is_closed = False

    # --- the transport's side ----------------------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        return not self.links and not self._pending and self._search is None

    @property
    def healths(self) -> set[HopHealth]:
        """All that it works with."""
        return {*self._healths, *(link.health for link in self.links)}

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
        if self._is_closed:
            delivery.fail(_CLOSING)
            delivery.finish()
            return
        self._under_way += 1
        self._pending.append(delivery)
        self._serve()

    def sweep(self, now: float) -> None:
        """About once a second: deadlines, and connections kept for too long."""
        stalled = 0
        for link in list(self.links):
            link.is_stalled = link.is_overdue(now - _STALLED_S)
            stalled += link.is_stalled
            link.check_deadline(now)
        self._stalled_links = stalled
        for link in list(self._idle):
            if now - link.idle_since >= self.idle_s or not self._is_fresh(link) or link.health.is_begged(now):
                self._idle.remove(link)
                link.quit()
        if self._pending:
            self._serve(True)  # a next hop may not be set aside any more

    def close(self) -> None:
        """End everything now; each mail that is under way gets its outcome."""
        self._is_closed = True
        if self._search is not None:
            self._search.cancel()
            self._search = None
        for link in list(self.links):
            if link in self._idle:
                self._idle.remove(link)
                link.quit()
            elif len(link.deliveries) or not link.is_quitting:
                link.break_off(_CLOSING.dsn, _CLOSING.text)
        self._fail_pending(_CLOSING)

    # --- opening -----------------------------------------------------------------------------------------------------

    def _may_follow(self) -> bool:
        """Whether all that waits can be sent behind mails that are under way, and soon: for each of them that spares this host
        and the next hop a write and a wake-up."""
        prompt_links = self.busy_links - self._stalled_links
        if prompt_links <= 0 or self._under_way > self._window:
            return False
        return self._under_way * self._mail_s <= prompt_links * _QUICK_S

    def fill(self, link: Link) -> None:
        """A connection may take more now."""
        if self._pending and len(link.deliveries) < _PIPELINED and not (link.is_stalled and self._mail_s < _QUICK_S):
            self._give_work(link)

    def _serve(self, is_late: bool = False) -> None:
        """Give what waits to connections that are kept, then open more for it, as far as the window allows. `is_late`: what waits
        has done so for long."""
        while self._pending and self._idle:
            if not is_late and self._may_follow():
                return
            link = self._idle.pop()
            if self._is_fresh(link) and link.session.takes_mail():
                link.send(self._pending.popleft())
            else:
                link.quit()
        if self._is_closed or not self._pending:
            return
        if self._mail_s < _QUICK_S:
            self._fill_pipelines()
            if not self._pending:
                return
        now = self.loop.now
        if self._search is None and now >= self._known_until and not self._transport.is_fixed(self._healths):
            self._search = self._transport.find_hops(self._key, self._on_hops)
        if not self._healths:
            return
        opening = active = 0
        for link in self.links:
            if link.is_ready:
                active += not link.is_quitting
            elif not link.is_probe:  # no mail need wait for one that may not answer
                opening += 1
        while len(self._pending) > opening and active + opening < max(1, int(self._window)):
            link_or_none = self._open(now)
            if link_or_none is None:
                break
            opening += not link_or_none.is_probe
        if len(self._pending) > opening:
            self._fill_pipelines()

    def _open(self, now: float) -> Link | None:
        """Connect to the first next hop in order, or the next in turn, that is not set aside."""
        transport = self._transport
        healths = self._healths
        if transport.is_spread:
            self._turn += 1
            start = self._turn % len(healths)
            healths = healths[start:] + healths[:start]
        full: HopHealth | None = None
        for health in healths:
            if health.is_set_aside(now):
                continue
            if now >= self._no_more_until and health.take_connection(transport.most_connections):
                self._is_stuck = False
                self._full_host_pause_s = _FULL_HOST_PAUSES_S[0]
                link = Link(self, health, health.begin_probe(now, transport.retry_s))
                self.links.add(link)
                return link
            full = full or health
            if not transport.is_spread:
                break
        if full is not None:
            self._wait_for_host(full, now)
        elif not self.links:
            self._give_up()
        return None

    def _on_hops(self, hops: list[Hop], failure: LookupFailure | None) -> None:
        self._search = None
        if hops and self.source_address:
            hops = [hop for hop in hops if not hop.port or (":" in hop.address) == (":" in self.source_address)]
            if not hops:
                failure = LookupFailure(False, "4.4.4", "no next hop has an address of the kind of source_address")
        if failure is not None or not hops:
            status, dsn, text = DEFERRED, "4.4.4", "no next hop"
            if failure is not None:
                status = UNDELIVERABLE if failure.is_permanent else DEFERRED
                dsn, text = failure.dsn, failure.text
            if self._healths and status == DEFERRED:
                self._known_until = self.loop.now + _LOOK_UP_AGAIN_S
                return
            self._known_until = 0.0
            self._healths = []
            self._is_stuck = True
            self._fail_pending(Outcome(status, 0, dsn, text, "none"))
            return
        self._known_until = self.loop.now + _KNOWN_HOPS_S
        known = {health.hop: health for health in self._healths}
        self._healths = [known.get(hop) or self._transport.health_of(hop) for hop in hops]
        self._serve()

    def _wait_for_host(self, health: HopHealth, now: float) -> None:
        """The host has as many connections to this next hop as it may; those of others will end."""
        if not any(link.health is health for link in self.links):
            health.beg(now)
        if not self._is_waiting_for_host:
            self._is_waiting_for_host = True
            self.loop.call_later(self._full_host_pause_s, self._stop_waiting)
            self._full_host_pause_s = min(2 * self._full_host_pause_s, _FULL_HOST_PAUSES_S[1])

    def _stop_waiting(self) -> None:
        self._is_waiting_for_host = False
        self._serve()

    def _fill_pipelines(self) -> None:
        """Send what waits behind mails whose reply is due."""
        for link in list(self.links):
            if not self._pending:
                break
            is_free = link.is_ready and len(link.deliveries) < _PIPELINED and link.session.takes_mail()
            if link.is_stalled and self._mail_s < _QUICK_S:
                continue
            if is_free and self._is_fresh(link) and not self._gives_way(link):
                link.send(self._pending.popleft())

    def _give_up(self) -> None:
        """No next hop may be tried: tell all that wait why. For good only where every one of them refuses for good."""
        self._is_stuck = True
        failures, self._failures = self._failures, {}
        reasons = list(failures.values())
        lasting = [reason for reason in reasons if reason.status != UNDELIVERABLE]
        if lasting:
            outcome = lasting[-1]
        elif all(health in failures for health in self._healths):
            outcome = reasons[-1]
        else:
            text = next((health.text for health in self._healths if health.text), "it failed")
            outcome = Outcome(DEFERRED, 0, "4.4.1", f"next hop set aside for a while: {text}", "none")
        self._fail_pending(outcome)

    def _fail_pending(self, outcome: Outcome) -> None:
        pending, self._pending = self._pending, deque()
        self._under_way -= len(pending)
        for delivery in pending:
            delivery.fail(outcome)
            delivery.finish()

    # --- a link's reports --------------------------------------------------------------------------------------------

    def on_ready(self, link: Link) -> None:
        """A connection takes mails: it is new, or past a mail that was refused."""
        if link.is_probe:
            link.is_probe = False
            link.health.note_answer()
        self._give_work(link)
        self._serve()

    def on_done(self, link: Link, delivery: Delivery, transmission: Transmission) -> None:
        """A mail on a connection is over, one way or another."""
        transport = self._transport
        is_broken = link.session.is_closed
        put_off = transmission.put_off if not self._is_closed else []
        if transmission.is_8bit_unannounced:
            transport.unannounced_8bit += 1
        if is_broken:
            if _is_unconfirmed(transmission) and (link.load or not link.has_unsent):  # what is unsent is of the mail behind it
                transport.unconfirmed += 1
                transport.warn(f"{delivery.item.queue_id}: the reply to the end of the mail is lost, it may be delivered twice")
            if self._may_resend(link, delivery, transmission):
                delivery.is_resent = True
                link.is_blameless = True
                self._pending.appendleft(delivery)  # on_closed goes on with it
                self._drop_idle(link.health)
                return
        elif _has_delivered(transmission.outcomes):
            self._mail_s += (self.loop.now - delivery.sent_at - self._mail_s) / 16
            self._note_success(link)
        elif link.health.failures:
            link.health.note_success()  # it refuses this mail, but it works
        is_finished = delivery.take(transmission.outcomes, put_off)
        if is_finished:
            self._under_way -= 1
        else:
            self._pending.appendleft(delivery)
        self._give_work(link)
        if is_finished:
            delivery.finish()
        if not is_broken:
            self._serve()

    def on_closed(self, link: Link, reason: Outcome | None) -> None:
        """A connection is over; what was under way on it is done."""
        health = link.health
        was_kept = link in self._idle
        self.links.discard(link)
        if was_kept:
            self._idle.remove(link)
        health.give_connection()
        if link.is_ready:
            health.live -= 1
        if reason is not None and not was_kept and not link.is_blameless and not self._is_closed:
            self._note_failure(link, reason)
        elif link.is_probe:
            health.end_probe()
        if not self._pending:
            return
        if link.is_blameless and not link.is_ready and not health.is_plain(self.loop.now):
            if reason is not None and not self.links:  # this host can't connect: at once it would be no better
                self._fail_pending(reason)
        else:
            self.loop.ready(self._serve)

    def _may_resend(self, link: Link, delivery: Delivery, transmission: Transmission) -> bool:
        """Whether a kept connection had been closed by the next hop before it took anything of this mail."""
        return (
            (link.mails > 1 or link.was_idle) and not delivery.is_resent and not self._is_closed and transmission.reply_count == 0
            and not transmission.needs_reset
        )  # fmt: skip

    def _drop_idle(self, health: HopHealth) -> None:
        """Where one kept connection was dead, the others are likely to be."""
        for link in [idle for idle in self._idle if idle.health is health]:
            self._idle.remove(link)
            link.quit()

    def _note_success(self, link: Link) -> None:
        link.health.note_success()
        self._failures.pop(link.health, None)
        if self._under_way > self._window and self._window < self._transport.most_connections:
            self._window += 1.0

    def _note_failure(self, link: Link, reason: Outcome) -> None:
        """A connection failed, or the next hop refused to talk."""
        self._window = max(1.0, self._window / 2)
        self._failures.pop(link.health, None)  # the last failure stands last
        self._failures[link.health] = reason
        transport = self._transport
        if reason.dsn in _UNFIT and not link.is_ready:
            link.health.note_unfit(self.loop.now + transport.retry_s, reason.text)
            transport.warn(f"next hop {link.relay} is no good for route {transport.route_name}: {reason.text}")
            return
        if link.health.note_failure(self.loop.now, transport.retry_s, reason.text, link.is_ready):
            transport.warn(f"next hop {link.relay} is set aside for {transport.retry_s:g} s: {reason.text}")

    def _is_fresh(self, link: Link) -> bool:
        transport = self._transport
        is_young = self.loop.now - link.began_at < transport.age_s
        return is_young and (not transport.most_mails or link.mails < transport.most_mails)

    def _gives_way(self, link: Link) -> bool:
        """Whether it is to be let go for others, after having been of use."""
        now = self.loop.now
        return now >= self._no_more_until and now - link.began_at >= _LEAST_USE_S and link.health.is_begged(now)

    def _give_work(self, link: Link) -> None:
        """Let a connection have what waits, or keep it, or let it go."""
        session = link.session
        if session.is_closed or not link.is_ready or link.is_quitting:
            return
        gives_way = self._gives_way(link)
        while (
            self._pending
            and not gives_way
            and len(link.deliveries) < _PIPELINED
            and session.takes_mail()
            and self._is_fresh(link)
        ):
            link.send(self._pending.popleft())
        if len(link.deliveries) or link in self._idle:
            return
        is_good = self._is_fresh(link) and not gives_way and not self._is_closed and not session.is_spent
        if is_good and session.takes_mail():
            link.was_idle = True
            self._idle.append(link)
        elif not is_good or not session.count_due():  # or RSET is under way, and READY follows
            if gives_way or link.health.is_begged(self.loop.now):
                self._no_more_until = self.loop.now + _GIVEN_AWAY_S
            link.quit()


def first_window(is_per_domain: bool) -> int:
    """Return how many mails may be under way to a destination that nobody has sent to yet."""
    return int(_FIRST_WINDOW_OF_MANY if is_per_domain else _FIRST_WINDOW) * _PIPELINED


def _has_delivered(outcomes: list[Outcome]) -> bool:
    for outcome in outcomes:  # noqa: SIM110 - no generator on the way of a mail
        if outcome.status == DELIVERED:
            return True
    return False


def _is_unconfirmed(transmission: Transmission) -> bool:
    """Whether all of a mail was sent and the reply to it never came (RFC 1047)."""
    if transmission.content_state != CONTENT_ENDED:
        return False
    return any(
        transmission.outcomes[place].status == DEFERRED and not transmission.outcomes[place].code for place in transmission.asked
    )
