"""Opens and makes the folders of mailboxes below a root, for one batch of deliveries. Runs on the files thread only.

Below the root no symlink is followed: every folder is opened by its parent's descriptor with O_NOFOLLOW. The root itself is the
operator's and may be a link. Folders are made on demand with mode 0700; a folder's entry is durable once its parent was synced,
so the first delivery to a mailbox by this process syncs the whole chain, whoever made it.
Raises OSError as the system says it. All descriptors live until `close`.
"""

from __future__ import annotations

import os

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MODE = 0o700
_KNOWN_MAX = 10_000


class Mailbox:
    """The open folders of one mailbox. `cur_changed_s` is Unix time: when something was last moved into or out of cur/."""

    __slots__ = ("cur_changed_s", "new_fd", "tmp_fd", "user_fd")

    def __init__(self, user_fd: int, tmp_fd: int, new_fd: int, cur_changed_s: float) -> None:
        self.user_fd = user_fd
        self.tmp_fd = tmp_fd
        self.new_fd = new_fd
        self.cur_changed_s = cur_changed_s


class DurableNames:
    """Mailboxes whose chain of folders this process has synced before; forgets all of them when they get many."""

    __slots__ = ("_names",)

    def __init__(self) -> None:
        self._names: set[tuple[str, ...]] = set()

    def __contains__(self, pieces: tuple[str, ...]) -> bool:
        return pieces in self._names

    def add(self, pieces: tuple[str, ...]) -> None:
        if len(self._names) >= _KNOWN_MAX:
            self._names.clear()
        self._names.add(pieces)


class Folders:
    """All folders of one batch, each opened once. `durable` outlives the batch."""

    def __init__(self, root: str, durable: DurableNames) -> None:
        self._root = root
        self._durable = durable
        self._fds: dict[tuple[str, ...], int] = {}
        self._mailboxes: dict[tuple[str, ...], Mailbox] = {}
        self._unsynced: dict[tuple[str, ...], None] = {}  # folders in which an entry may not be durable yet
        self._fresh: set[tuple[str, ...]] = set()  # mailboxes that count as durable once those are synced

    def mailbox(self, pieces: tuple[str, ...]) -> Mailbox:
        """Return the mailbox at `pieces` below the root, made if need be; OSError otherwise."""
        known = self._mailboxes.get(pieces)
        if known is not None:
            return known
        user_fd = self._open(pieces)
        tmp_fd = self._open((*pieces, "tmp"))
        new_fd = self._open((*pieces, "new"))
        cur = self._stat_cur(pieces, user_fd)
        if pieces not in self._durable:
            for depth in range(len(pieces) + 1):
                self._unsynced[pieces[:depth]] = None
            self._fresh.add(pieces)
        mailbox = Mailbox(user_fd, tmp_fd, new_fd, cur.st_mtime)
        self._mailboxes[pieces] = mailbox
        return mailbox

    def sync(self) -> None:
        """Make the folders' own entries durable; OSError means that none of the batch may count as delivered."""
        while self._unsynced:
            pieces = next(iter(self._unsynced))
            os.fsync(self._open(pieces))
            del self._unsynced[pieces]
        for pieces in self._fresh:
            self._durable.add(pieces)
        self._fresh.clear()

    def close(self) -> None:
        fds, self._fds = self._fds, {}
        self._mailboxes.clear()
        for fd in fds.values():
            os.close(fd)

    def _open(self, pieces: tuple[str, ...]) -> int:
        fd = self._fds.get(pieces)
        if fd is not None:
            return fd
        if not pieces:
            fd = _open_root(self._root)
        else:
            parent_fd = self._open(pieces[:-1])
            try:
                fd = os.open(pieces[-1], _FOLDER_FLAGS, dir_fd=parent_fd)
            except FileNotFoundError:
                _make(pieces[-1], parent_fd)
                self._unsynced[pieces[:-1]] = None
                fd = os.open(pieces[-1], _FOLDER_FLAGS, dir_fd=parent_fd)
        self._fds[pieces] = fd
        return fd

    def _stat_cur(self, pieces: tuple[str, ...], user_fd: int) -> os.stat_result:
        try:
            return os.stat("cur", dir_fd=user_fd, follow_symlinks=False)
        except FileNotFoundError:
            _make("cur", user_fd)
            self._unsynced[pieces] = None
            return os.stat("cur", dir_fd=user_fd, follow_symlinks=False)


def _make(name: str, parent_fd: int) -> None:
    try:
        os.mkdir(name, _MODE, dir_fd=parent_fd)
    except FileExistsError:  # another worker was faster
        pass


def _open_root(root: str) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        return os.open(root, flags)
    except FileNotFoundError:
        _make_root(os.path.abspath(root))
        return os.open(root, flags)


def _make_root(path: str) -> None:
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        _make_root(parent)
    fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _make(path, fd)
        os.fsync(fd)
    finally:
        os.close(fd)
