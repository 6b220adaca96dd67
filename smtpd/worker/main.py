"""A worker's life: put the parts together after the fork, serve, drain, end.

Owns the loop and everything on it. It ends by itself when the master is gone (the channel's end): listeners close in the same
turn. Returns an exit code; never returns into the master's code (`os._exit` is the caller's).
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from setproctitle import setproctitle

from smtpd.control.routes import Routes
from smtpd.control.server import ControlServer
from smtpd.control.transcript import Transcripts
from smtpd.delivery.copies import with_copies
from smtpd.delivery.router import Router
from smtpd.delivery.scheduler import Scheduler
from smtpd.errors import StartupError
from smtpd.limits.clients import ClientLimits, Networks
from smtpd.log.maillog import MailLog
from smtpd.metrics.slab import LOOP, SHARD
from smtpd.net.files import FilesThread
from smtpd.net.hops import OwnHost
from smtpd.net.loop import Loop
from smtpd.net.resolver import Resolver
from smtpd.net.side import SideThread
from smtpd.policy.check import CheckHost
from smtpd.proto.dialogue import Peer
from smtpd.proto.trace import DateText
from smtpd.settings.endpoint import parse_endpoint
from smtpd.spool.observers import SpoolObservers
from smtpd.spool.open import open_spool
from smtpd.transports.relay.transport import RelayHost, RelayTransport
from smtpd.worker.account import ListenerAccount
from smtpd.worker.admission import Acceptor
from smtpd.worker.boot import WorkerBoot
from smtpd.worker.connection import Connection
from smtpd.worker.front import Front
from smtpd.worker.lingering import Lingering
from smtpd.worker.parts import Host, SessionTap, WorkerParts
from smtpd.worker.policing import Policing
from smtpd.worker.rulebook import Rulebook
from smtpd.worker.service import Service

SWITCH_INTERVAL_S = 0.0005  # how long a busy helper thread may keep the GIL from the loop
HEARTBEAT_S = 0.25
LOG_LOT = 1000  # lines handed over at once
LOG_DELAY_S = 0.02  # how long a line may wait for company
ORPHAN_GRACE_S = 2.0  # the master is gone: sessions get this long
DELIVERY_GRACE_S = 3.0  # the last session is over: deliveries under way get this long
COLLECT_EVERY = 50_000  # allocations between looks for cycles; connections break theirs themselves
_PACKET_BYTES = 65536
_MAX_DESCRIPTORS = 64


def run_worker(boot: WorkerBoot, parts: WorkerParts | None = None) -> int:
    """Serve until told to stop; return the exit code. `parts` are another program's than the gateway's."""
    try:
        worker = Worker(boot, parts or WorkerParts())
    except StartupError as error:
        _tell(boot.channel, {"is": "failed", "text": str(error), "exit_code": error.exit_code})
        return error.exit_code
    return worker.run()


def _tell(channel: socket.socket, message: dict[str, Any]) -> None:
    try:
        channel.send(json.dumps(message).encode())
    except OSError:  # the master is gone or does not read; its end of the channel tells the rest
        return


class Worker:
    """Everything of one worker process. Made after the fork: threads and connections to disk start here."""

    def __init__(self, boot: WorkerBoot, parts: WorkerParts) -> None:
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        settings = boot.settings
        self._boot = boot
        self._settings = settings
        self._loop = Loop()
        self._status = boot.slabs.status(boot.bank)
        self._cells = boot.slabs.cells(boot.bank, LOOP)
        self._connections: set[Connection] = set()
        self._is_draining = False
        self._is_done = False
        self._is_log_due = False
        self._exit_code = os.EX_OK
        self._title_count = -1
        self._next_beat_at = 0.0
        self._lag = boot.cells.histogram("smtpd_worker_loop_lag_seconds")
        self._buffer = boot.cells.gauge("smtpd_worker_buffer_bytes")
        lost_lines = boot.cells.counter("smtpd_log_lines_dropped_total")
        self._log = MailLog(settings.log, settings.hostname, lambda count: self._cells.add(lost_lines, count))
        self._log.start()
        self._files = FilesThread(self._loop)
        self._files.start()
        self._parts = parts
        parts.begin(Host(boot.slot, boot.bank, self._loop, self._files, self._log, settings.hostname, self._finish))
        self._spool = parts.spool or open_spool(
            self._loop, self._files, settings.spool, settings.node, self._log, observers=self._observers(), slot=boot.slot
        )
        self._transcripts = Transcripts(self._tap_open_sessions)
        router = Router(settings.route, settings.bounce)
        self._side = SideThread(self._loop)
        relay = RelayHost(
            self._loop, self._files, Resolver(self._loop, self._side, settings.dns, _own_host(boot)), boot.hops, boot.bank,
            settings.hostname, self._warn_of_next_hop, self._transcripts.for_next_hop,
        )  # fmt: skip
        self._scheduler = Scheduler(
            self._loop, self._files, self._spool, router, settings, self._cells, boot.cells, self._log, relay
        )
        self._routes = Routes(settings.spool.path if settings.spool.engine == "sqlite" else "", self._scheduler.lanes)
        self._load_routes()
        self._policing = self._police()
        self._control = ControlServer(
            self._loop, self._spool, settings.run_dir, boot.slot, self._warn,
            files=self._files, leases=self._scheduler.wishes, routes=self._routes, transcripts=self._transcripts,
            note=lambda text: self._log.info("queue", text),
        )  # fmt: skip
        self._lingering = Lingering(self._loop)
        self._fronts: list[Front] = []
        self._acceptors = self._make_acceptors(router)

    def _observers(self) -> SpoolObservers:
        """Metrics of custody: commits are observed by the shard thread in its own row, free space by the loop in ours."""
        boot = self._boot
        shard_cells = boot.slabs.cells(boot.bank, SHARD)
        seconds = boot.cells.histogram("smtpd_spool_commit_seconds")
        messages = boot.cells.histogram("smtpd_spool_commit_messages")
        free_bytes = boot.cells.gauge("smtpd_spool_free_bytes")
        free_inodes = boot.cells.gauge("smtpd_spool_free_inodes")

        def on_commit(duration_s: float, inserted: int, settled: int) -> None:
            shard_cells.observe(seconds, duration_s)
            if inserted:
                shard_cells.observe(messages, inserted)

        def on_space(size_bytes: int, inodes: int) -> None:
            self._cells.set(free_bytes, size_bytes)
            self._cells.set(free_inodes, inodes)

        return SpoolObservers(commit=on_commit, space=on_space)

    def _police(self) -> Policing:
        """The checks; sessions are asked about as they come."""
        boot, settings = self._boot, self._settings

        def host_for(name: str) -> CheckHost:
            return CheckHost(name, self._loop, self._side, self._files, self._log, self._cells, boot.cells, settings, boot.slot)

        is_logging = settings.log.level == "info" and settings.log.destination != "none"
        return Policing(settings, self._loop, self._side, self._log, host_for, self._spool.keeps_mail, is_logging)

    def _make_acceptors(self, router: Router) -> list[Acceptor]:
        boot, settings = self._boot, self._settings
        dates = DateText()
        is_logging = settings.log.level == "info" and settings.log.destination != "none"
        limits = ClientLimits(boot.clients, boot.bank, settings.limits)
        acceptors = []
        spool = with_copies(self._spool, router)
        for listener in boot.listeners:
            account = ListenerAccount(listener.name, self._cells, boot.cells, self._log, is_logging, self._spool.keeps_mail)
            rulebook = Rulebook(
                settings, listener.settings, listener.name, router.has_route, lambda: self._spool.is_full, limits,
                suppressed=self._parts.suppressed, greeting=self._parts.greeting,
                is_hello_optional=self._parts.is_hello_optional, footer=self._policing.footer,
            )  # fmt: skip
            service = Service(
                self._loop, settings.limits, spool, account, rulebook.rules_for, self._scheduler.accepted,
                settings.hostname, dates, self._connections, limits.leave, self._parts.conduct_for,
                self._policing.policy_for(listener.name), self._files,
            )  # fmt: skip
            front = Front(
                self._loop, account, limits, self._lingering, _beginner(service, self._transcripts, self._parts.tap_for),
                proxies=Networks(listener.settings.proxy_protocol),
                trusted=Networks(settings.policy.trusted + listener.settings.exempt),
            )  # fmt: skip
            self._fronts.append(front)
            acceptors.append(Acceptor(self._loop, listener, front.accepted, self._warn, self._parts.gate))
        return acceptors

    def _tap_open_sessions(self) -> None:
        """Somebody began or ended to watch: sessions that are open already are shown from their next reply on."""
        transcripts = self._transcripts
        for connection in self._connections:
            tap = transcripts.for_client(connection.session.peer.address, is_begun=True)
            connection.tap = None if tap is None else connection.tap or tap
        for lane in self._scheduler.lanes:
            if isinstance(lane.transport, RelayTransport):
                lane.transport.look_for_transcripts()

    def _load_routes(self) -> None:
        try:
            self._routes.load()
        except (OSError, ValueError) as error:
            self._warn(f"no route is suspended: {error}")

    # --- life --------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        loop = self._loop
        loop.watch_signals(
            {
                signal.SIGTERM: self.drain,
                signal.SIGINT: self.stop,
                signal.SIGQUIT: self.stop,
                signal.SIGUSR1: self._log.reopen,
                signal.SIGHUP: _nothing,
                signal.SIGUSR2: _nothing,
                signal.SIGTTIN: _nothing,
                signal.SIGTTOU: _nothing,
            }
        )
        self._boot.channel.setblocking(False)
        loop.add_reader(self._boot.channel.fileno(), self._on_channel)
        loop.at_turn_end(self._spool.end_turn)
        loop.at_turn_end(self._pass_lines)
        self._scheduler.start()
        self._control.start()
        self._load_routes()  # a command may have come between
        for acceptor in self._acceptors:
            acceptor.serve(self._boot.serves)
        self._next_beat_at = loop.now
        self._beat()
        gc.collect()
        gc.freeze()
        gc.set_threshold(COLLECT_EVERY, 20, 100)
        _tell(self._boot.channel, {"is": "ready"})
        loop.run()
        self._lingering.close()
        self._policing.close()
        self._files.close()
        self._side.close(1.0)
        self._log.close(5.0)
        return self._exit_code

    def _finish(self) -> None:
        """The parts have seen all that they wanted."""
        _tell(self._boot.channel, {"is": "finished"})

    def drain(self) -> None:
        """Graceful: accept no more, finish transactions, 421 between them, give the shard back; then end."""
        if self._is_draining:
            return
        self._is_draining = True
        self._status.is_draining = True
        _tell(self._boot.channel, {"is": "draining"})
        self._close_listeners()
        for connection in list(self._connections):
            connection.drain()
        self._loop.call_later(self._settings.drain_timeout, self.stop)
        self._end_if_idle()

    def stop(self) -> None:
        """Fast: sessions get 421 now; what is being committed or delivered is finished, the rest stays in the spool."""
        self._is_draining = True
        self._close_listeners()
        for connection in list(self._connections):
            connection.stop()
        self._end_if_idle()

    def _end_if_idle(self) -> None:
        if self._is_draining and not self._connections and not self._is_done:
            self._is_done = True
            self._control.close()
            self._scheduler.drain(lambda: self._spool.close(self._loop.stop))
            self._loop.call_later(DELIVERY_GRACE_S, self._scheduler.abandon)

    def _close_listeners(self) -> None:
        for acceptor in self._acceptors:
            acceptor.close()
        self._acceptors = []
        for front in self._fronts:
            front.close()

    # --- heartbeat and master ----------------------------------------------------------------------------------------

    def _beat(self) -> None:
        """Tell the master that the loop turns, how late, and how many sessions there are."""
        loop = self._loop
        self._status.heartbeat_s = time.monotonic()
        self._status.sessions = len(self._connections)
        self._cells.observe(self._lag, max(0.0, loop.now - self._next_beat_at))
        self._next_beat_at = loop.now + HEARTBEAT_S
        loop.call_at(self._next_beat_at, self._beat)
        count = len(self._connections)
        if count != self._title_count and int(loop.now) != int(loop.now - HEARTBEAT_S):
            self._title_count = count
            setproctitle(f"smtpd: worker {self._boot.slot} [{count} sessions]")
            self._cells.set(self._buffer, sum(c.stream.buffered_bytes for c in self._connections))
        if self._is_draining:
            self._end_if_idle()

    def _pass_lines(self) -> None:
        """Hand log lines over in lots: each hand-over wakes a thread that then wants the GIL."""
        waiting = self._log.waiting
        if waiting >= LOG_LOT:
            self._log.end_turn()
        elif waiting and not self._is_log_due:
            self._is_log_due = True
            self._loop.call_later(LOG_DELAY_S, self._pass_late_lines)

    def _pass_late_lines(self) -> None:
        self._is_log_due = False
        self._log.end_turn()

    def _on_channel(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._boot.channel, _PACKET_BYTES, _MAX_DESCRIPTORS)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        if not data:
            self._lose_master()
            return
        message = json.loads(data)
        if message["do"] == "listeners":
            self._add_slot(message["names"], descriptors)
        elif message["do"] == "serve":
            for acceptor in self._acceptors:
                acceptor.serve(tuple(message["slots"]))

    def _add_slot(self, names: list[str], descriptors: list[int]) -> None:
        sockets = {name: socket.socket(fileno=fd) for name, fd in zip(names, descriptors, strict=True)}
        for acceptor in self._acceptors:
            if acceptor.name in sockets:
                acceptor.add_socket(sockets[acceptor.name])

    def _lose_master(self) -> None:
        """Nobody supervises any more: free the port in this turn, end within seconds."""
        self._loop.remove_reader(self._boot.channel.fileno())
        self._log.warning("master", "the master is gone, ending")
        self.drain()
        self._loop.call_later(ORPHAN_GRACE_S, self.stop)

    def _warn(self, text: str) -> None:
        self._log.warning("smtpd", text)

    def _warn_of_next_hop(self, text: str) -> None:
        self._log.warning("smtp", text)


def _own_host(boot: WorkerBoot) -> OwnHost:
    """Who we are, so that mail is not sent in circles."""
    endpoints = [parse_endpoint(listener.settings.address) for listener in boot.listeners]
    return OwnHost(
        frozenset((boot.settings.hostname.lower(),)),
        frozenset((endpoint.host, endpoint.port) for endpoint in endpoints if not endpoint.is_unix),
    )


def _nothing() -> None:
    """Signals that are the master's business."""


def _beginner(
    service: Service, transcripts: Transcripts, tap_for: Callable[[Peer], SessionTap] | None
) -> Callable[[int, Peer], None]:
    """What becomes of a descriptor whose client is let in."""

    def begin(fd: int, peer: Peer) -> None:
        connection = Connection(service, fd, peer)
        if transcripts.watches:
            connection.tap = transcripts.for_client(peer.address)
        elif tap_for is not None:
            connection.tap = tap_for(peer)
        connection.start()

    return begin
