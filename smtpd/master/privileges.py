"""Privileges: from root to the configured user, and from there to nothing that a worker could misuse.

The master keeps CAP_NET_BIND_SERVICE (a reload may bind port 25 anew), workers keep no capability. Both set
PR_SET_NO_NEW_PRIVS. capabilities(7), prctl(2) and capset(2) by ctypes: the standard library has no call for
them.
"""

from __future__ import annotations

import ctypes
import os
import pwd
from dataclasses import dataclass

from smtpd.errors import StartupError

_PR_SET_KEEPCAPS = 8
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522  # two 32-bit words for each set
CAP_NET_BIND_SERVICE = 10

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
        _set_capabilities(permitted_capabilities() & (1 << CAP_NET_BIND_SERVICE))
    except OSError as error:
        raise StartupError(f"can't become user {account.name}: {error.strerror}", os.EX_NOPERM) from None


def drop_capabilities() -> None:
    """Give up every capability of this process; a process that is still root can't keep that promise."""
    if os.geteuid() != 0 and permitted_capabilities():
        _set_capabilities(0)


def forbid_new_privileges() -> None:
    """No program that this process or a child starts gets more rights than it has (setuid bits, file
    capabilities)."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def permitted_capabilities() -> int:
    """The permitted set as a bit mask."""
    words = (_Word * 2)()
    header = _Header(_CAPABILITY_VERSION_3, 0)
    _checked(_libc.capget(ctypes.byref(header), words))
    return int(words[0].permitted) | int(words[1].permitted) << 32


def _set_capabilities(mask: int) -> None:
    """Make `mask` both the effective and the permitted set, the inheritable one empty."""
    low, high = mask & 0xFFFFFFFF, mask >> 32
    words = (_Word * 2)(_Word(low, low, 0), _Word(high, high, 0))
    header = _Header(_CAPABILITY_VERSION_3, 0)
    _checked(_libc.capset(ctypes.byref(header), words))


def _prctl(option: int, value: int) -> None:
    _checked(_libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)))


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
