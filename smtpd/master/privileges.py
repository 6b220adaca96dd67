"""Privileges: from root to the configured user, and from there to nothing that a worker could misuse.

The master keeps CAP_NET_BIND_SERVICE (a reload may bind port 25 anew) and hands it to the program that follows it at an upgrade,
as an ambient capability; workers keep none. Both set PR_SET_NO_NEW_PRIVS, under which ambient capabilities survive an exec, and
clear PR_SET_DUMPABLE. capabilities(7), prctl(2) and capset(2) by ctypes: the standard library has no call for them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
from collections.abc import Iterator
from dataclasses import dataclass

from smtpd.errors import StartupError

_PR_SET_DUMPABLE = 4
_PR_SET_KEEPCAPS = 8
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 2, 4
_CAPABILITY_VERSION_3 = 0x20080522  # two 32-bit words for each set
CAP_NET_BIND_SERVICE = 10
_BINDING = 1 << CAP_NET_BIND_SERVICE

_libc = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Word(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


@dataclass(frozen=True, slots=True)
class Account:
    """The user that a server started as root runs as."""

    name: str
    uid: int
    gid: int


def find_account(name: str) -> Account:
    """The account of a user name; StartupError EX_NOUSER when there is none."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise StartupError(f'user: there is no user "{name}" on this machine', os.EX_NOUSER) from None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def drop_to(account: Account) -> None:
    """Become `account` for good, keeping the capability to bind low ports if there is one to keep.

    Raises StartupError (EX_NOPERM) when the process may not.
    """
    try:
        _prctl(_PR_SET_KEEPCAPS, 1)
        os.setgroups(os.getgrouplist(account.name, account.gid))
        os.setresgid(account.gid, account.gid, account.gid)
        os.setresuid(account.uid, account.uid, account.uid)
        keep_only_binding()
    except OSError as error:
        raise StartupError(f"can't become user {account.name}: {error.strerror}", os.EX_NOPERM) from None


def drop_capabilities() -> None:
    """Give up every capability of this process; a process that is still root can't keep that promise."""
    if os.geteuid() != 0 and permitted_capabilities():
        _set_capabilities(0)


def keep_only_binding() -> None:
    """Give up every capability but that to bind low ports, and let no program that is started have that one."""
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    _set_capabilities(permitted_capabilities() & _BINDING)


@contextlib.contextmanager
def passing_capabilities() -> Iterator[None]:
    """A program that is started in here has the capability to bind low ports if this process has it and isn't root."""
    if os.geteuid() == 0 or not permitted_capabilities() & _BINDING:
        yield
        return
    permitted = permitted_capabilities()
    _set_capabilities(permitted, inheritable=_BINDING)
    try:
        _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, CAP_NET_BIND_SERVICE)
        yield
    finally:
        _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
        _set_capabilities(permitted)


def forbid_new_privileges() -> None:
    """No program that this process or a child starts gets more rights than it has (setuid bits, file
    capabilities), and no other process of the same user looks into this one's memory, where keys and mail are (ptrace(2),
    core files; what /proc shows of it belongs to root then). To be called after the user has changed, which sets the latter."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_DUMPABLE, 0)


def permitted_capabilities() -> int:
    """The permitted set as a bit mask."""
    words = (_Word * 2)()
    header = _Header(_CAPABILITY_VERSION_3, 0)
    _checked(_libc.capget(ctypes.byref(header), words))
    return int(words[0].permitted) | int(words[1].permitted) << 32


def _set_capabilities(mask: int, inheritable: int = 0) -> None:
    """Make `mask` both the effective and the permitted set."""
    low, high = mask & 0xFFFFFFFF, mask >> 32
    words = (_Word * 2)(_Word(low, low, inheritable & 0xFFFFFFFF), _Word(high, high, inheritable >> 32))
    header = _Header(_CAPABILITY_VERSION_3, 0)
    _checked(_libc.capset(ctypes.byref(header), words))


def _prctl(option: int, value: int, more: int = 0) -> None:
    _checked(_libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(more), ctypes.c_ulong(0), ctypes.c_ulong(0)))


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
