"""The check `pregreet`: senders that talk before they are greeted are no mail servers (RFC 5321 4.3.1: wait for the greeting).

A new client hears the first line of a greeting (`220-`), waits, and is greeted then. Whoever sends meanwhile gets 521 5.5.1. A
client that waited is remembered, so that good clients wait once in a while, not each time. What is remembered lies in a file of
fixed size that all workers map: one word for each client, its time and a hash of its address; words that collide only make
somebody wait once more. Not asked of trusted clients, nor where TLS comes first: there the client speaks first by design.
"""

from __future__ import annotations

import hashlib
import ipaddress
import mmap
import os
import time
from typing import Annotated

from smtpd.mail.reply import Reply
from smtpd.mail.verdict import Verdict
from smtpd.policy.check import CONNECT, Check, CheckHost, Pause, Question
from smtpd.settings.key import Key
from smtpd.settings.section import DAY_S, Section

EARLY = Verdict(Reply(b"521 5.5.1 Protocol error: you spoke before your turn", closes=True), "pregreet")
_WORDS = 1 << 16  # 512 KiB


class PregreetSettings(Section, frozen=True, kw_only=True):
    """Make new clients wait for the greeting, and refuse those that don't."""

    wait: Annotated[float, Key("How long a new client waits", kind="duration", least=0.001, most=60.0)] = 6.0
    remember: Annotated[
        float, Key("How long one that waited isn't asked to again", kind="duration", least=1.0, most=30 * DAY_S)
    ] = DAY_S
    teaser: Annotated[
        str,
        Key("First line of the greeting, behind 220-", kind="line", empty="host name and ESMTP", example='"mx1.example.net"'),
    ] = ""


class PregreetCheck(Check):
    """Answers from memory, or with a Pause."""

    Settings = PregreetSettings
    stages = (CONNECT,)
    skips_trusted = True

    def __init__(self, settings: PregreetSettings, host: CheckHost) -> None:
        super().__init__(settings, host)
        self._wait_s = settings.wait
        self._remember_s = settings.remember
        self._teaser = b"220-" + (settings.teaser or f"{host.hostname} ESMTP").encode("ascii") + b"\r\n"
        self._passes = PassTable(_open_memory(host))

    def ask(self, question: Question) -> Verdict | Pause | None:
        """See Check."""
        client = question.client
        if client.tls is not None or not client.address:
            return None
        key = client.address
        if self._passes.has(key, time.time()):
            return None

        def end_wait(has_talked: bool) -> Verdict | None:
            if has_talked:
                return EARLY
            self._passes.put(key, time.time() + self._remember_s)
            return None

        return Pause(self._wait_s, end_wait, self._teaser)

    def close(self) -> None:
        """See Check."""
        self._passes.close()


class PassTable:
    """Who has passed, in `memory`. A word is hash << 32 | Unix time of its end; it is written at once, so no lock is needed."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self._words: memoryview[int] = memoryview(memory).cast("Q")

    def has(self, address: str, now_s: float) -> bool:
        """Whether this client (an IPv6 /64 counts as one) has passed and is remembered."""
        place, tag = self._place(address)
        word = self._words[place]
        return word >> 32 == tag and (word & 0xFFFFFFFF) > now_s

    def put(self, address: str, until_s: float) -> None:
        """Remember until this Unix time."""
        place, tag = self._place(address)
        self._words[place] = tag << 32 | int(until_s) & 0xFFFFFFFF

    def _place(self, address: str) -> tuple[int, int]:
        packed = ipaddress.ip_address(address).packed
        digest = hashlib.blake2b(packed if len(packed) == 4 else packed[:8], digest_size=8).digest()
        return int.from_bytes(digest[:4], "big") % len(self._words), int.from_bytes(digest[4:], "big") | 1

    def close(self) -> None:
        """Give the memory back."""
        self._words.release()
        self._memory.close()


def _open_memory(host: CheckHost) -> mmap.mmap:
    """The file of this check's instance; without it each worker remembers by itself, until it ends."""
    path = os.path.join(host.settings.run_dir, f"{host.name}.passes")
    size = _WORDS * 8
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(fd).st_size != size:
                os.ftruncate(fd, size)
            return mmap.mmap(fd, size)
        finally:
            os.close(fd)
    except OSError as error:
        host.log.warning("smtpd", f"check {host.name}: {path}: {error.strerror}: each worker remembers by itself")
        return mmap.mmap(-1, size)
