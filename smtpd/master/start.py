"""Start-up of the master in the one order that works: directories, lock, sockets, then privileges, then
processes.

Everything that can be refused is refused here, as a StartupError of one line, before the first fork.
"""

from __future__ import annotations

import importlib
import os
import resource
import socket
import sys
from collections.abc import Callable

from smtpd.errors import StartupError
from smtpd.log.master import MasterLog
from smtpd.master.child import RunWorker
from smtpd.master.directories import check_directories, prepare_directories
from smtpd.master.inheritance import Inheritance, inherit
from smtpd.master.pid_file import PidFile
from smtpd.master.privileges import (
    Account,
    drop_to,
    find_account,
    forbid_new_privileges,
    keep_only_binding,
    permitted_capabilities,
)
from smtpd.master.reload import EXPORTER_BACKLOG
from smtpd.master.service_manager import given_sockets
from smtpd.master.sockets import Opened, equip_listeners, open_listeners
from smtpd.master.supervisor import Master, count_workers
from smtpd.master.upgrade import own_command
from smtpd.net.listeners import ListenerSockets, bind_socket, parse_address, take_given
from smtpd.settings import Settings

# What the standard library imports on first use; the user may not be able to read it then.
_LATE_IMPORTS = ("encodings.idna", "encodings.latin_1", "encodings.ascii", "linecache", "pwd", "unicodedata")


def run_master(
    settings: Settings,
    file: str,
    load: Callable[[], Settings],
    run_worker: RunWorker,
    on_started: Callable[[list[ListenerSockets], socket.socket | None], object] = lambda listeners, metrics: None,
    *,
    before_run: Callable[[Master], object] = lambda master: None,
    root: str = "",
    is_upgradable: bool = False,
    user_hint: str = "set `user` in the configuration",
) -> int:
    """Serve until stopped; gives the exit code. `file` is "" for the embedded default, `load` reads it anew.

    `on_started` is called when everything is bound and before the first worker starts, `before_run` then with the master, whose
    loop and counters it may look at until this returns. `root`: a directory to confine the server to (chroot) once everything is
    bound; relative paths of the settings are then looked up from the present directory. `is_upgradable`: on USR2 the command line
    of this process is run anew. `user_hint`: how root is told to name a user. Raises StartupError.
    """
    inheritance = inherit()
    try:
        return _run(settings, file, load, run_worker, on_started, before_run, root, is_upgradable, user_hint, inheritance)
    except StartupError as error:
        if inheritance.predecessor is not None:
            inheritance.predecessor.say_failed(str(error))
        raise
    finally:
        inheritance.close()


def _run(
    settings: Settings,
    file: str,
    load: Callable[[], Settings],
    run_worker: RunWorker,
    on_started: Callable[[list[ListenerSockets], socket.socket | None], object],
    before_run: Callable[[Master], object],
    root: str,
    is_upgradable: bool,
    user_hint: str,
    inheritance: Inheritance,
) -> int:
    account = choose_account(settings)
    owner_uid = account.uid if account is not None else -1
    os.umask(0o077)
    raise_descriptor_limit()
    prepare_directories(settings, account)
    pid_file = take_pid_file(settings.run_dir, inheritance)
    opened = Opened()
    try:
        take_given_sockets(settings, inheritance)
        opened = open_listeners(
            settings.listener, inheritance.listeners, count_workers(settings), owner_uid, is_paused=inheritance.is_paused
        )
        equip_listeners(opened.listeners, settings.tls)
        open_metrics_socket(settings.metrics.address, owner_uid, inheritance)
        if root:
            confine(root)
        if account is not None:
            os.chown(pid_file.path, account.uid, account.gid)
            for name in _LATE_IMPORTS:
                importlib.import_module(name)
            drop_to(account)
        elif os.geteuid() != 0 and permitted_capabilities():
            keep_only_binding()
        forbid_new_privileges()
        check_directories(settings)
        log = MasterLog(settings.log, settings.hostname)
        if account is not None and (text := describe_unreadable_program(account)):
            log.warning("master", text)
        if os.geteuid() == 0 and settings.user != "root":
            log.warning("master", f"runs as root: {user_hint}")
        for listener in opened.spare:
            log.warning("master", f'no listener is called "{listener.name}": nobody accepts on {listener.label}')
        command = own_command() if is_upgradable and not root else None
        try:
            master = Master(settings, file, load, run_worker, opened, inheritance, pid_file, log, owner_uid, command)
        except (OSError, MemoryError) as error:
            raise StartupError(f"no memory that workers can share: {error or 'out of memory'}", os.EX_OSERR) from None
    except BaseException:
        opened.close_bound()
        pid_file.release()
        raise
    on_started(opened.listeners, inheritance.metrics)
    before_run(master)
    return master.run()


def take_pid_file(run_dir: str, inheritance: Inheritance) -> PidFile:
    """The lock of `run_dir`: that of the program before, which we share until it is gone, or a new one."""
    pid_file = PidFile(os.path.join(run_dir, "smtpd.pid"))
    if inheritance.pid_fd >= 0 and os.path.abspath(run_dir) == inheritance.run_dir:
        pid_file.borrow(inheritance.pid_fd)
        inheritance.pid_fd = -1
    else:
        pid_file.take()
    return pid_file


def take_given_sockets(settings: Settings, inheritance: Inheritance) -> None:
    """Add what a service manager has made: the listeners of those names, and "metrics"."""
    for name, sockets in given_sockets().items():
        if name == "metrics":
            inheritance.metrics, inheritance.is_metrics_given = sockets[0], True
            inheritance.metrics_address = "given"
            for sock in sockets[1:]:
                sock.close()
            continue
        entry = next((entry for entry in settings.listener if (entry.name or entry.address) == name), None)
        if entry is None:
            text = f'the service manager has made a socket for "{name}" (FileDescriptorName=), but no listener has this name'
            raise StartupError(text, os.EX_CONFIG)
        inheritance.listeners.append(take_given(entry, name, sockets))


def open_metrics_socket(address: str, owner_uid: int, inheritance: Inheritance) -> None:
    """See that `inheritance` has the socket of the metrics that the configuration wants, if any."""
    if inheritance.is_metrics_given:
        return
    if inheritance.metrics is not None and inheritance.metrics_address != address:
        inheritance.metrics.close()
        inheritance.metrics = None
    inheritance.metrics_address = address
    if address and inheritance.metrics is None:
        inheritance.metrics = bind_socket(address, EXPORTER_BACKLOG, owner_uid)


def confine(root: str) -> None:
    """Make `root` the root directory of this process and its workers; StartupError when that is not allowed."""
    for name in _LATE_IMPORTS:
        importlib.import_module(name)
    try:
        os.chroot(root)
    except OSError as error:
        code = os.EX_NOPERM if isinstance(error, PermissionError) else os.EX_OSERR
        raise StartupError(f"can't change the root directory to {root}: {error.strerror}", code) from None


def choose_account(settings: Settings) -> Account | None:
    """Whom to become: None = stay who we are. Raises StartupError for a user that does not exist, and for a root that listens
    beyond this machine without saying `user` (say "root" to insist)."""
    if os.geteuid() != 0:
        return None
    if settings.user:
        account = find_account(settings.user)
        return account if account.uid != 0 else None
    open_to_all = [entry.address for entry in settings.listener if not is_local(entry.address)]
    if open_to_all:
        text = (
            f"started as root, listening on {open_to_all[0]}: set `user` in the configuration, "
            'the server drops to it after binding (user = "root" to stay root)'
        )
        raise StartupError(text, os.EX_CONFIG)
    return None


def is_local(address: str) -> bool:
    """Only processes of this machine can reach it."""
    try:
        _, target = parse_address(address)
    except ValueError:
        return False
    return isinstance(target, str) or target[0] == "::1" or target[0].startswith("127.")


def raise_descriptor_limit() -> None:
    """Each session is a descriptor: take as many as the system allows without asking."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def describe_unreadable_program(account: Account) -> str:
    """What the user can't read of the program, "" when all is well: late imports and an upgrade would fail."""
    for path in (os.path.abspath(__file__), os.path.realpath(sys.executable)):
        if not os.access(path, os.R_OK):
            return f"user {account.name} can't read {path}: install smtpd where it can, or an upgrade will fail"
    return ""
