"""One process of a run: a loop, a crew of connections, and the reports to the parent. Never returns.

Ends when the crew is over, or at once when the parent is gone. SIGINT is the parent's business: a terminal gives it to all.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
import sys
import traceback
from typing import NoReturn

from smtpd._io import monotonic_s
from smtpd.load.connection import Connection, Wiring
from smtpd.load.crew import Crew
from smtpd.load.maker import MailMaker
from smtpd.load.pipe import Inbox, tell
from smtpd.load.plan import Plan
from smtpd.load.proxied import Introductions, ProxyHeaders
from smtpd.load.recorder import Recorder
from smtpd.log.escape import clean_bytes
from smtpd.net.loop import Loop
from smtpd.net.tls.contexts import client_context
from smtpd.proto.client.rules import ClientRules

_COLLECT_EVERY = 50_000


def cpu_s() -> float:
    """User and system time of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Worker:
    def __init__(self, plan: Plan, share: int, starts_at: float, parent: socket.socket) -> None:
        self._plan = plan
        self._parent = parent
        self._inbox = Inbox(parent)
        self._starts_at = starts_at
        self._interval = 0
        self._cpu_s = 0.0
        self._loop = Loop()
        self._recorder = Recorder()
        self._crew = Crew(
            wire(plan, self._loop, self._recorder, share),
            plan.offer_of(share, starts_at),
            MailMaker(plan.mails, share),
            plan.sessions_of(share),
            Connection,
            self._loop.stop,
            share,
            plan.workers,
        )
        self._crew.mails_per_connection = plan.mails_per_connection
        self._crew.ends_at = plan.ends_at(starts_at)
        self._crew.drain_s = plan.drain_s
        self._crew.pause_between(plan.pause_s, plan.random_pause_s)

    def run(self) -> None:
        loop = self._loop
        loop.add_reader(self._parent.fileno(), self._on_parent)
        loop.call_at(self._starts_at, self._start)
        loop.call_at(self._starts_at + self._plan.interval_s, self._end_interval)
        gc.collect()
        gc.freeze()
        gc.set_threshold(_COLLECT_EVERY, 20, 100)
        loop.run()
        self._tell_interval()
        over_at = monotonic_s()
        tell(
            self._parent,
            {
                "is": "result",
                "cpu_s": cpu_s() - self._cpu_s,
                "elapsed_s": over_at - self._starts_at,
                "gave_up": self._crew.gave_up,
                **self._recorder.pack(),
            },
        )

    def _start(self) -> None:
        self._cpu_s = cpu_s()
        self._crew.start(0.0 if self._plan.rate else self._plan.ramp_up_s)

    def _on_parent(self) -> None:
        for _ in self._inbox.read():
            self._crew.stop()
        if self._inbox.is_over:
            os._exit(os.EX_SOFTWARE)

    def _end_interval(self) -> None:
        self._tell_interval()
        self._loop.call_at(self._starts_at + (self._interval + 1) * self._plan.interval_s, self._end_interval)

    def _tell_interval(self) -> None:
        row = self._recorder.end_interval()
        tell(self._parent, {"is": "interval", "interval": self._interval, "under_way": self._crew.under_way, **row})
        self._interval += 1


def wire(plan: Plan, loop: Loop, recorder: Recorder, share: int = 0) -> Wiring:
    """What all connections of process `share` have in common."""
    rules = ClientRules(
        plan.hello,
        is_lmtp=plan.is_lmtp,
        tls="require" if plan.tls == "starttls" else "off",
        uses_chunking=plan.uses_chunking,
        uses_pipelining=plan.uses_pipelining,
        uses_esmtp=plan.uses_esmtp,
    )
    wiring = Wiring(loop, recorder, rules, monotonic_s, plan.target.text, list(plan.target.addresses))
    wiring.connect_tries = plan.connect_tries
    wiring.connect_timeout_s = plan.connect_timeout_s
    wiring.reply_timeout_s = plan.reply_timeout_s
    wiring.window_bytes = plan.window_bytes
    wiring.wants_pipelining = plan.uses_pipelining and plan.uses_esmtp
    wiring.wants_chunking = plan.uses_chunking
    if plan.tls:
        wiring.tls_context = client_context(plan.tls_verify, plan.tls_ca)
        wiring.tls_name = plan.tls_name or plan.target.name
        wiring.is_tls_implicit = plan.tls == "implicit"
    if plan.proxy:
        wiring.opening = ProxyHeaders(plan.proxy, plan.proxy_clients, share, plan.workers).header_for
    if plan.xclient:
        wiring.introduction = Introductions(plan.xclient, share, plan.workers).next_attributes
    if plan.is_verbose:
        wiring.tap = _show
    return wiring


def _show(connection: Connection, who: str, octets: bytes) -> None:
    """The dialogue on standard error; of long output only the first lines."""
    lines = octets[:2000].splitlines()[:20]
    text = "".join(f"{os.getpid()}/{connection.session.mail_count} {who}: {clean_bytes(line, 400)}\n" for line in lines)
    sys.stderr.write(text)
    sys.stderr.flush()


def run_worker(plan: Plan, share: int, starts_at: float, parent: socket.socket) -> NoReturn:
    """The whole life of a worker after the fork."""
    code = os.EX_SOFTWARE
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        Worker(plan, share, starts_at, parent).run()
        code = os.EX_OK
    except BrokenPipeError:
        pass  # the parent is gone, and whoever wanted the figures with it
    except BaseException:  # noqa: BLE001 nobody is above this
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)
