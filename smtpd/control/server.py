"""The worker's control socket: answers the queue commands from the worker's own shards, page by page.

Owns run_dir/worker-SLOT-PID.sock (0660: who may read the queue is decided by the directory's owner and group) and its clients.
A page is asked for only when the one before has left, so neither a large queue nor a slow reader takes memory; between pages the
shard thread commits and the loop serves mail. Garbage, oversized requests and late clients are refused; none of it is fatal.
Without its socket a worker serves on: `report` gets the reason.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

import msgspec

from smtpd import _io
from smtpd.control.answer import Page, page_of
from smtpd.control.changing import ChangedPage, ChangeRun
from smtpd.control.content import ContentAnswer, item_of
from smtpd.control.exporting import ExportAnswer
from smtpd.control.importing import ImportAnswer
from smtpd.control.routes import Routes
from smtpd.control.transcript import TranscriptAnswer, Transcripts
from smtpd.control.wire import (
    END_LINE,
    READS,
    REQUEST_MAX_BYTES,
    ROUTE_REQUESTS,
    Filter,
    Line,
    Request,
    decode_request,
    encode_line,
)
from smtpd.delivery.attempt import suspended_text
from smtpd.delivery.wishes import Leases, NoLeases
from smtpd.errors import SpoolError
from smtpd.net.files import FilesThread
from smtpd.net.loop import Loop, Timer
from smtpd.net.stream import Stream, StreamOwner
from smtpd.spool.base import Spool, SpoolShard
from smtpd.spool.change import FLUSH

CLIENTS_MAX = 16
REQUEST_TIMEOUT_S = 10.0
PROGRESS_TIMEOUT_S = 60.0  # a reader that takes nothing for so long is gone
_TALK_TIMEOUT_S = 300.0  # an exporter syncs a hundred files meanwhile
LINE_MAX_BYTES = 1 << 20  # of a piece of mail
_MODE = 0o660
_PAUSE_S = 1.0  # before accepting again when descriptors are short
_NO_LEASES = NoLeases()
_NO_ROUTES = Routes("", [])


def _ignore(text: str) -> None:
    """Where nobody listens."""


_DONE_WORDS = {
    "hold": "placed on hold",
    "release": "released from hold",
    "requeue": "requeued",
    "flush": "due at once",
    "delete": "deleted",
}


class ControlServer:
    """`start` makes the socket, `close` removes it. `path` is where it is."""

    def __init__(
        self,
        loop: Loop,
        spool: Spool,
        run_dir: str,
        slot: int,
        report: Callable[[str], object] = _ignore,
        *,
        files: FilesThread | None = None,
        leases: Leases = _NO_LEASES,
        routes: Routes = _NO_ROUTES,
        transcripts: Transcripts | None = None,
        note: Callable[[str], object] = _ignore,
    ) -> None:
        self.loop = loop
        self.spool = spool
        self.files = files
        self.leases = leases
        self.routes = routes
        self.transcripts = transcripts or Transcripts()
        self.note = note  # for the log: who changed what must be found later
        self.path = os.path.join(run_dir, f"worker-{slot}-{os.getpid()}.sock")
        self.clients: set[ControlClient] = set()
        self._report = report
        self._socket: socket.socket | None = None

    def start(self) -> None:
        """Listen; a failure is reported, not raised."""
        try:
            self._socket = listen_at(self.path)
        except OSError as error:
            self._report(f"no control socket, `smtpd queue` can't see this worker: {self.path}: {error.strerror or error}")
            return
        self.loop.add_reader(self._socket.fileno(), self._on_connection)

    def close(self) -> None:
        """Stop listening and let go of all clients."""
        listening, self._socket = self._socket, None
        if listening is None:
            return
        self.loop.forget(listening.fileno())
        listening.close()
        try:
            os.unlink(self.path)
        except OSError:  # gone with its directory, or never ours to remove
            pass
        for client in list(self.clients):
            client.stream.destroy()

    def _on_connection(self) -> None:
        if self._socket is None:
            return
        fd, _ = _io.accept(self._socket.fileno())
        if fd < 0:
            if -fd in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                self.loop.remove_reader(self._socket.fileno())
                self.loop.call_later(_PAUSE_S, self._accept_again)
            return
        client = ControlClient(self, fd)
        if len(self.clients) >= CLIENTS_MAX:
            client.refuse("too many queue commands at once, try again")
        else:
            client.start()

    def _accept_again(self) -> None:
        if self._socket is not None:
            self.loop.add_reader(self._socket.fileno(), self._on_connection)


class Talk(Protocol):
    """What a connection is busy with beyond one request and its answer."""

    def start(self) -> None: ...

    def abort(self) -> None:
        """The client is gone."""
        ...


class ControlClient(StreamOwner):
    """One connection: reads one request, streams its answer, closes."""

    def __init__(self, server: ControlServer, fd: int) -> None:
        self.stream = Stream(server.loop, fd, self)
        self._server = server
        self._input = bytearray()
        self._timer: Timer | None = None
        self._next: Callable[[], None] | None = None  # what waits for the output to leave
        self._shards: list[SpoolShard] = []
        self._found = 0  # mails
        self._on_line: Callable[[bytes], None] | None = self._answer  # who gets the next line
        self._talk: Talk | None = None  # what goes on beyond one request and its answer

    def start(self) -> None:
        self._server.clients.add(self)
        self._set_timer(REQUEST_TIMEOUT_S)
        self.stream.start()

    def refuse(self, text: str) -> None:
        """Say why not, and close."""
        self._input.clear()
        self.stream.pause()
        self.stream.write(encode_line(Line(error=text)))
        self.stream.close()

    # --- the stream's calls ------------------------------------------------------------------------------------------

    def on_data(self, buffer: bytearray, start: int, end: int) -> int:
        self._input += buffer[start:end]
        if self._on_line is not None:
            self._take_line()
        return end

    def read_line(self, on_line: Callable[[bytes], None], patience_s: float = 0.0) -> None:
        """Give the client's next line to `on_line`, in a later turn at the earliest."""
        self._on_line = on_line
        self._set_timer(patience_s or _TALK_TIMEOUT_S)
        self._server.loop.ready(self._read_on)

    def _read_on(self) -> None:
        if self.stream.is_open and self._on_line is not None:
            self._take_line()
            if self._on_line is not None:
                self.stream.resume()

    def _take_line(self) -> None:
        at = self._input.find(b"\n")
        most = REQUEST_MAX_BYTES if self._talk is None else LINE_MAX_BYTES
        if 0 <= at <= most:
            self.stream.pause()
            line = bytes(memoryview(self._input)[:at])
            del self._input[: at + 1]
            on_line, self._on_line = self._on_line, None
            if on_line is not None:
                on_line(line)
        elif at > most or len(self._input) > most:
            self._on_line = None
            self.refuse("the request is too long")

    @property
    def waiting_bytes(self) -> int:
        """How much output has not left yet."""
        return self.stream.buffered_bytes

    @property
    def is_open(self) -> bool:
        """Whether the client is there to be answered."""
        return self.stream.is_open

    def on_end(self) -> None:
        self.stream.destroy()

    def on_drained(self) -> None:
        go_on, self._next = self._next, None
        if go_on is not None:
            self._set_timer(PROGRESS_TIMEOUT_S)
            go_on()

    def on_closed(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next = self._on_line = None
        self._server.clients.discard(self)
        if self._talk is not None:
            self._talk.abort()

    def _set_timer(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._server.loop.call_later(seconds, self.stream.destroy)

    # --- answers -----------------------------------------------------------------------------------------------------

    def _answer(self, line: bytes) -> None:
        try:
            request = decode_request(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self.refuse(f"not a request: {error}")
            return
        self._set_timer(PROGRESS_TIMEOUT_S)
        server = self._server
        if request.do in READS:
            self._shards = list(server.spool.shards)
            self._next_shard(request, time.time())
        elif request.do in ROUTE_REQUESTS:
            self._answer_routes(request)
        elif request.do == "export":
            self._talk = ExportAnswer(self, server.loop, server.spool, server.files, server.leases, request.filter, server.note)
            self._talk.start()
        elif request.do == "import":
            self._talk = ImportAnswer(self, server.spool, server.leases, server.note)
            self._talk.start()
        elif request.do == "transcript":
            self._start_transcript(request)
        else:
            self._change(request.do, request.filter)

    def _start_transcript(self, request: Request) -> None:
        server = self._server
        try:
            talk = TranscriptAnswer(self, server.loop, server.transcripts, request.client, request.next_hop, request.seconds)
        except ValueError as error:
            self.refuse(str(error))
            return
        self._talk = talk
        talk.start()

    def _next_shard(self, request: Request, now_s: float) -> None:
        if not self._shards or (request.filter.ids and self._found >= len(request.filter.ids)):
            self.finish()
        else:
            self._ask_page(request, now_s, self._shards.pop(0), 0)

    def _ask_page(self, request: Request, now_s: float, shard: SpoolShard, after_row: int) -> None:
        number = shard.number
        self._server.spool.query(
            shard,
            lambda connection: page_of(connection, number, request, now_s, after_row),
            partial(self._on_page, request, now_s, shard),
        )

    def _on_page(self, request: Request, now_s: float, shard: SpoolShard, page: Page | None, error: SpoolError | None) -> None:
        if not self.stream.is_open:
            return
        if page is None:
            if shard in self._server.spool.shards:
                self.refuse(str(error))
                return
            page = Page(b"", 0, True)  # emptied and released meanwhile
        self._found += page.count
        go_on: Callable[[], None]
        if page.is_last or (request.filter.ids and self._found >= len(request.filter.ids)):
            go_on = partial(self._next_shard, request, now_s)
        else:
            go_on = partial(self._ask_page, request, now_s, shard, page.last_row)
        if page.mail is not None and request.content:
            content = ContentAnswer(self, self._server.spool, self._server.files, request.content == "header", go_on)
            go_on = partial(content.send, item_of(page.mail, shard))
        self.send(page.data, go_on)

    def _change(self, action: str, wanted: Filter) -> None:
        server = self._server
        ChangeRun(
            server.loop,
            server.spool,
            server.leases,
            action,
            wanted,
            partial(self._on_changed, action),
            self.finish,
            lambda: self.stream.is_open,
        ).start()

    def _on_changed(self, action: str, page: ChangedPage, go_on: Callable[[], None]) -> None:
        done = page.results.changed + page.results.under_way
        for queue_id in done:  # a line each, the id first, as postsuper(1)'s: pflogsumm takes other shapes for refusals
            self._server.note(f"{queue_id}: {_DONE_WORDS[action]} by command")
        self.send(encode_line(Line(results=page.results)), go_on)

    def _answer_routes(self, request: Request) -> None:
        server = self._server
        routes, is_suspended = server.routes, request.do == "suspend"
        if request.do == "routes" or server.files is None:
            self._tell_routes(request)
            return

        def on_stored(names: list[str] | None, failure: BaseException | None) -> None:
            if names is None:
                self.refuse(str(failure))
                return
            routes.apply(names)
            server.note(f"route {request.route} is {'suspended' if is_suspended else 'resumed'} by command")
            self._tell_routes(request)

        try:
            if is_suspended:
                routes.check(request.route)
        except ValueError as error:
            self.refuse(str(error))
        else:
            server.files.submit(partial(routes.store, request.route, is_suspended), on_stored)

    def _tell_routes(self, request: Request) -> None:
        if not self.stream.is_open:
            return
        line = encode_line(Line(suspended=self._server.routes.suspended()))
        go_on: Callable[[], None]
        if request.do == "resume":
            go_on = partial(self._change, FLUSH, Filter(reason=suspended_text(request.route)))
        else:
            go_on = self.finish
        self.send(line, go_on)

    # --- output ------------------------------------------------------------------------------------------------------

    def finish(self, error: str = "") -> None:
        """End the answer: it is whole, unless there is an `error`."""
        if error:
            self.refuse(error)
        else:
            self.stream.write(END_LINE)
            self.stream.close()

    def write(self, data: bytes) -> None:
        """Send, without waiting for it to leave."""
        self.stream.write(data)

    def send(self, data: bytes, go_on: Callable[[], None]) -> None:
        """Send, and go on when it has left: in a later turn, so that other work comes between."""
        if not data or self.stream.write(data):
            self._server.loop.ready(self._go_on_if_open, go_on)
        else:
            self._next = go_on

    def _go_on_if_open(self, go_on: Callable[[], None]) -> None:
        if self.stream.is_open:
            self._set_timer(PROGRESS_TIMEOUT_S)
            go_on()


def listen_at(path: str) -> socket.socket:
    """Return a listening socket at `path`, which may be longer than a socket's address may; raises OSError."""
    folder, name = os.path.split(path)
    folder_fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        try:
            if stat.S_ISSOCK(os.stat(name, dir_fd=folder_fd, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=folder_fd)  # a process before us had our pid
        except FileNotFoundError:
            pass
        address = f"/proc/self/fd/{folder_fd}/{name}"
        listening.bind(address)
        os.chmod(address, _MODE)  # nobody can connect before listen()
        listening.listen(CLIENTS_MAX)
    except BaseException:
        listening.close()
        raise
    finally:
        os.close(folder_fd)
    return listening
