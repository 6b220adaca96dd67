"""The directories of a configuration: made before privileges are dropped, checked as the user that will
write.

Never changes the owner of anything that holds data: only of what it made, and of an empty spool or run
directory.
"""

from __future__ import annotations

import os

from smtpd.errors import StartupError
from smtpd.master.privileges import Account
from smtpd.settings import Settings

_WRITE = os.W_OK | os.X_OK


def prepare_directories(settings: Settings, account: Account | None) -> None:
    """Make what is missing and give it to `account` (None: nobody else). StartupError EX_CANTCREAT if
    impossible."""
    _prepare(settings.run_dir, 0o755, account, is_ours=True)
    if settings.spool.engine == "sqlite":
        _prepare(settings.spool.path, 0o700, account, is_ours=True)
    for route in settings.route:
        if route.transport == "maildir":
            _prepare(route.path, 0o755, account, is_ours=False)
    destination = settings.log.destination
    if destination not in ("stderr", "syslog", "none"):
        _prepare_log_file(destination, account)


def check_directories(settings: Settings) -> None:
    """Each directory can be written by the process as it is now; StartupError EX_CANTCREAT with the first
    that can't."""
    paths = [settings.run_dir]
    if settings.spool.engine == "sqlite":
        paths.append(settings.spool.path)
    paths += [route.path for route in settings.route if route.transport == "maildir"]
    for path in paths:
        check_writable(path)


def check_writable(path: str) -> None:
    """StartupError EX_CANTCREAT when this process can't make files in `path`."""
    if not os.path.isdir(path):
        raise StartupError(f"{path} is not a directory", os.EX_CANTCREAT)
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        raise StartupError(f"directory {path} is not writable: the file system is read-only", os.EX_CANTCREAT)
    if not os.access(path, _WRITE):
        raise StartupError(f"directory {path} is not writable by user {_user_name()}", os.EX_CANTCREAT)


def _prepare(path: str, mode: int, account: Account | None, *, is_ours: bool) -> None:
    """Make `path` with its parents; `is_ours`: nobody else has a use for it, so an empty one changes its
    owner."""
    made = []
    parent = os.path.abspath(path)
    while not os.path.lexists(parent):
        made.append(parent)
        parent = os.path.dirname(parent)
    try:
        for step in reversed(made):
            os.mkdir(step, mode)
            os.chmod(step, mode)  # whatever the umask: a group may have to pass through run_dir
        if account is not None:
            if not made and is_ours and os.stat(path).st_uid == 0 and not os.listdir(path):
                made.append(path)
            for step in made:
                os.chown(step, account.uid, account.gid)
    except OSError as error:
        text = f"directory {path} is not writable: {error.strerror} ({error.filename})"
        raise StartupError(text, os.EX_CANTCREAT) from None


def _prepare_log_file(path: str, account: Account | None) -> None:
    """Make the log file if there is none yet, so that it need not be the user's directory that holds it."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
    except FileExistsError:
        return
    except OSError as error:
        raise StartupError(f"log file {path} is not writable: {error.strerror}", os.EX_CANTCREAT) from None
    if account is not None:
        os.fchown(fd, account.uid, account.gid)
    os.close(fd)


def _user_name() -> str:
    import pwd  # only on the way out

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
