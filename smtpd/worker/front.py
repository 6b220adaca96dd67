"""From a new descriptor to a session, or not: the PROXY header of a trusted front end, then the limits of the host.

Owns connections until their session begins: those that still owe a PROXY header, for HEADER_TIMEOUT_S at most. A listed peer that
sends none, or a bad one, is closed without a word (proxy-protocol.txt, 2 and 5); who is turned away by a limit gets 421.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

from smtpd import _io
from smtpd.limits.clients import HOST_LIMIT, RATE, ClientLimits, Networks
from smtpd.mail.reply import Reply
from smtpd.net.loop import Loop, Timer
from smtpd.proto import replies
from smtpd.proto.dialogue import Peer
from smtpd.proto.proxy_header import MAX_BYTES, ProxyHeader
from smtpd.worker.account import ListenerAccount
from smtpd.worker.lingering import Lingering
from smtpd.worker.overload import Overload

HEADER_TIMEOUT_S = 5.0
LINES_A_SECOND = 10
_UNSENT = (errno.EAGAIN, errno.EINTR)
Begin = Callable[[int, Peer], object]


class Front:
    """One listener's door in one worker. `begin(fd, peer)` starts a session; `is_implicit`: TLS from the first octet, so
    nobody is turned away in words. `on_turned_away` is called for each connection that gets no session."""

    def __init__(
        self,
        loop: Loop,
        account: ListenerAccount,
        limits: ClientLimits,
        lingering: Lingering,
        overload: Overload,
        begin: Begin,
        *,
        proxies: Networks,
        trusted: Networks,
        introducers: Networks,
        is_implicit: bool = False,
        on_turned_away: Callable[[], None] | None = None,
    ) -> None:
        self._loop = loop
        self._account = account
        self._limits = limits
        self._lingering = lingering
        self._overload = overload
        self._begin = begin
        self._proxies = proxies if proxies else None
        self._trusted = trusted if trusted else None
        self._introducers = introducers if introducers else None
        self._is_implicit = is_implicit
        self._on_turned_away = on_turned_away
        self._awaited: set[_AwaitedHeader] = set()
        self._told_at_s = self._told = self._untold = 0

    def accepted(self, fd: int, address: tuple[str, int]) -> None:
        """Take over a descriptor that accept has given."""
        if self._proxies is not None and address[0] in self._proxies:
            self._awaited.add(_AwaitedHeader(self, fd, address))
        else:
            self.admit(fd, Peer(address[0], address[1]))

    def admit(self, fd: int, peer: Peer) -> None:
        """Begin a session, unless the limits forbid it."""
        is_trusted = self._trusted is not None and not peer.is_balancer and peer.address in self._trusted
        if (denial := self._overload.denial) != "":
            self._shed(fd, denial)
            return
        # A health check is no client: one that the limits of a client turn away would take this host out of service.
        row, denial = self._limits.enter(peer.address, is_trusted or peer.is_balancer)
        if denial:
            self._turn_away(fd, peer, denial)
            return
        peer.is_trusted = is_trusted
        peer.row = row
        if self._introducers is not None and not peer.is_balancer:
            peer.may_introduce = peer.address in self._introducers
        self._begin(fd, peer)

    def introduce(self, before: Peer, peer: Peer) -> Reply | None:
        """Count a connection for the client that XCLIENT has named; return what it is turned away with, None = it may stay."""
        peer.is_trusted = self._trusted is not None and peer.address in self._trusted
        peer.row, denial = self._limits.move(before.row, peer.address, peer.is_trusted)
        peer.may_introduce = before.may_introduce
        if not denial:
            return None
        self._account.denied(denial, 0)  # the session counts the reply
        self._tell_denial(denial, peer)
        return replies.TOO_MANY_CONNECTIONS

    def _shed(self, fd: int, denial: str) -> None:
        """Too much of something: nobody new. That it began was logged; a line for each would be too much again."""
        self._account.denied(denial, replies.OVERLOADED.code)
        self.end_without_session()
        self._lingering.dismiss(fd, b"" if self._is_implicit else replies.OVERLOADED.wire)

    def _turn_away(self, fd: int, peer: Peer, denial: str) -> None:
        reply = replies.HOST_BUSY if denial == HOST_LIMIT else replies.TOO_MANY_CONNECTIONS
        self._account.denied(denial, reply.code)
        self._tell_denial(denial, peer)
        self.end_without_session()
        self._lingering.dismiss(fd, b"" if self._is_implicit else reply.wire)

    def _tell_denial(self, denial: str, peer: Peer) -> None:
        text = "Connection rate limit exceeded" if denial == RATE else "Connection concurrency limit exceeded"
        self._tell(text, peer)

    def _tell(self, text: str, peer: Peer) -> None:
        """Log that a client was turned away; under a flood a few in a second, and then how many more there were."""
        log, listener, now_s = self._account.log, self._account.listener, int(self._loop.now)
        if now_s != self._told_at_s:
            if self._untold:
                log.warning("smtpd", f"{self._untold} more connections turned away for service {listener}")
            self._told_at_s, self._told, self._untold = now_s, 0, 0
        if self._told < LINES_A_SECOND:
            self._told += 1
            log.warning("smtpd", f"{text}: {peer.label} for service {listener}")
        else:
            self._untold += 1

    def close(self) -> None:
        """No session begins any more."""
        for awaited in list(self._awaited):
            awaited.close()

    @property
    def is_awaiting(self) -> bool:
        """Somebody owes a PROXY header, for HEADER_TIMEOUT_S at most."""
        return bool(self._awaited)

    # --- of _AwaitedHeader -------------------------------------------------------------------------------------------

    @property
    def loop(self) -> Loop:
        return self._loop

    def end_without_session(self) -> None:
        """A connection that was taken over does not get as far as a session."""
        if self._on_turned_away is not None:
            self._on_turned_away()

    def forget(self, awaited: _AwaitedHeader) -> None:
        self._awaited.discard(awaited)

    def refuse_header(self, address: str, why: str) -> None:
        self._account.denied("proxy_header", 0)
        self._tell(why, Peer(address))


class _AwaitedHeader:
    """A connection that owes a PROXY header. Nothing behind the header is read here: it is looked at first, then taken."""

    __slots__ = ("_address", "_fd", "_front", "_header", "_timer")

    def __init__(self, front: Front, fd: int, address: tuple[str, int]) -> None:
        self._front = front
        self._fd = fd
        self._address = address
        self._header = ProxyHeader()
        self._timer: Timer = front.loop.call_later(HEADER_TIMEOUT_S, self._give_up)
        front.loop.add_reader(fd, self._look)

    def _look(self) -> None:
        header = self._header
        sock = socket.socket(fileno=self._fd)
        try:
            seen = sock.recv(MAX_BYTES, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            taken = header.take(seen, 0, len(seen))
            if taken:
                sock.recv(taken, socket.MSG_DONTWAIT)
        except OSError as error:
            if error.errno in _UNSENT:
                return
            seen = b""  # it broke
        finally:
            sock.detach()
        if not seen:
            self._refuse("the connection ended before its PROXY header")
        elif header.failure:
            self._refuse(header.failure)
        elif header.is_done:
            self._pass_on()

    def _pass_on(self) -> None:
        header = self._header
        fd = self._fd
        self._let_go()
        if header.is_local:
            self._front.admit(fd, Peer(self._address[0], self._address[1], is_balancer=True))
        else:
            self._front.admit(fd, Peer(header.address, header.port))

    def _give_up(self) -> None:
        self._refuse(f"no PROXY header within {HEADER_TIMEOUT_S:.0f} s")

    def _refuse(self, why: str) -> None:
        self._front.refuse_header(self._address[0], why)
        self.close()

    def _let_go(self) -> None:
        self._timer.cancel()
        self._front.loop.remove_reader(self._fd)
        self._front.forget(self)

    def close(self) -> None:
        self._let_go()
        self._front.end_without_session()
        _io.close(self._fd)
