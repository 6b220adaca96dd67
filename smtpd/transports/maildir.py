"""The Maildir transport: <root>/<domain>/<user>/new/NAME, written in tmp/, synced, renamed, its folder synced.

All mails that wait when the files thread gets to them are one batch: write all, sync all, rename all, sync each folder once; one
commit of the file system's journal then serves many. Between pieces of a big mail the files thread does other jobs.

As Postfix's virtual(8) and local(8): Return-Path first, then Delivered-To, then the mail as stored; a Return-Path that the mail
already has stays (those two don't remove it either; Postfix's cleanup(8) would, but what was sent is to arrive byte for byte,
and RFC 5321 4.4 only says MAY). Lines end in LF. Recipients that share a mailbox get one copy, Delivered-To the first of them.
The name is made from the queue id alone, so a mail that is delivered again after a crash replaces itself; if it was moved to
cur/ meanwhile, it is found there. Failures are deferrals (4.x.x), never exceptions; nothing is left in tmp/ but by a crash.
"""

from __future__ import annotations

from collections import deque

from smtpd.mail.outcome import DEFERRED, DELIVERED, Outcome
from smtpd.net.files import FilesThread
from smtpd.spool.item import Body, SpoolItem
from smtpd.transports.base import Done, LocalTransport
from smtpd.transports.folders import DurableNames
from smtpd.transports.mailbox import mailbox_of
from smtpd.transports.maildir_batch import Batch, Copy

_DELIVERED = Outcome(DELIVERED, 0, "2.0.0", "delivered to maildir", "maildir")
_SINGLE = [_DELIVERED]
_BATCH_COPIES = 64  # of which each needs up to four descriptors
_BATCH_BYTES = 8 << 20
_NAMES_MAX = 10_000


class _Job:
    """One mail for some recipients; finished when all its copies are."""

    __slots__ = ("copies", "done", "left", "recipients")

    def __init__(self, recipients: list[int], done: Done) -> None:
        self.recipients = recipients
        self.done = done
        self.copies: list[tuple[Copy, list[int]]] = []  # the copy and the places in `recipients` that it serves
        self.left = 0

    def on_copied(self) -> None:
        self.left -= 1
        if not self.left:
            self.done(self._outcomes(), 0.0)

    def _outcomes(self) -> list[Outcome]:
        if len(self.recipients) == 1 and self.copies[0][0].failure is None:
            return _SINGLE
        outcomes = [_DELIVERED] * len(self.recipients)
        for copy, places in self.copies:
            if copy.failure is not None:
                dsn, text = copy.failure
                for place in places:
                    outcomes[place] = Outcome(DEFERRED, 0, dsn, text, "maildir")
        return outcomes


class MaildirTransport(LocalTransport):
    """`root` is the folder above <domain>/<user>; `hostname` ends each file's name. `files` must be running."""

    name = "maildir"
    needs_body = True

    def __init__(self, root: str, hostname: str, files: FilesThread) -> None:
        self._root = root
        self._host = hostname.replace("/", "\\057").replace(":", "\\072") or "localhost"  # as the Maildir manual asks
        self._files = files
        self._waiting: deque[tuple[Copy, _Job]] = deque()
        self._is_submitted = False
        self._durable = DurableNames()
        self._names: dict[tuple[bytes, str], tuple[str, ...]] = {}

    def deliver(self, item: SpoolItem, body: Body, recipients: list[int], done: Done, key: str = "") -> None:
        """See Transport. The body is read on the files thread until `done`."""
        envelope = item.envelope
        job = _Job(recipients, done)
        name = f"{int(envelope.received_at_s)}.{item.queue_id}.{self._host}"
        places_by_mailbox: dict[tuple[str, ...], list[int]] = {}
        for place, index in enumerate(recipients):
            recipient = envelope.recipients[index]
            address = (recipient.path, recipient.domain)
            mailbox = self._names.get(address)
            if mailbox is None:
                if len(self._names) >= _NAMES_MAX:
                    self._names.clear()
                mailbox = self._names[address] = mailbox_of(recipient)
            places = places_by_mailbox.get(mailbox)
            if places is None:
                places_by_mailbox[mailbox] = places = []
                copy = Copy(mailbox, name, envelope.received_at_s, envelope.reverse_path, recipient.path, body)
                job.copies.append((copy, places))
            places.append(place)
        job.left = len(job.copies)
        for copy, _ in job.copies:
            self._waiting.append((copy, job))
        if not self._is_submitted:
            self._submit()

    def _submit(self) -> None:
        self._is_submitted = True
        batch = Batch(self._root, self._durable)
        jobs: list[_Job] = []

        def step() -> bool:
            """On the files thread: the first step takes what waits by then."""
            if not batch.copies:
                size_bytes = 0
                while self._waiting and len(jobs) < _BATCH_COPIES and size_bytes < _BATCH_BYTES:
                    copy, job = self._waiting.popleft()
                    batch.copies.append(copy)
                    jobs.append(job)
                    size_bytes += copy.body.size_bytes
            return batch.step()

        def on_step(is_done: bool, failure: BaseException | None) -> None:
            if failure is not None:
                batch.fail("4.3.0", f"maildir delivery failed: {failure!r}")
            elif not is_done:
                self._files.submit(step, on_step)
                return
            self._is_submitted = False
            for job in jobs:
                job.on_copied()
            if self._waiting and not self._is_submitted:
                self._submit()

        self._files.submit(step, on_step)
