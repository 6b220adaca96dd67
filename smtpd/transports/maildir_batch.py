"""One batch of Maildir copies on the files thread: write all, sync all, rename all, sync each folder once.

A copy that fails takes no other with it, unless what fails is a folder that they share. Bodies are written from memory or copied
from their spill file in pieces. Never touches the loop. Each system call gives the GIL up, so there are as few as can be.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Generator, Iterator
from itertools import combinations

from smtpd.spool.item import Body
from smtpd.transports.folders import DurableNames, Folders, Mailbox

PIECE_BYTES = 256 * 1024
STEP_BYTES = 4 << 20  # of spilled bodies, before the files thread may do something else
_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CLOCK_SLACK_S = 2.0
_CONTROLS = bytes(0x3F if octet < 0x20 or octet == 0x7F else octet for octet in range(256))
# How cur/ may call a mail: the flags that a reader sets, in ASCII order (Maildir's ":2,").
_FLAG_SETS = ["".join(chosen) for count in range(7) for chosen in combinations("DFPRST", count)]

# errno -> enhanced status code (RFC 3463): X.2.2 mailbox full, X.3.1 system full, X.3.5 badly set up, X.3.0 other
_CODES = {
    errno.ENOSPC: "4.3.1",
    errno.EDQUOT: "4.2.2",
    errno.EFBIG: "4.2.2",
    errno.EACCES: "4.3.5",
    errno.EPERM: "4.3.5",
    errno.ENOTDIR: "4.3.5",
    errno.ELOOP: "4.3.5",
    errno.EISDIR: "4.3.5",
    errno.EROFS: "4.3.5",
}
_IN_THE_WAY = (errno.ENOTDIR, errno.ELOOP, errno.EISDIR)


class Copy:
    """One file in one mailbox. `failure` is (enhanced status code, text) once it is known to have failed."""

    __slots__ = ("body", "failure", "fd", "folder", "mailbox", "name", "received_at_s", "recipient", "reverse_path")

    def __init__(
        self,
        mailbox: tuple[str, ...],
        name: str,
        received_at_s: float,
        reverse_path: bytes,
        recipient: bytes,
        body: Body,
    ) -> None:
        self.mailbox = mailbox
        self.name = name
        self.received_at_s = received_at_s
        self.reverse_path = reverse_path
        self.recipient = recipient
        self.body = body
        self.folder: Mailbox | None = None
        self.fd = -1
        self.failure: tuple[str, str] | None = None

    def header(self) -> bytes:
        """The two lines on top. Control octets can't be in an accepted address; should one be, it forges no header."""
        return (
            b"Return-Path: <" + self.reverse_path.translate(_CONTROLS) + b">\n"
            b"Delivered-To: " + self.recipient.translate(_CONTROLS) + b"\n"
        )  # fmt: skip


class Batch:
    """Fill `copies`, then call `step` until it returns True; each copy then is on the disk or has a `failure`."""

    def __init__(self, root: str, durable: DurableNames) -> None:
        self.copies: list[Copy] = []
        self._root = root
        self._folders = Folders(root, durable)
        self._run = self._phases()
        self._text: tuple[Body, bytes] | None = None  # the last body as it goes to the disk: copies of a mail follow each other

    def step(self) -> bool:
        """Do a bounded part of the work; True when all is done."""
        return next(self._run, True)

    def fail(self, dsn: str, text: str) -> None:
        """Give every copy that has no failure this one, and let go of everything."""
        for copy in self.copies:
            copy.failure = copy.failure or (dsn, text)
        self._run.close()
        self._release()

    def _phases(self) -> Generator[bool, None, None]:
        copies = self.copies
        for copy in copies:
            try:
                copy.folder = self._folders.mailbox(copy.mailbox)
                if not self._is_in_cur(copy, copy.folder):
                    yield from self._write(copy, copy.folder)
            except OSError as error:
                self._give_up(copy, error)
        self._text = None
        written = [copy for copy in copies if copy.fd >= 0]
        if len(written) > 1:
            for copy in written:  # start the writing of all, so that the first sync's journal commit holds them all
                os.posix_fadvise(copy.fd, 0, 0, os.POSIX_FADV_DONTNEED)
        for copy in written:
            try:
                os.fsync(copy.fd)
            except OSError as error:  # never synced again: the next attempt writes a new file
                self._give_up(copy, error)
            else:
                fd, copy.fd = copy.fd, -1
                os.close(fd)
        placed: dict[Mailbox, list[Copy]] = {}
        for copy in written:
            folder = copy.folder
            if copy.failure is None and folder is not None:
                try:
                    os.rename(copy.name, copy.name, src_dir_fd=folder.tmp_fd, dst_dir_fd=folder.new_fd)
                    placed.setdefault(folder, []).append(copy)
                except OSError as error:
                    self._give_up(copy, error)
        for folder, in_folder in placed.items():
            try:
                os.fsync(folder.new_fd)
            except OSError as error:
                for copy in in_folder:
                    copy.failure = self._explain(copy, error)
        try:
            self._folders.sync()
        except OSError as error:
            for copy in copies:
                copy.failure = copy.failure or self._explain(copy, error)
        self._release()

    def _write(self, copy: Copy, folder: Mailbox) -> Iterator[bool]:
        try:
            copy.fd = os.open(copy.name, _FILE_FLAGS, 0o600, dir_fd=folder.tmp_fd)
        except FileExistsError:  # a crash left it
            os.unlink(copy.name, dir_fd=folder.tmp_fd)
            copy.fd = os.open(copy.name, _FILE_FLAGS, 0o600, dir_fd=folder.tmp_fd)
        body = copy.body
        if body.data is not None:
            if self._text is None or self._text[0] is not body:
                self._text = (body, body.data.replace(b"\r\n", b"\n"))
            _write_all(copy.fd, [copy.header(), self._text[1]])
            return
        source = os.open(body.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            yield from self._copy_pieces(copy, source)
        finally:
            os.close(source)

    def _copy_pieces(self, copy: Copy, source: int) -> Iterator[bool]:
        _write_all(copy.fd, [copy.header()])
        held = b""  # a CR at the end of a piece: its LF may be in the next one
        since_step = done = 0
        while piece := os.read(source, PIECE_BYTES):
            done += len(piece)
            since_step += len(piece)
            piece = held + piece
            held = b"\r" if piece.endswith(b"\r") else b""
            text = piece.replace(b"\r\n", b"\n")
            _write_all(copy.fd, [text[:-1] if held else text])
            if since_step >= STEP_BYTES:
                since_step = 0
                os.posix_fadvise(copy.fd, 0, 0, os.POSIX_FADV_DONTNEED)  # the final sync then finds little left
                yield False
        if held:
            _write_all(copy.fd, [held])
        if done != copy.body.size_bytes:
            raise OSError(errno.EIO, f"the stored body has {done} octets instead of {copy.body.size_bytes}")

    def _is_in_cur(self, copy: Copy, folder: Mailbox) -> bool:
        """Whether an earlier attempt, whose end nobody saw, delivered the mail and a reader has already moved it.

        Costs nothing in a mailbox whose cur/ was left alone since the mail came."""
        if folder.cur_changed_s + _CLOCK_SLACK_S < copy.received_at_s:
            return False
        try:
            cur_fd = os.open("cur", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder.user_fd)
        except OSError:
            return False
        try:
            for flags in _FLAG_SETS:
                try:
                    os.stat(f"{copy.name}:2,{flags}", dir_fd=cur_fd, follow_symlinks=False)
                except OSError:
                    continue
                return True
            return False
        finally:
            os.close(cur_fd)

    def _give_up(self, copy: Copy, error: OSError) -> None:
        copy.failure = self._explain(copy, error)
        fd, copy.fd = copy.fd, -1
        if fd >= 0:
            os.close(fd)
        if copy.folder is not None:
            try:
                os.unlink(copy.name, dir_fd=copy.folder.tmp_fd)
            except OSError:  # the next attempt replaces it
                pass

    def _explain(self, copy: Copy, error: OSError) -> tuple[str, str]:
        code = error.errno or 0
        what = error.strerror or str(error)
        if code in _IN_THE_WAY:
            what = "a file or symlink is in the way of a folder"
        return _CODES.get(code, "4.3.0"), f"cannot write mailbox {os.path.join(self._root, *copy.mailbox)}: {what}"

    def _release(self) -> None:
        for copy in self.copies:
            if copy.fd >= 0:
                fd, copy.fd = copy.fd, -1
                os.close(fd)
        self._folders.close()


def _write_all(fd: int, parts: list[bytes]) -> None:
    """Write all of it; a disk that fills up midway raises OSError from the next call."""
    left = sum(map(len, parts))
    written = os.writev(fd, parts)
    if written < left:
        rest = memoryview(b"".join(parts))[written:]
        while rest:
            rest = rest[os.write(fd, rest) :]
