"""Runs a dialog against anything that takes octets and answers: the steps, and what is wrong when they don't hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from dialogs.dialog import Dialog, Step, matches, split_replies


@dataclass
class Mail:
    """A mail in custody."""

    reverse_path: bytes
    forward_paths: list[bytes]
    body: bytes


@dataclass
class Server:
    """What a way of running knows; `mails` only grows. `is_blind_to` are words of SEEN that it can't know of."""

    mails: list[Mail] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    is_blind_to: frozenset[str] = frozenset()


class Way(Protocol):
    """One way of talking to a server. `receive` returns all that came; at least one reply if `awaits_reply`."""

    server: Server | None  # None: nothing is known from inside

    def send(self, octets: bytes) -> None: ...

    def receive(self, awaits_reply: bool) -> bytes: ...

    def is_ended(self) -> bool: ...

    def act(self, kind: str) -> None: ...

    def count_mails(self) -> int: ...


class Runner:
    """Holds the replies that no step has awaited yet. `replies` collects all that came."""

    def __init__(self, dialog: Dialog, way: Way) -> None:
        self.dialog = dialog
        self.way = way
        self.replies: list[bytes] = []
        self._rest = b""
        self._waiting: list[bytes] = []
        self._last = b""

    def run(self) -> None:
        outgoing = b""
        for step in self.dialog.steps:
            if step.kind in ("C", "RAW"):
                if not outgoing:
                    self._check_silence(step)
                outgoing += step.octets
                continue
            if outgoing:
                self.way.send(outgoing)
                outgoing = b""
            self._do(step)
        if outgoing:
            self.way.send(outgoing)
        if self.dialog.steps:
            self._check_silence(self.dialog.steps[-1])

    def _do(self, step: Step) -> None:
        match step.kind:
            case "S":
                self._last = self._next_reply(step)
                self._check(step, matches(step, self._last), self._last)
            case "HAS":
                self._check(step, step.text in self._texts(), self._last)
            case "NOT":
                self._check(step, not any(text.startswith(step.text) for text in self._texts()), self._last)
            case "END":
                self._check(step, self.way.is_ended(), "the connection is open")
                self._check_silence(step)
            case "MAILS":
                count = self.way.count_mails()
                self._check(step, count == int(step.text), count)
            case "GONE" | "TIME" | "DRAIN" | "TLS":
                self.way.act(step.kind)
            case _ if self.way.server is not None:
                self._check_inside(step, self.way.server)

    def _check_inside(self, step: Step, server: Server) -> None:
        if step.kind == "SEEN":
            self._check(step, step.text in server.seen | server.is_blind_to, server.seen)
            return
        self._check(step, bool(server.mails), "no mail")
        mail = server.mails[-1]
        match step.kind:
            case "BODY":
                self._check(step, mail.body == step.octets, mail.body)
            case "FROM":
                self._check(step, mail.reverse_path == step.text.encode(), mail.reverse_path)
            case "TO":
                self._check(step, mail.forward_paths == step.text.encode().split(), mail.forward_paths)

    def _texts(self) -> list[str]:
        return [line[4:] for line in self._last.decode().splitlines()]

    def _receive(self, awaits_reply: bool) -> None:
        replies, self._rest = split_replies(self._rest + self.way.receive(awaits_reply))
        self._waiting += replies
        self.replies += replies

    def _next_reply(self, step: Step) -> bytes:
        if not self._waiting:
            self._receive(True)
        self._check(step, bool(self._waiting), "no reply")
        return self._waiting.pop(0)

    def _check_silence(self, step: Step) -> None:
        self._receive(False)
        self._check(step, not self._waiting and not self._rest, f"not awaited: {self._waiting or self._rest}")

    def _check(self, step: Step, is_true: bool, found: object) -> None:
        __tracebackhide__ = True
        assert is_true, f"{self.dialog.name}.dialog:{step.line}: {step.kind}: {step.text[:200]}\nfound: {found!r}"
